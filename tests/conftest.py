"""What all tests share: a var folder of their own, the real engine, a real browser.

Not a place for fixtures of one part: those stand beside its tests.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from sandbox.backends import Backend

ROOT = Path(__file__).resolve().parents[1]

# Before Django reads its settings, and for each xdist worker anew: no test may ever touch the
# var/ of a person who works in this folder. (This is why pyproject names no settings module:
# pytest-django would load the settings before this file.)
VAR = Path(tempfile.mkdtemp(prefix="escapement-test-"))
os.environ["ESCAPEMENT_VAR"] = str(VAR)
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
os.environ.pop("DATABASE_URL", None)  # tests of PostgreSQL start a server of their own
# Playwright keeps an event loop in this thread, and Django would refuse the database beside it.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
sys.path[:0] = [p for p in (str(ROOT), str(ROOT / "platform")) if p not in sys.path]

import django  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

if url := os.environ.get("ESCAPEMENT_TEST_DATABASE"):  # docs/deploy.md; for this process alone
    os.environ["DATABASE_URL"] = url
django.setup()
os.environ.pop("DATABASE_URL", None)

# The same commit gives the same examples, and a busy machine decides nothing. To look for new
# examples at random: --hypothesis-profile=default
settings.register_profile(
    "suite", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")


def pytest_unconfigure() -> None:
    shutil.rmtree(VAR, ignore_errors=True)


# The files that take longest, longest first: processes that share the suite take whole files in
# this order, so that none is left alone with a long one at the end.
LONGEST = (
    "tests/test_demo.py",
    "tests/sandbox/test_specimens.py",
    "tests/sandbox/test_screen.py",
    "tests/sandbox/test_conformance.py",
    "tests/mechanisms_repo/test_operators.py",
    "tests/runner/gpt/test_train.py",
    "tests/web/test_pages.py",
    "tests/web/test_verbs.py",
    "tests/web/test_browser.py",
    "tests/sandbox/test_clearance.py",
    "tests/sandbox/test_docker.py",
    "tests/runner/control/test_hotload.py",
    "tests/proposals/test_several_runners.py",
    "tests/sandbox/test_host.py",
    "tests/audit/test_export.py",
    "tests/runner/arms/test_arms_command.py",
    "tests/dependencies/test_work.py",
    "tests/sandbox/test_chaos.py",
    "tests/proposals/test_screening.py",
    "tests/sandbox/test_engine_trouble.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; and a test that is marked `engine` gets the engine, whether it asks
    for it or not."""
    places = {str(ROOT / name): place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(str(item.path), len(LONGEST)))
    for item in items:
        names = getattr(item, "fixturenames", None)
        if names is not None and item.get_closest_marker("engine") and "engine" not in names:
            names.insert(0, "engine")


@pytest.fixture(scope="session", autouse=True)
def verdicts_do_not_age() -> Iterator[None]:
    """What the sandbox's doctor found serves half an hour: it must not run out between two lines of
    a test, which would start the doctor's workers among those that the test counts or disturbs."""
    from sandbox import clearance

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clearance, "GOOD_SECONDS", float("inf"))
        yield


@pytest.fixture(scope="session")
def engine() -> Backend:
    """The real Docker backend, with the sandbox image built. Missing: a failure, never a skip."""
    from sandbox.backends import get_backend
    from sandbox.errors import InfrastructureError

    try:
        return get_backend(progress=lambda text: sys.stderr.write(f"sandbox image: {text}\n"))
    except InfrastructureError as error:
        pytest.fail(f"no sandbox engine: {error}\nFix: make setup", pytrace=False)


def chromium() -> str:
    """The path of a Chromium on this machine."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.fail("no Chromium for the browser tests; `make test` installs it", pytrace=False)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A real, headless Chromium."""
    from playwright.sync_api import sync_playwright

    # Chromium's own sandbox does not start for root; only our own pages are opened in it.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        chrome = playwright.chromium.launch(
            executable_path=chromium(), args=arguments, timeout=120_000
        )
        yield chrome
        chrome.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a context of its own: no cookie of another test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture(scope="session")
def seed_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mechanisms repository as `manage.py init` makes it. Tests take a copy."""
    from django.conf import settings
    from proposals.branches import Repository

    path = tmp_path_factory.mktemp("seed") / "mechanisms.git"
    Repository(path).init(Path(settings.MECHANISMS_SEED))
    return path


@pytest.fixture(scope="session", autouse=True)
def audit_log() -> Iterator[None]:
    """Signing keys, and emptied tables after transactional tests.

    Such a test ends with a flush, which the audit log's triggers refuse, as they should: they are
    taken away for just that moment.
    """
    from audit import keys, triggers
    from django.db import connections
    from django.test import TransactionTestCase

    keys.ensure_keys()
    flush = TransactionTestCase._fixture_teardown

    def teardown(case: TransactionTestCase) -> None:
        aliases = list(case._databases_names(include_mirrors=False))
        for alias in aliases:
            triggers.remove(connections[alias])
        try:
            flush(case)
        finally:
            for alias in aliases:
                triggers.install(connections[alias])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", teardown)
        yield
