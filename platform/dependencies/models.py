"""Requests for packages, reviews of them, and the locks that were adopted: rows and constraints.

The database holds the invariants that it can hold. Nothing here changes a state: `moves` does.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from proposals.models import Proposal

from dependencies.states import OPEN, State


def _choices(values: type[State]) -> list[tuple[str, str]]:
    return [(v.value, v.value.replace("_", " ")) for v in values]


class DependencyRequest(models.Model):
    """One person's request for one version of one package, and for modules of it.

    `record` is what `sandbox.depreq` found, `lock_text` the lock as it would be; both are written
    by the worker and bound by their digests into every approval.
    """

    requester = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="asked_for"
    )
    proposal = models.ForeignKey(Proposal, null=True, blank=True, on_delete=models.PROTECT)
    package = models.CharField(max_length=100)  # normalised
    version = models.CharField(max_length=60)
    modules = models.TextField(blank=True)  # as it was asked: `module` or `module: names` a line
    reason = models.TextField()

    record = models.JSONField(default=dict, blank=True)
    record_digest = models.CharField(max_length=64, blank=True)
    lock_before = models.CharField(max_length=64, blank=True)
    lock_after = models.CharField(max_length=64, blank=True)
    lock_text = models.TextField(blank=True)

    state = models.CharField(max_length=12, choices=_choices(State), default=State.ASKED.value)
    code = models.CharField(max_length=40, blank=True)  # why it is unfit, or its build failed
    state_reason = models.TextField(blank=True)
    progress = models.CharField(max_length=300, blank=True)
    attempt = models.PositiveSmallIntegerField(default=0)
    claimed_at = models.DateTimeField(null=True, blank=True)  # renewed while it is built
    created_at = models.DateTimeField(auto_now_add=True)
    changed_at = models.DateTimeField(auto_now=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                condition=Q(state__in=[s.value for s in State]), name="known_request_state"
            ),
            models.UniqueConstraint(
                fields=("package", "version"),
                condition=Q(state__in=sorted(s.value for s in OPEN)),
                name="one_open_request_a_version",
            ),
            models.UniqueConstraint(
                fields=("state",), condition=Q(state="building"), name="one_build_at_a_time"
            ),
            models.CheckConstraint(
                condition=Q(state__in=["asked", "unfit", "withdrawn", "expired"])
                | (~Q(record_digest="") & ~Q(lock_before="") & ~Q(lock_after="")),
                name="judged_only_with_a_record",
            ),
        )

    def __str__(self) -> str:
        return f"request {self.pk}: {self.package}=={self.version}"

    @property
    def pin(self) -> str:
        """`package==version`."""
        return f"{self.package}=={self.version}"


class LockVersion(models.Model):
    """One lock as it came into force, with its image. The highest generation is in force."""

    class Kind(models.TextChoices):
        SEED = "seed"  # what was there before the first request was adopted
        ADOPTION = "adoption"
        ROLLBACK = "rollback"

    generation = models.PositiveIntegerField(unique=True)
    kind = models.CharField(max_length=10, choices=Kind)
    request = models.ForeignKey(
        DependencyRequest, null=True, blank=True, on_delete=models.PROTECT, related_name="locks"
    )
    restores = models.ForeignKey("self", null=True, blank=True, on_delete=models.PROTECT)
    digest = models.CharField(max_length=64)
    text = models.TextField()
    image_id = models.CharField(max_length=100, blank=True)  # a seed's is not known here
    image_name = models.CharField(max_length=100, blank=True)
    sbom_digest = models.CharField(max_length=64, blank=True)
    sbom = models.TextField(blank=True)
    scan = models.JSONField(default=dict, blank=True)
    reason = models.TextField(blank=True)
    made_by = models.CharField(max_length=200)  # str(Actor)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-generation",)
        constraints = (
            models.UniqueConstraint(
                fields=("request",), condition=Q(kind="adoption"), name="one_adoption_a_request"
            ),
            models.CheckConstraint(
                condition=Q(kind="seed", request__isnull=True, restores__isnull=True)
                | (Q(kind="adoption", request__isnull=False, restores__isnull=True))
                | Q(kind="rollback", request__isnull=True, restores__isnull=False),
                name="a_lock_says_where_it_is_from",
            ),
            models.CheckConstraint(
                condition=~Q(kind="adoption") | (~Q(image_id="") & ~Q(sbom_digest="")),
                name="adopted_only_with_image_and_bill",
            ),
        )

    def __str__(self) -> str:
        return f"lock {self.generation}"


class DependencyReview(models.Model):
    """One person's decision on a request; `binding` is exactly what it is about.

    `asked_by` repeats the requester, so that the database itself refuses an approval of one's own.
    """

    class Decision(models.TextChoices):
        APPROVE = "approve"
        REJECT = "reject"

    class Standing(models.TextChoices):
        VALID = "valid"
        CONSUMED = "consumed"
        VOIDED = "voided"

    request = models.ForeignKey(DependencyRequest, on_delete=models.PROTECT, related_name="reviews")
    reviewer = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="dependency_reviews"
    )
    asked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+"
    )
    decision = models.CharField(max_length=10, choices=Decision)
    reason = models.TextField()
    binding = models.JSONField()
    binding_digest = models.CharField(max_length=64)
    standing = models.CharField(max_length=10, choices=Standing, default=Standing.VALID)
    void_reason = models.TextField(blank=True)
    consumed_by = models.ForeignKey(
        LockVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="approvals"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                fields=("request", "reviewer"),
                condition=Q(standing="valid"),
                name="one_valid_dependency_review_a_person",
            ),
            models.CheckConstraint(
                condition=Q(decision="reject") | ~Q(reviewer=F("asked_by")),
                name="nobody_approves_their_own_request",
            ),
            models.CheckConstraint(
                condition=Q(standing="consumed", consumed_by__isnull=False)
                | (~Q(standing="consumed") & Q(consumed_by__isnull=True)),
                name="consumed_names_its_lock",
            ),
        )

    def __str__(self) -> str:
        return f"{self.decision} of request {self.request_id}"
