"""The replay next to the null mechanism, its prior and its traces. No engine: mechanisms of our
own run in this process, behind the host's interface."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from sandbox import prediction, replay, walk
from sandbox.errors import MechanismFailure, Rule
from sandbox.mechanism import Candidate, Mechanism, Trial, View
from sandbox.report import CheckResult, Outcome, Severity
from sandbox.traces import (
    Trace,
    bundled_traces,
)

IMPORT = b"from sandbox.mechanism import Mechanism\n"
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
    return replace(view, random=random.Random(seed))


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


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine makes no mechanism slow here."""
    monkeypatch.setattr(prediction, "LIVE_SECONDS", float("inf"))


@pytest.mark.parametrize("kind", [Mechanism, Observer, Same, Fewer, NoChange])
def test_inert(kind: type[Mechanism]) -> None:
    result = judge(kind)
    assert result.outcome is Outcome.FAILED
    assert rules(result) == {"inert": Severity.ERROR}
    assert result.detail["totals"]["decisions_changed"] == 0


def test_inert_names_what_is_never_used() -> None:
    source = b"class Tabu: pass\ndef f(): pass\n" + IMPORT + b"class M(Mechanism):\n    x = f()\n"
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
    walks = [*result.detail["traces"], *result.detail["searches"]]
    assert totals["decisions_changed"] > 0
    assert totals["steps"] == sum(t["steps"] for t in walks)
    assert totals["calls"]["propose_calls"] == totals["steps"]
    assert totals["verdicts"] == totals["calls"]["accept_calls"]
    assert result.detail["recorded"]["steps"] == sum(len(t.trials) - 1 for t in bundled_traces())
    for trace in [*result.detail["traces"], result.detail["searches"][0]]:
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
    assert host.made == 1 + len(bundled_traces()) + prediction.SEARCHES


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
    totals = result.detail["totals"]
    assert totals["outside"] == totals["steps"] == totals["candidates"]


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
    assert "gpt-cpu-11, step 6" in finding.message
    assert result.detail["totals"]["steps"] == 5
    assert result.detail["prediction"]["says"] == "not enough searches"


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


class AlwaysRaising(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        raise RuntimeError("no")

    def observe(self, trial: Trial, view: View) -> None:
        raise RuntimeError("no")


def test_what_raises_in_every_hook_fails_and_is_not_called_inert() -> None:
    assert rules(judge(AlwaysRaising)) == {"RAISED": Severity.ERROR}


class Silent(Mechanism):
    def propose(self, view: View, count: int) -> list[Candidate]:
        return []


def test_proposing_nothing_is_another_decision() -> None:
    result = judge(Silent)
    totals = result.detail["totals"]
    assert result.findings == ()
    assert totals["empty"] == totals["steps"] == totals["decisions_changed"]
    assert totals["candidates"] == totals["proposals_changed"] == 0


class Backwards(Mechanism):
    """The prior's candidates in another order."""

    def propose(self, view: View, count: int) -> list[Candidate]:
        return view.ask(count=count)[::-1]


def test_another_order_is_another_decision() -> None:
    totals = judge(Backwards).detail["totals"]
    assert 0 < totals["decisions_changed"] <= totals["steps"] / walk.BATCH_EVERY


def test_further_traces_are_walked_too() -> None:
    extra = bundled_traces()[0]
    named = Trace(
        name="measured", source="run 7", space=extra.space, trials=extra.trials, frozen=extra.frozen
    )
    result = judge(Guided, traces=[named])
    assert [(t["name"], t["source"]) for t in result.detail["traces"]][-1] == ("measured", "run 7")


# --- which hooks need not be asked ---


def test_absent_hooks_change_no_number_but_the_calls() -> None:
    with_all = judge(Guided, source=b"accept, observe").detail["totals"]
    host = InProcess(Guided)
    source = IMPORT + b"class M(Mechanism): ...\n"
    asked: list[str] = []
    host.accept = lambda *_, **__: asked.append("accept")  # type: ignore[assignment,method-assign]
    host.observe = lambda *_, **__: asked.append("observe")  # type: ignore[method-assign]
    without = replay.check(host, source=source, reload=host.reload).detail["totals"]
    assert asked == []
    assert without["calls"]["accept_calls"] == without["calls"]["observe_calls"] == 0
    assert without["verdicts"] > 0
    assert without["acceptances_changed"] == with_all["acceptances_changed"] == 0


# --- the predicted gain ---


def predicted(kind: type[Mechanism], source: bytes = b"accept, observe") -> dict[str, Any]:
    found: dict[str, Any] = judge(kind, source=source).detail["prediction"]
    return found


class Exploring(Mechanism):
    """One knob after the other, a large step up and one down: better than habits."""

    def propose(self, view: View, count: int) -> list[Candidate]:
        found = []
        for turn in range(len(view.trace) - 1, len(view.trace) - 1 + count):
            name = view.free()[turn // 2 % len(view.free())]
            knob = view.space[name]
            where = knob.position(view.best.config[name]) + (0.35, -0.35)[turn % 2]
            found.append(Candidate(changes={name: knob.at(where)}))
        return found


class Hoarder(Mechanism):
    """Keeps whatever comes: worse than to keep what is better."""

    def accept(self, trial: Trial, view: View) -> bool:
        return True


def test_the_null_mechanism_gains_exactly_nothing() -> None:
    found = predicted(Same)
    assert found["gain"] == {"value": 0.0, "low": 0.0, "high": 0.0, "n": prediction.SEARCHES}
    assert found["says"] == prediction.Says.NO_DIFFERENCE
    assert found["ahead"] == found["behind"] == 0


def test_a_better_and_a_worse_search_are_told_apart() -> None:
    better, worse = predicted(Exploring), predicted(Hoarder)
    assert better["says"] == prediction.Says.BETTER
    assert better["gain"]["low"] > 0
    assert worse["says"] == prediction.Says.WORSE
    assert worse["gain"]["high"] < 0
    for found in (better, worse):
        assert found["gain"]["n"] == prediction.SEARCHES
        assert found["gain_sigma"]["value"] == pytest.approx(
            found["gain"]["value"] / found["sigma"], rel=1e-3
        )
        for curve in found["curves"].values():
            assert len(curve) == prediction.TRIALS + 1
            assert curve[0]["value"] == 0
        assert found["curves"]["difference"][-1] == found["gain"]


def test_the_pairs_share_their_chance_and_the_bytes_choose_it() -> None:
    one, two = predicted(Exploring), predicted(Hoarder)
    assert [s["null"] for s in one["searches"]] == [s["null"] for s in two["searches"]]
    other = predicted(Exploring, source=b"accept, observe, two")
    assert [s["null"] for s in one["searches"]] != [s["null"] for s in other["searches"]]
    assert one == predicted(Exploring)


def test_a_slow_mechanism_gets_fewer_searches_and_the_report_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction, "LIVE_SECONDS", 20.0)
    seconds = iter(range(0, 10_000, 15))
    host = InProcess(Exploring)
    into = prediction.Prediction(pairs=[], tallies=[])
    prediction.predict(
        host,
        digest="ab",
        reload=host.reload,
        progress=lambda: None,
        into=into,
        clock=lambda: float(next(seconds)),
    )
    data = into.to_data()
    assert (data["n"], data["says"]) == (2, prediction.Says.NOT_ENOUGH)
    assert prediction.words(data) == "no predicted gain: 2 of 8 searches were done"


def test_what_fails_in_the_searches_keeps_what_was_done() -> None:
    result = judge(LateRaising)
    assert rules(result) == {"RAISED": Severity.ERROR}
    assert "search 1 on trainer" in result.findings[0].message
    assert result.detail["recorded"]["steps"] == result.detail["totals"]["steps"] - 2


class LateRaising(Mechanism):
    """Fails once it is on a surface that no trace was recorded on."""

    def propose(self, view: View, count: int) -> list[Candidate]:
        known = {trace.trials[0].metric for trace in bundled_traces()}
        if view.trace[0].metric not in known and len(view.trace) > 2:
            raise KeyError("x")
        return view.ask("other", count)
