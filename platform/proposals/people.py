"""Who may do what: predicates over authenticated accounts. Deny by default.

Roles are Django groups, named by the policy in force. A token is never a person; superusers have
no bypass: only groups count.
"""

from __future__ import annotations

from collections.abc import Iterable

from audit.actors import Actor, ActorKind
from django.contrib.auth.models import AbstractBaseUser, AnonymousUser, User

from proposals.models import PolicyVersion, Proposal, Review
from proposals.policy import Policy

Account = User | AbstractBaseUser | AnonymousUser | None


def actor_of(person: User) -> Actor:
    """The person as an actor of the audit log."""
    return Actor(kind=ActorKind.PERSON, id=str(person.pk), name=person.get_username())


def has_role(person: Account, role: str) -> bool:
    """Whether the account is active and in the group of that role."""
    if not isinstance(person, User) or person.pk is None or not person.is_active:
        return False
    return person.groups.filter(name=role).exists()


def is_reviewer(person: Account, policy: Policy) -> bool:
    """May review."""
    return has_role(person, policy.people.roles.review)


def may_stop(person: Account, policy: Policy) -> bool:
    """May stop a target or autonomy: stopping needs less than starting."""
    return is_reviewer(person, policy) or has_role(person, policy.people.roles.operate)


def may_roll_back(person: Account, policy: Policy) -> bool:
    """May bring an earlier version back."""
    return may_stop(person, policy)


def may_own_policy(person: Account, policy: Policy) -> bool:
    """May load a policy."""
    return has_role(person, policy.people.roles.own_policy)


def conflicts(person: User, proposal: Proposal, version: PolicyVersion) -> list[tuple[str, str]]:
    """Why this person is not independent of the proposal: (code, words)."""
    found = []
    if proposal.requester_id == person.pk:
        found.append(("is_requester", "you requested this proposal: someone else must decide"))
    if proposal.runner is not None and proposal.runner.operator_id == person.pk:
        found.append(("is_operator", f"you operate {proposal.runner.name}, which submitted it"))
    if version.editor_id == person.pk:
        found.append(("edited_policy", "you edited the policy in force: someone else must decide"))
    return found


def approval_problems(
    person: Account, proposal: Proposal, version: PolicyVersion, policy: Policy
) -> list[tuple[str, str]]:
    """Why this account may not approve this proposal as a person; empty = may."""
    if not isinstance(person, User) or not is_reviewer(person, policy):
        return [("not_entitled", f"only the group {policy.people.roles.review} may decide")]
    valid = proposal.reviews.filter(
        standing=Review.Standing.VALID, decision=Review.Decision.APPROVE
    )
    return reviewer_problems(person, proposal, version, valid)


def reviewer_problems(
    person: User, proposal: Proposal, version: PolicyVersion, valid: Iterable[Review]
) -> list[tuple[str, str]]:
    """Why this reviewer may not approve it; `valid` are the approvals that count so far."""
    found = conflicts(person, proposal, version)
    if any(review.reviewer_id == person.pk for review in valid):
        found.append(("already_decided", "you have approved this already: it counts once"))
    return found
