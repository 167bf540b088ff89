"""The interface's helpers: values near another, configurations mended, changes against the best."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.mechanism import GRID, Constraint, Knob, Space
from sandbox.testing import example_space, make_trial, make_view

KNOBS = (
    *example_space().values(),
    Knob(kind="int", default=1, low=1, high=1),
    Knob(kind="choice", default=0.2, choices=(0.1, 0.2, 0.8)),
    Knob(kind="power_of_two", default=8, low=3, high=100),
)
TWO = Space(
    {n: Knob(kind="power_of_two", default=8, low=1, high=64) for n in ("A", "B", "C")},
    (Constraint(name="A", of="B", factor=2), Constraint(name="B", of="C")),
)


@given(knob=st.sampled_from(KNOBS), position=st.floats(0, 1))
def test_near_values_are_allowed_and_the_value_itself_comes_first(
    knob: Knob, position: float
) -> None:
    value = knob.at(position)
    near = knob.near(value)
    assert near[0] == value
    assert len(set(near)) == len(near) <= GRID + 2
    assert [knob.problem(v) for v in near] == [None] * len(near)
    away = [abs(knob.position(v) - knob.position(value)) for v in near]
    assert away == sorted(away)


@given(places=st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_a_mended_configuration_differs_in_constrained_knobs_alone(places: list[float]) -> None:
    space = example_space()
    config = {n: k.at(places[0]) for n, k in space.items()}
    config["DEVICE_BATCH_SIZE"] = space["DEVICE_BATCH_SIZE"].at(places[1])
    config["TOTAL_BATCH_SIZE"] = space["TOTAL_BATCH_SIZE"].at(places[2])
    mended = space.repaired(config)
    assert space.problems(mended) == []
    assert {n for n in config if mended[n] != config[n]} <= {"DEVICE_BATCH_SIZE"}
    if not space.problems(config):
        assert mended == config


def test_what_is_fixed_stays_and_the_other_part_moves() -> None:
    space = example_space()
    config = {**space.defaults(), "DEVICE_BATCH_SIZE": 32, "TOTAL_BATCH_SIZE": 16}
    assert space.repaired(config)["DEVICE_BATCH_SIZE"] == 16
    assert space.repaired(config, fixed=["DEVICE_BATCH_SIZE"])["TOTAL_BATCH_SIZE"] == 32
    stuck = space.repaired(config, fixed=["DEVICE_BATCH_SIZE", "TOTAL_BATCH_SIZE"])
    assert stuck == config
    assert space.problems(stuck)


@pytest.mark.parametrize("a", [1, 2, 4, 8])
def test_two_rules_that_share_a_knob_are_both_kept(a: int) -> None:
    mended = TWO.repaired({"A": a, "B": 8, "C": 1})
    assert TWO.problems(mended) == []


def test_changes_and_what_is_fresh() -> None:
    view = make_view(
        trace=[make_trial(0, 1.0, status="kept"), make_trial(1, 2.0, changes={"WARMUP_STEPS": 3})]
    )
    config = {**view.best.config, "WARMUP_STEPS": 3}
    assert view.changes_to(config) == {"WARMUP_STEPS": 3}
    assert view.changes_to(view.best.config) == {}
    assert not view.fresh(config)
    assert not view.fresh(view.best.config)
    assert view.fresh({**config, "WARMUP_STEPS": 4})
    assert not view.fresh({**config, "WARMUP_STEPS": -1})


def test_trials_outside_the_space_are_not_known() -> None:
    trace = [
        make_trial(0, 1.0, status="kept"),
        make_trial(1, None, changes={"NO_SUCH": 1, "ACTIVATION": "wild"}),
        make_trial(2, None, changes={"WARMUP_STEPS": 3}),
        make_trial(3, None, changes={"DEVICE_BATCH_SIZE": 32}, failure="constraint"),
    ]
    assert [t.number for t in make_view(trace=trace).known()] == [0, 2]


@given(places=st.lists(st.floats(0, 1), min_size=5, max_size=5))
def test_a_point_is_a_valid_configuration_with_frozen_knobs_as_they_were(
    places: list[float],
) -> None:
    view = make_view(frozen=["DEVICE_BATCH_SIZE"])
    assert view.movable() == [n for n in view.space if n != "DEVICE_BATCH_SIZE"]
    config = view.placed(places)
    assert view.space.problems(config) == []
    assert config["DEVICE_BATCH_SIZE"] == view.best.config["DEVICE_BATCH_SIZE"]
    assert view.placed(view.places(config)) == config


def test_a_knob_with_one_value_is_not_movable() -> None:
    space = Space({"A": Knob(kind="int", default=2, low=2, high=2), "B": KNOBS[0]})
    trace = [make_trial(0, 1.0, config=space.defaults(), status="kept")]
    assert make_view(space=space, trace=trace).movable() == ["B"]
