"""What runners report: targets, runners, runs, trials.

Facts as they came in, never judgements. Which mechanism a target *should* run is written here by
`proposals.lifecycle` alone (the `desired_*` and `live_*` fields); what it *does* run is written
by the runner's door from attestations.
"""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import F, Q


class Target(models.Model):
    """A pool of runners that should run the same mechanism."""

    name = models.SlugField(max_length=60, unique=True)
    description = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    # The live pointer. `desired_version` is what compare-and-swap compares.
    desired_version = models.PositiveIntegerField(default=0)
    desired_mechanism = models.CharField(max_length=60, blank=True)
    desired_commit = models.CharField(max_length=40, blank=True)
    desired_digest = models.CharField(max_length=64, blank=True)
    desired_since = models.DateTimeField(null=True, blank=True)
    live_version = models.PositiveIntegerField(default=0)
    live_mechanism = models.CharField(max_length=60, blank=True)
    live_digest = models.CharField(max_length=64, blank=True)
    live_since = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(
                condition=Q(live_version__lte=F("desired_version")), name="live_not_ahead"
            ),
        )

    def __str__(self) -> str:
        return self.name


class Runner(models.Model):
    """One process beside a GPU. Its token is kept as a digest only, and is never a person."""

    name = models.SlugField(max_length=60, unique=True)
    target = models.ForeignKey(Target, on_delete=models.PROTECT, related_name="runners")
    operator = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="runners"
    )
    token_digest = models.CharField(max_length=64, unique=True)
    token_expires_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    # Observed: the last `runner.protocol.Observed`.
    seen_at = models.DateTimeField(null=True, blank=True)
    observed_version = models.PositiveIntegerField(default=0)
    observed_state = models.CharField(max_length=10, default="idle")
    observed_mechanism = models.CharField(max_length=60, blank=True)
    observed_digest = models.CharField(max_length=64, blank=True)
    observed_reason = models.CharField(max_length=4000, blank=True)
    activity = models.CharField(max_length=300, blank=True)
    posture = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class Run(models.Model):
    """One run of one task on one runner; fields as in `runner.protocol.RunReport`."""

    run_id = models.UUIDField(unique=True)
    runner = models.ForeignKey(Runner, on_delete=models.PROTECT, related_name="runs")
    target = models.ForeignKey(Target, on_delete=models.PROTECT, related_name="runs")
    task = models.CharField(max_length=60)
    task_digest = models.CharField(max_length=64)
    description = models.CharField(max_length=2000, blank=True)
    metric = models.CharField(max_length=60)
    minimize = models.BooleanField(default=True)
    space = models.JSONField(default=dict)
    host = models.JSONField(default=dict)
    prior = models.CharField(max_length=200)
    seed = models.BigIntegerField(default=0)
    planned_trials = models.PositiveIntegerField()
    state = models.CharField(max_length=10, default="running")
    sigma = models.FloatField(null=True, blank=True)
    noise = models.JSONField(null=True, blank=True)  # `runner.protocol.NoiseReport`
    result = models.JSONField(null=True, blank=True)  # `ResultReport`, once it finished
    measuring = models.JSONField(null=True, blank=True)  # `MeasuringReport`
    frozen = models.JSONField(default=list, blank=True)
    guidance = models.TextField(blank=True)
    level2 = models.JSONField(null=True, blank=True)  # `Level2Report`; None: it has none
    started_at = models.DateTimeField()
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        ordering = ("-started_at",)

    def __str__(self) -> str:
        return f"run {self.pk} ({self.task})"


class Trial(models.Model):
    """One finished trial; never changed, never deleted. Fields as in `TrialReport`."""

    run = models.ForeignKey(Run, on_delete=models.PROTECT, related_name="trials")
    number = models.PositiveIntegerField()
    config = models.JSONField()
    changes = models.JSONField()
    reason = models.CharField(max_length=2000, blank=True)
    metric = models.FloatField(null=True)
    status = models.CharField(max_length=10)
    failure = models.CharField(max_length=60, blank=True)
    message = models.CharField(max_length=4000, blank=True)
    seconds = models.FloatField()
    best_metric = models.FloatField(null=True)
    mechanism = models.CharField(max_length=60, blank=True)
    digest = models.CharField(max_length=64, blank=True, db_index=True)
    version = models.PositiveIntegerField(default=0)
    hooks = models.JSONField(default=dict)
    repeats = models.JSONField(default=list, blank=True)
    finished_at = models.DateTimeField()
    received_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("run", "number")
        constraints = (
            models.UniqueConstraint(fields=("run", "number"), name="one_trial_a_number"),
        )

    def __str__(self) -> str:
        return f"trial {self.number} of {self.run_id}"
