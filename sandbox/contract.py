"""Check `contract`: what every mechanism must hold to, driven from the host side.

A mechanism searches on several analytic spaces as it would in a run; a second worker goes on from
its state in the middle, then repeats it from the start. Judged are candidates, frozen knobs,
determinism, the state and tolerance of a prior that gives nothing or nonsense. Limits of time,
memory and output are enforced by the host below, and a view can't be changed from a worker: it has
a copy. Whether a
mechanism is any good is not asked here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from sandbox.endurance import MANY_CALLS, Endured, endure
from sandbox.errors import MechanismFailure, Rule
from sandbox.judging import Fault, failure_finding, own_faults, seed_of
from sandbox.mechanism import Trial, View
from sandbox.report import CheckResult, Finding, Outcome, Severity
from sandbox.scripted_prior import Mood, ScriptedPrior
from sandbox.surface import RATES, SCORE, SURFACE_SIGMA, TRAINER, Search, Surface

CHECK = "contract"
MAX_FINDINGS = 20
CONSTRAINT_SHARE = 0.34  # of a mechanism's own candidates may break a rule between knobs

WHY = {
    "OUTSIDE_SPACE": "A candidate outside the space can't be trained: it is a trial lost.",
    "FROZEN_KNOB": "Frozen knobs are out of bounds for a mechanism.",
    "CONSTRAINT": "Knobs that do not fit together can't be trained: ask view.space.problems.",
    "NO_CANDIDATES": "A mechanism that never proposes anything stops the search.",
    "NONDETERMINISTIC": "The same seed must give the same search, or no run can be replayed and "
    "no reviewer can check what was tested. Use view.random, and no clock, id() or other chance.",
    "STATE_LOST": "After a restart or a hot-load a mechanism continues from state()/restore().",
    "MEMORY_LOST": "It keeps something in itself but has no state()/restore(): after a restart or "
    "a hot-load it begins anew.",
    "PRIOR_NOT_CHECKED": "The prior may answer with fewer candidates than asked, or with values "
    "outside the space; a careful mechanism expects it.",
    "PRINTS": "What it prints goes nowhere; a candidate's reason is the place for words.",
}


class ContractHost(Protocol):
    """What the contract needs of `sandbox.host.MechanismHost`."""

    hooks: frozenset[str]

    @property
    def output(self) -> str: ...
    def propose(self, view: Any, count: int, *, seed: int) -> list[Any]: ...
    def accept(self, trial: Trial, view: Any, *, seed: int) -> bool: ...
    def observe(self, trial: Trial, view: Any, *, seed: int) -> None: ...
    def state(self) -> dict[str, Any]: ...
    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Step:
    """One decision of the script: how many candidates, from what kind of prior."""

    count: int = 1
    mood: Mood = Mood.HABIT
    frozen: frozenset[str] = frozenset()
    fails: bool = False  # whatever it proposes, this trial fails


@dataclass(frozen=True, kw_only=True)
class Script:
    """A search to let a mechanism do; `half` is where its state is taken. `noise` as in a view."""

    surface: Surface
    steps: tuple[Step, ...]
    half: int = 0
    noise: float | None = None


PLAIN = Step()
SCRIPTS = (
    Script(
        surface=TRAINER,
        half=6,
        steps=(
            PLAIN,
            Step(count=3),
            Step(fails=True),
            PLAIN,
            Step(mood=Mood.EMPTY),
            Step(count=2, frozen=frozenset({"SCALAR_LR", "HEAD_DIM"})),
            PLAIN,
            Step(mood=Mood.WILD),
            Step(fails=True),
            PLAIN,
            Step(count=4),
            Step(frozen=frozenset({"SCALAR_LR", "WARMUP_RATIO"})),
        ),
    ),
    Script(
        surface=SCORE,
        noise=SURFACE_SIGMA,
        steps=(PLAIN, Step(count=2), PLAIN, Step(fails=True), PLAIN, PLAIN),
    ),
    Script(surface=RATES, steps=(PLAIN, PLAIN, Step(fails=True), Step(count=3), PLAIN, PLAIN)),
)


@dataclass(frozen=True, kw_only=True)
class Half:
    """Where the first worker stood in the middle of the main script."""

    trials: tuple[Trial, ...]
    state: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Again:
    """What a second worker answered: from `Half` to the end, and from the start to there."""

    resumed: list[Any]
    repeated: list[Any]
    state: dict[str, Any]
    hooks: frozenset[str]


@dataclass(kw_only=True)
class Record:
    """What a mechanism answered, in order, and what was seen on the way."""

    answers: list[Any] = field(default_factory=list)
    findings: dict[tuple[str, str], Finding] = field(default_factory=dict)
    proposed: int = 0
    own: int = 0
    constraint: int = 0
    endurance: dict[str, Any] = field(default_factory=dict)
    asked_fairly: int = 0
    answered_fairly: int = 0

    def say(self, rule: str, message: str, severity: Severity = Severity.ERROR) -> None:
        """Add a finding, once for each rule and message."""
        finding = Finding(
            check=CHECK, rule=rule, severity=severity, message=message, why=WHY.get(rule, "")
        )
        self.findings.setdefault((rule, message), finding)

    def endured(self, how_far: Endured) -> None:
        """What a reviewer should know of a mechanism that is slow."""
        self.endurance = asdict(how_far)
        if how_far.too_slow:
            self.say("SLOW", f"{how_far.too_slow}: nobody saw its answer", Severity.WARNING)
        elif not how_far.whole and not _failed(self):
            self.say(
                "SLOW",
                f"it is slow, so that it was asked {how_far.calls} of {MANY_CALLS} times and with "
                f"traces of up to {how_far.longest_trace} trials",
                Severity.NOTE,
            )

    def outlasted(self, fault: Fault, where: str) -> None:
        """A fault that came late."""
        self.say(fault.rule, f"{fault.message} (at {where})")


def check(
    first: ContractHost,
    *,
    reload: Callable[[], None],
    reached: Callable[[Half], None],
    again: Callable[[], Again],
    path: str = "",
    progress: Callable[[], None] = lambda: None,
) -> CheckResult:
    """Run the scripts. `first` has been asked nothing yet; `reload` makes it as new again.

    `reached` is told where it stands in the middle; `again` waits for what a second worker made
    of that by `look_again`, or raises its failure. Raises InfrastructureError. `progress` is
    called often and may raise to stop.
    """
    record = Record()
    detail: dict[str, Any] = {}
    try:
        main = SCRIPTS[0]
        searches = _Run(main, first, record, progress)
        before = searches.play(0, main.half)
        half = Half(trials=searches.copy_trials(), state=first.state())
        reached(half)
        after = searches.play(main.half, len(main.steps))
        for script in SCRIPTS[1:]:
            reload()
            _Run(script, first, record, progress).play(0, len(script.steps))
        _judge_candidates(record)
        if not _failed(record):
            reload()
            record.endured(endure(first, report=record.outlasted, progress=progress))
        if not _failed(record):
            _compare(record, half, before, after, again())
        detail = {"state": half.state, "hooks": sorted(first.hooks), "endurance": record.endurance}
    except MechanismFailure as failure:
        finding = failure_finding(CHECK, failure, path=path)
        record.findings[(finding.rule, finding.message)] = finding
    if first.output:
        record.say("PRINTS", f"it printed {len(first.output)} characters", Severity.NOTE)
    return _result(record, detail)


def _result(record: Record, detail: dict[str, Any]) -> CheckResult:
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if _failed(record) else Outcome.PASSED,
        findings=tuple(record.findings.values())[:MAX_FINDINGS],
        detail={
            **detail,
            "spaces": [s.surface.name for s in SCRIPTS],
            "candidates": record.proposed,
            "own_candidates": record.own,
        },
    )


def look_again(
    second: ContractHost,
    half: Half,
    *,
    reload: Callable[[], None],
    progress: Callable[[], None] = lambda: None,
) -> Again:
    """The main script in a worker that was never asked anything: its second half from the state
    of the first worker, as after a restart; then, loaded anew, its first half from the start.

    Raises MechanismFailure and InfrastructureError.
    """
    main = SCRIPTS[0]
    second.restore(half.state)
    run = _Run(main, second, Record(), progress)
    run.take_up(half.trials)
    resumed = run.play(main.half, len(main.steps))
    reload()
    repeated = _Run(main, second, Record(), progress).play(0, main.half)
    return Again(
        resumed=resumed, repeated=repeated, state=second.state(), hooks=frozenset(second.hooks)
    )


def _failed(record: Record) -> bool:
    return any(f.severity is Severity.ERROR for f in record.findings.values())


class _Run:
    """One mechanism on one script."""

    def __init__(
        self, script: Script, host: ContractHost, record: Record, progress: Callable[[], None]
    ) -> None:
        self._script = script
        self._host = host
        self._record = record
        self._progress = progress
        self._search = Search(surface=script.surface)

    def copy_trials(self) -> tuple[Trial, ...]:
        """The trace so far."""
        return tuple(self._search.trials)

    def take_up(self, trials: tuple[Trial, ...]) -> None:
        """Go on from a trace."""
        self._search.trials = list(trials)

    def play(self, begin: int, end: int) -> list[Any]:
        """Let the mechanism take the steps; its answers as plain data."""
        answers: list[Any] = []
        for number in range(begin, end):
            self._progress()
            answers.extend(self._step(number, self._script.steps[number]))
        return answers

    def _step(self, number: int, step: Step) -> Iterator[Any]:
        surface = self._script.surface
        frozen = surface.frozen | step.frozen
        bare = self._search.view(frozen=frozen)
        prior = ScriptedPrior(bare, seed=f"contract/{surface.name}", mood=step.mood)
        view = self._view(frozen, prior)
        where = f"{surface.name}, step {number + 1}"
        try:
            given = self._host.propose(view, step.count, seed=seed_of(surface.name, number))
        except MechanismFailure as failure:
            if failure.rule != Rule.RAISED or step.mood is Mood.HABIT:
                failure.detail["hook"] = f"propose, {where}"
                raise
            kind = "gives nothing" if step.mood is Mood.EMPTY else "leaves the space"
            message = f"propose raises where the prior {kind}: {failure.message}"
            self._record.say("PRIOR_NOT_CHECKED", message, Severity.WARNING)
            yield ["raised"]  # its words may hold an address: they are no decision
            return
        yield [[dict(c.changes), c.reason] for c in given]
        self._judge(given, view, prior, step, where)
        for candidate in given:
            trial = self._search.attempt(candidate, failure="crash" if step.fails else "")
            keep = False
            before = self._view(frozen)
            if trial.metric is not None:
                seed = seed_of(surface.name, number, "accept", trial.number)
                keep = self._host.accept(trial, before, seed=seed)
                yield keep
            done = self._search.finish(trial, keep=keep)
            seed = seed_of(surface.name, number, "observe", trial.number)
            self._host.observe(done, self._view(frozen), seed=seed)

    def _view(self, frozen: frozenset[str], prior: ScriptedPrior | None = None) -> View:
        return replace(self._search.view(prior, frozen), noise=self._script.noise)

    def _judge(
        self, given: list[Any], view: Any, prior: ScriptedPrior, step: Step, where: str
    ) -> None:
        record = self._record
        record.proposed += len(given)
        if step.mood is Mood.HABIT:
            record.asked_fairly += 1
            record.answered_fairly += bool(given)
        for candidate in given:
            faults = own_faults(candidate, view, prior.answers)
            record.own += all(candidate.changes != a.changes for a in prior.answers)
            for fault in faults:
                if fault.rule == "CONSTRAINT":
                    record.constraint += 1
                    severity = Severity.WARNING
                else:
                    severity = Severity.ERROR
                record.say(fault.rule, f"{fault.message} ({where})", severity)


def _judge_candidates(record: Record) -> None:
    if record.own and record.constraint / record.own > CONSTRAINT_SHARE:
        message = f"{record.constraint} of {record.own} own candidates break a constraint"
        record.say("CONSTRAINT", message)
    if not record.answered_fairly:
        message = f"propose gave nothing in {record.asked_fairly} of {record.asked_fairly} steps"
        record.say("NO_CANDIDATES", message)


def _compare(record: Record, half: Half, before: list[Any], after: list[Any], again: Again) -> None:
    """The same calls must give the same answers and state; a restart must change nothing."""
    if difference := _difference(before, again.repeated):
        record.say("NONDETERMINISTIC", f"a second worker answered otherwise: {difference}")
        return
    if again.state != half.state:
        record.say("NONDETERMINISTIC", "a second worker came to another state")
        return
    if not (difference := _difference(after, again.resumed)):
        return
    if again.hooks & {"state", "restore"}:
        record.say("STATE_LOST", f"after restore(state()) it goes on otherwise: {difference}")
    else:
        message = f"a restart changes what it does: {difference}"
        record.say("MEMORY_LOST", message, Severity.WARNING)


def _difference(one: list[Any], two: list[Any]) -> str:
    for index, (left, right) in enumerate(zip(one, two, strict=False), start=1):
        if repr(left) != repr(right):  # 1 and 1.0 and True are equal, and not the same answer
            return f"answer {index} was {_short(left)}, then {_short(right)}"
    return "" if len(one) == len(two) else f"{len(one)} answers, then {len(two)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 160 else text[:157] + "..."
