"""Whoever waits for a training hears of a signal at once, and of what the training raised."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from types import FrameType

import pytest

from runner.interfaces import Outcome
from runner.loop.trainings import awaited, sane


class Told(BaseException):
    """What the handler of the signal raises."""


@pytest.fixture
def told_by_a_signal() -> Iterator[None]:
    def tell(_number: int, _frame: FrameType | None) -> None:
        raise Told

    before = signal.signal(signal.SIGUSR1, tell)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("told_by_a_signal")
def test_a_signal_that_does_not_wake_the_waiting_thread_is_heard_before_the_training_ends() -> None:
    """As one that comes just before it falls asleep: the kernel gives it to another thread here."""
    training: Future[None] = Future()
    asleep, over = threading.Event(), threading.Event()

    def train() -> None:
        asleep.wait(0.2)
        signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        over.wait(60)
        training.set_result(None)

    thread = threading.Thread(target=train)

    def begin_and_wait() -> None:
        thread.start()
        awaited(training)

    try:
        with pytest.raises(Told):
            begin_and_wait()
        assert not training.done()
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("metric", [float("nan"), float("-inf"), 1e200, -1.1e100])
def test_a_metric_that_nothing_can_be_computed_from_is_none(metric: float) -> None:
    found = sane(Outcome(metric=metric))
    assert (found.metric, found.failure) == (None, "nan")
    assert f"{metric}" in found.message
    assert sane(Outcome(metric=-1e100)) == Outcome(metric=-1e100)


def test_what_a_training_raised_comes_out() -> None:
    training: Future[None] = Future()
    training.set_exception(TimeoutError("its own"))
    with pytest.raises(TimeoutError, match="its own"):
        awaited(training)
