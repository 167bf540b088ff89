"""The library of approved operators: its rows and their constraints (part of `proposals.models`).

Import them from `proposals.models`. Nothing here changes a standing: `library` does.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q


class OperatorEntry(models.Model):
    """One entry of the library: a mechanism of which variants within bounds are low risk.

    `statement` is the text that the platform signed (`proposals.operators`), "" until then; the
    columns beside it must say the same. What counts is decided by reading the statement, never by
    a column alone.
    """

    class Kind(models.TextChoices):
        SEED = "seed"  # of the repository's first commit, entered by the platform itself
        PEOPLE = "people"  # a mechanism that was live, marked by people

    class Standing(models.TextChoices):
        NOMINATED = "nominated"  # waits for further people
        APPROVED = "approved"
        DECLINED = "declined"
        REVOKED = "revoked"

    name = models.CharField(max_length=60)
    kind = models.CharField(max_length=10, choices=Kind)
    standing = models.CharField(max_length=10, choices=Standing)
    proposal = models.ForeignKey(
        "proposals.Proposal",
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="operator_entries",
    )
    path = models.CharField(max_length=100)
    commit = models.CharField(max_length=40)
    digest = models.CharField(max_length=64)  # of the exact file
    terms = models.JSONField()  # what is approved: files, tree, bounds
    statement = models.TextField(blank=True)
    signature = models.CharField(max_length=128, blank=True)
    entered_by = models.CharField(max_length=200)  # str(Actor)
    reason = models.TextField()
    end_reason = models.TextField(blank=True)
    ended_by = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    approved_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("name", "-id")
        constraints = (
            models.UniqueConstraint(
                fields=("name",),
                condition=Q(standing__in=["nominated", "approved"]),
                name="one_open_entry_an_operator",
            ),
            models.CheckConstraint(
                condition=~Q(standing="approved") | ~Q(signature=""),
                name="approved_operators_are_signed",
            ),
            models.CheckConstraint(
                condition=Q(kind="seed", proposal__isnull=True)
                | Q(kind="people", proposal__isnull=False),
                name="people_mark_a_proposal",
            ),
        )

    def __str__(self) -> str:
        return f"operator {self.name} ({self.standing})"


class OperatorWord(models.Model):
    """One person's word for an entry, bound to exactly its terms."""

    entry = models.ForeignKey(OperatorEntry, on_delete=models.PROTECT, related_name="words")
    person = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT)
    terms_digest = models.CharField(max_length=64)
    reason = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(fields=("entry", "person"), name="one_word_a_person"),
        )

    def __str__(self) -> str:
        return f"word for {self.entry_id}"
