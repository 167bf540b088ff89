"""What the pages show of the library of approved operators. Reads only, decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User

from proposals import branches, operators, people, standing
from proposals.library import NOMINABLE
from proposals.models import Activation, OperatorEntry, Proposal
from sandbox.operators import suggested, values_of

MAX_PAST = 50
MAX_USES = 12
Standing = OperatorEntry.Standing


@dataclass(kw_only=True)
class Field:
    """One parameter in the form of a nomination; bounds as they are typed."""

    name: str
    value: str
    bounded: bool
    low: str = ""
    high: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """One entry that is open: approved, or waiting for people."""

    entry: OperatorEntry
    problem: str  # why it counts for nothing; "": it counts
    people: list[dict[str, str]]
    parameters: list[dict[str, str]]
    uses: list[Proposal]
    use_count: int
    live_on: list[str]
    words: list[Any] = field(default_factory=list)
    terms_digest: str = ""
    cannot: list[str] = field(default_factory=list)

    @property
    def nominated(self) -> bool:
        """Whether it waits for people."""
        return self.entry.standing == Standing.NOMINATED


def cards(person: User) -> list[Card]:
    """Open entries: those that wait for people first."""
    rows = OperatorEntry.objects.filter(standing__in=[Standing.NOMINATED, Standing.APPROVED])
    found = [_card(entry, person) for entry in rows.select_related("proposal__runner")]
    return sorted(found, key=lambda c: (not c.nominated, not c.problem, c.entry.name))


def past() -> list[OperatorEntry]:
    """Entries that were declined or revoked, the newest first."""
    rows = OperatorEntry.objects.filter(standing__in=[Standing.DECLINED, Standing.REVOKED])
    return list(rows.order_by("-ended_at")[:MAX_PAST])


def _card(entry: OperatorEntry, person: User) -> Card:
    problem, statement = "", {}
    if entry.standing == Standing.APPROVED:
        try:
            operators.examine(entry)
            statement = operators.statement(entry)
        except operators.BadEntry as error:
            problem = str(error)
    uses = Proposal.objects.filter(recognised=entry.name).exclude(pk=entry.proposal_id or 0)
    live = Activation.objects.filter(state=Activation.State.LIVE).select_related("target")
    names = {entry.name, *uses.values_list("name", flat=True)}
    return Card(
        entry=entry,
        problem=problem,
        people=statement.get("approved_by", []),
        parameters=list(entry.terms.get("parameters", [])),
        uses=list(uses.order_by("-id")[:MAX_USES]),
        use_count=uses.count(),
        live_on=sorted(a.target.name for a in live if a.mechanism in names),
        words=list(entry.words.select_related("person")),
        terms_digest=operators.terms_digest(entry),
        cannot=cannot(person, entry.proposal) if entry.proposal else [],
    )


def cannot(person: User, proposal: Proposal) -> list[str]:
    """Why this person has no word on this mechanism as an operator; empty: they have."""
    force = standing.in_force()
    if force.policy is None or force.version is None:
        return [force.problem]
    if not people.is_reviewer(person, force.policy):
        return [f"only the group {force.policy.people.roles.review} may decide"]
    return [words for _, words in people.conflicts(person, proposal, force.version)]


def nominable(proposal: Proposal) -> bool:
    """Whether the mechanism could become an approved operator now."""
    open_ones = OperatorEntry.objects.filter(
        name=proposal.name, standing__in=[Standing.NOMINATED, Standing.APPROVED]
    )
    return proposal.state in NOMINABLE and not open_ones.exists()


def parameters(proposal: Proposal) -> list[Field]:
    """The parameters of a proposal's mechanism. Raises RepositoryError, OperatorError."""
    source = branches.living().read(proposal.commit, proposal.mechanism_path)
    found = []
    for name, value in values_of(source).items():
        try:
            low, high = suggested(value)
        except ValueError:
            found.append(Field(name=name, value=repr(value), bounded=False))
            continue
        found.append(
            Field(name=name, value=repr(value), bounded=True, low=repr(low), high=repr(high))
        )
    return found


def lane(proposal: Proposal) -> dict[str, Any]:
    """What the library says of a proposal now, in words for its page."""
    try:
        found = operators.recognised(proposal)
    except branches.RepositoryError as error:
        return {"tone": "bad", "words": f"It can't be compared with the library: {error}."}
    if found.operator:
        values = ", ".join(f"{k}={v!r}" for k, v in found.values.items())
        return {
            "tone": "good",
            "operator": found.operator,
            "words": f"It is the approved operator {found.operator} with other parameters, within "
            f"its bounds, and nothing else: {values}.",
        }
    if found.near:
        return {
            "tone": "warn",
            "operator": found.near,
            "words": f"Its code is that of the approved operator {found.near}, but it is no "
            f"variant: {'; '.join(found.problems)}. It counts as new code.",
        }
    if proposal.recognised:
        return {
            "tone": "warn",
            "operator": proposal.recognised,
            "words": f"It was a variant of {proposal.recognised} when it came; that entry of the "
            "library counts no longer. It counts as new code.",
        }
    return {"tone": "", "words": "It is new code, and no variant of an approved operator."}
