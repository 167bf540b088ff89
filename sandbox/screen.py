"""The screening of one draft: all checks in order, and the report of what they saw.

Static checks first, where the candidate never runs; if one of them fails, nothing of it is ever
executed. Then the dynamic ones, in workers of the sandbox. Findings and evidence only: what they
mean for an approval is the policy's to say.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self

from sandbox import clearance, contract, replay, unit_tests
from sandbox import lock as locks
from sandbox.aside import Aside, wait
from sandbox.backends.base import Backend
from sandbox.checks import (
    bandit,
    characters,
    complexity,
    dependencies,
    imports,
    interface,
    secrets,
    table,
)
from sandbox.draft import check_content, lay_out
from sandbox.errors import InfrastructureError, MechanismFailure, Rule
from sandbox.host import MechanismHost
from sandbox.judging import failure_finding
from sandbox.limits import Limits
from sandbox.operators import recognise
from sandbox.report import CheckResult, Draft, DraftError, Finding, Outcome, Report, Severity
from sandbox.traces import Trace

STATIC = ("draft", "characters", "imports", "bandit", "dependencies", "secrets", "complexity")
DYNAMIC = ("import", "contract", "unit_tests", "replay")
CHECKS = STATIC + DYNAMIC
OUTPUT_CHARS = 4000
UNREADABLE = frozenset({"not_utf8", "syntax_error", "deeply_nested"})
WHY_DRAFT = "These are the rules at the door: a draft is one small file that a person can review."


class _Cancelled(Exception):
    """Somebody asked to stop."""


class _Second:
    """What the contract's worker and the second one wait for from each other."""

    def __init__(self) -> None:
        self.half: Future[contract.Half] = Future()
        self.again: Future[contract.Again] = Future()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.half.cancel()  # if the first worker never got there, nobody is to wait for it

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Whatever ends the second worker before it has answered is told to who waits for it."""
        try:
            yield
        except BaseException as error:
            if not self.again.done():
                self.again.set_exception(error)
            raise


def screen(
    draft: Draft,
    *,
    backend: Backend,
    library: Mapping[str, bytes] | None = None,
    static: bool = True,
    progress: Callable[[str], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
    traces: Sequence[Trace] = (),
    limits: Limits | None = None,
) -> Report:
    """Judge a draft. Never raises for what a draft or the engine does: that is in the report.

    `static=False` leaves the static checks out, to see what the sandbox itself stops; such a
    report has them as skipped and so can't pass. `library` is the approved operators, by name;
    `traces` are further traces to replay. Nothing is left running afterwards.
    """
    run = _Screening(
        draft,
        backend=backend,
        library=library or {},
        progress=progress or (lambda _: None),
        cancelled=cancelled or (lambda: False),
        traces=traces,
        limits=limits or Limits.screening(),
    )
    return run.report(static=static)


class _Screening:
    """One screening under way."""

    def __init__(
        self,
        draft: Draft,
        *,
        backend: Backend,
        library: Mapping[str, bytes],
        progress: Callable[[str], None],
        cancelled: Callable[[], bool],
        traces: Sequence[Trace],
        limits: Limits,
    ) -> None:
        self._draft = draft
        self._backend = backend
        self._library = library
        self._progress = progress
        self._cancelled = cancelled
        self._traces = traces
        self._limits = limits
        self._lock = locks.current().digest  # now: it may change while workers of its image run
        self._results: dict[str, CheckResult] = {}
        self._posture: dict[str, Any] = {}

    def report(self, *, static: bool) -> Report:
        """Run everything that is to be run."""
        began = time.monotonic()
        try:
            if static:
                self._static()
            if not any(r.outcome is not Outcome.PASSED for r in self._results.values()):
                self._dynamic()
        except _Cancelled:
            self._progress("cancelled")
        except InfrastructureError as error:  # a worker that can't be ended: nothing is sure
            self._results["import"] = _unseen("import", error)
        return Report(
            mechanism=self._draft.name,
            digest=self._draft.digest,
            checks=tuple(
                self._results.get(name, CheckResult(name=name, outcome=Outcome.SKIPPED))
                for name in CHECKS
            ),
            image_id=str(self._posture.get("image_id", "")) or _image_id(self._backend),
            posture=self._posture,
            versions=_versions(self._lock),
            seconds=round(time.monotonic() - began, 3),
        )

    # --- static ---

    def _static(self) -> None:
        first = self._run("draft", self._check_draft)
        codes = {f.rule for f in first.findings}
        self._run("characters", lambda: characters.check(self._draft))
        if codes & UNREADABLE:
            return  # the others read the syntax tree, and there is none
        self._run("imports", lambda: imports.check(self._draft))
        self._run("bandit", lambda: bandit.check(self._draft))
        self._run("dependencies", lambda: dependencies.check(self._draft))
        self._run("secrets", lambda: secrets.check(self._draft))
        self._run("complexity", lambda: complexity.check(self._draft))

    def _check_draft(self) -> CheckResult:
        draft = self._draft
        try:
            lay_out(draft.files, require_test=False)
            wrong = interface.findings(check_content(draft), draft.mechanism_path)
        except DraftError as error:
            finding = Finding(
                check="draft",
                rule=error.code,
                severity=Severity.ERROR,
                message=str(error),
                path=draft.mechanism_path,
                why=WHY_DRAFT,
            )
            return CheckResult(name="draft", outcome=Outcome.FAILED, findings=(finding,))
        detail = {
            "digest": draft.digest,
            "files": {path: hashlib.sha256(data).hexdigest() for path, data in draft.files.items()},
            "operator": recognise(draft.source, self._library),
        }
        outcome = Outcome.FAILED if wrong else Outcome.PASSED
        return CheckResult(name="draft", outcome=outcome, findings=tuple(wrong), detail=detail)

    # --- dynamic ---

    def _dynamic(self) -> None:
        host = self._import()
        if host is None:
            return
        second = _Second()
        aside = self._backend
        with (
            host,
            Aside(aside, self._unit_tests) as tests,
            Aside(aside, lambda backend: self._replay(backend, second)) as replays,
            second,
        ):
            done = self._run("contract", lambda: self._contract(host, second))
            if done.outcome is Outcome.COULD_NOT_LOOK:
                return
            self._run("unit_tests", lambda: tests.result(self._tick))
            # It failed at the border itself: a replay would only fail the same way again.
            if not set(Rule) & {f.rule for f in done.findings}:
                self._run("replay", lambda: replays.result(self._tick))

    def _import(self) -> MechanismHost | None:
        started: list[MechanismHost] = []

        def load() -> CheckResult:
            clearance.require(self._backend, self._progress)
            try:
                host = self._start("import")
            except MechanismFailure as failure:
                self._posture = failure.detail.get("posture", {})
                finding = failure_finding("import", failure, path=self._draft.mechanism_path)
                return CheckResult(
                    name="import",
                    outcome=Outcome.FAILED,
                    findings=(finding,),
                    detail=_shown(failure),
                )
            started.append(host)
            self._posture = host.posture
            detail = {"class": host.class_name, "hooks": sorted(host.hooks)}
            return CheckResult(name="import", outcome=Outcome.PASSED, detail=detail)

        try:
            self._run("import", load)
        except BaseException:
            for host in started:
                host.close()
            raise
        return started[0] if started else None

    def _start(self, purpose: str, backend: Backend | None = None) -> MechanismHost:
        return MechanismHost.start(
            backend or self._backend,
            self._draft.source,
            name=self._draft.name,
            limits=self._limits,
            purpose=purpose,
        )

    def _contract(self, host: MechanismHost, second: _Second) -> CheckResult:
        with second:
            found = contract.check(
                host,
                reload=lambda: self._reload(host),
                reached=second.half.set_result,
                again=lambda: wait(second.again, self._tick),
                path=self._draft.mechanism_path,
                progress=self._tick,
            )
        return _with_output(found, host)

    def _unit_tests(self, backend: Backend) -> CheckResult:
        return unit_tests.check(self._draft, backend=backend, limits=self._limits)

    def _replay(self, backend: Backend, second: _Second) -> CheckResult:
        """A second worker beside the contract's: first what the contract wants of it, then the
        replay. Whether that counts is known afterwards."""
        path = self._draft.mechanism_path
        try:
            with second.failing(), self._start("replay", backend) as host:
                self._look_again(host, second)
                found = replay.check(
                    host,
                    source=self._draft.source,
                    reload=lambda: self._reload(host),
                    traces=self._traces,
                    path=path,
                )
                return _with_output(found, host)
        except MechanismFailure as failure:  # it loads once and not again
            finding = failure_finding("replay", failure, path=path)
            return CheckResult(name="replay", outcome=Outcome.FAILED, findings=(finding,))

    def _look_again(self, host: MechanismHost, second: _Second) -> None:
        try:
            half = second.half.result()
        except CancelledError:
            return  # the contract failed before that
        again = contract.look_again(host, half, reload=lambda: self._reload(host))
        second.again.set_result(again)

    def _reload(self, host: MechanismHost) -> None:
        """A new instance of a new module in the same worker: as new for another space. What must
        be sure to share nothing gets a worker of its own."""
        host._load(self._draft.source)

    # --- around each check ---

    def _tick(self) -> None:
        if self._cancelled():
            raise _Cancelled

    def _run(self, name: str, check: Callable[[], CheckResult]) -> CheckResult:
        self._tick()
        self._progress(f"checking: {name}")
        began = time.monotonic()
        try:
            result = check()
        except InfrastructureError as error:
            result = _unseen(name, error)
        seconds = max(result.seconds, time.monotonic() - began)  # it may have begun before
        result = replace(result, seconds=round(seconds, 3))
        self._results[name] = result
        return result


def _unseen(name: str, error: InfrastructureError) -> CheckResult:
    finding = Finding(
        check=name,
        rule="could-not-look",
        severity=Severity.ERROR,
        message=str(error)[:1000],
        why="The sandbox's own fault, and nothing against the draft: nobody could look.",
    )
    return CheckResult(name=name, outcome=Outcome.COULD_NOT_LOOK, findings=(finding,))


def _with_output(found: CheckResult, host: MechanismHost) -> CheckResult:
    """What a mechanism had printed when a check failed is kept: the end of it."""
    if found.outcome is Outcome.PASSED or not (output := host.output[-OUTPUT_CHARS:]):
        return found
    return replace(found, detail={**found.detail, "output": output})


def _shown(failure: MechanismFailure) -> dict[str, Any]:
    keys = ("traceback", "output", "exit_code", "hook")
    return {key: failure.detail[key] for key in keys if key in failure.detail}


def _image_id(backend: Backend) -> str:
    try:
        return backend.image_id
    except InfrastructureError:
        return ""


def _versions(lock: str) -> dict[str, str]:
    """What judged: part of the evidence, since another version may judge otherwise."""
    return {
        "python": platform.python_version(),
        "bandit": bandit.version(),
        "allow_list": hashlib.sha256(table.FILE.read_bytes()).hexdigest()[:16],
        "lock": lock,  # with what it opens beyond that list
    }
