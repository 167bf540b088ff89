"""Runs a draft's own unit tests with pytest, inside the sandbox. Inside half.

The result is testimony by a suspect: code under test shares this process and may forge it. It can
fail a draft, never pass it; the verdict is made on the host side.
"""

from __future__ import annotations

import os
import sys
from typing import Any

ROOT = "/tmp/draft"  # noqa: S108  # nosec B108
MAX_FAILURES = 20
MESSAGE_CHARS = 2000


class _Listener:
    """A pytest plugin that counts what was collected and keeps what failed."""

    def __init__(self) -> None:
        self.collected = 0
        self.passed = 0
        self.skipped = 0
        self.failures: list[dict[str, str]] = []

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        self.collected = len(items)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self._fail(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self._fail(report)
        elif report.skipped:
            self.skipped += 1
        elif report.when == "call":
            self.passed += 1

    def _fail(self, report: Any) -> None:
        if len(self.failures) < MAX_FAILURES:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = str(getattr(crash, "message", "") or report.longrepr).strip()
            self.failures.append(
                {
                    "test": _printable(str(report.nodeid)),
                    "reason": _printable(reason.splitlines()[0] if reason else "failed"),
                    "message": _printable(str(report.longrepr)[-MESSAGE_CHARS:]),
                }
            )


def _printable(text: str) -> str:
    return text[:MESSAGE_CHARS].replace("\x00", "?").encode("utf-8", "replace").decode()


def prepare() -> None:
    """Import pytest, which takes longer than to run most tests."""
    import pytest  # noqa: F401, PLC0415 - only this job needs it


def run(files: dict[str, bytes]) -> dict[str, Any]:
    """Write `files` below the one writable folder, run pytest there, and say what happened."""
    for path, data in files.items():
        place = os.path.join(ROOT, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        with open(place, "wb") as file:
            file.write(data)
    os.chdir(ROOT)
    sys.path.insert(0, ROOT)
    import pytest  # noqa: PLC0415 - only this job needs it

    listener = _Listener()
    # importlib mode: the draft's tests are no package. No cache, no fd capture, no other plugin:
    # standard output is not ours to give away.
    options = f"-q -c {os.devnull} --rootdir={ROOT} --import-mode=importlib --capture=sys"
    options += " --color=no -p no:cacheprovider -p no:faulthandler tests"
    exit_code = pytest.main(options.split(), plugins=[listener])
    return {
        "exit_code": int(exit_code),
        "collected": listener.collected,
        "passed": listener.passed,
        "skipped": listener.skipped,
        "failures": listener.failures,
    }
