"""Orthogonal exploration runs a balanced experiment when the search is stuck."""

import json

from mechanisms.orthogonal import PATIENCE, ROWS, Orthogonal, combination, sign

from sandbox.testing import example_space, make_trial, make_view, scripted_prior

PRIOR = [{"WARMUP_STEPS": 50}]
TRIED = {"ACTIVATION": "relu"}


def stuck_trace(count=PATIENCE):
    baseline = make_trial(0, 1.0, status="kept")
    return [
        baseline,
        *(make_trial(i + 1, 1.1, changes=TRIED) for i in range(count)),
    ]


def run(mechanism, trace, metric, *, trials, frozen=()):
    """A short search; gives the trace."""
    trace = list(trace)
    for _ in range(trials):
        view = make_view(trace=trace, prior=scripted_prior(PRIOR), frozen=frozen, seed=len(trace))
        (answer,) = mechanism.propose(view, 1)
        config = view.config_of(answer.changes)
        value = metric(config)
        status = "kept" if view.better(value, view.best.metric) else "discarded"
        trace.append(
            make_trial(len(trace), value, changes=answer.changes, config=config, status=status)
        )
    return trace


def test_the_array_is_balanced_and_orthogonal():
    columns = [[1 - 2 * sign(row, c) for row in range(ROWS)] for c in range(7)]
    assert all(sum(column) == 0 for column in columns)
    for i, one in enumerate(columns):
        for other in columns[i + 1 :]:
            assert sum(a * b for a, b in zip(one, other, strict=True)) == 0


def test_the_prior_leads_until_the_search_is_stuck():
    view = make_view(trace=stuck_trace(PATIENCE - 1), prior=scripted_prior(PRIOR))
    assert dict(Orthogonal().propose(view, 1)[0].changes) == PRIOR[0]
    view = make_view(trace=stuck_trace(), prior=scripted_prior(PRIOR))
    (answer,) = Orthogonal().propose(view, 1)
    assert answer.reason.startswith("orthogonal: run ")
    assert len(answer.changes) > 1


def test_it_finds_the_better_levels_of_independent_knobs():
    space = example_space()

    def metric(config):
        decay = space["WEIGHT_DECAY"].position(config["WEIGHT_DECAY"])
        rate = space["LEARNING_RATE"].position(config["LEARNING_RATE"])
        return 0.8 - 0.3 * decay + 0.3 * rate

    others = set(space) - {"WEIGHT_DECAY", "LEARNING_RATE"}
    trace = run(Orthogonal(), stuck_trace(), metric, trials=ROWS + 1, frozen=others)
    default = make_trial(0, 1.0).config
    best = next(t for t in reversed(trace) if t.status == "kept")
    assert best.config["WEIGHT_DECAY"] > default["WEIGHT_DECAY"]
    assert best.config["LEARNING_RATE"] < default["LEARNING_RATE"]


def test_every_run_is_valid_and_leaves_frozen_knobs_alone():
    frozen = ("WEIGHT_DECAY", "TOTAL_BATCH_SIZE")
    trace = run(Orthogonal(), stuck_trace(), lambda c: 1.0, trials=12, frozen=frozen)
    for trial in trace[PATIENCE + 1 :]:
        assert example_space().problems(trial.config) == []
        assert not set(frozen) & set(trial.changes)


def test_an_experiment_goes_on_after_a_restart():
    view = make_view(trace=stuck_trace(), prior=scripted_prior(PRIOR))
    one, two = Orthogonal(), Orthogonal()
    one.propose(view, 3)
    two.restore(json.loads(json.dumps(one.state())))
    assert two.state() == one.state()
    assert two.propose(view, 2) == one.propose(view, 2)


def test_nothing_is_tried_twice():
    trace = run(Orthogonal(), stuck_trace(1), lambda c: 1.0, trials=2 * ROWS)
    configs = [dict(trial.config) for trial in trace]
    assert all(config not in configs[:i] for i, config in enumerate(configs))


def test_the_better_levels_of_huge_results_are_told():
    levels = {"WEIGHT_DECAY": [0.0, 0.2]}
    changes = [{"WEIGHT_DECAY": value} for value in (0.0, 0.0, 0.2, 0.2)]
    metrics = (1.7e308, 1.6e308, 1.6e308, 1.6e308)
    trials = tuple(make_trial(1, m, changes=c) for m, c in zip(metrics, changes, strict=True))
    assert combination(levels, trials, minimize=True) == {"WEIGHT_DECAY": 0.2}


def test_a_failed_trial_counts_as_the_worst():
    levels = {"WEIGHT_DECAY": [0.0, 0.2]}
    trials = (
        make_trial(1, 1.0, changes={"WEIGHT_DECAY": 0.0}),
        make_trial(2, 3.0, changes={"WEIGHT_DECAY": 0.0}),
        make_trial(3, None, changes={"WEIGHT_DECAY": 0.2}),
    )
    assert combination(levels, trials, minimize=True) == {"WEIGHT_DECAY": 0.0}
    assert combination(levels, trials[2:], minimize=True) == {}


def test_broken_answers_of_the_prior_never_pass_through():
    bad = [{"NO_SUCH_KNOB": 1}, {"WEIGHT_DECAY": 7.0}, {"TOTAL_BATCH_SIZE": 4}]
    view = make_view(prior=scripted_prior(bad))
    (answer,) = Orthogonal().propose(view, 1)
    assert answer.changes
    assert view.space.problems(view.config_of(answer.changes)) == []
