"""Tabu search refuses repeats and moves that have just failed."""

from mechanisms.tabu import TENURE, Tabu, failed_moves, own_move

from sandbox.mechanism import Constraint, Knob, Space
from sandbox.testing import example_space, make_trial, make_view, scripted_prior


def trace_with(*changes):
    baseline = make_trial(0, 1.0, status="kept")
    return [baseline, *(make_trial(i + 1, 1.2, changes=c) for i, c in enumerate(changes))]


def test_a_repeat_is_refused_and_the_prior_is_asked_again_with_the_reason():
    prior = scripted_prior([{"WEIGHT_DECAY": 0.3}, {"WARMUP_STEPS": 50}])
    view = make_view(trace=trace_with({"WEIGHT_DECAY": 0.3}), prior=prior)
    (answer,) = Tabu().propose(view, 1)
    assert dict(answer.changes) == {"WARMUP_STEPS": 50}
    assert len(prior.asked) == 2
    assert prior.asked[0][0] == ""
    assert "Do not touch WEIGHT_DECAY" in prior.asked[1][0]


def test_the_same_direction_is_tabu_and_the_other_one_is_not():
    trace = trace_with({"WEIGHT_DECAY": 0.3})
    up = make_view(trace=trace, prior=scripted_prior([{"WEIGHT_DECAY": 0.4}]))
    (answer,) = Tabu().propose(up, 1)
    assert answer.changes.get("WEIGHT_DECAY", 0.0) <= 0.1
    down = make_view(trace=trace, prior=scripted_prior([{"WEIGHT_DECAY": 0.05}]))
    (answer,) = Tabu().propose(down, 1)
    assert dict(answer.changes) == {"WEIGHT_DECAY": 0.05}


def test_a_move_is_open_again_after_its_tenure():
    old = trace_with({"WEIGHT_DECAY": 0.3}, *[{"WARMUP_STEPS": 11 + i} for i in range(TENURE)])
    assert ("WEIGHT_DECAY", "up") not in failed_moves(make_view(trace=old))
    assert ("WARMUP_STEPS", "up") in failed_moves(make_view(trace=old))


def test_where_the_prior_does_not_listen_an_own_valid_move_is_made():
    prior = scripted_prior([{"WEIGHT_DECAY": 0.3}])
    view = make_view(trace=trace_with({"WEIGHT_DECAY": 0.3}), prior=prior, frozen=["ACTIVATION"])
    answers = Tabu().propose(view, 3)
    assert len(answers) == 3
    for answer in answers:
        assert view.space.problems(view.config_of(answer.changes)) == []
        assert "ACTIVATION" not in answer.changes
        assert answer.reason.startswith("tabu:")
    assert len({str(sorted(a.changes.items())) for a in answers}) == 3


def test_broken_answers_of_the_prior_are_dropped():
    bad = [{"NO_SUCH_KNOB": 1}, {"WEIGHT_DECAY": float("nan")}, {"TOTAL_BATCH_SIZE": 4}]
    view = make_view(prior=scripted_prior(bad))
    (answer,) = Tabu().propose(view, 1)
    assert view.space.problems(view.config_of(answer.changes)) == []
    assert answer.changes


def test_the_same_seed_gives_the_same_answer():
    trace = trace_with({"WEIGHT_DECAY": 0.3})
    one, two = (
        Tabu().propose(
            make_view(trace=trace, prior=scripted_prior([{"WEIGHT_DECAY": 0.3}]), seed=7), 2
        )
        for _ in range(2)
    )
    assert one == two
    assert set(example_space()) >= {name for a in one for name in a.changes}


def coarse_view(*changes):
    choices = (0.0, 1.0, 2.0)
    space = Space({"RATE": Knob(kind="choice", default=0.0, choices=choices)})
    base = space.defaults()
    trace = [make_trial(0, 1.0, config=base, status="kept")]
    trace += [make_trial(i + 1, 1.2, config=base, changes=c) for i, c in enumerate(changes)]
    return make_view(trace=trace, space=space, prior=scripted_prior([{"RATE": 0.0}]))


def test_on_a_coarse_scale_a_step_goes_to_the_next_value():
    (answer,) = Tabu().propose(coarse_view(), 1)
    assert dict(answer.changes) == {"RATE": 1.0}


def test_where_every_move_is_tabu_something_new_is_tried_all_the_same():
    space = Space({"RATE": Knob(kind="int", default=0, low=0, high=100)})
    trace = [
        make_trial(0, 1.0, config={"RATE": 0}, status="kept"),
        make_trial(1, 1.2, config={"RATE": 0}, changes={"RATE": 15}),
    ]
    view = make_view(trace=trace, space=space, prior=scripted_prior([{"RATE": 15}]))
    (answer,) = Tabu().propose(view, 1)
    assert answer.changes["RATE"] not in {0, 15}
    assert "every move is tabu" in answer.reason


def test_where_every_move_is_tabu_the_one_that_failed_longest_ago_is_made():
    names = ("A", "B")
    space = Space({name: Knob(kind="int", default=0, low=0, high=100) for name in names})
    for first, second in (names, reversed(names)):
        moved = [{first: 15}, {second: 15}]
        trace = [make_trial(0, 1.0, config={"A": 0, "B": 0}, status="kept")]
        trace += [
            make_trial(i + 1, 1.2, config={"A": 0, "B": 0, **changes}, changes=changes)
            for i, changes in enumerate(moved)
        ]
        view = make_view(trace=trace, space=space, prior=scripted_prior([{}]))
        assert set(failed_moves(view)) == {("A", "up"), ("B", "up")}
        (answer,) = Tabu().propose(view, 1)
        assert set(answer.changes) == {first}


def test_a_kept_trial_lifts_the_tabu_from_the_knobs_that_it_moved():
    old = {"WEIGHT_DECAY": 0.3}
    trace = trace_with(old, {"WARMUP_STEPS": 50})
    best = make_trial(3, 0.9, changes={"WEIGHT_DECAY": 0.05}, status="kept")
    view = make_view(trace=[*trace, best], prior=scripted_prior([{"WEIGHT_DECAY": 0.07}]))
    assert set(failed_moves(view)) == {("WARMUP_STEPS", "up")}
    (answer,) = Tabu().propose(view, 1)
    assert dict(answer.changes) == {"WEIGHT_DECAY": 0.07}


def test_a_constraint_that_allows_no_single_move_does_not_silence_it():
    knobs = {
        "TOTAL": Knob(kind="int", default=36, low=12, high=144),
        "PART": Knob(kind="choice", default=36, choices=(36, 60, 84)),
    }
    space = Space(knobs, (Constraint(name="TOTAL", of="PART"),))
    trace = [make_trial(0, 1.0, config=space.defaults(), status="kept")]
    taken = [space.defaults() | {"TOTAL": total} for total in (72, 108, 144)]
    view = make_view(trace=trace, space=space, prior=scripted_prior([{}]))
    assert own_move(view, {}, taken) is None
    trace += [make_trial(i + 1, 1.2, config=config) for i, config in enumerate(taken)]
    view = make_view(trace=trace, space=space, prior=scripted_prior([{}]))
    (answer,) = Tabu().propose(view, 1)
    assert view.fresh(view.config_of(answer.changes))
    assert set(answer.changes) == {"TOTAL", "PART"}


def test_where_everything_was_tried_there_is_nothing_to_propose():
    assert Tabu().propose(coarse_view({"RATE": 1.0}, {"RATE": 2.0}), 1) == []
