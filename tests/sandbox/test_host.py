"""One mechanism in one real worker: honest ones answer, hostile ones become findings."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sandbox import wire
from sandbox.backends import Backend
from sandbox.host import InfrastructureError, Limits, MechanismFailure, MechanismHost
from sandbox.mechanism import Candidate, Trial
from sandbox.testing import make_trial, make_view, scripted_prior

pytestmark = pytest.mark.engine

BASE = "from sandbox.mechanism import Mechanism, Candidate\nimport os, sys, time\n"
PATIENT = Limits(call_seconds=60)  # a busy machine is no finding
QUICK = Limits(call_seconds=2)  # for what never answers
HONEST = b'''
from dataclasses import dataclass, field
import numpy as np
from sandbox.mechanism import Candidate, Mechanism

@dataclass
class Memory:
    seen: dict = field(default_factory=dict)

class Honest(Mechanism):
    """Asks once more where the prior repeats itself."""
    def __init__(self):
        self.memory = Memory()
    def propose(self, view, count):
        print("proposing")
        found = view.ask(count=count)
        if "ACTIVATION" in found[0].changes:
            found = view.ask("do not touch ACTIVATION", count)
        noise = np.float64(view.random.random())
        return [Candidate(changes={**found[0].changes, "WEIGHT_DECAY": noise}, reason="again")]
    def accept(self, trial, view):
        return trial.metric < view.best.metric + 0.5
    def observe(self, trial, view):
        self.memory.seen[str(trial.number)] = trial.metric
    def state(self):
        return {"seen": self.memory.seen}
    def restore(self, state):
        self.memory = Memory(dict(state["seen"]))
'''

Start = Callable[..., MechanismHost]


@pytest.fixture
def start(engine: Backend) -> Iterator[Start]:
    hosts: list[MechanismHost] = []

    def begin(source: bytes | str, limits: Limits = PATIENT) -> MechanismHost:
        data = source.encode() if isinstance(source, str) else source
        host = MechanismHost.start(engine, data, name="draft", limits=limits, purpose="test")
        hosts.append(host)
        return host

    yield begin
    for host in hosts:
        host.close()


def printed(host: MechanismHost, until: str) -> str:
    """The output, once it holds `until`: it travels beside the answers and may be later."""
    deadline = time.monotonic() + 120
    while until not in host.output:
        assert time.monotonic() < deadline, host.output
        time.sleep(0.02)
    return host.output


def in_propose(*lines: str) -> str:
    body = "".join(f"        {line}\n" for line in lines)
    return BASE + f"class M(Mechanism):\n    def propose(self, view, count):\n{body}"


def propose(host: MechanismHost, **arguments: Any) -> list[Candidate]:
    view = make_view(prior=scripted_prior([{"WARMUP_STEPS": 3}]))
    return host.propose(view, arguments.pop("count", 1), seed=5)


def propose_often(host: MechanismHost, times: int) -> None:
    for _ in range(times):
        assert propose(host) == []


def test_an_honest_mechanism_goes_the_whole_round(start: Start, engine: Backend) -> None:
    host = start(HONEST)
    prior = scripted_prior([{"ACTIVATION": "relu"}, {"WARMUP_STEPS": 3}])
    view = make_view(prior=prior)
    found = host.propose(view, 1, seed=5)
    assert found[0].reason == "again"
    assert found[0].changes["WARMUP_STEPS"] == 3
    assert type(found[0].changes["WEIGHT_DECAY"]) is float
    assert prior.asked == [("", 1), ("do not touch ACTIVATION", 1)]
    assert host.accept(make_trial(1, 1.2), view, seed=1) is True
    assert host.accept(make_trial(1, 1.7), view, seed=1) is False
    host.observe(make_trial(1, 1.2), view, seed=1)
    assert host.state() == {"seen": {"1": 1.2}}
    host.restore({"seen": {"9": 0.1}})
    assert host.state() == {"seen": {"9": 0.1}}
    assert host.class_name == "Honest"
    assert host.hooks == {"propose", "accept", "observe", "state", "restore"}
    assert host.digest == hashlib.sha256(HONEST).hexdigest()
    assert printed(host, "\n") == "proposing\n"
    assert host.counts == {
        "propose_calls": 1,
        "ask_calls": 2,
        "accept_calls": 2,
        "observe_calls": 1,
        "raised": 0,
    }
    assert host.image_id == engine.image_id


def test_the_null_mechanism_answers_as_the_prior_does(start: Start) -> None:
    host = start(BASE + "class Null(Mechanism): pass\n")
    assert propose(host) == [Candidate(changes={"WARMUP_STEPS": 3}, reason="scripted")]
    assert host.hooks == frozenset()
    assert host.accept(make_trial(1, 0.5), make_view(), seed=0) is True
    assert host.accept(make_trial(1, 1.0), make_view(), seed=0) is False


def test_one_seed_gives_one_answer_in_two_workers(start: Start) -> None:
    source = in_propose(
        "names = list({n for n in view.space})",
        "return [Candidate(changes={names[0]: view.random.random()}, reason=str(names))]",
    )
    assert propose(start(source)) == propose(start(source))


def test_the_posture_is_measured_and_recorded(start: Start, engine: Backend) -> None:
    posture = start(BASE + "class Null(Mechanism): pass\n").posture
    seen = posture["self_report"]
    assert posture["image_id"] == engine.image_id
    assert posture["backend"] == "docker"
    assert (seen["uid"], seen["gid"], seen["pid"]) == (64000, 64000, 1)
    assert set(seen["capabilities"].values()) == {"0" * 16}
    assert (seen["no_new_privileges"], seen["seccomp"]) == ("1", "2")
    assert seen["network_devices"] == ["lo"]
    assert seen["writable"] == []
    assert seen["limits"]["fsize"] == [0, 0]
    assert "/ overlay ro" in seen["mounts"]


@pytest.mark.parametrize(
    ("source", "rule", "says"),
    [
        (BASE + "os._exit(0)", "CRASHED", "exit code 0"),
        (BASE + "sys.exit(0)", "IMPORT_FAILED", "SystemExit: 0"),
        (BASE + "import atexit\natexit.register(print, 'ok')\n1 / 0", "IMPORT_FAILED", "division"),
        (BASE + "x = b'x' * 2**30", "OOM", "512 MiB"),
        (BASE + "while True: print('x' * 9999)", "OUTPUT_LIMIT", "1048576 bytes"),
        (BASE + "os.closerange(0, 20); time.sleep(60)", "TIMEOUT", "no answer within"),
        (BASE + "while True: pass", "TIMEOUT", "no answer within 2.0 s"),
        (BASE, "INTERFACE", "found: none"),
    ],
)
def test_a_hostile_import_is_a_finding(start: Start, source: str, rule: str, says: str) -> None:
    with pytest.raises(MechanismFailure) as caught:
        start(source, Limits(load_seconds=2) if rule == "TIMEOUT" else PATIENT)
    assert caught.value.rule == rule
    assert says in caught.value.message
    assert caught.value.detail["posture"]["self_report"]["uid"] == 64000


@pytest.mark.parametrize(
    ("lines", "rule", "says"),
    [
        (["os._exit(0)"], "CRASHED", "exit code 0"),
        (["import ctypes", "ctypes.string_at(0)"], "CRASHED", "exit code 139"),
        (["x = b'x' * 2**30"], "OOM", "512 MiB"),
        (["while True: pass"], "TIMEOUT", "no answer within 2.0 s"),
        (["import signal; signal.signal(15, 1)", "while True: time.sleep(1)"], "TIMEOUT", "2.0 s"),
        (["while True: os.write(2, b'x' * 9999)"], "OUTPUT_LIMIT", "1048576 bytes"),
        (["return [Candidate(changes={'A': 'x' * 10**7})]"], "PROTOCOL_ERROR", "limit is 262144"),
        (["return [Candidate(changes={'A': float('nan')})]"], "INTERFACE", "can't be sent"),
        (["b = b'[' * 99999 + b']' * 99999",
          "os.write(4, len(b).to_bytes(4, 'big') + b)", "time.sleep(9)"],
         "PROTOCOL_ERROR", "nested deeper"),
        (["for fd in range(3, 9):", "  try: os.write(fd, b'\\0\\0\\0\\2{}')",
          "  except OSError: pass", "return []"], "PROTOCOL_ERROR", ""),
        (["return [Candidate(changes={})] * 2"], "TOO_MANY_CANDIDATES", "2 candidates where 1"),
        (["while True: view.ask('again')"], "TOO_MANY_ASKS", "more than 16"),
        (["view.ask('x' * 9000)"], "INTERFACE", "8000 characters"),
        (["view.ask('x', 0)"], "INTERFACE", "ask for 0 candidates"),
        (["return [Candidate(changes={}, reason='x' * 2001)]"], "INTERFACE", "2000 chars"),
        (["return [Candidate(changes={'A': 10**300})]"], "INTERFACE", "no short int"),
        (["1 / 0"], "RAISED", "ZeroDivisionError"),
        (["raise KeyboardInterrupt"], "RAISED", "KeyboardInterrupt"),
        (["object.__setattr__(view.best, 'metric', 0.0)", "return view.ask()"],
         "VIEW_CHANGED", "changed the view"),
    ],
)  # fmt: skip
def test_a_hostile_answer_is_a_finding(
    start: Start, lines: list[str], rule: str, says: str
) -> None:
    host = start(in_propose(*lines), QUICK if rule == "TIMEOUT" else PATIENT)
    with pytest.raises(MechanismFailure) as caught:
        propose(host)
    assert (caught.value.rule, caught.value.detail["hook"]) == (rule, "propose")
    assert says in caught.value.message


def test_a_frame_forged_with_the_right_name_does_not_stay_unseen(start: Start) -> None:
    """It takes the request's own id off the stack: its answer counts as its own, once."""
    forge = [
        "import json",
        "name = sys._getframe(1).f_locals['request']['id']",
        "body = json.dumps({'id': name, 'kind': 'value', 'value': []}).encode()",
        "os.write(4, len(body).to_bytes(4, 'big') + body)",
        "time.sleep(0.3)",
        "return []",
    ]
    host = start(in_propose(*forge))
    late = "PROTOCOL_ERROR: (an answer to another request|more bytes than one answer)"
    with pytest.raises(MechanismFailure, match=late):
        propose_often(host, 2)  # at once, where the own answer was read along with the forged one


def test_a_lying_float_arrives_as_the_plain_number_it_is(start: Start) -> None:
    source = in_propose("return [Candidate(changes={'A': Lie(99)})]")
    lie = (
        "class Lie(float):\n    __repr__ = lambda s: '0.5'\n    __le__ = __ge__ = lambda s, o: 1\n"
    )
    [found] = propose(start(lie + source))
    assert type(found.changes["A"]) is float
    assert found.changes["A"] == 99.0


@pytest.mark.parametrize(
    ("line", "errno"),
    [
        ("os.fork()", 1),
        ("__import__('subprocess').run(['/usr/local/bin/python3'])", 1),
        ("__import__('socket').create_connection(('1.1.1.1', 80), 1)", 1),
        ("__import__('socket').socket(__import__('socket').AF_UNIX)", 1),
        ("open('/tmp/x', 'w')", 30),
        ("open('/dev/x', 'w')", 13),
        ("os.setuid(0)", 1),
    ],
)
def test_what_is_forbidden_is_refused_by_the_kernel(start: Start, line: str, errno: int) -> None:
    with pytest.raises(MechanismFailure, match=rf"RAISED: .*\[Errno {errno}\]"):
        propose(start(in_propose(line)))


def test_threads_work_and_are_bounded(start: Start) -> None:
    source = in_propose(
        "import threading",
        "count, wait = 0, threading.Event()",
        "try:",
        "    while count < 999:",
        "        threading.Thread(target=wait.wait, daemon=True).start()",
        "        count += 1",
        "finally:",
        "    wait.set(); print(count)",
    )
    host = start(source)
    with pytest.raises(MechanismFailure, match="can't start new thread"):
        propose(host)
    assert 8 < int(printed(host, "\n")) < PATIENT.processes


def test_there_is_no_environment_of_ours(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    host = start(in_propose("print(open('/proc/self/environ').read())", "return []"))
    propose(host)
    printed(host, "\n")
    names = {part.split("=")[0] for part in host.output.strip().strip("\0\ufffd").split("\ufffd")}
    assert names == {"PYTHONHASHSEED", "HOME"}


def test_a_failure_that_ends_the_worker_stays_one(start: Start) -> None:
    host = start(in_propose("os._exit(3)"))
    for _ in range(2):
        with pytest.raises(MechanismFailure, match="CRASHED") as caught:
            propose(host)
        assert caught.value.detail["exit_code"] == 3
    with pytest.raises(MechanismFailure, match="CRASHED"):
        host.state()


@pytest.mark.parametrize(
    "line",
    [
        "os.kill(os.getpid(), 9)",
        "os.kill(0, 9)",
        "import signal, threading; signal.pthread_kill(threading.get_ident(), 9)",
        "import signal; signal.raise_signal(9)",
        "import ctypes; raise OSError(ctypes.CDLL(None, use_errno=True).raise_(9))",
    ],
)
def test_nobody_inside_can_send_the_signal_that_only_outsiders_send(
    start: Start, line: str
) -> None:
    """So that a worker that was killed says nothing against its mechanism."""
    host = start(in_propose(line, "raise OSError('still here')"))
    with pytest.raises(MechanismFailure, match="RAISED"):
        propose(host)
    assert host.state() == {}


def test_an_exception_leaves_the_worker_usable(start: Start) -> None:
    host = start(in_propose("if count == 2: raise ValueError('two')", "return []"))
    with pytest.raises(MechanismFailure) as caught:
        host.propose(make_view(), 2, seed=0)
    assert caught.value.detail["line"] == 5
    assert "raise ValueError('two')" in caught.value.detail["traceback"]
    assert host.counts["raised"] == 1
    assert propose(host) == []


def test_the_sum_of_all_calls_is_limited(start: Start) -> None:
    host = start(in_propose("time.sleep(0.2)", "return []"))
    propose_often(host, 2)
    assert host.seconds >= 0.4
    host._calls.spent_seconds = 179.9  # of 180, as if there had been many more
    with pytest.raises(MechanismFailure, match=r"TIMEOUT: no answer within 0\.1 s"):
        propose(host)


def test_a_prior_that_raises_comes_out_and_the_worker_stays_usable(start: Start) -> None:
    source = in_propose("try:", "    return view.ask('x')", "except Exception:", "    return []")
    host = start(source)

    def broken(guidance: str, count: int) -> list[Candidate]:
        raise ConnectionError("no answer")  # as a language model's client may

    with pytest.raises(ConnectionError, match="no answer"):
        host.propose(make_view(prior=broken), 1, seed=0)
    assert propose(host) == [Candidate(changes={"WARMUP_STEPS": 3}, reason="scripted")]


def test_asking_takes_none_of_the_mechanisms_time(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, gone = start(in_propose("return view.ask('x')")), [0.0]
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(gone))
    monkeypatch.setattr(wire, "time", clock)

    def slow(guidance: str, count: int) -> list[Candidate]:
        gone.append(10_000.0)  # seconds that it takes
        return [Candidate(changes={}, reason="late")]

    assert host.propose(make_view(prior=slow), 1, seed=0)[0].reason == "late"
    assert host.seconds < 10_000


@pytest.mark.parametrize(
    ("returned", "rule"),
    [
        ("{'a': 'x' * 70_000}", "STATE_TOO_LARGE"),
        ("{'a': float('inf')}", "INTERFACE"),
        ("{'a': deep}", "INTERFACE"),
        ("[1]", "INTERFACE"),
    ],
)
def test_a_state_has_limits(start: Start, returned: str, rule: str) -> None:
    source = BASE + "deep = []\nfor _ in range(100_000): deep = [deep]\n"
    source += f"class M(Mechanism):\n    def state(self): return {returned}\n"
    host = start(source)
    with pytest.raises(MechanismFailure) as caught:
        host.state()
    assert caught.value.rule == rule


@pytest.mark.parametrize("returned", ["1", "None", "'yes'", "__import__('numpy').bool_(True)"])
def test_accept_must_be_a_bool(start: Start, returned: str) -> None:
    host = start(BASE + f"class M(Mechanism):\n    def accept(self, t, v): return {returned}\n")
    with pytest.raises(MechanismFailure, match="INTERFACE: accept must return a bool"):
        host.accept(make_trial(), make_view(), seed=0)


def test_what_can_not_be_sent_is_ours_and_not_the_candidates_fault(start: Start) -> None:
    host = start(HONEST)
    broken: Trial = make_trial(1, math.nan)
    with pytest.raises(InfrastructureError, match="can't be sent"):
        host.observe(broken, make_view(), seed=0)


def test_close_may_be_called_twice_and_calls_fail_afterwards(start: Start) -> None:
    host = start(HONEST)
    host.close()
    host.close()
    with pytest.raises(InfrastructureError, match="was closed"):
        host.state()
