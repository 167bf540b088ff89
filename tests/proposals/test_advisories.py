"""Advisories on the platform: the command, the policy's word on their age, the evidence bundle."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from audit.models import Entry
from django.core.management import CommandError, call_command
from proposals.evidence import ProposalEvidence
from proposals.policy import FRESHNESS_RULES

from sandbox import advisories, sbom
from sandbox.checks import dependencies
from sandbox.report import Draft, Finding, Severity
from sandbox.vulnerabilities import Scan

FILE = Path(__file__).parents[1] / "sandbox/advisories/pypa-2024-10-10-reduced.json"
LOCK = ("numpy==2.4.6",)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ESCAPEMENT_ADVISORIES", str(tmp_path / "store"))
    return tmp_path / "store"


def scanned(days: int | None) -> Scan:
    """A scan whose advisories are so many days old; None: nobody scanned."""
    if days is None:
        return Scan(lock=LOCK, problem="no snapshot")
    at = datetime.now(UTC) - timedelta(days=days, hours=1)
    return Scan(lock=LOCK, source="snapshot", dated=at.strftime("%Y-%m-%dT%H:%M:%SZ"))


def judged(world: Any, days: int | None) -> Any:
    """A re-parameterised operator whose dependencies were scanned so; the verdict."""
    proposal = world.submit("other", files=world.tabu("other"))
    report = world.report(proposal)
    files = {proposal.mechanism_path: b"import numpy"}
    draft = Draft(mechanism_path=proposal.mechanism_path, files=files)
    result = dependencies.check(draft, lambda: scanned(days))
    checks = tuple(result if c.name == "dependencies" else c for c in report.checks)
    return proposal, world.screen(proposal, checks=checks)


def freshness(world: Any, otherwise: str) -> None:
    world.load_policy(
        mode="guarded", checks__freshness={"advisories_days": 30, "otherwise": otherwise}
    )


def test_the_policy_knows_the_rules_by_name() -> None:
    assert {dependencies.NOT_SCANNED, dependencies.STALE} == FRESHNESS_RULES


@pytest.mark.parametrize(
    ("otherwise", "days", "decision"),
    [
        ("show", None, "allow"),
        ("show", 400, "allow"),
        ("escalate", 3, "allow"),
        ("escalate", 31, "escalate"),
        ("escalate", None, "escalate"),
        ("deny", 3, "allow"),
        ("deny", 31, "deny"),
        ("deny", None, "deny"),
    ],
)
def test_the_age_of_advisories_counts_as_the_policy_says(
    world: Any, otherwise: str, days: int | None, decision: str
) -> None:
    freshness(world, otherwise)
    proposal, screening = judged(world, days)
    assert screening.verdict["decision"] == decision
    if decision == "deny":
        assert proposal.state == "failed"
        assert "scanned" in proposal.state_reason or "31 days old" in proposal.state_reason
    fresh = days is not None and days < 30
    findings = [f for c in screening.report["checks"] for f in c["findings"]]
    assert bool(findings) is not fresh  # never silently clean


def test_other_findings_are_still_read(world: Any) -> None:
    freshness(world, "show")
    proposal = world.submit("other", files=world.tabu("other"))
    odd = Finding(check="imports", rule="odd", severity=Severity.WARNING, message="x")
    checks = tuple(
        replace(c, findings=(odd,)) if c.name == "imports" else c
        for c in world.report(proposal).checks
    )
    assert world.screen(proposal, checks=checks).verdict["decision"] == "escalate"


def test_the_bundle_has_findings_and_bill(world: Any) -> None:
    freshness(world, "show")
    proposal, screening = judged(world, None)
    files = dict(ProposalEvidence().files("default"))
    place = f"changes/{proposal.pk}/screening-{screening.pk}"
    sarif = json.loads(files[f"{place}/findings.sarif"])
    assert [r["ruleId"] for r in sarif["runs"][0]["results"]] == [
        "dependencies/advisories-not-scanned"
    ]
    bill = files[f"{place}/sbom.cdx.json"]
    assert json.loads(bill) == sbom.document(LOCK)
    detail = next(c for c in screening.report["checks"] if c["name"] == "dependencies")["detail"]
    assert dependencies.digest_of(bill) == detail["sbom_sha256"]


def test_a_report_without_a_bill_has_none_in_the_bundle(world: Any) -> None:
    proposal = world.passed()
    names = dict(ProposalEvidence().files("default"))
    assert not [n for n in names if n.endswith("sbom.cdx.json")]
    assert f"changes/{proposal.pk}/diff.patch" in names


def test_command_stores_and_records(world: Any, store: Path) -> None:
    out = io.StringIO()
    call_command("update_advisories", str(FILE), "--by", "linus", stdout=out)
    assert "numpy==" in out.getvalue()
    assert "STALE" in out.getvalue()
    snapshot = advisories.current(store)
    assert snapshot is not None
    entry = Entry.objects.get(verb="advisories.updated")
    assert entry.subject == f"advisories:{snapshot.digest[:12]}"
    assert entry.actor_name == "linus"


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b"{}"])
def test_command_refuses_what_is_none(
    world: Any, store: Path, tmp_path: Path, content: bytes
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    with pytest.raises(CommandError, match="not taken"):
        call_command("update_advisories", str(bad))
    assert advisories.current(store) is None
    assert not Entry.objects.filter(verb="advisories.updated").exists()
