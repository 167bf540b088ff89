"""The seed operators where a search seldom is: awkward spaces, traces and results.

Whatever they are shown they must not raise, must stay inside the space, leave frozen knobs alone,
try nothing twice, fall silent only where nothing new is left, and say the same again.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from sandbox.mechanism import Candidate, Constraint, Knob, Mechanism, Space, Trial, View
from tests.mechanisms_repo.simulation import operator

OPERATORS = ("annealing", "bandit", "batch", "cma", "gp", "orthogonal", "pathfinder", "restart")
OPERATORS += ("tabu", "tpe")
FLAG = Knob(kind="choice", default="off", choices=("on", "off"))
RATE = Knob(kind="float", default=1, low=0.0, high=2.0)
HUGE_INT = Knob(kind="int", default=12_345_678_901, low=1, high=2**62, log=True)
COUNT = Knob(kind="int", default=36, low=12, high=144)
SPACES = {
    "one flag": Space({"FLAG": FLAG}),
    "three values": Space({"A": Knob(kind="choice", default=2, choices=(1, 2, 3))}),
    "choices": Space({"A": FLAG, "B": Knob(kind="choice", default="x", choices=tuple("xyz"))}),
    "huge ints": Space({"A": HUGE_INT, "B": HUGE_INT}),
    "hardly possible": Space(
        {"WHOLE": COUNT, "PART": Knob(kind="choice", default=36, choices=(7, 36, 60)), "R": RATE},
        (Constraint(name="WHOLE", of="PART"),),
    ),
    "sixty": Space({f"K{i:02}": (RATE, FLAG, COUNT)[i % 3] for i in range(60)}),
}
RESULTS = {
    "equal": lambda _i: 1.0,
    "failed": lambda i: None if i else 1.0,
    "near the largest": lambda i: (1.0 + i % 7 / 10) * 1e308,
    "both ends": lambda i: 1.7e308 * (-1) ** i,
    "far apart": lambda i: (1.0, 1e-300, 1e300, -1e200, 0.0)[i % 5],
    "near nothing": lambda i: (1 + i) * 1e-310,
}


def history(space: Space, result, count: int, frozen=frozenset()) -> View:
    """A view after `count` random trials with those results."""
    rng = random.Random(count)
    base = Trial(
        number=0, config=space.defaults(), changes={}, metric=result(0), status="kept", failure=""
    )
    view = View(trace=(base,), best=base, space=space, frozen=frozen)
    for number in range(1, count + 1):
        config = view.placed(rng.random() for _ in view.movable())
        metric = None if space.problems(config) else result(number)
        better = metric is not None and view.better(metric, view.best.metric)
        trial = Trial(
            number=number,
            config=config,
            changes=view.changes_to(config),
            metric=metric,
            status="failed" if metric is None else "kept" if better else "discarded",
            failure="crash" if metric is None else "",
        )
        best = trial if better else view.best
        view = replace(view, trace=(*view.trace, trial), best=best)
    return view


def asked(mechanism: Mechanism, view: View, prior=()) -> list[Candidate]:
    """What it proposes, of a prior that has only these answers."""
    answers = [Candidate(changes=changes) for changes in prior]
    view = replace(view, random=random.Random(5), prior=lambda _text, count: answers[:count])
    return mechanism.propose(view, 2)


def judge(candidates: list[Candidate], view: View) -> None:
    """Nothing outside, frozen, or tried before."""
    configs = [view.config_of(candidate.changes) for candidate in candidates]
    for candidate, config in zip(candidates, configs, strict=True):
        assert view.space.problems(config) == []
        assert not view.frozen & candidate.changes.keys()
        assert view.fresh(config), candidate.reason
    assert len(configs) < 2 or configs[0] != configs[1]


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("results", RESULTS)
def test_extreme_results_stop_no_operator(name, results):
    view = history(SPACES["hardly possible"], RESULTS[results], 12)
    one = operator(name)
    candidates = asked(one, view)
    judge(candidates, view)
    assert candidates
    again = operator(name)
    assert asked(again, view) == candidates
    state = json.dumps(one.state())
    assert len(state) < 4000
    again.restore(json.loads(state))
    assert json.dumps(again.state()) == state
    trial = replace(view.trace[-1], metric=1.6e308, status="discarded")
    assert one.accept(trial, view) in (True, False)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("space", SPACES)
def test_no_space_stops_an_operator(name, space):
    new, later = (history(SPACES[space], lambda i: 1.0 + i % 3, count) for count in (0, 9))
    alone = replace(later, frozen=frozenset(list(SPACES[space])[1:]))
    for view in (new, later, alone):
        judge(asked(operator(name), view, prior=[view.trace[-1].changes]), view)


@pytest.mark.parametrize("name", OPERATORS)
def test_a_small_space_is_tried_to_its_end(name):
    view = history(SPACES["choices"], lambda _i: 1.0, 0)
    mechanism = operator(name)
    while candidates := asked(mechanism, view)[:1]:
        judge(candidates, view)
        config = view.config_of(candidates[0].changes)
        trial = Trial(
            number=len(view.trace),
            config=config,
            changes=candidates[0].changes,
            metric=1.0 + len(view.trace),
            status="discarded",
        )
        view = replace(view, trace=(*view.trace, trial))
    assert len(view.trace) == 6


@pytest.mark.parametrize("name", OPERATORS)
def test_where_everything_is_frozen_nothing_is_proposed(name):
    view = history(SPACES["choices"], lambda _i: 1.0, 0)
    frozen = replace(view, frozen=frozenset(view.space))
    assert asked(operator(name), frozen, prior=[{"A": "on"}]) == []
    trial = Trial(number=1, config={"A": "on", "B": "x"}, changes={}, metric=0.5, status="kept")
    assert operator(name).accept(trial, frozen)  # it was on its way when they were frozen


@pytest.mark.parametrize("name", OPERATORS)
def test_a_baseline_outside_the_space_stops_no_operator(name):
    view = history(SPACES["choices"], lambda _i: 1.0, 0)
    outside = {"A": "off", "B": "x", "RATE": -1.0}
    base = replace(view.best, config=outside)
    space = Space({**SPACES["choices"], "RATE": RATE})
    view = replace(view, trace=(base,), best=base, space=space)
    for candidate in asked(operator(name), view):
        assert space.problems(view.config_of(candidate.changes)) == []


def test_a_whole_number_of_a_continuous_knob_is_no_other_value():
    space = Space({"RATE": RATE})
    base = Trial(number=0, config={"RATE": 1}, changes={}, metric=1.0, status="kept")
    best = Trial(number=1, config={"RATE": 1.3}, changes={"RATE": 1.3}, metric=0.9, status="kept")
    view = View(trace=(base, best), best=best, space=space)
    for name in ("bandit", "restart", "tabu", "orthogonal"):
        judge(asked(operator(name), view, prior=[{"RATE": 1.0}]), view)
