"""Level 1.5: what rules and language models may freeze, and the diagnosis that they rest on."""

from __future__ import annotations

import random
from types import MappingProxyType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.gpt.space import SPACE
from runner.interfaces import PriorError, ResearchContext, Steering
from runner.levels.diagnosis import diagnose, movable, moves_of
from runner.levels.steering import MAX_FREEZES, MIN_FREE, OpenAISteering, ScriptedSteering, capped
from runner.levels.strategy import HabitPrior
from runner.llm.client import Llm
from runner.llm.ledger import Ledger
from sandbox.mechanism import Trial, View
from tests.runner.llmserver import serving

NOTHING = Steering(frozen=frozenset(), guidance="")


def trace_of(*steps):
    """(changes, metric, kept) as a trace; kept changes stay."""
    config, trace = SPACE.defaults(), []
    for number, (changes, metric, kept) in enumerate([({}, 5.0, True), *steps]):
        status = "failed" if metric is None else "kept" if kept else "discarded"
        made = {**config, **changes}
        failure = "nan" if metric is None else ""
        trace.append(
            Trial(
                number=number,
                config=made,
                changes=changes,
                metric=metric,
                status=status,
                failure=failure,
            )
        )
        config = made if kept else config
    return tuple(trace)


def view(trace, frozen=()):
    best = [t for t in trace if t.status == "kept"][-1]
    return View(
        trace=trace, best=best, space=SPACE, frozen=frozenset(frozen), random=random.Random(0)
    )


def context(trace, **more):
    best = [t for t in trace if t.status == "kept"][-1]
    values = {
        "trace": trace,
        "best": best,
        "space": SPACE,
        "frozen": frozenset(),
        "guidance": "",
        "minimize": True,
        "sigma": 0.1,
        "mechanism_name": "null",
        "mechanism_source": "",
        "mechanism_digest": "0" * 64,
        "base_commit": "0" * 40,
        "library": (),
    }
    return ResearchContext(**{**values, **more})


BOTH_WAYS = [
    ({"MATRIX_LR": 0.04}, 5.1, False),
    ({"MATRIX_LR": 0.01}, 5.2, False),
    ({"MATRIX_LR": 0.03}, 5.1, False),
]
ONE_WAY = [({"MATRIX_LR": value}, 5.1, False) for value in (0.04, 0.05, 0.06, 0.07)]


# --- diagnosis ---


def test_the_diagnosis_counts_what_happened():
    steps = [
        ({"TOTAL_BATCH_SIZE": 2**15}, 5.4, False),
        ({"TOTAL_BATCH_SIZE": 2**15}, 5.4, False),
        ({"TOTAL_BATCH_SIZE": 2**9}, 4.5, True),
        ({"MATRIX_LR": 0.04}, 4.6, False),
        ({"MATRIX_LR": 0.05}, None, False),
    ]
    found = diagnose(context(trace_of(*steps), frozen=frozenset({"HEAD_DIM"})))
    assert (found["trials"], found["kept"], found["discarded"], found["failed"]) == (5, 1, 3, 1)
    assert found["failure_share"] == 0.2
    assert found["failures"] == {"nan": 1}
    assert found["longest_streak_without_progress"] == 2
    assert found["best_age"] == 2
    assert found["repeats"] == 1
    assert (found["baseline"], found["best"], found["gain"]) == (5.0, 4.5, 0.5)
    assert found["gain_in_sigma"] == 5.0
    assert found["one_direction_only"] == {"MATRIX_LR": "up"}
    assert found["moves_repeated_in_vain"] == 2
    assert found["most_tried"] == {"knob": "TOTAL_BATCH_SIZE", "times": 3, "kept": 1, "share": 0.6}
    assert "EMBEDDING_LR" in found["never_tried"]
    assert not {"DEPTH", "HEAD_DIM", "MATRIX_LR"} & set(found["never_tried"])


def test_a_maximised_metric_gains_upwards():
    trace = trace_of(({"MATRIX_LR": 0.04}, 6.0, True))
    assert diagnose(context(trace, minimize=False))["gain"] == 1.0
    assert diagnose(context(trace))["gain"] == -1.0


def test_a_fresh_run_has_a_diagnosis_too():
    found = diagnose(context(trace_of(), sigma=None))
    assert (found["trials"], found["best_age"], found["gain_in_sigma"]) == (0, 0, None)
    assert found["never_tried"] == movable(SPACE)


def test_directions_are_against_the_best_of_their_time():
    steps = [({"MATRIX_LR": 0.08}, 4.0, True), ({"MATRIX_LR": 0.04}, 4.5, False)]
    assert moves_of(trace_of(*steps), SPACE).directions["MATRIX_LR"] == {"up", "down"}


def test_moves_outside_the_space_are_no_moves():
    steps = [({"NO_SUCH": 3, "MATRIX_LR": 77.0}, None, False)]
    assert not moves_of(trace_of(*steps), SPACE).tried


# --- the rules ---


def test_a_knob_that_gained_nothing_either_way_is_frozen():
    new = ScriptedSteering()(view(trace_of(*BOTH_WAYS)), NOTHING)
    assert new.frozen == {"MATRIX_LR"}
    assert "froze MATRIX_LR" in new.reasons[0]


def test_one_direction_proves_nothing():
    new = ScriptedSteering()(view(trace_of(*ONE_WAY)), NOTHING)
    assert new.frozen == frozenset()
    assert "MATRIX_LR up failed 4 times: try the other way." in new.guidance


def test_a_knob_that_paid_is_not_frozen():
    steps = [({"MATRIX_LR": 0.05}, 4.9, True), *BOTH_WAYS]
    assert ScriptedSteering()(view(trace_of(*steps)), NOTHING).frozen == frozenset()


def test_a_long_rut_frees_everything_again():
    steps = [({"EMBEDDING_LR": 0.3 + i / 100}, 5.1, False) for i in range(10)]
    before = Steering(frozen=frozenset({"HEAD_DIM", "MATRIX_LR"}), guidance="")
    new = ScriptedSteering()(view(trace_of(*steps), before.frozen), before)
    assert new.frozen == frozenset()
    assert "unfroze HEAD_DIM, MATRIX_LR" in new.reasons[0]


def test_the_guidance_is_one_that_the_prior_follows():
    seen = view(trace_of(*BOTH_WAYS))
    guidance = ScriptedSteering()(seen, NOTHING).guidance
    assert guidance.startswith("Explore ")
    answers = HabitPrior().ask(seen, guidance, 20)
    explored = sum(bool({"HEAD_DIM", "WINDOW_PATTERN"} & set(c.changes)) for c in answers)
    assert explored > 3


NAMES = st.sets(st.sampled_from(sorted(SPACE)))


@given(frozen=NAMES, wanted=st.lists(st.sampled_from([*SPACE, "NO_SUCH_KNOB"])))
def test_the_caps_hold_whatever_is_wanted(frozen, wanted):
    after = capped(SPACE, frozenset(frozen), wanted)
    assert frozen <= after <= set(SPACE)
    assert len(after - frozen) <= MAX_FREEZES
    free = [name for name in movable(SPACE) if name not in after]
    if after != frozen:
        assert len(free) >= MIN_FREE


# --- the language model ---


def steer(answer, before=NOTHING):
    with serving(answer) as server:
        llm = Llm(
            base_url=server.url,
            model="m",
            api_key="",
            ledger=Ledger(cap_tokens=10**6),
            pause=lambda _s: None,
        )
        return OpenAISteering(llm, metric="val_bpb")(view(trace_of(*BOTH_WAYS)), before)


def test_a_model_steers_within_the_caps():
    names = '["MATRIX_LR", "HEAD_DIM", "WINDOW_PATTERN", "SCALAR_LR", "ADAM_BETAS", "WARMUP_RATIO"]'
    before = Steering(frozen=frozenset({"WEIGHT_DECAY"}), guidance="old")
    rest = '"unfreeze": ["WEIGHT_DECAY"], "guidance": "look", "reasons": ["r"]'
    new = steer(f'{{"freeze": {names}, {rest}}}', before)
    assert len(new.frozen) == MAX_FREEZES
    assert "WEIGHT_DECAY" not in new.frozen
    assert new.guidance == "look"
    assert new.reasons == ("r", "the caps left WARMUP_RATIO free")


def test_a_model_that_invents_knobs_is_an_error():
    with pytest.raises(PriorError, match="NO_SUCH"):
        steer('{"freeze": ["NO_SUCH"], "unfreeze": [], "guidance": "", "reasons": []}')


def test_the_space_can_not_be_changed_by_accident():
    assert isinstance(SPACE.knobs, MappingProxyType)
