"""Every specimen through the real gate: honest ones pass, the others fail for the right reason.

`specimens/expected.json` has the expectation beside each. A specimen's dynamic part runs on one
backend, chosen by its name, and the predicted gain is cut short; ESCAPEMENT_CORPUS=whole runs it on
both, with all of it. Several are looked at at once, and each says what it left behind.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest

from sandbox import prediction
from sandbox.backends import NAMES, get_backend
from sandbox.backends.base import Backend, Channel, Purpose
from sandbox.backends.process import ProcessChannel
from sandbox.checks import bandit
from sandbox.checks.dependencies import NOT_SCANNED
from sandbox.draft import lay_out, read_files
from sandbox.limits import Limits
from sandbox.report import CheckResult, Draft, Outcome, Report, Severity
from sandbox.screen import screen
from tests.sandbox.leftovers import left_of

ROOT = Path(__file__).parent / "specimens"
EXPECTED: dict[str, dict[str, Any]] = json.loads((ROOT / "expected.json").read_text("utf-8"))
HONEST = sorted(n for n, e in EXPECTED.items() if e.get("passes"))
WRONG = sorted(EXPECTED.keys() - set(HONEST))
STATIC = [n for n in WRONG if EXPECTED[n]["static"]]
DYNAMIC_ONLY = [n for n in WRONG if not EXPECTED[n]["static"]]
FOREIGN = [n for n in WRONG if n.startswith("foreign/")]
WHOLE = os.environ.get("ESCAPEMENT_CORPUS") == "whole"
AT_ONCE = 3
FAMILIES = 30  # of honest mechanisms, at least

pytestmark = pytest.mark.engine


@dataclass(frozen=True, kw_only=True)
class Look:
    """One specimen, one mode, one backend."""

    name: str
    static: bool
    backend: str

    def __str__(self) -> str:
        return f"{self.name}-{self.backend}"


def looks(names: list[str], *, static: bool) -> list[Look]:
    return [Look(name=n, static=static, backend=b) for n in names for b in backends(n)]


def backends(name: str) -> tuple[str, ...]:
    """Docker's workers start ten times slower: it gets every fourth specimen."""
    if WHOLE:
        return NAMES
    return ("docker",) if zlib.crc32(name.encode()) % 4 == 0 else ("bubblewrap",)


class Watched:
    """A backend that remembers its channels, and says what is left of them."""

    def __init__(self, backend: Backend) -> None:
        self.name = backend.name
        self._backend = backend
        self._channels: list[Channel] = []
        self._lock = threading.Lock()

    @property
    def image_id(self) -> str:
        return self._backend.image_id

    @property
    def fingerprint(self) -> str:
        return self._backend.fingerprint

    def start(self, *, purpose: Purpose, limits: Limits, label: str = "") -> Channel:
        channel = self._backend.start(purpose=purpose, limits=limits, label=label)
        with self._lock:
            self._channels.append(channel)
        return channel

    def reap(self) -> list[str]:
        return self._backend.reap()

    @property
    def started(self) -> int:
        return len(self._channels)

    def left(self) -> list[str]:
        """Containers and control groups that are still there. A group that holds a process can't
        be removed: without the group there is no process."""
        found: list[str] = []
        for channel in self._channels:
            if isinstance(channel, ProcessChannel):
                found += [str(p) for p in channel._group.folders if p.exists()]
                found += ["bwrap"] if channel._process.poll() is None else []
            elif container_is_there(channel.posture["container"]):
                found.append(channel.posture["container"])
        return found


def container_is_there(name: str) -> bool:
    client = docker.APIClient(timeout=60)
    try:
        client.inspect_container(name)
    except docker.errors.NotFound:
        return False
    finally:
        client.close()
    return True


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came of a look."""

    report: Report
    left: list[str]
    started: int


class Corpus:
    """Looks at specimens in a few threads, in the order in which they are asked for."""

    def __init__(self, wanted: list[Look]) -> None:
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="corpus")
        self._looks: dict[Look, Future[Seen]] = {
            look: self._threads.submit(self._look, look) for look in dict.fromkeys(wanted)
        }

    def see(self, look: Look) -> Seen:
        return self._looks[look].result()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _look(self, look: Look) -> Seen:
        path = ROOT / look.name
        draft = lay_out(read_files(path), require_test=path.is_dir())
        backend = Watched(get_backend(look.backend))
        report = screen(draft, backend=backend, static=look.static, limits=limits_for(look.name))
        return Seen(report=report, left=backend.left(), started=backend.started)


def limits_for(name: str) -> Limits | None:
    """What is expected to hang is given up sooner than in a real screening; what is not may take
    longer, because several are looked at at once on a machine that is busy."""
    dynamic = EXPECTED[name].get("dynamic") or {}
    rules = dynamic.get("rules", [""])
    if "TIMEOUT" not in rules:
        return Limits(load_seconds=180, call_seconds=60, job_seconds=1800)
    if rules[0] != "TIMEOUT":
        return None
    return Limits(
        load_seconds=3 if dynamic["check"] == "import" else 60, call_seconds=2, job_seconds=8
    )


_BANDIT = bandit.check


def bandit_where_it_matters(draft: Draft) -> CheckResult:
    """It starts a process for each draft, and most of the hostile ones fail before it is asked."""
    names = [n for n in STATIC if Path(n).stem == draft.name]
    if names and all(EXPECTED[n]["static"]["check"] != bandit.CHECK for n in names):
        return CheckResult(name=bandit.CHECK, outcome=Outcome.PASSED)
    return _BANDIT(draft)


@pytest.fixture(scope="module")
def corpus(
    request: pytest.FixtureRequest, engine: Backend, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Corpus]:
    """Looks at what the selected tests want, and at nothing else."""
    place = tmp_path_factory.mktemp("corpus")
    get_backend("bubblewrap", progress=lambda _: None)  # built once, before several want it
    here = [i for i in request.session.items if i.path == request.path]
    wanted = [i.callspec.params["look"] for i in here if "look" in getattr(i, "fixturenames", ())]  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(place))
        if not WHOLE:
            patch.setattr(prediction, "SEARCHES", 1)
            patch.setattr(bandit, "check", bandit_where_it_matters)
        found = Corpus(wanted)
        yield found
        found.close()
        assert left_of(engine) == []
        assert own_workers() == []
        assert os.listdir(place) == []


def own_workers() -> list[str]:
    """Bubblewraps that are children of this process."""
    done = subprocess.run(
        ["ps", "-o", "pid=,comm=", "--ppid", str(os.getpid())],
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in done.stdout.splitlines() if "bwrap" in line]


def errors(report: Report) -> list[tuple[str, str, str]]:
    return [(f.check, f.rule, f.message) for f in report.findings if f.severity is Severity.ERROR]


def test_every_specimen_has_an_expectation() -> None:
    kinds = ("honest", "hostile", "inert", "foreign")
    there = {
        p.relative_to(ROOT).as_posix()
        for kind in kinds
        for p in (ROOT / kind).iterdir()
        if p.name != "__pycache__"
    }
    there |= {f"drafts/{p.name}" for p in (ROOT / "drafts").iterdir()}
    assert there == set(EXPECTED)
    assert len({Path(n).stem for n in HONEST}) >= FAMILIES
    assert len(FOREIGN) >= 12
    assert all(EXPECTED[n]["what"] for n in EXPECTED)


@pytest.mark.parametrize("look", looks(HONEST, static=True), ids=str)
def test_honest_passes(look: Look, corpus: Corpus) -> None:
    seen = corpus.see(look)
    assert seen.report.outcome is Outcome.PASSED, errors(seen.report)
    shown = [f for f in seen.report.findings if f.rule != NOT_SCANNED]  # no advisories here
    assert {f.severity for f in shown} <= {Severity.NOTE}, shown
    unit_tests = seen.report.check("unit_tests")
    assert unit_tests is not None
    assert (unit_tests.detail["collected"] > 0) == (ROOT / look.name).is_dir()
    assert seen.started > 0
    assert seen.left == []


@pytest.mark.parametrize("look", looks(STATIC, static=True), ids=str)
def test_static_gate_refuses(look: Look, corpus: Corpus) -> None:
    expected = EXPECTED[look.name]["static"]
    seen = corpus.see(look)
    assert seen.report.outcome is Outcome.FAILED
    assert any(
        (check, rule) == (expected["check"], expected["rule"]) and expected["says"] in message
        for check, rule, message in errors(seen.report)
    ), errors(seen.report)
    assert seen.started == 0  # never executed


@pytest.mark.parametrize("look", looks(DYNAMIC_ONLY, static=True), ids=str)
def test_whole_gate_refuses(look: Look, corpus: Corpus) -> None:
    judge_dynamic(look, corpus.see(look))


@pytest.mark.parametrize("look", looks(STATIC, static=False), ids=str)
def test_contained_without_static_gate(look: Look, corpus: Corpus) -> None:
    judge_dynamic(look, corpus.see(look))


def judge_dynamic(look: Look, seen: Seen) -> None:
    expected = EXPECTED[look.name]["dynamic"]
    assert "ESCAPED" not in seen.report.to_json()
    assert seen.left == []
    found = errors(seen.report)
    if "outcome" in expected:  # it did nothing that can be seen; and it has not passed
        assert (found, seen.report.outcome) == ([], expected["outcome"])
        return
    assert seen.report.outcome is Outcome.FAILED
    if "any" in expected:
        assert any(rule in expected["any"] for _, rule, _ in found), found
    else:
        assert any(c == expected["check"] and r in expected["rules"] for c, r, _ in found), found


@pytest.mark.parametrize("look", looks(FOREIGN, static=True), ids=str)
def test_foreign_is_told_what_is_wrong_first(look: Look, corpus: Corpus) -> None:
    """Mechanisms for another interface: refused by name of what is wrong, and nobody failed to
    look."""
    expected = EXPECTED[look.name]["first"]
    report = corpus.see(look).report
    assert report.outcome is Outcome.FAILED
    assert not [c.name for c in report.checks if c.outcome is Outcome.COULD_NOT_LOOK]
    _, rule, message = errors(report)[0]
    assert (rule, expected["says"] in message) == (expected["rule"], True), message
