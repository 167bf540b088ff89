"""Reading Python from several threads at once, as the runner and the pages do."""

from __future__ import annotations

import ast
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from sandbox.syntax import expression_of, tree_of

SOURCE = "".join(f"def f{n}(a, b=({n}, [{n}])):\n    return {{a: [b, -a]}}\n" for n in range(60))
EACH = 40


@contextmanager
def interrupted_often() -> Iterator[None]:
    """Python code runs in the middle of parsing, and another thread may come in."""
    gone = threading.Event()

    def collected(phase: str, info: dict[str, int]) -> None:
        gone.wait(0.0001)  # lets another thread run

    before = gc.get_threshold()
    gc.callbacks.append(collected)
    gc.set_threshold(200)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(collected)


def test_threads_that_parse_at_once_all_get_their_tree() -> None:
    expected = ast.dump(tree_of(SOURCE))
    wrong: list[str] = []

    def work() -> None:
        try:
            for _ in range(EACH):
                tree = tree_of(SOURCE)
                expression_of("(1, [2, {3: -4}])")
            if ast.dump(tree) != expected:
                wrong.append("another tree")
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    with interrupted_often():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_what_is_no_python_has_the_parsers_own_error() -> None:
    with pytest.raises(SyntaxError):
        tree_of("def (")
    with pytest.raises(SyntaxError):
        expression_of("a = 1")
