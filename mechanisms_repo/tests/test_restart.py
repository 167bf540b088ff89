"""Restart leaves a rut with kicks, then has the prior forget it."""

from mechanisms.restart import (
    KICKS,
    KNOBS,
    MAX_ASKS,
    PATIENCE,
    Restart,
    trials_without_progress,
    unseen_value,
)

from sandbox.mechanism import Knob, Space
from sandbox.testing import example_space, make_trial, make_view, scripted_prior

PRIOR = [{"WARMUP_STEPS": 50}]
TRIED = {"ACTIVATION": "relu"}


def idle_view(idle, *, prior=None, seed=0, frozen=()):
    trace = [make_trial(0, 1.0, status="kept")]
    trace += [make_trial(i + 1, 1.1, changes=TRIED) for i in range(idle)]
    prior = prior or scripted_prior(PRIOR)
    return make_view(trace=trace, prior=prior, seed=seed, frozen=frozen)


def test_while_there_is_progress_the_prior_decides_alone():
    prior = scripted_prior(PRIOR)
    (answer,) = Restart().propose(idle_view(PATIENCE - 1, prior=prior), 1)
    assert dict(answer.changes) == PRIOR[0]
    assert prior.asked == [("", 1)]


def test_without_progress_it_kicks_valid_free_and_new():
    for seed in range(20):
        view = idle_view(PATIENCE, seed=seed, frozen=["WEIGHT_DECAY"])
        (answer,) = Restart().propose(view, 1)
        assert answer.reason.startswith("restart:")
        assert 1 <= len(answer.changes) <= KNOBS
        assert "WEIGHT_DECAY" not in answer.changes
        config = view.config_of(answer.changes)
        assert view.space.problems(config) == []
        assert config not in [dict(t.config) for t in view.trace]


def test_what_was_tried_is_asked_for_again_and_never_repeated():
    prior = scripted_prior([TRIED])
    (answer,) = Restart().propose(idle_view(1, prior=prior), 1)
    assert len(prior.asked) == MAX_ASKS
    assert dict(answer.changes) != TRIED
    assert answer.reason.startswith("restart:")


def test_a_small_space_is_searched_to_its_end_and_then_it_is_silent():
    knobs = {n: Knob(kind="choice", default=0, choices=(0, 1, 2)) for n in ("A", "B")}
    space = Space(knobs)
    trace = [make_trial(0, 1.0, config=space.defaults(), status="kept")]
    while len(trace) < 9:
        view = make_view(trace=trace, space=space, prior=scripted_prior([{}]), seed=len(trace))
        (answer,) = Restart().propose(view, 1)
        config = view.config_of(answer.changes)
        assert view.fresh(config)
        trace.append(make_trial(len(trace), 1.1, config=config, changes=answer.changes))
    view = make_view(trace=trace, space=space, prior=scripted_prior([{}]))
    assert Restart().propose(view, 2) == []


def test_the_kicks_end_and_the_prior_is_told_to_forget():
    prior = scripted_prior(PRIOR)
    view = idle_view(PATIENCE + KICKS, prior=prior)
    (answer,) = Restart().propose(view, 1)
    assert dict(answer.changes) == PRIOR[0]
    ((guidance, _),) = prior.asked
    assert f"forget the trials before number {PATIENCE + KICKS + 1}" in guidance
    assert "Explore " in guidance


def test_several_candidates_cross_the_border_between_prior_and_kicks():
    answers = Restart().propose(idle_view(PATIENCE - 1), 3)
    kicks = [a for a in answers if a.reason.startswith("restart:")]
    assert (len(answers), len(kicks)) == (3, 2)


def test_progress_is_counted_from_the_best_trial():
    assert trials_without_progress(idle_view(0)) == 0
    assert trials_without_progress(idle_view(5)) == 5


def test_the_same_seed_gives_the_same_kicks():
    one, two = (Restart().propose(idle_view(PATIENCE, seed=5), 2) for _ in range(2))
    assert one == two
    assert Restart().propose(idle_view(PATIENCE, seed=6), 2) != one


def test_broken_answers_of_the_prior_never_pass_through():
    bad = [{"NO_SUCH_KNOB": 1}, {"WEIGHT_DECAY": 7.0}, {"TOTAL_BATCH_SIZE": 4}]
    view = make_view(prior=scripted_prior(bad))
    (answer,) = Restart().propose(view, 1)
    assert answer.changes
    assert view.space.problems(view.config_of(answer.changes)) == []


def test_a_kick_goes_where_nobody_has_looked():
    space = example_space()
    tried = [make_trial(0, 1.0, status="kept")]
    tried += [make_trial(i, 1.1, changes={"WEIGHT_DECAY": 0.1 + i / 100}) for i in range(1, 9)]
    new = []
    for seed in range(10):
        value = unseen_value(make_view(trace=tried, seed=seed), "WEIGHT_DECAY")
        assert space["WEIGHT_DECAY"].problem(value) is None
        new.append(value)
    assert all(value not in [t.config["WEIGHT_DECAY"] for t in tried] for value in new)
    assert sum(not 0.1 <= value <= 0.18 for value in new) >= 8
