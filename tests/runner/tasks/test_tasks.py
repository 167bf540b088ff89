"""Tasks: what trials do to themselves and to us, each a class of failure and never a number."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.interfaces import FAILURES
from runner.processes.subprocesses import Finished
from runner.tasks import Places, TaskError, get_task
from runner.tasks.base import Deadline, classify, measure, trial_environment
from runner.tasks.gpt import GptTask
from runner.tasks.reading import MetricReader
from tests.runner.gpt.test_train import SMALL
from tests.runner.waiting import until, wait_for_end

ROOT = Path(__file__).resolve().parents[3]


def trial(code, *, deadline=120.0, progress=None):
    return measure(
        [sys.executable, "-c", code],
        metric="val_bpb",
        deadline_seconds=deadline,
        env=trial_environment({}),
        progress=progress,
    )


def test_an_honest_trial():
    told = []
    code = "print('step 1'); print('---'); print('val_bpb:   3.25'); print('depth:  4')"
    outcome = trial(code, progress=told.append)
    assert (outcome.metric, outcome.failure) == (3.25, "")
    assert outcome.details == {"depth": "4"}
    assert outcome.seconds > 0
    assert told == ["step 1", "---"]


BAD = [
    ("pass", "no_metric", "printed no line"),
    ("print('val_bpb 3.2')", "no_metric", "printed no line"),
    ("print('xval_bpb: 3.2')", "no_metric", "printed no line"),
    ("print('val_bpb: 3.2'); print('val_bpb: 2.2')", "no_metric", "2 times"),
    ("print('val_bpb: good')", "no_metric", "not a number"),
    ("print('val_bpb: ')", "no_metric", "not a number"),
    ("print('val_bpb: nan')", "nan", "nan"),
    ("print('val_bpb: -inf')", "nan", "inf"),
    ("print('val_bpb: 1e999')", "nan", "inf"),
    ("raise ValueError('what is this')", "crash", "what is this"),
    ("print('val_bpb: 3.2'); raise SystemExit(1)", "crash", "code 1"),
    ("import os; os.abort()", "crash", "code -6"),
    ("import os; os.kill(os.getpid(), 9)", "oom", "code -9"),
    ("raise MemoryError", "oom", "MemoryError"),
    ("print('failure: nan'); raise SystemExit(3)", "nan", "code 3"),
    ("print('failure: anything'); raise SystemExit(3)", "crash", "code 3"),
    ("print('failure: nan')", "no_metric", "printed no line"),
]


@pytest.mark.parametrize(("code", "failure", "message"), BAD)
def test_a_bad_trial_is_classified(code, failure, message):
    outcome = trial(code)
    assert outcome.metric is None
    assert outcome.failure == failure
    assert message in outcome.message


@pytest.mark.parametrize(
    "code",
    [
        "import time; print('val_bpb: 3.2', flush=True); time.sleep(60)",
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)",
        "import os, time; os.close(1); os.close(2); time.sleep(60)",
        "import os, time; os.fork(); time.sleep(60)",
        "while True: print('x' * 10000)",
    ],
)
def test_a_trial_that_hangs_ends_at_its_deadline(code):
    outcome = trial(code, deadline=1.0)
    assert (outcome.metric, outcome.failure) == (None, "timeout")
    assert len(outcome.message) < 3000


def test_a_trial_that_can_not_be_started_is_our_trouble():
    outcome = measure(
        ["/nowhere/python"], metric="m", deadline_seconds=5, env={}, cwd=Path("/nowhere")
    )
    assert (outcome.metric, outcome.failure) == (None, "infrastructure")


@given(st.text(max_size=300), st.integers(-15, 6), st.booleans())
def test_whatever_is_printed_is_classified(output, code, timed_out):
    done = Finished(returncode=code, output=output, timed_out=timed_out, seconds=1.0)
    reader = MetricReader(name="val_bpb")
    for line in output.split("\n"):
        reader.feed(line)
    outcome = classify(done, metric=reader, deadline_seconds=5)
    assert (outcome.metric is None) == (outcome.failure in FAILURES)
    assert outcome.failure == "" or outcome.failure in FAILURES
    if code != 0 or timed_out:
        assert outcome.metric is None


def test_what_a_task_needs_is_asked_for_before_the_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(TaskError, match="ESCAPEMENT_VAR names"):
        get_task("gpt", places=Places(var=tmp_path / "file"))

    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("runner.tasks.gpt.version", missing)
    with pytest.raises(TaskError, match="pip install"):
        get_task("gpt", places=Places(var=tmp_path))


def test_a_trial_sees_no_secret(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "k-secret")
    monkeypatch.setenv("ESCAPEMENT_TOKEN", "t-secret")
    assert "secret" not in repr(trial_environment({}))


def test_a_trial_dies_with_the_runner(tmp_path):
    """kill -9 of the runner leaves no trainer behind."""
    marker = tmp_path / "pid"
    code = f"import os, time; open({str(marker)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    runner = subprocess.Popen(
        [sys.executable, "-c", f"from tests.runner.tasks.test_tasks import trial; trial({code!r})"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"},
    )
    try:
        until(lambda: marker.exists() and marker.read_text())
    finally:
        runner.send_signal(signal.SIGKILL)
        runner.wait(10)
    wait_for_end(int(marker.read_text()))


# --- the gpt task ---


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return GptTask(budget_seconds=1.0, cache=tmp_path_factory.mktemp("cache"))


def test_a_real_trial_measures_bits_per_byte(task):
    told: list[str] = []
    outcome = task.run({**task.space.defaults(), **SMALL}, seed=1, progress=told.append)
    assert outcome.failure == "", outcome.message
    assert 1.5 < outcome.metric < 6
    assert outcome.details["corpus_digest"] == task.corpus.digest
    assert any(line.startswith("trained ") for line in told)


def test_a_broken_constraint_costs_no_training(task, monkeypatch):
    monkeypatch.setattr("runner.tasks.gpt.measure", lambda *a, **k: pytest.fail("it trained"))
    for changes in ({"TOTAL_BATCH_SIZE": 2**10}, {"DEPTH": 9}, {"NO_SUCH": 1}):
        outcome = task.run({**task.space.defaults(), **changes}, seed=0)
        assert (outcome.metric, outcome.failure, outcome.seconds) == (None, "constraint", 0.0)
        assert next(iter(changes)) in outcome.message


def test_a_spoiled_corpus_is_our_trouble_and_not_the_trials(task, tmp_path):
    shutil.copytree(task._cache, tmp_path, dirs_exist_ok=True)
    spoiled = GptTask(budget_seconds=1.0, cache=tmp_path)
    path = spoiled.corpus.path
    path.write_bytes(b"x" * path.stat().st_size)
    outcome = spoiled.run(spoiled.space.defaults(), seed=0)
    assert (outcome.metric, outcome.failure) == (None, "infrastructure")
    assert "remove the file" in outcome.message


def test_too_little_memory_is_oom(task):
    small = GptTask(budget_seconds=1.0, cache=task._cache, memory_mb=420)
    config = {**task.space.defaults(), "TOTAL_BATCH_SIZE": 2**14, "DEVICE_BATCH_SIZE": 128}
    assert small.run(config, seed=0).failure == "oom"


def test_a_trainer_past_its_deadline_is_a_timeout(task):
    deadline = Deadline(budget_seconds=1.0, factor=0.1, startup_seconds=0.1)
    slow = GptTask(budget_seconds=1.0, cache=task._cache, deadline=deadline)
    assert slow.run(slow.space.defaults(), seed=0).failure == "timeout"


def test_the_digest_covers_what_makes_metrics_comparable(task):
    assert task.digest == GptTask(budget_seconds=1.0, cache=task._cache).digest
    others = [
        GptTask(budget_seconds=2.0, cache=task._cache).digest,
        GptTask(budget_seconds=1.0, cache=task._cache, threads=2).digest,
        GptTask(budget_seconds=1.0, cache=task._cache, memory_mb=1000).digest,
    ]
    assert len({task.digest, *others}) == 4


def test_another_trainer_is_another_task(task, monkeypatch, tmp_path):
    before = task.digest  # kept from now on
    changed = tmp_path / "train.py"
    changed.write_text("# another trainer\n")
    monkeypatch.setattr("runner.tasks.gpt.TRAINER_FILES", (changed,))
    assert GptTask(budget_seconds=1.0, cache=task._cache).digest != before


def test_the_host_says_what_a_number_needs_beside_it(task):
    facts = task.host()
    assert {"cpu", "cores", "torch", "threads", "budget_seconds", "corpus_digest"} <= set(facts)
    assert facts["corpus_digest"] == task.corpus.digest
