"""A call in a thread of its own, that nobody has to wait for: the thread ends with the process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_background(call: Callable[[], T], *, name: str) -> Future[T]:
    """Begin `call` now; what it gives, or raises, is the future's."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            found = call()
        except BaseException as error:  # handed to whoever takes the result
            future.set_exception(error)
        else:
            future.set_result(found)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future
