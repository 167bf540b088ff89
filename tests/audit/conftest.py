"""Fixtures of the audit log's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest


@pytest.fixture
def unprotected() -> Callable[[], AbstractContextManager[None]]:
    """A moment without triggers: what somebody with the database file can do."""
    from audit import triggers
    from django.db import connection

    @contextmanager
    def moment() -> Iterator[None]:
        triggers.remove(connection)
        try:
            yield
        finally:
            triggers.install(connection)

    return moment
