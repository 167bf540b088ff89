"""The rows of the audit log. `audit.log` alone writes them; triggers refuse any change.

`body` is the entry; the other columns repeat it for filters, and verification compares them. No
foreign key: names and ids are kept as text, so that nothing can cascade into the log.
"""

from __future__ import annotations

from django.db import models


class Entry(models.Model):
    """One act. `digest` is the RFC 6962 leaf hash of `body`; `prev` that of the entry before."""

    # An integer primary key is SQLite's rowid: so no second identity could be replaced.
    seq = models.BigAutoField(primary_key=True)
    prev = models.CharField(max_length=64, unique=True)
    digest = models.CharField(max_length=64, unique=True)
    body = models.TextField()

    at = models.DateTimeField(db_index=True)
    actor_kind = models.CharField(max_length=10)
    actor_id = models.CharField(max_length=100, db_index=True)
    actor_name = models.CharField(max_length=200)
    verb = models.CharField(max_length=60, db_index=True)
    subject = models.CharField(max_length=200, db_index=True)
    target = models.CharField(max_length=100, blank=True, db_index=True)
    reason = models.TextField(blank=True)

    class Meta:
        ordering = ("-seq",)
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return f"{self.seq} {self.verb} {self.subject}"


class Head(models.Model):
    """The one signed statement of how long the log is and what it ends in.

    `frontier` is what the Merkle root grows from (`audit.merkle`); it proves itself by `root`.
    """

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    size = models.BigIntegerField()
    hash = models.CharField(max_length=64)  # digest of the last entry
    root = models.CharField(max_length=64)
    frontier = models.TextField()  # hex hashes, comma-separated
    key = models.CharField(max_length=64)
    signature = models.CharField(max_length=128)

    class Meta:
        constraints = (models.CheckConstraint(condition=models.Q(id=1), name="audit_one_head"),)

    def __str__(self) -> str:
        return f"head at {self.size}"


class Checkpoint(models.Model):
    """A signed note (C2SP tlog-checkpoint) about the log at `size`; never changed."""

    size = models.BigAutoField(primary_key=True)
    root = models.CharField(max_length=64)
    frontier = models.TextField()
    note = models.TextField()
    at = models.DateTimeField()

    class Meta:
        ordering = ("-size",)

    def __str__(self) -> str:
        return f"checkpoint at {self.size}"
