"""Every specimen through the real gate: honest ones pass, the others fail for the right reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sandbox.backends.base import Backend
from sandbox.checks.dependencies import NOT_SCANNED
from sandbox.draft import lay_out, load_draft, read_files
from sandbox.limits import Limits
from sandbox.report import Outcome, Report, Severity
from sandbox.screen import screen

ROOT = Path(__file__).parent / "specimens"
EXPECTED: dict[str, dict[str, Any]] = json.loads((ROOT / "expected.json").read_text("utf-8"))
HONEST = sorted(p.name for p in (ROOT / "honest").glob("*.py"))
STATIC = sorted(n for n, e in EXPECTED.items() if e["static"])
DYNAMIC_ONLY = sorted(n for n, e in EXPECTED.items() if not e["static"])
# What is expected to hang is given up sooner than in a real screening.
SOON = Limits(load_seconds=3, call_seconds=2, job_seconds=8)

pytestmark = pytest.mark.engine


def look(name: str, backend: Backend, *, static: bool) -> Report:
    path = ROOT / name
    draft = lay_out(read_files(path), require_test=path.is_dir())
    dynamic = EXPECTED[name]["dynamic"]
    hangs = "TIMEOUT" in dynamic.get("rules", ())
    return screen(draft, backend=backend, static=static, limits=SOON if hangs else None)


def errors(report: Report) -> list[tuple[str, str, str]]:
    return [(f.check, f.rule, f.message) for f in report.findings if f.severity is Severity.ERROR]


def test_every_specimen_has_an_expectation() -> None:
    there = {
        p.relative_to(ROOT).as_posix()
        for k in ("hostile", "inert")
        for p in (ROOT / k).glob("*.py")
    }
    there |= {f"drafts/{p.name}" for p in (ROOT / "drafts").iterdir() if p.name != "honest_tabu"}
    assert there == set(EXPECTED)
    assert len(HONEST) >= 12


@pytest.mark.parametrize("name", HONEST)
def test_honest_passes(name: str, engine: Backend) -> None:
    report = screen(load_draft(ROOT / "honest" / name), backend=engine)
    assert report.outcome is Outcome.PASSED, errors(report)
    assert {f.severity for f in report.findings if f.rule != NOT_SCANNED} <= {Severity.NOTE}


def test_honest_draft_with_its_test_passes(engine: Backend) -> None:
    report = screen(load_draft(ROOT / "drafts/honest_tabu"), backend=engine)
    assert report.outcome is Outcome.PASSED, errors(report)
    assert [f.rule for f in report.findings] == [NOT_SCANNED]  # no snapshot of advisories here
    unit_tests = report.check("unit_tests")
    assert unit_tests is not None
    assert unit_tests.detail["collected"] == 3


@pytest.mark.parametrize("name", STATIC)
def test_static_gate_refuses(name: str, engine: Backend) -> None:
    expected = EXPECTED[name]["static"]
    report = look(name, engine, static=True)
    assert report.outcome is Outcome.FAILED
    assert any(
        (check, rule) == (expected["check"], expected["rule"]) and expected["says"] in message
        for check, rule, message in errors(report)
    ), errors(report)
    started = report.check("import")
    assert started is not None
    assert started.outcome is Outcome.SKIPPED  # never executed


@pytest.mark.parametrize("name", DYNAMIC_ONLY)
def test_whole_gate_refuses(name: str, engine: Backend) -> None:
    judge_dynamic(name, look(name, engine, static=True))


@pytest.mark.parametrize("name", STATIC)
def test_contained_without_static_gate(name: str, engine: Backend) -> None:
    judge_dynamic(name, look(name, engine, static=False))


def judge_dynamic(name: str, report: Report) -> None:
    expected = EXPECTED[name]["dynamic"]
    assert report.outcome is Outcome.FAILED
    assert "ESCAPED" not in report.to_json()
    seen = errors(report)
    if "any" in expected:
        assert any(rule in expected["any"] for _, rule, _ in seen), seen
    else:
        assert any(c == expected["check"] and r in expected["rules"] for c, r, _ in seen), seen
