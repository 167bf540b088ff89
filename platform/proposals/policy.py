"""The policy: a written file, and the pure function that judges evidence by it.

No database, no clock, no file: whoever calls gives the evidence and the context, so that any
decision can be replayed. Deny beats escalate beats allow; where nothing matches people decide;
an error is a deny. Nothing acts here: `lifecycle` and `autonomy` do.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

MAX_POLICY_BYTES = 64 * 1024
Name = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z][a-zA-Z0-9_.-]{0,79}$")]


class PolicyError(ValueError):
    """A text that is no policy; the message says where and why."""


class Mode(StrEnum):
    MANUAL = "manual"  # people approve everything
    SHADOW = "shadow"  # people approve everything; what guarded mode would do is recorded
    GUARDED = "guarded"  # the policy may approve what is low risk and all green


class Decision(StrEnum):
    ALLOW = "allow"  # the policy may approve
    ESCALATE = "escalate"  # people decide
    DENY = "deny"  # nobody may approve


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Quorum(_Strict):
    """How many different people approve, by risk."""

    low: int = Field(ge=1, le=10)
    high: int = Field(ge=1, le=10)


class Roles(_Strict):
    """The group that each right belongs to."""

    review: Name
    operate: Name
    audit: Name
    own_policy: Name


class People(_Strict):
    """Who decides, how many, and for how long a decision stands."""

    roles: Roles
    quorum: Quorum
    release_quorum: int = Field(ge=1, le=10)
    approval_hours: float = Field(gt=0, le=24 * 90)
    pending_hours: float = Field(gt=0, le=24 * 365)
    open_per_author: int = Field(ge=1, le=1000)


class Forbid(_Strict):
    """Findings by rule, whatever their severity, and paths outside of these, deny."""

    rules: tuple[Name, ...] = ()
    paths_outside: tuple[Literal["mechanisms/", "tests/"], ...] = Field(min_length=1)


# Findings that say how much is known of a package's vulnerabilities: `Freshness` judges that.
FRESHNESS_RULES = frozenset({"advisories-not-scanned", "advisories-stale"})


class Freshness(_Strict):
    """Advisories of vulnerabilities: how old they may be, and what follows where they are older,
    or where nobody scanned. `show`: the finding is there to be read, and nothing else."""

    advisories_days: int = Field(ge=1, le=3650)
    otherwise: Literal["show", "escalate", "deny"]


class Checks(_Strict):
    """Evidence: what must have passed, and how old it may be."""

    required: tuple[Name, ...] = Field(min_length=1)
    fresh_hours: float = Field(gt=0, le=24 * 90)
    decisions_changed: int = Field(ge=1)
    freshness: Freshness = Freshness(advisories_days=30, otherwise="show")


class Limits(_Strict):
    """The blast radius of one proposal."""

    files: int = Field(ge=1, le=8)
    lines: int = Field(ge=1, le=5000)


class Budgets(_Strict):
    """How often the policy may approve by itself."""

    automatic_a_day: int = Field(ge=0, le=1000)
    automatic_in_a_row: int = Field(ge=0, le=1000)


class Canary(_Strict):
    """When a mechanism that went live is taken back by itself."""

    trials: int = Field(ge=2, le=1000)
    max_failures: int = Field(ge=0)
    max_errors: int = Field(ge=0)
    regression_sigma: float = Field(gt=0)
    no_effect_trials: int = Field(ge=1)


class Dependencies(_Strict):
    """Requests for a package: how many approve, and what nobody may approve. `show`: it is there
    to be read. An empty list of licences allows every one that is stated."""

    quorum: int = Field(default=2, ge=1, le=10)
    vulnerable: Literal["show", "deny"] = "deny"
    not_scanned: Literal["show", "deny"] = "show"
    unknown_licence: Literal["show", "deny"] = "show"
    licences: tuple[str, ...] = ()


class Policy(_Strict):
    """The whole file. Unknown keys are refused."""

    version: Literal[1]
    title: str = Field(min_length=1, max_length=200)
    owners: tuple[str, ...] = Field(min_length=1)
    expires: date
    mode: Mode
    default: Literal[Decision.ESCALATE]
    people: People
    forbid: Forbid
    checks: Checks
    limits: Limits
    budgets: Budgets
    canary: Canary
    dependencies: Dependencies = Dependencies()
    veto_minutes: Literal[0]

    def mode_at(self, now: datetime) -> Mode:
        """The mode in force: past its expiry a policy is manual."""
        return Mode.MANUAL if now.date() > self.expires else self.mode


@functools.lru_cache(maxsize=8)
def parse(text: str) -> Policy:
    """The policy that a YAML text writes; it can't be changed, so one answer serves all who ask
    for the same text. Raises PolicyError."""
    if len(text.encode()) > MAX_POLICY_BYTES:
        raise PolicyError(f"a policy has at most {MAX_POLICY_BYTES} bytes")
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise PolicyError(f"not YAML: {str(error)[:500]}") from error
    if not isinstance(data, dict):
        raise PolicyError("a policy is a mapping with `version`, `mode`, ...")
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise PolicyError(f"{where}: {first['msg']} ({error.error_count()} problems)") from error


def digest_of_text(text: str) -> str:
    """The identity of a policy: SHA-256 of its exact text."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What a screening and the draft itself show; facts only."""

    outcome: str
    checks: Mapping[str, str]  # name -> outcome
    rules: tuple[str, ...]  # rules of all findings
    paths: tuple[str, ...]
    lines: int
    recognised: str  # the approved operator that this re-parameterises, proved by content
    decisions_changed: int
    age_hours: float
    advisories_days: int | None = None  # age of what the scan knew; None: nobody scanned


@dataclass(frozen=True, kw_only=True)
class Context:
    """The world at the moment of judging."""

    now: datetime
    policy_digest: str
    automatic_today: int
    automatic_in_a_row: int
    stops: tuple[str, ...] = ()  # open stops, in words
    log_problem: str = ""  # why the audit log does not verify
    same_base: bool = True
    person_required: str = ""  # why a person is required anyway


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The judgement, with its reasons in words. `would` is what guarded mode would say."""

    decision: Decision
    quorum: int
    risk: Literal["low", "high"]
    reasons: tuple[str, ...]
    automatic: bool
    policy_digest: str
    mode: Mode
    would: Decision

    def to_data(self) -> dict[str, Any]:
        """Plain JSON data, as `Screening.verdict` keeps it."""
        return {**asdict(self), "reasons": list(self.reasons)}


@dataclass
class _Reasons:
    deny: list[str] = field(default_factory=list)
    escalate: list[str] = field(default_factory=list)


def judge(policy: Policy, evidence: Evidence, context: Context) -> Verdict:
    """What the policy says about this evidence now. Never raises: an error is a deny."""
    mode = Mode.MANUAL
    try:
        mode = policy.mode_at(context.now)
        risk: Literal["low", "high"] = "low" if evidence.recognised else "high"
        quorum = policy.people.quorum.low if risk == "low" else policy.people.quorum.high
        reasons = _Reasons()
        _gates(policy, evidence, reasons)
        _guards(policy, evidence, context, reasons)
    except Exception as error:  # whatever went wrong, nobody may approve on it
        return Verdict(
            decision=Decision.DENY,
            quorum=99,
            risk="high",
            reasons=(f"the policy could not be evaluated: {error!r}"[:500],),
            automatic=False,
            policy_digest=context.policy_digest,
            mode=mode,
            would=Decision.DENY,
        )
    would = Decision.ALLOW
    if reasons.deny:
        would = Decision.DENY
    elif reasons.escalate:
        would = Decision.ESCALATE
    decision, words = would, reasons.deny + reasons.escalate
    if decision is Decision.ALLOW and mode is not Mode.GUARDED:
        decision, words = Decision.ESCALATE, [_mode_reason(policy, mode)]
    elif decision is Decision.ALLOW:
        words = [f"a re-parameterised {evidence.recognised}, every gate green, inside the budget"]
    return Verdict(
        decision=decision,
        quorum=quorum,
        risk=risk,
        reasons=tuple(words),
        automatic=decision is Decision.ALLOW,
        policy_digest=context.policy_digest,
        mode=mode,
        would=would,
    )


def _mode_reason(policy: Policy, mode: Mode) -> str:
    if mode is not policy.mode:
        return f"the policy expired on {policy.expires}: people decide until it is renewed"
    return f"the policy's mode is {mode}: people decide"


def _gates(policy: Policy, evidence: Evidence, reasons: _Reasons) -> None:
    """What nobody may approve."""
    deny = reasons.deny.append
    if evidence.outcome != "passed":
        deny(f"the screening's outcome is {evidence.outcome}, not passed")
    for name in policy.checks.required:
        if (got := evidence.checks.get(name)) != "passed":
            deny(f"the required check {name} is {got or 'missing'}")
    for rule in sorted(set(evidence.rules) & set(policy.forbid.rules)):
        deny(f"the finding {rule} is forbidden")
    for path in evidence.paths:
        if not path.startswith(policy.forbid.paths_outside):
            deny(f"{path} is outside of {', '.join(policy.forbid.paths_outside)}")
    if len(evidence.paths) > policy.limits.files:
        deny(f"{len(evidence.paths)} files, the limit is {policy.limits.files}")
    if evidence.lines > policy.limits.lines:
        deny(f"{evidence.lines} lines, the limit is {policy.limits.lines}")
    if evidence.decisions_changed < policy.checks.decisions_changed:
        deny(
            f"replay changed {evidence.decisions_changed} decisions, "
            f"at least {policy.checks.decisions_changed} are required"
        )
    if policy.checks.freshness.otherwise == "deny" and (old := _unfresh(policy, evidence)):
        deny(old)
    if evidence.age_hours > policy.checks.fresh_hours:
        deny(f"the evidence is {evidence.age_hours:.0f} h old: screen again")


def _unfresh(policy: Policy, evidence: Evidence) -> str:
    """What is wrong with the age of the advisories; empty: nothing."""
    limit = policy.checks.freshness.advisories_days
    if evidence.advisories_days is None:
        return "the dependencies were not scanned for known vulnerabilities"
    if evidence.advisories_days > limit:
        return f"the advisories are {evidence.advisories_days} days old, the limit is {limit}"
    return ""


def _guards(policy: Policy, evidence: Evidence, context: Context, reasons: _Reasons) -> None:
    """What only people may approve."""
    escalate = reasons.escalate.append
    if not evidence.recognised:
        escalate("new code, not an approved operator with changed parameters: people decide")
    if to_read := sorted(set(evidence.rules) - FRESHNESS_RULES):
        escalate(f"findings to read: {', '.join(to_read)}")
    if policy.checks.freshness.otherwise == "escalate" and (old := _unfresh(policy, evidence)):
        escalate(old)
    if context.automatic_today >= policy.budgets.automatic_a_day:
        escalate(f"today's {policy.budgets.automatic_a_day} automatic approvals are used up")
    if context.automatic_in_a_row >= policy.budgets.automatic_in_a_row:
        escalate(
            f"{context.automatic_in_a_row} automatic approvals in a row: a person must look "
            "before the next"
        )
    for stop in context.stops:
        escalate(stop)
    if context.log_problem:
        escalate(f"the audit log does not verify: {context.log_problem}")
    if not context.same_base:
        escalate("the base moved")
    if context.person_required:
        escalate(context.person_required)
