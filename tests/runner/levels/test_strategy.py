"""Level 1: the history table, the scripted prior's habits, and the language model's prior."""

from __future__ import annotations

import random
import shutil

import pytest

from runner.gpt.space import SPACE
from runner.interfaces import EarlierRun, PriorError
from runner.levels.strategy import (
    HabitPrior,
    OpenAIPrior,
    earlier_table,
    history_table,
    space_table,
)
from runner.llm.answers import Fault, LlmError
from runner.llm.client import Llm
from runner.llm.ledger import Ledger
from runner.llm.prompting import FOLDER, PromptError, Prompts
from sandbox.mechanism import Trial, View
from tests.runner.llmserver import serving, stall, status


def trial(number, metric, changes=None, kept=False, base=None):
    config = {**(base or SPACE.defaults()), **(changes or {})}
    state = "failed" if metric is None else "kept" if kept or number == 0 else "discarded"
    return Trial(
        number=number,
        config=config,
        changes=changes or {},
        metric=metric,
        status=state,
        failure="nan" if metric is None else "",
    )


def view(*trials, frozen=(), seed=0):
    trace = (trial(0, 5.0), *trials)
    best = [t for t in trace if t.status == "kept"][-1]
    return View(
        trace=trace, best=best, space=SPACE, frozen=frozenset(frozen), random=random.Random(seed)
    )


# --- tables ---


def test_the_history_has_every_trial_with_values_deltas_and_changes():
    kept = trial(1, 4.5, {"MATRIX_LR": 0.04}, kept=True)
    trials = [
        kept,
        trial(2, 4.75, {"MATRIX_LR": 0.08}, base=kept.config),
        trial(3, None, {"EMBEDDING_LR": 2.0}, base=kept.config),
        *(trial(n, 4.6, {"WEIGHT_DECAY": 0.1}, base=kept.config) for n in range(4, 60)),
    ]
    rows = history_table(view(*trials).trace, "val_bpb").splitlines()
    assert len(rows) == 61
    assert rows[1] == "0 | kept | 5.00000 |  | baseline"
    assert rows[2] == "1 | kept | 4.50000 | -0.50000 | MATRIX_LR 0.02 -> 0.04"
    assert rows[3] == "2 | discarded | 4.75000 | +0.25000 | MATRIX_LR 0.04 -> 0.08"
    assert rows[4] == "3 | failed | nan |  | EMBEDDING_LR 0.2 -> 2.0"


def test_the_space_says_what_is_locked_frozen_and_constrained():
    table = space_table(SPACE, SPACE.defaults(), frozenset({"MATRIX_LR"}))
    assert "DEPTH | int | 2 to 2 | 2 | 2 | locked" in table
    assert "MATRIX_LR | float | 0.001 to 0.2 (log) | 0.02 | 0.02 | FROZEN" in table
    assert "TOTAL_BATCH_SIZE must be a multiple of DEVICE_BATCH_SIZE x 128" in table


def test_a_prompt_with_missing_or_unknown_values_is_an_error():
    with pytest.raises(PromptError, match="guidance"):
        Prompts().fill("level1.md", task="x")


def test_a_site_may_keep_prompts_of_its_own_with_the_same_marks(tmp_path):
    folder = tmp_path / "prompts"
    shutil.copytree(FOLDER, folder)
    assert Prompts(folder).digest == Prompts().digest
    level1 = folder / "level1.md"
    level1.write_text("Be bold. " + level1.read_text())
    assert Prompts(folder).digest != Prompts().digest
    level1.write_text("no marks at all")
    with pytest.raises(PromptError, match="marks"):
        Prompts(folder)
    level1.write_bytes(b"\xff\xfe")
    with pytest.raises(PromptError, match="can't be read"):
        Prompts(folder)
    level1.unlink()
    with pytest.raises(PromptError, match="copy"):
        Prompts(folder)
    level1.write_text("x" * 100_000)
    with pytest.raises(PromptError, match="shorten"):
        Prompts(folder)


def test_a_history_that_is_too_long_loses_its_oldest_discards_and_says_so():
    base = trial(0, 5.0)
    kept = trial(1, 4.0, {"MATRIX_LR": 0.04}, kept=True)
    rest = [trial(n, 4.5, {"WEIGHT_DECAY": 0.1}, base=kept.config) for n in range(2, 500)]
    table = history_table((base, kept, *rest), "val_bpb", limit_characters=5_000)
    rows = table.splitlines()
    assert len(table) < 5_200
    assert "older trials that were not kept are left out" in rows[1]
    assert rows[2].startswith("0 | kept")
    assert rows[3].startswith("1 | kept")
    assert rows[-1].startswith("499 |")
    left_out = int(rows[1].strip("(").split()[0])
    assert left_out + len(rows) - 2 == 500


def test_earlier_runs_are_shown_as_what_they_are():
    def earlier(**more):
        run = {
            "run_id": "12345678-0000",
            "source": "platform",
            "runner": "gpu-1",
            "host": "a CPU",
            "same_host": True,
            "started_at": "2026-11-20T10:00:00",
            "metric": "val_bpb",
            "minimize": True,
            "sigma": 0.0123,
            "trials_in_all": 30,
            "trials": (trial(0, 5.0), trial(1, 4.5, {"MATRIX_LR": 0.04}, kept=True)),
        }
        return EarlierRun(**{**run, **more})

    assert earlier_table(()) == "none"
    text = earlier_table((earlier(), earlier(same_host=False, sigma=None)))
    assert "Run 12345678 on the same host, started 2026-11-20, noise (sigma) 0.01230" in text
    assert "ANOTHER HOST (a CPU)" in text
    assert "noise (sigma) not known, 2 of 30 trials" in text
    assert text.count("MATRIX_LR 0.02 -> 0.04") == 2


def test_values_are_never_searched_for_marks():
    names = ("task", "metric", "better", "space", "history", "count", "max_changes")
    names += ("earlier_runs",)
    text = Prompts().fill("level1.md", guidance="{{space}}", **dict.fromkeys(names, "x"))
    assert "{{space}}" in text


# --- the scripted prior ---


def asked(guidance="", *, count=1, seeds=range(40), trials=(), frozen=()):
    return [
        c
        for seed in seeds
        for c in HabitPrior().ask(view(*trials, frozen=frozen, seed=seed), guidance, count)
    ]


def test_it_says_what_it_is():
    assert HabitPrior.label == "habit (scripted, not a language model)"


def test_it_raises_the_batch_first():
    answers = asked()
    assert {tuple(c.changes) for c in answers} == {("TOTAL_BATCH_SIZE",)}
    up = [c for c in answers if c.changes["TOTAL_BATCH_SIZE"] > 2**11]
    assert len(up) > len(answers) / 2


def test_it_repeats_itself():
    trials = [trial(n, 5.5, {"MATRIX_LR": 0.03 + n / 1000}) for n in range(1, 5)]
    earlier = [dict(t.changes) for t in trials]
    repeated = [c for c in asked(trials=trials) if dict(c.changes) in earlier]
    assert 2 <= len(repeated) < 30


def test_it_follows_do_not_touch():
    trials = [trial(n, 5.5, {"TOTAL_BATCH_SIZE": 2**15}) for n in range(1, 5)]
    before = asked(trials=trials)
    after = asked("Do not touch TOTAL_BATCH_SIZE. do not touch MATRIX_LR: no gain", trials=trials)
    assert any("TOTAL_BATCH_SIZE" in c.changes for c in before)
    assert not any({"TOTAL_BATCH_SIZE", "MATRIX_LR"} & set(c.changes) for c in after)


def test_it_follows_explore():
    def share(answers):
        return sum("ADAM_BETAS" in c.changes for c in answers) / len(answers)

    assert share(asked("Explore ADAM_BETAS: never tried.")) > 0.4 > share(asked()) + 0.3


def test_it_leaves_frozen_and_locked_knobs_alone():
    answers = asked(count=3, frozen=["TOTAL_BATCH_SIZE"])
    names = {name for c in answers for name in c.changes}
    assert not names & {"TOTAL_BATCH_SIZE", "DEPTH", "ASPECT_RATIO"}


def test_with_everything_frozen_it_has_no_answer():
    assert asked(frozen=list(SPACE)) == []


def test_the_same_view_gives_the_same_answer_and_each_change_is_one():
    trials = [trial(n, 5.5, {"MATRIX_LR": 0.03}) for n in range(1, 4)]
    assert asked(trials=trials, count=2) == asked(trials=trials, count=2)
    for c in asked(trials=trials, count=2):
        assert 1 <= len(c.changes) <= 3
        assert all(SPACE[n].problem(v) is None for n, v in c.changes.items())
        assert all(v != SPACE[n].default for n, v in c.changes.items())


def test_odd_values_in_the_trace_do_not_matter():
    odd = [trial(1, None, {"NO_SUCH": 1, "MATRIX_LR": 99.0}), trial(2, None, {})]
    assert asked(trials=[*odd, trial(3, 5.1, {"MATRIX_LR": 0.05})])


# --- the language model's prior ---


def prior(server):
    llm = Llm(
        base_url=server.url,
        model="test-model",
        api_key="k",
        ledger=Ledger(cap_tokens=10**6),
        deadline_seconds=60.0,
        answer_bytes=200_000,
        pause=lambda _s: None,
    )
    return OpenAIPrior(llm, description="the task", metric="val_bpb")


GOOD = (
    '{"candidates": [{"reason": "smaller", "changes": [{"name": "TOTAL_BATCH_SIZE", '
    '"value": 8192.0}, {"name": "ADAM_BETAS", "value": "0.9,0.95"}]}]}'
)


def test_it_sees_everything_and_answers_in_the_knobs_own_types():
    shown = view(trial(1, 5.25, {"TOTAL_BATCH_SIZE": 2**15}), frozen=["SCALAR_LR"])
    with serving(GOOD) as server:
        one = prior(server)
        (candidate,) = one.ask(shown, "do not touch HEAD_DIM", 1)
        (prompt,) = server.prompts()
    assert dict(candidate.changes) == {"TOTAL_BATCH_SIZE": 8192, "ADAM_BETAS": "0.9,0.95"}
    assert type(candidate.changes["TOTAL_BATCH_SIZE"]) is int
    assert candidate.reason == "smaller"
    assert "1 | discarded | 5.25000 | +0.25000 | TOTAL_BATCH_SIZE 2048 -> 32768" in prompt
    assert "do not touch HEAD_DIM" in prompt
    assert "SCALAR_LR | float | 0.005 to 2 (log) | 0.2 | 0.2 | FROZEN" in prompt
    assert one.label == f"test-model (prompts {Prompts().digest[:12]})"


def many(count, changes=1):
    change = '{"name": "MATRIX_LR", "value": 0.1}'
    one = '{"reason": "", "changes": [' + ", ".join([change] * changes) + "]}"
    return '{"candidates": [' + ", ".join([one] * count) + "]}"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (many(1000), Fault.WRONG_SCHEMA),
        (many(0), Fault.WRONG_SCHEMA),
        (many(1, changes=4), Fault.WRONG_SCHEMA),
        (many(1, changes=0), Fault.WRONG_SCHEMA),
        (many(1, changes=2), Fault.WRONG_SCHEMA),
        (many(1).replace("0.1", "true"), Fault.WRONG_SCHEMA),
        (many(1).replace("0.1", "1e999"), Fault.WRONG_SCHEMA),
        (many(1).replace("0.1", '{"a": 1}'), Fault.WRONG_SCHEMA),
        ('{"candidates": "MATRIX_LR"}', Fault.WRONG_SCHEMA),
        ("I suggest that you raise the batch size.", Fault.NOT_JSON),
        (many(3)[:60], Fault.WRONG_SCHEMA),
        ("", Fault.EMPTY),
        (status(503), Fault.SERVER_ERROR),
        (stall, Fault.DEADLINE),
    ],
)
def test_a_useless_answer_is_an_error_and_never_a_default(answer, fault):
    with serving(answer) as server:
        one = prior(server)
        if fault is Fault.DEADLINE:
            one.llm.deadline_seconds = 0.3
            one.llm._client = one.llm._client.with_options(timeout=0.3)
        with pytest.raises(PriorError) as caught:
            one.ask(view(), "", 1)
    assert isinstance(caught.value, LlmError)
    assert caught.value.fault in {fault, Fault.CUT_OFF}
    assert sum(one.llm.ledger.faults.values()) == 3


def test_no_more_than_asked_for():
    with serving(many(5)) as server:
        assert len(prior(server).ask(view(), "", 2)) == 2
