"""What the pages show of the library of approved operators. Reads only, decides nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.contrib.auth.models import User
from django.db.models import Count, F, Window
from django.db.models.functions import RowNumber

from proposals import branches, operators, people, standing
from proposals.library import NOMINABLE
from proposals.models import Activation, OperatorEntry, Proposal
from sandbox.operators import suggested, values_of

MAX_PAST = 50
MAX_USES = 12
Standing = OperatorEntry.Standing
_NoWord = Callable[[Proposal], list[str]]


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
    entries = list(rows.select_related("proposal__runner").prefetch_related("words__person"))
    uses = _uses([entry.name for entry in entries])
    no_word = _no_word(person)
    found = [_card(entry, uses[entry.name], no_word) for entry in entries]
    return sorted(found, key=lambda c: (not c.nominated, not c.problem, c.entry.name))


def past() -> list[OperatorEntry]:
    """Entries that were declined or revoked, the newest first."""
    rows = OperatorEntry.objects.filter(standing__in=[Standing.DECLINED, Standing.REVOKED])
    return list(rows.order_by("-ended_at")[:MAX_PAST])


@dataclass(kw_only=True)
class _Uses:
    """What varies one entry."""

    newest: list[Proposal] = field(default_factory=list)
    count: int = 0
    live_on: set[str] = field(default_factory=set)


def _uses(names: list[str]) -> dict[str, _Uses]:
    """What varies each of these entries: four questions, however many entries there are."""
    found = {name: _Uses() for name in names}
    variants = Proposal.objects.filter(recognised__in=names).exclude(name=F("recognised"))
    for name, count in variants.order_by().values_list("recognised").annotate(Count("pk")):
        found[name].count = count
    place = Window(RowNumber(), partition_by="recognised", order_by="-id")
    for use in variants.alias(place=place).filter(place__lte=MAX_USES).order_by("-id"):
        found[use.recognised].newest.append(use)
    live = Activation.objects.filter(state=Activation.State.LIVE).select_related("target")
    runs = [(a.mechanism, a.target.name) for a in live]
    varied = variants.filter(name__in=[mechanism for mechanism, _ in runs])
    pairs = {*varied.values_list("recognised", "name"), *zip(names, names, strict=True)}
    for entry, name in pairs:
        found[entry].live_on |= {target for mechanism, target in runs if mechanism == name}
    return found


def _card(entry: OperatorEntry, uses: _Uses, no_word: _NoWord) -> Card:
    problem, statement = "", {}
    if entry.standing == Standing.APPROVED:
        try:
            operators.examine(entry)
            statement = operators.statement(entry)
        except operators.BadEntry as error:
            problem = str(error)
    return Card(
        entry=entry,
        problem=problem,
        people=statement.get("approved_by", []),
        parameters=list(entry.terms.get("parameters", [])),
        uses=uses.newest,
        use_count=uses.count,
        live_on=sorted(uses.live_on),
        words=list(entry.words.all()),
        terms_digest=operators.terms_digest(entry),
        cannot=no_word(entry.proposal) if entry.proposal else [],
    )


def _no_word(person: User) -> _NoWord:
    """`cannot` for many mechanisms: policy and role are asked for once."""
    force = standing.in_force()
    policy, version = force.policy, force.version
    if policy is None or version is None:
        return lambda _: [force.problem]
    if not people.is_reviewer(person, policy):
        return lambda _: [f"only the group {policy.people.roles.review} may decide"]
    return lambda proposal: [words for _, words in people.conflicts(person, proposal, version)]


def cannot(person: User, proposal: Proposal) -> list[str]:
    """Why this person has no word on this mechanism as an operator; empty: they have."""
    return _no_word(person)(proposal)


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
