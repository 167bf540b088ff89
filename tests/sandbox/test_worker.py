"""The worker on its own: the real program as a plain child process, spoken to in frames.

No engine is needed for what it does with a mechanism; what it may not do is tested in
`test_host.py` and `test_docker.py`.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox import protocol
from sandbox.image import ROOT
from sandbox.mechanism import space_to_data, trial_to_data
from sandbox.testing import example_space, make_trial, make_view

BOOT = f"import sys; sys.path.append({str(ROOT)!r}); import sandbox.worker as w; w.main()"
BASE = "from sandbox.mechanism import Mechanism, Candidate\n"


class Child:
    """The worker as a child process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-s", "-c", BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def send(self, message: dict[str, Any]) -> None:
        assert self.process.stdin
        self.process.stdin.write(protocol.encode(message))
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        assert self.process.stdout
        (length,) = protocol.HEADER.unpack(self.process.stdout.read(protocol.HEADER.size))
        return protocol.decode(self.process.stdout.read(length))

    def request(self, op: str, **arguments: Any) -> dict[str, Any]:
        self.send({"id": "1", "op": op, **arguments})
        return self.read()

    def load(self, source: str | bytes) -> dict[str, Any]:
        data = source if isinstance(source, bytes) else source.encode()
        return self.request("load", name="draft", source=base64.b64encode(data).decode())

    def call(self, hook: str, **arguments: Any) -> dict[str, Any]:
        return self.request("call", hook=hook, view=view_data(), seed=7, **arguments)


def view_data() -> dict[str, Any]:
    view = make_view()
    return {
        "kept": 0,
        "trace": [trial_to_data(t) for t in view.trace],
        "best": trial_to_data(view.best),
        "space": space_to_data(example_space()),
        "frozen": ["ACTIVATION"],
        "minimize": True,
        "noise": None,
        "keep_sigma": 2.0,
    }


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.process.kill()
    child.process.wait()
    for stream in (child.process.stdin, child.process.stdout, child.process.stderr):
        assert stream
        stream.close()


def test_a_dataclass_in_a_draft_loads(child: Child) -> None:
    """The paper's bug: `@dataclass` looks its module up in sys.modules while the file runs."""
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass, field\n"
        + BASE
        + "@dataclass\nclass Arm:\n    pulls: int = 0\n    tried: list[int] = field("
        + "default_factory=list)\n"
        + "class M(Mechanism):\n    def __init__(self):\n        self.arm = Arm()\n"
        + "    def state(self):\n        return {'pulls': self.arm.pulls}\n"
    )
    answer = child.load(source)
    assert answer["kind"] == "value", answer
    assert answer["value"] == {"class_name": "M", "hooks": ["state"]}
    assert child.request("call", hook="state")["value"] == {"pulls": 0}


def test_the_bytes_are_executed_as_they_are(child: Child) -> None:
    source = "# -*- coding: latin-1 -*-\n" + BASE + "class M(Mechanism):\n    name = 'caf\xe9'\n"
    source += "    def state(self):\n        return {'name': self.name}\n"
    assert child.load(source.encode("latin-1"))["kind"] == "value"
    assert child.request("call", hook="state")["value"] == {"name": "caf\xe9"}


def test_an_ask_is_a_call_back_in_the_middle_of_propose(child: Child) -> None:
    child.load(
        BASE
        + "class M(Mechanism):\n    def propose(self, view, count):\n"
        + "        got = view.ask('only ' + view.free()[0], count)\n"
        + "        return [Candidate(changes={**got[0].changes, 'seed': view.random.random()},"
        + " reason='asked')]\n"
    )
    ask = child.call("propose", count=2)
    assert ask == {"id": "1", "kind": "ask", "guidance": "only LEARNING_RATE", "count": 2}
    child.send(
        {
            "id": "1",
            "op": "candidates",
            "candidates": [{"changes": {"WEIGHT_DECAY": 0.2}, "reason": ""}],
        }
    )
    value = child.read()["value"]
    assert value[0]["reason"] == "asked"
    assert value[0]["changes"]["WEIGHT_DECAY"] == 0.2
    assert value[0]["changes"]["seed"] == pytest.approx(0.32383276483316237)


def test_an_ask_outside_of_propose_raises(child: Child) -> None:
    child.load(
        BASE + "class M(Mechanism):\n    def accept(self, trial, view):\n        view.ask('x')\n"
    )
    answer = child.call("accept", trial=trial_to_data(make_trial()))
    assert answer["rule"] == "RAISED"
    assert "in propose only" in answer["message"]


def test_a_kept_view_can_not_ask_later(child: Child) -> None:
    child.load(
        BASE
        + "class M(Mechanism):\n    def propose(self, view, count):\n"
        + "        old = getattr(self, 'old', view)\n        self.old = view\n"
        + "        if old is not view:\n            old.ask('late')\n        return []\n"
    )
    assert child.call("propose", count=1)["value"] == []
    child.send(
        {"id": "2", "op": "call", "hook": "propose", "view": view_data(), "seed": 1} | {"count": 1}
    )
    assert "outside of the call" in child.read()["message"]


@pytest.mark.parametrize(
    ("source", "rule", "message", "line"),
    [
        ("def (", "IMPORT_FAILED", "SyntaxError", 1),
        (BASE + "\n1 / 0\n", "IMPORT_FAILED", "ZeroDivisionError: division by zero", 3),
        ("import no_such_module_anywhere", "IMPORT_FAILED", "ModuleNotFoundError", 1),
        (BASE + "raise SystemExit(0)", "IMPORT_FAILED", "SystemExit: 0", 2),
        (BASE, "INTERFACE", "found: none", 0),
        (
            BASE + "class A(Mechanism): pass\nclass B(A): pass\n",
            "INTERFACE",
            "found: A, B",
            0,
        ),
        (
            BASE + "class M(Mechanism):\n    def __init__(self, x): pass\n",
            "INTERFACE",
            "M can't be made without arguments: TypeError",
            0,
        ),
        ("from sandbox.mechanism import Mechanism as M\n", "INTERFACE", "found: none", 0),
    ],
)
def test_a_load_that_fails_says_why_and_where(
    child: Child, source: str, rule: str, message: str, line: int
) -> None:
    answer = child.load(source)
    assert (answer["kind"], answer["rule"], answer["line"]) == ("error", rule, line)
    assert message in answer["message"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "must return a list, not NoneType"),
        ("return [{'changes': {}}]", "must return Candidates, not dict"),
        ("return [Candidate(changes={'A': True})]", "changes['A'] is bool"),
        ("return [Candidate(changes={'A': None})]", "changes['A'] is NoneType"),
        ("return [Candidate(changes={1: 2})]", "name is int, not text"),
        ("return [Candidate(changes={}, reason=3)]", "a reason is int"),
        ("return [Candidate(changes={'A': float('nan')})]", "can't be sent"),
        ("view.ask(3)", "guidance must be text, not int"),
        ("view.ask('', 1.5)", "count must be an int, not float"),
    ],
)
def test_a_wrong_answer_is_named(child: Child, body: str, message: str) -> None:
    child.load(BASE + f"class M(Mechanism):\n    def propose(self, view, count):\n        {body}\n")
    answer = child.call("propose", count=1)
    assert answer["rule"] == "INTERFACE"
    assert message in answer["message"]


def test_an_exception_carries_line_and_traceback_and_the_worker_goes_on(child: Child) -> None:
    child.load(
        BASE
        + "class M(Mechanism):\n    def state(self):\n        return {}\n"
        + "    def accept(self, trial, view):\n        return {}['missing']\n"
    )
    answer = child.call("accept", trial=trial_to_data(make_trial()))
    assert (answer["rule"], answer["line"]) == ("RAISED", 6)
    assert answer["message"] == "KeyError: 'missing'"
    assert "return {}['missing']" in answer["traceback"]
    assert child.request("call", hook="state")["value"] == {}


def test_an_exception_that_can_not_be_described_is_still_reported(child: Child) -> None:
    child.load(
        BASE
        + "class E(Exception):\n    def __str__(self): raise E\n    __repr__ = __str__\n"
        + "class M(Mechanism):\n    def state(self): raise E\n"
    )
    answer = child.request("call", hook="state")
    assert answer["rule"] == "RAISED"
    assert answer["message"] == "E: (its message can't be made)"


@pytest.mark.parametrize(
    "state", ["[]", "{1: 2}", "{'a': {1}}", "{'a': (1, 2)}", "{'a': float('inf')}", "{'a': b''}"]
)
def test_a_state_that_is_not_plain_is_refused(child: Child, state: str) -> None:
    child.load(BASE + f"class M(Mechanism):\n    def state(self):\n        return {state}\n")
    answer = child.request("call", hook="state")
    assert answer["rule"] == "INTERFACE"


def test_a_mechanism_can_not_change_the_trials_that_it_sees(child: Child) -> None:
    child.load(
        BASE + "class M(Mechanism):\n    def propose(self, view, count):\n"
        "        view.best.config['LEARNING_RATE'] = 9\n"
    )
    assert "does not support item assignment" in child.call("propose", count=1)["message"]


def test_prints_never_reach_the_frames(child: Child) -> None:
    child.load(
        BASE
        + "import os, sys\nprint('at import')\nclass M(Mechanism):\n    def state(self):\n"
        + "        print('in a call'); os.write(1, b'by descriptor'); return {}\n"
    )
    assert child.request("call", hook="state")["value"] == {}
    child.process.kill()
    _, errors = child.process.communicate()
    assert errors == b"at import\nin a call\nby descriptor"


def test_the_worker_ends_when_the_host_hangs_up(child: Child) -> None:
    assert child.process.stdin
    child.process.stdin.close()
    assert child.process.wait(timeout=240) == 0
