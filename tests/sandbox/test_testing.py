"""The helpers for drafts' own tests."""

from __future__ import annotations

import pytest

from sandbox.mechanism import Candidate, Mechanism
from sandbox.testing import (
    awkward_views,
    example_space,
    faults,
    make_trial,
    make_view,
    scripted_prior,
)


def test_the_example_space_has_every_kind_and_valid_defaults() -> None:
    space = example_space()
    assert {k.kind for k in space.values()} == {"float", "int", "choice", "power_of_two"}
    assert space.problems(space.defaults()) == []


def test_a_view_takes_the_last_kept_trial_as_best() -> None:
    trace = [
        make_trial(0, 1.0, status="kept"),
        make_trial(1, 0.9, status="kept", changes={"WARMUP_STEPS": 3}),
        make_trial(2, None),
    ]
    view = make_view(trace=trace, frozen=["ACTIVATION"])
    assert view.best is trace[1]
    assert view.best.config["WARMUP_STEPS"] == 3
    assert trace[2].status == "failed"
    assert trace[2].failure == "crash"
    assert "ACTIVATION" not in view.free()


def test_a_view_without_a_kept_trial_is_refused() -> None:
    with pytest.raises(ValueError, match="baseline"):
        make_view(trace=[make_trial(0, None)])


def test_a_scripted_prior_answers_in_turn_and_remembers_what_it_was_asked() -> None:
    prior = scripted_prior([{"A": 1}, {"A": 2}])
    view = make_view(prior=prior)
    assert Mechanism().propose(view, 3) == [
        Candidate(changes={"A": n}, reason="scripted") for n in (1, 2, 1)
    ]
    view.ask("not A")
    assert prior.asked == [("", 3), ("not A", 1)]


def test_the_same_seed_gives_the_same_view() -> None:
    assert make_view(seed=3).random.random() == make_view(seed=3).random.random()


def test_awkward_views_are_whole_and_the_same_each_time() -> None:
    views, again = awkward_views(), awkward_views()
    assert len(views) == 11
    for name, view in views.items():
        assert view.space.problems(view.best.config) == [], name
        assert view.trace == again[name].trace
        assert view.ask() == []
    assert any(t.metric is None for t in views["long"].trace)
    assert views["outside the space"].known() != list(views["outside the space"].trace)
    assert not any(views["exhausted"].fresh({"KIND": k}) for k in "ab")


def test_faults_are_found() -> None:
    view = awkward_views()["mostly frozen"]
    good = Candidate(changes={"WEIGHT_DECAY": 0.123})
    assert faults([good], view, 1) == []
    assert "asked for" in faults([good, good], view, 1)[0]
    assert "before" in faults([good, good], view, 2)[0]
    assert "before" in faults([Candidate(changes={})], view, 1)[0]
    assert "frozen" in faults([Candidate(changes={"WARMUP_STEPS": 7})], view, 1)[0]
    assert "none of" in faults([Candidate(changes={"ACTIVATION": "x"})], view, 1)[0]
