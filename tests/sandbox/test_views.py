"""What is sent of a view, and what a worker makes of it, on both sides at once."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.mechanism import Space, Trial, View, space_to_data, trial_to_data
from sandbox.surface import RATES, SCORE, view_of
from sandbox.testing import make_trial
from sandbox.views import Shown
from sandbox.worker import Refused, Seen

SPACES = (RATES.space, SCORE.space)


def trial(number: int) -> Trial:
    return make_trial(number, 1.0 + number, status="kept" if number == 0 else "discarded")


TRIALS = [trial(n) for n in range(8)]
STARTS = [TRIALS[0], make_trial(0, 3.0, status="kept")]


def over_the_wire(data: dict[str, Any]) -> dict[str, Any]:
    received: dict[str, Any] = json.loads(json.dumps(data))
    return received


@given(
    st.lists(
        st.tuples(
            st.sampled_from(STARTS),
            st.lists(st.sampled_from(TRIALS), max_size=6),
            st.sampled_from(SPACES),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_whatever_was_shown_before_the_worker_has_the_whole_view(
    shown: list[tuple[Trial, list[Trial], Space]],
) -> None:
    """Longer, shorter, other traces, another space, in any order."""
    ours, theirs = Shown(), Seen()
    for start, rest, space in shown:
        trials = [start, *rest]
        view = view_of(space, trials)
        theirs.take(over_the_wire(ours.data(view)))
        assert [trial_to_data(t) for t in theirs.trace] == [trial_to_data(t) for t in trials]
        assert space_to_data(theirs.space) == space_to_data(space)
        theirs.require_unchanged(as_seen(view, theirs))


def as_seen(view: View, seen: Seen) -> View:
    return view_of(seen.space, seen.trace, noise=view.noise)


def test_what_is_new_alone_is_sent() -> None:
    shown = Shown()
    assert shown.data(view_of(RATES.space, TRIALS[:3]))["kept"] == 0
    more = shown.data(view_of(RATES.space, TRIALS[:5]))
    assert (more["kept"], len(more["trace"]), more["space"]) == (3, 2, None)
    same = shown.data(view_of(RATES.space, TRIALS[:5]))
    assert (same["kept"], same["trace"]) == (5, [])


def test_an_equal_trial_that_is_another_object_is_sent_again() -> None:
    """1 and 1.0 are equal, and not the same value of a knob."""
    shown = Shown()
    shown.data(view_of(RATES.space, [trial(0)]))
    assert shown.data(view_of(RATES.space, [trial(0)]))["kept"] == 0


def test_a_changed_view_is_refused_and_made_anew() -> None:
    shown, seen = Shown(), Seen()
    view = view_of(RATES.space, TRIALS[:3])
    seen.take(over_the_wire(shown.data(view)))
    object.__setattr__(seen.trace[1], "metric", 0.0)
    with pytest.raises(Refused) as caught:
        seen.require_unchanged(as_seen(view, seen))
    assert caught.value.rule == "VIEW_CHANGED"
    seen.take(over_the_wire(shown.data(view)))
    assert [t.metric for t in seen.trace] == [t.metric for t in TRIALS[:3]]
