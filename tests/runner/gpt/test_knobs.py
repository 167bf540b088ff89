"""A knob's own scale: positions and values, for every kind of knob."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runner.gpt.space import SPACE
from sandbox.mechanism import Knob


@given(st.sampled_from(sorted(SPACE)), st.floats(min_value=-3, max_value=3))
def test_every_position_gives_an_allowed_value(name, position):
    assert SPACE[name].problem(SPACE[name].at(position)) is None


@pytest.mark.parametrize("name", sorted(SPACE))
def test_the_default_is_where_its_position_says(name):
    knob = SPACE[name]
    assert knob.at(knob.position(knob.default)) == knob.default
    assert knob.at(0.0) == (knob.choices[0] if knob.kind == "choice" else knob.low)


@given(st.integers(1, 5000), st.integers(1, 5000), st.floats(0, 1))
def test_powers_of_two_stay_within_odd_bounds(one, other, position):
    low, high = sorted((one, other))
    powers = [2**i for i in range(14) if low <= 2**i <= high]
    assume(powers)
    knob = Knob(kind="power_of_two", default=powers[0], low=low, high=high)
    assert knob.at(position) in powers


@given(st.floats(1e-9, 1e9), st.floats(1.001, 1e6), st.floats(0, 1))
def test_a_log_scale_is_multiplicative_and_bounded(low, factor, position):
    knob = Knob(kind="float", default=low, low=low, high=low * factor, log=True)
    value = knob.at(position)
    assert low <= value <= low * factor
    assert abs(knob.position(value) - position) < 0.51 or factor < 1.01


def test_without_bounds_there_is_no_scale():
    with pytest.raises(ValueError, match="no bounds"):
        Knob(kind="float", default=1.0).at(0.5)
