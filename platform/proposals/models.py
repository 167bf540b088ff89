"""Proposals, screenings, reviews, activations, policies, stops: rows and their constraints.

The database holds the invariants that it can hold. Nothing here changes a state: `lifecycle` does.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q
from runs.models import Run, Runner, Target

from proposals.states import State


def _choices(values: type[State]) -> list[tuple[str, str]]:
    return [(v.value, v.value.replace("_", " ")) for v in values]


class Proposal(models.Model):
    """A draft on its way. `commit`, `tree` and `digest` are what was committed to `branch`."""

    draft_id = models.UUIDField(unique=True)
    target = models.ForeignKey(Target, on_delete=models.PROTECT, related_name="proposals")
    run = models.ForeignKey(Run, null=True, blank=True, on_delete=models.PROTECT)
    runner = models.ForeignKey(Runner, null=True, blank=True, on_delete=models.PROTECT)
    # On whose behalf it was submitted: the runner's operator, or the person who uploaded it.
    requester = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="requested"
    )
    name = models.CharField(max_length=60)
    title = models.CharField(max_length=200)
    summary = models.TextField(blank=True)
    generator = models.CharField(max_length=200)
    operator = models.CharField(max_length=60, blank=True)  # as claimed by the author
    recognised = models.CharField(max_length=60, blank=True)  # as proved by content
    parameters = models.JSONField(default=dict, blank=True)
    diagnosis = models.JSONField(default=dict, blank=True)
    rounds = models.JSONField(default=list, blank=True)
    after_trial = models.PositiveIntegerField(default=0)
    # What guarded mode decided about it, or in shadow mode would have: decision, mode, reasons.
    automatic = models.JSONField(default=dict, blank=True)
    similar_to = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT)

    mechanism_path = models.CharField(max_length=100)
    branch = models.CharField(max_length=100)
    base_commit = models.CharField(max_length=40)
    base_digest = models.CharField(max_length=64)  # the mechanism it was written against
    commit = models.CharField(max_length=40)
    tree = models.CharField(max_length=40)
    digest = models.CharField(max_length=64)

    state = models.CharField(max_length=12, choices=_choices(State), default=State.SUBMITTED)
    state_reason = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                condition=Q(state__in=[s.value for s in State]), name="known_state"
            ),
        )

    def __str__(self) -> str:
        return f"proposal {self.pk}: {self.name}"


class Screening(models.Model):
    """One look at one commit. A report is written once."""

    class Phase(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        DONE = "done"
        CANCELLED = "cancelled"

    proposal = models.ForeignKey(Proposal, on_delete=models.PROTECT, related_name="screenings")
    commit = models.CharField(max_length=40)
    phase = models.CharField(max_length=10, choices=Phase, default=Phase.QUEUED)
    attempt = models.PositiveSmallIntegerField(default=0)
    progress = models.CharField(max_length=300, blank=True)
    # passed | failed | could_not_look, once done
    outcome = models.CharField(max_length=20, blank=True)
    report = models.JSONField(default=dict, blank=True)
    evidence_digest = models.CharField(max_length=64, blank=True)
    image_id = models.CharField(max_length=100, blank=True)
    policy_digest = models.CharField(max_length=64, blank=True)
    verdict = models.JSONField(default=dict, blank=True)  # proposals.policy.Verdict as data
    claimed_at = models.DateTimeField(null=True, blank=True)  # renewed while it makes progress
    not_before = models.DateTimeField(null=True, blank=True)  # backoff after could-not-look
    created_at = models.DateTimeField(auto_now_add=True)
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("proposal",),
                condition=Q(phase__in=["queued", "running"]),
                name="one_open_screening",
            ),
        )

    def __str__(self) -> str:
        return f"screening {self.pk} of {self.proposal_id}"


class Review(models.Model):
    """One decision by one person, or by the policy as an actor of its own.

    `binding` is what it is about (`lifecycle.binding_of`), `binding_digest` its SHA-256. A valid
    approval is consumed by the activation that it allows, or voided with a reason; never both.
    """

    class Decision(models.TextChoices):
        APPROVE = "approve"
        REJECT = "reject"

    class Standing(models.TextChoices):
        VALID = "valid"
        CONSUMED = "consumed"
        VOIDED = "voided"

    proposal = models.ForeignKey(Proposal, on_delete=models.PROTECT, related_name="reviews")
    reviewer = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT
    )
    by_policy = models.CharField(max_length=64, blank=True)  # the policy's digest
    decision = models.CharField(max_length=10, choices=Decision)
    reason = models.TextField()
    binding = models.JSONField(default=dict)
    binding_digest = models.CharField(max_length=64)
    shown = models.JSONField(default=dict, blank=True)  # what the page showed, as digests
    standing = models.CharField(max_length=10, choices=Standing, default=Standing.VALID)
    void_reason = models.TextField(blank=True)
    consumed_by = models.ForeignKey(
        "Activation", null=True, blank=True, on_delete=models.PROTECT, related_name="approvals"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("proposal", "reviewer"),
                condition=Q(standing="valid", reviewer__isnull=False),
                name="one_valid_review_a_person",
            ),
            models.UniqueConstraint(
                fields=("proposal",),
                condition=Q(standing="valid", reviewer__isnull=True),
                name="one_valid_review_by_policy",
            ),
            models.CheckConstraint(
                condition=Q(standing="consumed", consumed_by__isnull=False)
                | (~Q(standing="consumed") & Q(consumed_by__isnull=True)),
                name="consumed_names_its_activation",
            ),
            models.CheckConstraint(
                condition=Q(reviewer__isnull=False, by_policy="")
                | (Q(reviewer__isnull=True) & ~Q(by_policy="")),
                name="a_person_or_the_policy",
            ),
        )

    def __str__(self) -> str:
        return f"{self.decision} of {self.proposal_id}"


class Activation(models.Model):
    """One change of a target's desired state, and what came of it.

    `approvals` of a proposal are used once: at most one activation of kind `approval` or `policy`
    a proposal. Rollbacks, reversals and the seed have no approval and name what they restore.
    """

    class Kind(models.TextChoices):
        SEED = "seed"
        APPROVAL = "approval"
        POLICY = "policy"
        ROLLBACK = "rollback"  # by a person
        AUTO_ROLLBACK = "auto_rollback"  # regression, errors or no effect
        REVERT = "revert"  # the load was refused: desired goes back to what is live

    class State(models.TextChoices):
        ACTIVATING = "activating"
        LIVE = "live"
        REFUSED = "refused"
        SUPERSEDED = "superseded"
        ROLLED_BACK = "rolled_back"

    target = models.ForeignKey(Target, on_delete=models.PROTECT, related_name="activations")
    version = models.PositiveIntegerField()
    kind = models.CharField(max_length=14, choices=Kind)
    proposal = models.ForeignKey(
        Proposal, null=True, blank=True, on_delete=models.PROTECT, related_name="activations"
    )
    restores = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT)
    mechanism = models.CharField(max_length=60)
    mechanism_path = models.CharField(max_length=100)
    commit = models.CharField(max_length=40)
    digest = models.CharField(max_length=64)
    state = models.CharField(max_length=12, choices=State, default=State.ACTIVATING)
    reason = models.TextField(blank=True)
    requested_by = models.CharField(max_length=200)  # str(Actor)
    digest_attested = models.CharField(max_length=64, blank=True)
    attested_by = models.CharField(max_length=60, blank=True)  # the runner's name
    at_trial = models.PositiveIntegerField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    live_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    judged_at = models.DateTimeField(null=True, blank=True)  # the canary's verdict was given
    canary = models.JSONField(default=dict, blank=True)  # that verdict, with its numbers

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(fields=("target", "version"), name="one_activation_a_version"),
            models.UniqueConstraint(
                fields=("target",), condition=Q(state="live"), name="one_live_a_target"
            ),
            models.UniqueConstraint(
                fields=("target",), condition=Q(state="activating"), name="one_activating_a_target"
            ),
            models.UniqueConstraint(
                fields=("proposal",),
                condition=Q(kind__in=["approval", "policy"]),
                name="one_approval_one_activation",
            ),
            models.CheckConstraint(
                condition=~Q(state="live") | Q(digest_attested=models.F("digest")),
                name="live_only_as_attested",
            ),
        )

    def __str__(self) -> str:
        return f"{self.target_id} v{self.version}: {self.mechanism}"


class PolicyVersion(models.Model):
    """A policy as it was loaded. The newest one is in force."""

    digest = models.CharField(max_length=64)
    text = models.TextField()
    mode = models.CharField(max_length=10)
    loaded_by = models.CharField(max_length=200)  # str(Actor)
    editor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.PROTECT
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"policy {self.digest[:12]}"


class Stop(models.Model):
    """A kill switch that somebody pulled. Any reviewer or operator may stop; releasing takes the
    policy's quorum. `scope` is `autonomy` (no automatic approval), or `target` (no new trial)."""

    class Scope(models.TextChoices):
        AUTONOMY = "autonomy"
        TARGET = "target"

    scope = models.CharField(max_length=10, choices=Scope)
    target = models.ForeignKey(Target, null=True, blank=True, on_delete=models.PROTECT)
    reason = models.TextField()
    engaged_by = models.CharField(max_length=200)  # str(Actor)
    created_at = models.DateTimeField(auto_now_add=True)
    released_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                fields=("target",),
                condition=Q(released_at__isnull=True, scope="target"),
                name="one_open_stop_a_target",
            ),
            models.UniqueConstraint(
                fields=("scope",),
                condition=Q(released_at__isnull=True, scope="autonomy"),
                name="one_open_stop_of_autonomy",
            ),
            models.CheckConstraint(
                condition=Q(scope="autonomy", target__isnull=True)
                | Q(scope="target", target__isnull=False),
                name="target_stop_names_target",
            ),
        )

    def __str__(self) -> str:
        return f"stop {self.scope} {self.target_id or ''}"


class StopRelease(models.Model):
    """One person's word that a stop may be released."""

    stop = models.ForeignKey(Stop, on_delete=models.PROTECT, related_name="releases")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    reason = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = (
            models.UniqueConstraint(fields=("stop", "person"), name="one_release_a_person"),
        )

    def __str__(self) -> str:
        return f"release of {self.stop_id}"


# At the end: they refer to proposals by name.
from proposals.models_library import OperatorEntry, OperatorWord  # noqa: E402

__all__ = [
    "Activation",
    "OperatorEntry",
    "OperatorWord",
    "PolicyVersion",
    "Proposal",
    "Review",
    "Screening",
    "Stop",
    "StopRelease",
]
