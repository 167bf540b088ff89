"""Forked trainings: the same trainer, through one server; whatever ends badly is classified."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys

import pytest

from runner.arms.forked import ForkedGpt
from runner.gpt import forking
from runner.tasks import get_task


def trained(train, **options):
    child = forking.start(train, {"A": 1}, 7, budget_seconds=0.1, **options)
    while not child.read():
        pass
    return forking.finish(child)


def good(_config, seed):
    return {"failure": "", "metric": 3.5 + seed / 100, "steps": 3}


def test_what_a_child_answers_is_the_outcome():
    done = trained(good)
    assert (done.metric, done.failure, done.steps) == (3.57, "", 3)


def hungry(_config, _seed):
    return {"failure": "", "metric": float(len(bytearray(2**33))), "steps": 1}


ENDS = {
    "crash": lambda _c, _s: 1 / 0,
    "oom": lambda _c, _s: os.kill(os.getpid(), signal.SIGKILL),
    "timeout": lambda _c, _s: os.kill(os.getpid(), signal.SIGXCPU),
    "nan": lambda _c, _s: {"failure": "nan", "message": "the loss is nan"},
}


@pytest.mark.parametrize("failure", ENDS)
def test_however_a_child_ends_it_has_a_class(failure):
    done = trained(ENDS[failure])
    assert (done.metric, done.failure) == (None, failure)


@pytest.mark.parametrize(
    "answer", [{}, {"failure": ""}, {"failure": "", "metric": "x", "steps": 1}, [], None, "x"]
)
def test_nonsense_is_a_crash_never_a_number(answer):
    done = trained(lambda _c, _s: answer)
    assert (done.metric, done.failure) == (None, "crash")


def test_memory_is_limited_in_the_child_alone():
    done = trained(hungry, memory_mb=512)
    assert done.metric is None
    assert done.failure in ("crash", "oom")
    assert trained(good).metric is not None


def test_the_gpt_task_forked(monkeypatch):
    """One real server, after one that ends at once: trains, refuses what is outside the space."""
    begun = []
    popen = subprocess.Popen

    def once_wrong(args, **options):
        begun.append(args)
        return popen([sys.executable, "-c", ""] if len(begun) == 1 else args, **options)

    monkeypatch.setattr("runner.arms.forked.subprocess.Popen", once_wrong)
    plain = get_task("gpt", {"budget_seconds": 0.1})
    task = ForkedGpt(plain)
    try:
        config = {**task.space.defaults(), "TOTAL_BATCH_SIZE": 2048}
        first = task.run(config, seed=1)
        assert first.failure == "", first.message
        assert 0 < first.metric < 9
        assert math.isfinite(first.seconds)
        assert first.details["num_steps"] >= 1
        outside = task.run({**config, "TOTAL_BATCH_SIZE": 3}, seed=1)
        assert (outside.failure, outside.seconds) == ("constraint", 0.0)
        assert task.digest != plain.digest
        assert len(begun) == 2
    finally:
        task.close()
