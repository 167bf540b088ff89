"""The bandit learns which knob pays, and goes from large steps to small ones."""

from mechanisms.bandit import PRIOR_SHARE, SCALES, Bandit, best_arm, score, steps

from sandbox.mechanism import Knob, Space
from sandbox.testing import example_space, faults, make_trial, make_view, scripted_prior

PRIOR = [{"ACTIVATION": "relu"}]


def trace_of(*steps_):
    """(changes, kept) pairs as a trace in which kept changes stay."""
    config = example_space().defaults()
    trace = [make_trial(0, 1.0, config=config, status="kept")]
    for i, (changes, kept) in enumerate(steps_):
        status = "kept" if kept else "discarded"
        trace.append(make_trial(i + 1, 0.9, changes=changes, config=config, status=status))
        config = {**config, **(changes if kept else {})}
    return trace


def test_a_knob_that_paid_scores_higher_than_one_that_did_not():
    trace = trace_of(
        ({"WEIGHT_DECAY": 0.4}, True), ({"WARMUP_STEPS": 70}, False), ({"WARMUP_STEPS": 90}, False)
    )
    view = make_view(trace=trace, prior=scripted_prior(PRIOR))
    assert score(view, "WEIGHT_DECAY") > score(view, "ACTIVATION") > score(view, "WARMUP_STEPS")


def test_a_step_that_was_kept_is_repeated_and_a_failed_one_turned():
    kept = make_view(trace=trace_of(({"WEIGHT_DECAY": 0.4}, True)))
    assert steps(kept, "WEIGHT_DECAY")[0] == SCALES[0]
    failed = make_view(trace=trace_of(({"WEIGHT_DECAY": 0.4}, False)))
    assert steps(failed, "WEIGHT_DECAY")[0] == -SCALES[0]


def test_after_both_directions_failed_the_step_is_smaller():
    trace = trace_of(({"WEIGHT_DECAY": 0.4}, False), ({"WEIGHT_DECAY": 0.0}, False))
    assert abs(steps(make_view(trace=trace), "WEIGHT_DECAY")[0]) == SCALES[1]


def test_steps_are_valid_new_and_free():
    view = make_view(frozen=["WEIGHT_DECAY", "ACTIVATION"], prior=scripted_prior(PRIOR), seed=3)
    answers = Bandit().propose(view, 4)
    assert len(answers) == 4
    for answer in answers:
        assert view.space.problems(view.config_of(answer.changes)) == []
        assert not {"WEIGHT_DECAY", "ACTIVATION"} & set(answer.changes)
    assert len({str(sorted(a.changes.items())) for a in answers}) == 4


def test_a_constraints_partner_is_adjusted():
    frozen = [name for name in example_space() if name != "DEVICE_BATCH_SIZE"]
    frozen.remove("TOTAL_BATCH_SIZE")
    found = set()
    for seed in range(8):
        view = make_view(frozen=frozen, seed=seed)
        answer = best_arm(view, set())
        assert answer is not None
        assert view.space.problems(view.config_of(answer.changes)) == []
        found |= set(answer.changes)
    assert found == {"DEVICE_BATCH_SIZE", "TOTAL_BATCH_SIZE"}


def test_the_prior_gets_its_share_and_no_more():
    asked = 0
    for seed in range(100):
        prior = scripted_prior(PRIOR)
        Bandit().propose(make_view(prior=prior, seed=seed), 1)
        asked += len(prior.asked)
    assert 0 < asked < 100
    assert abs(asked / 100 - PRIOR_SHARE) < 0.2


def test_in_a_small_space_everything_is_tried():
    space = Space(
        {
            "SIZE": Knob(kind="power_of_two", default=8, low=1, high=64),
            "KIND": Knob(kind="choice", default="b", choices=("a", "b", "c")),
        }
    )
    trace = [make_trial(0, 1.0, config=space.defaults(), status="kept")]
    for number in range(1, 7 * 3):
        view = make_view(trace=trace, space=space, seed=number, prior=lambda _guidance, _count: [])
        (answer,) = Bandit().propose(view, 1)
        assert faults([answer], view, 1) == []
        config = view.config_of(answer.changes)
        trace.append(make_trial(number, 2.0, config=config, changes=answer.changes))
    assert len({str(trial.config) for trial in trace}) == 7 * 3
