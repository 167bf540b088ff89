"""The lifecycle in motion: every verb, in one place to import from.

Each verb takes keyword arguments alone, names its actor, runs in one transaction that locks, asks
states and policy, acts and writes the audit entry, and raises `Denied(code, message)` where it may
not; the denial is on the log too. The verbs are written in the files below, by theme.
"""

from __future__ import annotations

from proposals.activations import activate, seed
from proposals.acts import Denied, policy_in_force
from proposals.admission import Refused, submit, upload
from proposals.approvals import (
    approve,
    approve_by_policy,
    expire,
    may_approve,
    note_automatic,
    quorum_met,
    reject,
    void,
    withdraw,
)
from proposals.attestations import confirm_live, observe, refuse_load, runner_actor
from proposals.facts import (
    approvals_of,
    binding_digest,
    binding_of,
    drift,
    open_stops,
    screening_of,
    shown_required,
)
from proposals.library import agree, decline, enter_seed, nominate, revoke
from proposals.people import actor_of
from proposals.policies import set_policy
from proposals.screenings import rescreen
from proposals.stops import release_stop, roll_back, stop, stop_autonomy_by_platform

__all__ = [
    "Denied",
    "Refused",
    "activate",
    "actor_of",
    "agree",
    "approvals_of",
    "approve",
    "approve_by_policy",
    "binding_digest",
    "binding_of",
    "confirm_live",
    "decline",
    "drift",
    "enter_seed",
    "expire",
    "may_approve",
    "nominate",
    "note_automatic",
    "observe",
    "open_stops",
    "policy_in_force",
    "quorum_met",
    "refuse_load",
    "reject",
    "release_stop",
    "rescreen",
    "revoke",
    "roll_back",
    "runner_actor",
    "screening_of",
    "seed",
    "set_policy",
    "shown_required",
    "stop",
    "stop_autonomy_by_platform",
    "submit",
    "upload",
    "void",
    "withdraw",
]
