"""The library's verbs: enter the seed, nominate, agree, decline, revoke.

An approved operator makes its variants low risk, and in guarded mode the policy may approve those
by itself. So an entry takes as many independent people as new code does, each bound to exactly the
same terms; taking one back takes one person, as stopping always does. Each act is on the audit log
in the transaction that does it, and the signature is made there too.
"""

from __future__ import annotations

from collections.abc import Mapping

from audit import head
from audit.actors import SYSTEM, Actor
from audit.canonical import digest, utc
from django.contrib.auth.models import User
from django.utils import timezone

from proposals import branches, operators
from proposals.acts import Denied, Ledger, act, policy_in_force, said
from proposals.models import OperatorEntry, OperatorWord, PolicyVersion, Proposal
from proposals.people import actor_of, conflicts, is_reviewer, may_stop
from proposals.policy import Policy
from proposals.states import State
from runner.levels.catalog_rules import RULES
from sandbox.operators import Number, Operator, OperatorError, operator_of

Standing = OperatorEntry.Standing
Bounds = Mapping[str, tuple[Number, Number]]
NOMINABLE = (State.LIVE, State.SUPERSEDED)


def enter_seed(*, actor: Actor = SYSTEM) -> list[OperatorEntry]:
    """Enter and sign the operators of the repository's first commit, once: approved by being the
    seed. A name that was ever entered stays as people left it."""
    with act(actor=actor, tried="enter_seed", subject="library") as ledger:
        head.lock()  # two that start at once
        repository = branches.living()
        commit = repository.first()
        known = set(OperatorEntry.objects.values_list("name", flat=True))
        found = []
        for name, one in sorted(repository.library(commit).items()):
            if name not in known and one.test:
                operator = _operator(name, one, RULES[name].bounds if name in RULES else {})
                entry = _entry(operator, one.path, commit, actor, "the seed of the library")
                _sign(ledger, entry, approved_by=[], verb="operator.entered", quorum=0)
                found.append(entry)
    return found


def nominate(*, proposal_id: int, person: User, bounds: Bounds, reason: str) -> OperatorEntry:
    """Ask to make a mechanism that is or was live an approved operator; the first word for it."""
    subject = f"proposal:{proposal_id}"
    with act(actor=actor_of(person), tried="nominate", subject=subject) as ledger:
        head.lock()
        proposal = Proposal.objects.select_related("runner").filter(pk=proposal_id).first()
        if proposal is None:
            raise Denied("unknown", f"there is no proposal {proposal_id}")
        version, policy = policy_in_force()
        _independent(person, proposal, version, policy)
        reason = said(reason)
        if proposal.state not in NOMINABLE:
            raise Denied(
                "wrong_state", "only a mechanism that is live, or was and was not taken back"
            )
        _free_name(proposal.name)
        files = branches.living().library(proposal.commit)
        if proposal.name not in files or not files[proposal.name].test:
            raise Denied("unknown", f"the commit holds no {proposal.name} with its test")
        operator = _operator(proposal.name, files[proposal.name], bounds)
        entry = _entry(
            operator,
            proposal.mechanism_path,
            proposal.commit,
            ledger.actor,
            reason,
            proposal=proposal,
        )
        ledger.operator(entry, Standing.NOMINATED)
        ledger.write(
            "operator.nominated",
            subject=_subject(entry),
            reason=reason,
            data={
                **_told(entry),
                "statement": "",
                "terms_digest": operators.terms_digest(entry),
                "parameters": entry.terms["parameters"],
            },
        )
        _take_word(ledger, entry, person, reason, policy)
    return entry


def agree(*, entry_id: int, person: User, terms_digest: str, reason: str) -> OperatorEntry:
    """One more person's word for exactly these terms; with the quorum, the entry is signed."""
    with act(actor=actor_of(person), tried="agree", subject=f"operator:{entry_id}") as ledger:
        entry = _locked(entry_id, Standing.NOMINATED)
        version, policy = policy_in_force()
        _independent(person, _proposal_of(entry), version, policy)
        if operators.terms_digest(entry) != terms_digest:
            raise Denied("stale", "it changed since you opened the page: read it again")
        if entry.words.filter(person=person).exists():
            raise Denied("already_decided", "you have said so already: it counts once")
        if _proposal_of(entry).state not in NOMINABLE:
            raise Denied("wrong_state", "its mechanism was taken back meanwhile")
        _take_word(ledger, entry, person, said(reason), policy)
    return entry


def decline(*, entry_id: int, person: User, reason: str) -> OperatorEntry:
    """One reviewer's no to a nomination, which is enough."""
    with act(actor=actor_of(person), tried="decline", subject=f"operator:{entry_id}") as ledger:
        entry = _locked(entry_id, Standing.NOMINATED)
        _, policy = policy_in_force()
        if not is_reviewer(person, policy):
            raise Denied("not_entitled", f"only the group {policy.people.roles.review} may decide")
        _end(ledger, entry, Standing.DECLINED, said(reason))
    return entry


def revoke(*, entry_id: int, person: User, reason: str) -> OperatorEntry:
    """Take an approved operator back: from now on its variants are new code like any other."""
    with act(actor=actor_of(person), tried="revoke", subject=f"operator:{entry_id}") as ledger:
        entry = _locked(entry_id, Standing.APPROVED)
        _, policy = policy_in_force()
        if not may_stop(person, policy):
            raise Denied("not_entitled", "only reviewers and operators may revoke")
        _end(ledger, entry, Standing.REVOKED, said(reason))
    return entry


# --- parts -------------------------------------------------------------------------------------


def _independent(person: User, proposal: Proposal, version: PolicyVersion, policy: Policy) -> None:
    if not is_reviewer(person, policy):
        raise Denied("not_entitled", f"only the group {policy.people.roles.review} may decide")
    for code, words in conflicts(person, proposal, version):
        raise Denied(code, words)


def _free_name(name: str) -> None:
    open_ones = (Standing.NOMINATED, Standing.APPROVED)
    if OperatorEntry.objects.filter(name=name, standing__in=open_ones).exists():
        raise Denied("name_exists", f"the library has an entry {name}: revoke or decide it first")


def _operator(name: str, one: branches.Operator, bounds: Bounds) -> Operator:
    try:
        return operator_of(name, one.source, one.test, bounds)
    except OperatorError as error:
        raise Denied("bad_bounds", f"{error}") from error


def _entry(
    operator: Operator,
    path: str,
    commit: str,
    actor: Actor,
    reason: str,
    *,
    proposal: Proposal | None = None,
) -> OperatorEntry:
    terms = operators.terms_of(operator, path=path, commit=commit)
    return OperatorEntry(
        name=operator.name,
        kind=OperatorEntry.Kind.PEOPLE if proposal else OperatorEntry.Kind.SEED,
        proposal=proposal,
        path=path,
        commit=commit,
        digest=terms["digest"],
        terms=terms,
        entered_by=str(actor),
        reason=reason,
    )


def _take_word(
    ledger: Ledger, entry: OperatorEntry, person: User, reason: str, policy: Policy
) -> None:
    """Count a person's word; sign with the last one that is needed."""
    bound = operators.terms_digest(entry)
    OperatorWord.objects.create(entry=entry, person=person, terms_digest=bound, reason=reason)
    quorum = policy.people.quorum.high
    words = list(entry.words.select_related("person"))
    valid = [w for w in words if w.terms_digest == bound and is_reviewer(w.person, policy)]
    ledger.write(
        "operator.agreed",
        subject=_subject(entry),
        reason=reason,
        data={**_told(entry), "terms_digest": bound, "words": len(valid), "quorum": quorum},
    )
    if len(valid) >= quorum:
        people = [
            {"id": str(w.person.pk), "name": w.person.get_username(), "at": utc(w.created_at)}
            for w in valid
        ]
        _sign(ledger, entry, approved_by=people, verb="operator.approved", quorum=quorum)


def _sign(
    ledger: Ledger,
    entry: OperatorEntry,
    *,
    approved_by: list[dict[str, str]],
    verb: str,
    quorum: int,
) -> None:
    entry.approved_at = timezone.now()
    at = utc(entry.approved_at)
    entry.statement = operators.statement_of(entry, approved_by=approved_by, at=at)
    entry.signature = operators.sign(entry.statement)
    ledger.operator(entry, Standing.APPROVED)
    ledger.write(
        verb,
        subject=_subject(entry),
        reason=entry.reason,
        data={
            **_told(entry),
            "statement": digest(entry.statement),
            "terms_digest": operators.terms_digest(entry),
            "approved_by": approved_by,
            "quorum": quorum,
        },
    )


def _end(ledger: Ledger, entry: OperatorEntry, standing: OperatorEntry.Standing, why: str) -> None:
    entry.end_reason, entry.ended_at = why, timezone.now()
    entry.ended_by = str(ledger.actor)
    ledger.operator(entry, standing)
    ledger.write(f"operator.{standing}", subject=_subject(entry), reason=why, data=_told(entry))


def _told(entry: OperatorEntry) -> dict[str, object]:
    return {
        "operator": entry.pk,
        "name": entry.name,
        "kind": entry.kind,
        "proposal": entry.proposal_id,
        "commit": entry.commit,
        "digest": entry.digest,
    }


def _subject(entry: OperatorEntry) -> str:
    return f"operator:{entry.pk}"


def _locked(entry_id: int, standing: OperatorEntry.Standing) -> OperatorEntry:
    rows = OperatorEntry.objects.select_for_update(of=("self",)).select_related("proposal")
    entry = rows.filter(pk=entry_id).first()
    if entry is None:
        raise Denied("unknown", f"the library has no entry {entry_id}")
    if entry.standing != standing:
        raise Denied("wrong_state", f"the entry {entry.name} is {entry.standing}, not {standing}")
    return entry


def _proposal_of(entry: OperatorEntry) -> Proposal:
    if entry.proposal is None:
        raise Denied("wrong_state", f"{entry.name} is of the seed: nobody nominated it")
    return entry.proposal
