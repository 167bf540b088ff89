"""The replay next to the null mechanism, its prior and its traces. No engine: mechanisms of our
own run in this process, behind the host's interface."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import replay
from sandbox.errors import MechanismFailure, Rule
from sandbox.judging import own_faults
from sandbox.mechanism import Candidate, Mechanism, Trial, View
from sandbox.report import CheckResult, Outcome, Severity
from sandbox.scripted_prior import Mood, ScriptedPrior
from sandbox.surface import SURFACES, Search, view_of
from sandbox.traces import BUNDLED, FOLDER, Trace, bundled_traces, rendered, trace_from_data

HOOKS = ("propose", "accept", "observe", "state", "restore")


class InProcess:
    """The host's interface over a class of ours."""

    def __init__(self, kind: type[Mechanism]) -> None:
        self.kind = kind
        self.hooks = frozenset(h for h in HOOKS if getattr(kind, h) is not getattr(Mechanism, h))
        self.made = 0
        self.reload()

    def reload(self) -> None:
        self.mechanism = self.kind()
        self.made += 1

    def propose(self, view: View, count: int, *, seed: int) -> list[Candidate]:
        try:
            return self.mechanism.propose(_seeded(view, seed), count)
        except Exception as error:
            raise MechanismFailure(Rule.RAISED, repr(error), hook="propose", line=7) from error

    def accept(self, trial: Trial, view: View, *, seed: int) -> bool:
        return self.mechanism.accept(trial, _seeded(view, seed))

    def observe(self, trial: Trial, view: View, *, seed: int) -> None:
        self.mechanism.observe(trial, _seeded(view, seed))


def _seeded(view: View, seed: int) -> View:
    return View(
        trace=view.trace,
        best=view.best,
        space=view.space,
        frozen=view.frozen,
        random=random.Random(seed),
        minimize=view.minimize,
        prior=view.prior,
    )


def judge(kind: type[Mechanism], *, source: bytes = b"", **more: Any) -> CheckResult:
    host = InProcess(kind)
    return replay.check(host, source=source, reload=host.reload, **more)


def rules(result: CheckResult) -> dict[str, Severity]:
    return {f.rule: f.severity for f in result.findings}


class Observer(Mechanism):
    def observe(self, trial: Trial, view: View) -> None:
        assert view.trace[-1] is trial


class Same(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        return [Candidate(changes=c.changes, reason="other words") for c in view.ask("", count)]

    def accept(self, trial: Trial, view: View) -> bool:
        return super().accept(trial, view)


class Fewer(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        return view.ask()


class NoChange(Mechanism):
    """Adds the best value of another knob: another text, the same configuration."""

    def propose(self, view: View, count: int) -> list[Candidate]:
        return [
            Candidate(changes={**{n: view.best.config[n] for n in view.free()}, **c.changes})
            for c in view.ask(count=count)
        ]


@pytest.mark.parametrize("kind", [Mechanism, Observer, Same, Fewer, NoChange])
def test_inert(kind: type[Mechanism]) -> None:
    result = judge(kind)
    assert result.outcome is Outcome.FAILED
    assert rules(result) == {"inert": Severity.ERROR}
    assert result.detail["totals"]["decisions_changed"] == 0


def test_inert_names_what_is_never_used() -> None:
    source = b"class Tabu: pass\ndef f(): pass\nclass M(Mechanism):\n    x = f()\n"
    (finding,) = judge(Mechanism, source=source).findings
    assert finding.message.endswith("Defined and never used: Tabu")


class Guided(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        return view.ask("something else", count)


class Patient(Mechanism):
    """Acts only after twenty-five discards in a row."""

    def propose(self, view: View, count: int) -> list[Candidate]:
        late = all(t.status != "kept" for t in view.trace[-25:]) and len(view.trace) > 25
        return view.ask("restart" if late else "", count)


class Generous(Mechanism):
    def accept(self, trial: Trial, view: View) -> bool:
        if trial.metric is None or view.best.metric is None:
            return False
        return abs(trial.metric - view.best.metric) < 0.02 or super().accept(trial, view)


class Strict(Mechanism):
    """Keeps only what is clearly better."""

    def accept(self, trial: Trial, view: View) -> bool:
        if trial.metric is None or view.best.metric is None:
            return False
        clearly = abs(trial.metric - view.best.metric) > 0.01
        return clearly and super().accept(trial, view)


class BatchOnly(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        if count == 1:
            return view.ask()
        return view.ask(count=1) + view.ask("spread out", count - 1)


class Resampling(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        view.ask(count=count)
        return view.ask(count=count)


@pytest.mark.parametrize("kind", [Guided, Patient, Generous, Strict, BatchOnly, Resampling])
def test_every_family_changes_something(kind: type[Mechanism]) -> None:
    result = judge(kind)
    assert (result.outcome, result.findings) == (Outcome.PASSED, ())
    totals = result.detail["totals"]
    assert totals["decisions_changed"] > 0
    assert totals["steps"] == sum(t["steps"] for t in result.detail["traces"])
    assert totals["calls"]["propose_calls"] == totals["steps"]
    for trace in result.detail["traces"]:
        assert trace["steps"] == len(trace["rows"])
        assert trace["decisions_changed"] == sum(r["changed"] for r in trace["rows"])
        for row in trace["rows"]:
            assert row.keys() == {"step", "count", "null", "mechanism", "changed"}
            assert row["mechanism"].keys() == {"changes", "accept", "reason"}


def test_it_is_deterministic() -> None:
    assert judge(Generous).detail == judge(Generous).detail


def test_a_new_instance_for_each_walk() -> None:
    host = InProcess(Guided)
    replay.check(host, source=b"", reload=host.reload)
    assert host.made == 1 + len(BUNDLED) + 1


class Outside(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        name = next(n for n in view.free() if view.space[n].kind == "float")
        return [Candidate(changes={name: 1e9})]


class Frozen(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        name = sorted(view.frozen)[0] if view.frozen else "NO_SUCH"
        return [Candidate(changes={name: 5})]


@pytest.mark.parametrize("kind", [Outside, Frozen])
def test_outside_the_space_fails(kind: type[Mechanism]) -> None:
    result = judge(kind)
    assert rules(result) == {"outside-space": Severity.ERROR}
    assert result.detail["totals"]["outside"] == len(
        [r for t in result.detail["traces"] for r in t["rows"]]
    )


class Raising(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        if len(view.trace) > 5:
            raise KeyError("x")
        return view.ask("other", count)


def test_an_exception_fails_with_its_place() -> None:
    result = judge(Raising, path="mechanisms/a.py")
    assert result.outcome is Outcome.FAILED
    (finding,) = result.findings
    assert (finding.rule, finding.path, finding.line) == ("RAISED", "mechanisms/a.py", 7)
    assert "trainer, step 6" in finding.message
    assert result.detail["totals"]["steps"] == 5


class Careless(Mechanism):
    """Trusts the prior to stay inside the space."""

    def propose(self, view: View, count: int) -> list[Candidate]:
        answer = view.ask("", count)
        for candidate in answer:
            for name, value in candidate.changes.items():
                if problem := view.space[name].problem(value):
                    raise ValueError(problem)
        return view.ask("other", count)


def test_raising_for_a_bad_prior_is_a_warning() -> None:
    result = judge(Careless)
    assert result.outcome is Outcome.PASSED
    assert rules(result) == {"PRIOR_NOT_CHECKED": Severity.WARNING}


def test_further_traces_are_walked_too() -> None:
    extra = bundled_traces()[0]
    named = Trace(
        name="measured", source="run 7", space=extra.space, trials=extra.trials, frozen=extra.frozen
    )
    result = judge(Guided, traces=[named])
    assert [(t["name"], t["source"]) for t in result.detail["traces"]][-2] == ("measured", "run 7")


# --- traces and prior ---


def test_bundled_traces_are_what_the_generator_writes() -> None:
    for name in BUNDLED:
        assert (FOLDER / f"{name}.json").read_text("utf-8") == rendered(name), (
            "run: python -m sandbox.traces"
        )
    assert {p.stem for p in FOLDER.glob("*.json")} == set(BUNDLED)


def test_bundled_traces_hold_what_mechanisms_react_to() -> None:
    longest = []
    for trace in bundled_traces():
        assert trace.source == "analytic"
        assert len(trace.trials) > 30
        kept = [t for t in trace.trials if t.status == "kept"]
        assert len(kept) >= 4
        assert any(t.status == "failed" for t in trace.trials)
        configs = [repr(sorted(t.config.items())) for t in trace.trials]
        assert len(configs) - len(set(configs)) >= 5  # repeats
        marks = "".join("k" if t.status == "kept" else "d" for t in trace.trials)
        longest.append(max(map(len, marks.split("k"))))
    assert min(longest) >= 12
    assert max(longest) >= 25
    assert {t.minimize for t in bundled_traces()} == {True, False}


def test_a_trace_without_a_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match="baseline"):
        trace_from_data(
            {
                "name": "x",
                "source": "y",
                "minimize": True,
                "frozen": [],
                "space": {"knobs": {}, "constraints": []},
                "trials": [],
            }
        )


@given(st.integers(0, 40), st.sampled_from(SURFACES), st.text(max_size=40), st.integers(1, 4))
def test_the_prior_hears_guidance(seed: int, surface: Any, guidance: str, count: int) -> None:
    view = Search(surface=surface).view()
    plain = ScriptedPrior(view, seed=str(seed))
    null = plain.null_answer(count)
    assert plain("", count) == null == plain.answers
    assert ScriptedPrior(view, seed=str(seed))("", count) == null
    guided = ScriptedPrior(view, seed=str(seed))(guidance, count)
    assert guided == ScriptedPrior(view, seed=str(seed))(guidance, count)
    if guidance.split():
        same = [
            view.config_of(a.changes) == view.config_of(b.changes)
            for a, b in zip(guided, null, strict=True)
        ]
        assert not any(same)


def test_the_prior_keeps_off_what_guidance_names() -> None:
    for surface in SURFACES:
        view = Search(surface=surface).view()
        name = view.free()[1]
        for seed in range(30):
            avoiding = ScriptedPrior(view, seed=str(seed))(f"Do not touch {name}.", 3)
            assert all(name not in c.changes for c in avoiding)
            only = ScriptedPrior(view, seed=str(seed))(f"Change only {name}.", 3)
            assert all(set(c.changes) == {name} for c in only)


def test_moods() -> None:
    view = Search(surface=SURFACES[0]).view()
    assert ScriptedPrior(view, seed="", mood=Mood.EMPTY)("x", 3) == []
    (wild,) = ScriptedPrior(view, seed="", mood=Mood.WILD)("", 1)
    assert view.space.problems(view.config_of(wild.changes))


# --- whose fault ---


def test_own_faults_leave_the_prior_its_own() -> None:
    surface = SURFACES[0]
    search = Search(surface=surface)
    view = view_of(surface.space, search.trials, frozen=surface.frozen)
    bad = Candidate(changes={"WEIGHT_DECAY": 7.0, "DEPTH": 6})
    assert {f.rule for f in own_faults(bad, view, [])} == {"OUTSIDE_SPACE", "FROZEN_KNOB"}
    assert own_faults(bad, view, [bad]) == []
    added = Candidate(changes={**bad.changes, "HEAD_DIM": 12})
    assert [f.message for f in own_faults(added, view, [bad])] == [
        "HEAD_DIM: 12 is not a power of two"
    ]
    unknown = Candidate(changes={"NOPE": 1})
    assert [f.rule for f in own_faults(unknown, view, [])] == ["OUTSIDE_SPACE"]
    still = Candidate(changes={"DEPTH": view.best.config["DEPTH"]})
    assert own_faults(still, view, []) == []
