"""The traces that come with the sandbox, the scripted prior, whose fault a candidate is, and which
hooks a file can't have."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox import replay
from sandbox.judging import own_faults
from sandbox.mechanism import Candidate
from sandbox.scripted_prior import Mood, ScriptedPrior
from sandbox.surface import SURFACES, Search, view_of
from sandbox.traces import (
    BUNDLED,
    FOLDER,
    bundled_traces,
    packed,
    rendered,
    trace_from_data,
    trace_to_data,
)

IMPORT = b"from sandbox.mechanism import Mechanism\n"

# --- traces and prior ---


def test_bundled_traces_are_what_the_generator_writes() -> None:
    for name in BUNDLED:
        assert (FOLDER / f"{name}.json").read_text("utf-8") == rendered(name), (
            "run: python -m sandbox.traces"
        )
    assert {p.stem for p in FOLDER.glob("*.json")} == set(BUNDLED)


def test_measured_traces_say_where_they_come_from() -> None:
    measured = [t for t in bundled_traces() if t.source != "analytic"]
    assert len(measured) >= 2
    for trace in measured:
        assert trace.source.startswith("measured: gpt on ")
        assert {"task_digest", "budget_seconds", "prior", "host", "seed"} <= trace.provenance.keys()
        assert trace.noise is not None
        assert len(trace.trials) == 31
        for trial in trace.trials:
            assert bool(trace.space.problems(trial.config)) == (trial.failure == "constraint")
        assert trace_from_data(trace_to_data(trace)) == trace
        assert (FOLDER / f"{trace.name}.json.gz").read_bytes() == packed(trace)


def test_bundled_traces_hold_what_mechanisms_react_to() -> None:
    marks = {}
    for trace in bundled_traces():
        assert len(trace.trials) > 20
        assert sum(t.status == "kept" for t in trace.trials) >= 4
        configs = [repr(sorted(t.config.items())) for t in trace.trials]
        assert len(configs) > len(set(configs))  # repeats
        marks[trace.name] = "".join(t.status[0] for t in trace.trials)
    assert any("fff" in text for text in marks.values())  # failures in a row
    assert max(len(text.rsplit("k", 1)[-1]) for text in marks.values()) >= 26  # a plateau
    assert {t.minimize for t in bundled_traces()} == {True, False}
    assert {t.noise is None for t in bundled_traces()} == {True, False}


def test_a_trace_without_a_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match="baseline"):
        trace_from_data(
            {
                "name": "x",
                "source": "y",
                "minimize": True,
                "frozen": [],
                "noise": None,
                "provenance": {},
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


# --- hooks that a file can't have ---


@pytest.mark.parametrize(
    ("body", "absent"),
    [
        ("class M(Mechanism):\n    def propose(self): ...\n", {"accept", "observe"}),
        ("class M(Mechanism):\n    def accept(self): ...\n", {"observe"}),
        ("class M(Mechanism):\n    def \uff41ccept(self): ...\n", {"observe"}),
        ("class M(Mechanism): ...\nsetattr(M, '\\x61ccept', f)\n", set()),
        ("class M(Mechanism): ...\n# whether to accept, to observe\n", set()),
        ("class M(Library, Mechanism): ...\n", set()),
        ("class M(Mechanism, metaclass=Meta): ...\n", set()),
        ("", set()),
        ("(", set()),
    ],
)
def test_a_hook_is_absent_only_where_its_name_is(body: str, absent: set[str]) -> None:
    assert replay.absent_hooks(IMPORT + body.encode()) == absent


def test_nothing_is_absent_from_what_can_not_be_read() -> None:
    assert replay.absent_hooks(b"") == replay.absent_hooks(b"\xff") == frozenset()
