"""The reviewer's walk in a real browser, over a real server."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser
HERE = Path(__file__).resolve().parent
PAGES = (
    *("/", "/proposals/", "/proposals/1/", "/proposals/3/", "/proposals/5/", "/proposals/6/"),
    *("/proposals/7/", "/proposals/new/", "/targets/", "/targets/demo/", "/runs/", "/runs/1/"),
    *("/audit/", "/audit/12/", "/policy/", "/no-such-page/"),
)


def log_in(page: Page, server: str, factory: Any, name: str = "ada") -> None:
    page.goto(f"{server}/login/")
    page.get_by_label("User name").fill(name)
    page.get_by_label("Password").fill(factory.PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url(f"{server}/")


def complaints(page: Page) -> list[str]:
    """What the browser complains of, as it comes: scripts, policy, missing files."""
    found: list[str] = []
    page.on("console", lambda m: found.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda e: found.append(str(e)))
    return found


def test_the_reviewers_walk(server: str, page: Page, factory: Any) -> None:
    """Log in, find the work, be refused too early, open everything, approve, see it on record."""
    found = complaints(page)
    log_in(page, server, factory)
    page.get_by_role("link", name="Wider tabu list").click()
    approve = page.get_by_role("button", name="Approve")
    assert approve.inner_text() == "Approve (3 still to open)"
    assert approve.is_disabled()
    page.get_by_label("Why is this right?").fill("Only two parameters change.")

    # Too early, past the page's own guard: the server refuses, and keeps what was typed.
    page.get_by_label("Your password").fill(factory.PASSWORD)
    page.locator("#todo button").evaluate("button => { button.disabled = false; button.click() }")
    page.get_by_role("alert").filter(has_text="not opened yet").wait_for()
    assert page.get_by_label("Why is this right?").input_value() == "Only two parameters change."
    assert page.get_by_label("Your password").input_value() == ""
    found.clear()  # the browser notes the refusal's status

    page.goto(f"{server}/proposals/5/")
    page.get_by_label("Why is this right?").fill("Only two parameters change.")
    page.locator("summary", has_text="mechanisms/tabu_wide.py").click()
    page.get_by_role("button", name="Approve (2 still to open)").wait_for()
    page.locator("#todo a").first.click()  # a link to what is missing opens it
    page.get_by_role("button", name="Approve (1 still to open)").wait_for()
    page.locator("summary", has_text="B101").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Approve", exact=True).wait_for()
    assert page.get_by_label("Why is this right?").input_value() == "Only two parameters change."
    page.get_by_label("Your password").fill(factory.PASSWORD)
    page.get_by_role("button", name="Approve", exact=True).click()
    page.get_by_text("Your approval is on record.").wait_for()
    assert page.locator(".steps .now").inner_text() == "approved, to be activated"
    page.locator("#h-history").evaluate("e => e.scrollIntoView()")  # it may be new by now
    assert page.get_by_role("link", name="review.approved").is_visible()
    assert found == []


def test_live_without_reload(server: str, page: Page, factory: Any, tmp_path: Path) -> None:
    """A change elsewhere appears by itself; open items and half-typed reasons stay as they are."""
    log_in(page, server, factory)
    page.goto(f"{server}/proposals/5/")
    page.locator("html.is-live").wait_for()
    page.get_by_label("Why is this right?").fill("half a rea")
    page.locator("summary", has_text="B101").click()
    page.get_by_role("button", name="Approve (2 still to open)").wait_for()
    page.evaluate("window.sameDocument = true")
    with sqlite3.connect(tmp_path / "var" / "db.sqlite3", timeout=120) as database:
        database.execute(
            "UPDATE proposals_proposal SET title = 'Renamed elsewhere', "
            "changed_at = '2999-01-01 00:00:00' WHERE id = 5"
        )
    page.get_by_role("heading", name="Renamed elsewhere").wait_for()
    stop = (
        "INSERT INTO proposals_stop (scope, reason, engaged_by, created_at) "
        "VALUES ('autonomy', 'too quick', 'person:linus', '2026-01-01 00:00:00')"
    )
    with sqlite3.connect(tmp_path / "var" / "db.sqlite3", timeout=120) as database:
        database.execute(stop)
    page.get_by_role("alert").filter(has_text="too quick").wait_for()
    assert page.evaluate("window.sameDocument") is True
    assert page.get_by_label("Why is this right?").input_value() == "half a rea"
    assert page.locator("details", has_text="B101").last.get_attribute("open") is not None
    assert page.locator("#todo button").inner_text() == "Approve (2 still to open)"


def test_run_page_plots(
    server: str, server_environment: dict[str, str], page: Page, factory: Any
) -> None:
    """The plot is drawn, says on hover what a trial was, and takes up new trials by itself."""
    found = complaints(page)
    log_in(page, server, factory, "eve")
    page.goto(f"{server}/runs/1/")
    canvas = page.locator(".plot canvas")
    canvas.wait_for()
    assert canvas.evaluate(
        "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size > 50"
    )
    page.locator(".plot .u-over").hover(position={"x": 400, "y": 100})
    page.locator(".plot-tip", has_text="trial").wait_for()
    assert not page.locator(".static-chart").is_visible()
    before = page.locator("table.trials tbody tr").count()
    page.locator("#trial-9 details summary").click()
    page.get_by_role("link", name="all as JSON lines").focus()
    row = "document.getElementById('trial-20').getBoundingClientRect().top"
    page.evaluate("document.getElementById('trial-20').scrollIntoView()")
    where = page.evaluate(row)
    tell_one_more_trial(server_environment)
    page.locator("#trial-34").wait_for(state="attached")
    assert page.evaluate(row) == pytest.approx(where, abs=2)
    assert page.evaluate("document.activeElement.textContent") == "all as JSON lines"
    assert page.locator("#trial-9 details").get_attribute("open") is not None
    assert page.locator("table.trials tbody tr").count() == before + 1
    assert page.locator(".plot canvas").count() == 1
    assert found == []


def tell_one_more_trial(environment: dict[str, str]) -> None:
    """From another process, as a runner would."""
    script = (
        f"import runpy, sys; sys.path.insert(0, {str(HERE)!r}); "
        f"f = runpy.run_path({str(HERE / 'factory.py')!r}, run_name='told'); "
        "from runs.models import Run; f['trials'](Run.objects.get(), 1, seed=9)"
    )
    setup = "import django; django.setup(); "
    done = subprocess.run(
        [sys.executable, "-c", setup + script], env=environment,
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_page_at_both_widths_and_in_the_dark(
    server: str, browser: Browser, factory: Any
) -> None:
    """No page scrolls sideways at 390 or 1280; none complains; hostile text did nothing."""
    for width, scheme in ((390, "light"), (1280, "dark")):
        context = browser.new_context(
            viewport={"width": width, "height": 844},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        context.set_default_timeout(60_000)
        page = context.new_page()
        found = complaints(page)
        log_in(page, server, factory)
        for path in PAGES:
            found.clear()
            page.goto(f"{server}{path}")
            page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
            over = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert over <= 0, (path, width)
            assert page.evaluate("window.pwned") is None
            assert page.locator("main h1").count() == 1, path
            assert [c for c in found if "404" not in c] == [], path
        context.close()


def test_print_shows_everything(server: str, page: Page, factory: Any) -> None:
    """On paper: no buttons, closed items open, whole digests, the plot as a drawing."""
    log_in(page, server, factory, "katherine")
    page.goto(f"{server}/proposals/1/")
    page.emulate_media(media="print")
    for text in ("TENURE = 9", "The prompt", "longest discard streak"):
        assert page.get_by_text(text).first.is_visible(), text
    assert not page.get_by_role("navigation", name="Main").is_visible()
    assert not page.get_by_role("button", name="copy").first.is_visible()
    assert page.locator(".digest .full").first.is_visible()
    page.goto(f"{server}/runs/1/")
    assert page.locator(".static-chart svg").is_visible()
    assert len(page.pdf()) > 10_000


def test_without_script_it_still_works(server: str, browser: Browser, factory: Any) -> None:
    """Every step of an approval with scripting off."""
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(60_000)
    page = context.new_page()
    log_in(page, server, factory)
    for _ in range(3):
        page.goto(f"{server}/proposals/5/")
        href = page.locator("#todo a").first.get_attribute("href")
        assert href is not None
        page.locator(f"{href} > summary").click()
        page.locator(href).get_by_role("button", name="I have read this").click()
    page.get_by_label("Why is this right?").fill("Read it on paper.")
    page.get_by_label("Your password").fill(factory.PASSWORD)
    page.get_by_role("button", name="Approve", exact=True).click()
    page.get_by_text("Your approval is on record.").wait_for()
    context.close()
