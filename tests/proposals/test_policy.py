"""The policy is a pure function: deny beats escalate beats allow, an error denies."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from proposals.policy import (
    Context,
    Decision,
    Evidence,
    Mode,
    Policy,
    PolicyError,
    digest_of_text,
    judge,
    parse,
)
from pydantic import ValidationError

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "platform" / "proposals" / "policy.yaml").read_text()
NOW = datetime(2026, 12, 1, tzinfo=UTC)
REQUIRED = parse(TEXT).checks.required


def policy(**changes: Any) -> Policy:
    data = yaml.safe_load(TEXT)
    for key, value in changes.items():
        section, _, name = key.rpartition("__")
        (data[section] if section else data)[name] = value
    return parse(yaml.safe_dump(data))


GREEN = Evidence(
    outcome="passed",
    checks=dict.fromkeys(REQUIRED, "passed"),
    rules=(),
    paths=("mechanisms/a.py", "tests/test_a.py"),
    lines=100,
    recognised="tabu",
    decisions_changed=7,
    age_hours=1.0,
)
CALM = Context(now=NOW, policy_digest="ab", automatic_today=0, automatic_in_a_row=0)
GUARDED = policy(mode="guarded")


def test_all_green_and_low_risk_is_allowed_in_guarded_mode_alone() -> None:
    verdict = judge(GUARDED, GREEN, CALM)
    assert (verdict.decision, verdict.automatic, verdict.quorum) == (Decision.ALLOW, True, 1)
    for mode in ("manual", "shadow"):
        verdict = judge(policy(mode=mode), GREEN, CALM)
        assert (verdict.decision, verdict.would) == (Decision.ESCALATE, Decision.ALLOW)
        assert not verdict.automatic


DENIED: list[dict[str, Any]] = [
    {"outcome": "failed"},
    {"outcome": "could_not_look"},
    {"checks": {}},
    {"checks": dict.fromkeys(REQUIRED[:-1], "passed")},
    {"checks": {**dict.fromkeys(REQUIRED, "passed"), "replay": "skipped"}},
    {"rules": ("hidden-character",)},
    {"paths": ("platform/proposals/policy.yaml",)},
    {"paths": ("mechanisms/a.py", "mechanisms/b.py", "tests/test_a.py")},
    {"lines": 601},
    {"decisions_changed": 0},
    {"age_hours": 1000.0},
]


@pytest.mark.parametrize("change", DENIED)
def test_what_nobody_may_approve(change: dict[str, Any]) -> None:
    for mode in Mode:
        verdict = judge(policy(mode=str(mode)), replace(GREEN, **change), CALM)
        assert verdict.decision is Decision.DENY
        assert verdict.reasons


ESCALATED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"recognised": ""}, {}),
    ({"rules": ("odd",)}, {}),
    ({}, {"automatic_today": 6}),
    ({}, {"automatic_in_a_row": 3}),
    ({}, {"stops": ("autonomy is stopped",)}),
    ({}, {"log_problem": "edited"}),
    ({}, {"same_base": False}),
    ({}, {"person_required": "sampled"}),
    ({}, {"now": datetime(2099, 1, 1, tzinfo=UTC)}),
]


@pytest.mark.parametrize(("evidence", "context"), ESCALATED)
def test_what_only_people_may_approve(evidence: dict[str, Any], context: dict[str, Any]) -> None:
    verdict = judge(GUARDED, replace(GREEN, **evidence), replace(CALM, **context))
    assert verdict.decision is Decision.ESCALATE
    assert verdict.quorum == (1 if replace(GREEN, **evidence).recognised else 2)


@given(
    denials=st.lists(st.sampled_from(DENIED), max_size=2),
    guards=st.lists(st.sampled_from(ESCALATED), max_size=3),
)
def test_deny_beats_escalate_beats_allow(
    denials: list[dict[str, Any]], guards: list[tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    evidence, context = GREEN, CALM
    for one, other in guards:
        evidence, context = replace(evidence, **one), replace(context, **other)
    for change in denials:
        evidence = replace(evidence, **change)
    expected = Decision.DENY if denials else Decision.ESCALATE if guards else Decision.ALLOW
    assert judge(GUARDED, evidence, context).decision is expected


@pytest.mark.parametrize("broken", [{"lines": None}, {"checks": None}, {"paths": (1,)}])
def test_an_error_is_a_deny(broken: dict[str, Any]) -> None:
    verdict = judge(GUARDED, replace(GREEN, **broken), CALM)
    assert (verdict.decision, verdict.would) == (Decision.DENY, Decision.DENY)
    assert "could not be evaluated" in verdict.reasons[0]


def test_a_text_is_parsed_once_and_nothing_of_it_can_be_changed() -> None:
    assert parse(TEXT) is parse(TEXT)
    assert hash(parse(TEXT))  # no part of it is a list or a mapping
    with pytest.raises(ValidationError, match="frozen"):
        parse(TEXT).people.open_per_author = 99


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "mode: manual", "a: &a [*a]", "{", "!!python/object/apply:os.system ['true']",
        TEXT + "\nsurprise: 1\n",
        TEXT.replace("mode: manual", "mode: reckless"),
        TEXT.replace("low: 1", "low: 0"),
        TEXT.replace("default: escalate", "default: allow"),
        TEXT.replace("expires: 2027-12-31", "expires: never"),
        TEXT.replace("fresh_hours: 168", "fresh_hours: .inf"),
        TEXT.replace("automatic_a_day: 6", "automatic_a_day: -1"),
        TEXT.replace("version: 1", "version: 2"),
        "x" * 70_000,
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(PolicyError):
        parse(text)


@given(st.text(max_size=300))
def test_any_text_is_a_policy_or_refused(text: str) -> None:
    with contextlib.suppress(PolicyError):
        assert parse(text).version == 1


def test_the_digest_is_of_the_exact_text() -> None:
    assert digest_of_text(TEXT) != digest_of_text(TEXT + "\n")
