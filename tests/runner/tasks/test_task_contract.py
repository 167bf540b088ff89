"""The contract that every kind of task keeps, whatever it trains: see `runner.interfaces.Task`."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from runner.__main__ import app
from runner.interfaces import FAILURES
from runner.tasks import Places, TaskError, all_tasks, get_task, kind_of
from runner.tasks.base import constraint_outcome
from runner.tasks.describe import of_kinds, of_task
from tests.runner.task_samples import SAMPLES

SAMPLE = Path(__file__).parents[1] / "scripts" / "autoresearch"
KINDS = sorted(all_tasks())
OUTSIDE = {"float": math.nan, "int": 0.5, "power_of_two": 3, "choice": "none of them"}


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """A kind's name, the options of its sample, its places, and the task made of them."""
    folder = tmp_path_factory.mktemp(request.param)
    options = SAMPLES[request.param](folder)
    places = Places(var=tmp_path_factory.mktemp("var"), out=folder / "out")
    return request.param, options, places, get_task(request.param, options, places=places)


def test_each_kind_has_a_sample():
    assert set(SAMPLES) == set(KINDS)


def test_what_it_says_about_itself(made):
    name, _, _, task = made
    assert task.name == name
    assert re.fullmatch(r"[a-z][a-z0-9_.-]{0,59}", task.metric)
    assert isinstance(task.minimize, bool)
    assert 0 < len(task.description) <= 2000
    assert json.loads(json.dumps(task.host(), allow_nan=False))


def test_its_space_allows_its_own_default(made):
    task = made[3]
    assert len(task.space) > 0
    assert task.space.problems(task.space.defaults()) == []
    for knob in task.space.values():
        for position in (0.0, 0.5, 1.0):
            assert knob.problem(knob.at(position)) is None


def test_its_digest_is_the_same_for_the_same_task(made):
    name, options, places, task = made
    assert re.fullmatch("[0-9a-f]{64}", task.digest)
    assert get_task(name, options, places=places).digest == task.digest


def test_its_default_gives_a_finite_metric(made):
    task = made[3]
    outcome = task.run(task.space.defaults(), seed=1)
    assert outcome.failure == "", outcome.message
    assert math.isfinite(outcome.metric)
    assert outcome.seconds >= 0
    assert json.dumps(dict(outcome.details))


def test_a_configuration_outside_its_space_costs_no_trial(made):
    task = made[3]
    default = task.space.defaults()
    first = next(iter(default))
    wrong = [
        {**default, "NO_SUCH_KNOB": 1},
        {name: value for name, value in default.items() if name != first},
        *({**default, name: OUTSIDE[knob.kind]} for name, knob in task.space.items()),
    ]
    for config in wrong:
        outcome = task.run(config, seed=0)
        assert (outcome.metric, outcome.failure) == (None, "constraint")
        assert outcome.seconds == 0.0
        assert outcome.message
        assert constraint_outcome(task.space, config) is not None


def test_its_options_are_checked(made):
    name, options, _, _ = made
    kind = kind_of(name)
    with pytest.raises(TaskError, match="no option"):
        kind.parse(["--no-such-option", "1"])
    with pytest.raises(TaskError, match="no option"):
        kind.check({**options, "no_such_option": 1})
    for field, info in kind.options.model_fields.items():
        if info.is_required():
            given = {k: v for k, v in options.items() if k not in (field, info.alias)}
            with pytest.raises(TaskError, match="must be given"):
                kind.check(given)
        assert info.description, f"{field} has no help"


def test_it_can_be_shown_before_anything_runs(made):
    shown = "\n".join(of_task(made[3]))
    assert all(f"{knob}: " in shown for knob in made[3].space)
    assert made[3].metric in shown


# --- the registry itself ---


def test_tasks_have_names():
    assert "gpt" in all_tasks()
    with pytest.raises(TaskError, match=r"there are: .*gpt"):
        get_task("no-such-task")
    assert all(kind.name == name and kind.about for name, kind in all_tasks().items())
    assert {"constraint", "oom", "nan", "timeout", "no_metric"} <= set(FAILURES)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget-seconds"], "needs a value"),
        (["--budget-seconds", "soon"], "--budget-seconds: .*number"),
        (["--budget-seconds", "0"], "--budget-seconds: .*0.1"),
        (["--budget-seconds=nan"], "--budget-seconds"),
        (["--budget-seconds=1", "--budget-seconds=2"], "twice"),
        (["--budget_seconds=1"], "no option"),
        (["budget-seconds", "1"], "no option"),
        (["--"], "no option"),
        ([""], "no option"),
        (["--threads", "1.5"], "--threads"),
        (["--threads=0"], "--threads"),
        (["--x"] * 1000, "at most"),
    ],
)
def test_wrong_words_are_refused_with_what_to_write(words, message):
    with pytest.raises(TaskError, match=message):
        kind_of("gpt").parse(words)


def test_words_and_values_make_the_same_options():
    kind = kind_of("gpt")
    by_value = kind.check({"budget_seconds": 2.5, "threads": 2})
    assert kind.parse(["--budget-seconds=2.5", "--threads", "2"]) == by_value
    assert kind.parse([]) == kind.check({})
    assert any("--budget-seconds NUMBER" in line for line in kind.help_lines())


def test_the_command_line_shows_tasks():
    shown = CliRunner().invoke(app, ["tasks"])
    assert shown.exit_code == 0
    assert all(line in shown.output for line in of_kinds(all_tasks()))
    one = CliRunner().invoke(app, ["tasks", "script", "--dir", str(SAMPLE), "--lock", "DEPTH"])
    assert one.exit_code == 0
    assert "TOTAL_BATCH_SIZE: 524288, power_of_two from 16384 to 2097152, log" in one.output
    assert "constraint: TOTAL_BATCH_SIZE is a multiple of DEVICE_BATCH_SIZE x 2048" in one.output
    assert "left alone: CARD_BF16_PEAK_FLOPS: it is a fact about the machine" in one.output
    wrong = CliRunner().invoke(app, ["tasks", "script", "--dir", "/nowhere"])
    assert wrong.exit_code == 2
    assert "is not a folder" in wrong.output
