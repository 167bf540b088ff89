"""The app of requests for packages: what it gives to the lifecycle, the log and the worker."""

from __future__ import annotations

from django.apps import AppConfig


class DependenciesConfig(AppConfig):
    """Wiring."""

    name = "dependencies"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register the lock in force, inbox rows, evidence, sweeps and tasks."""
        from audit import evidence  # noqa: PLC0415 - models need the app registry
        from proposals import hooks, live, sweeps  # noqa: PLC0415

        from dependencies import builds, verbs, work  # noqa: PLC0415
        from dependencies.evidence import DependencyEvidence  # noqa: PLC0415
        from dependencies.inbox import KnownPackages, looks_like  # noqa: PLC0415

        hooks.register(KnownPackages())
        evidence.register(DependencyEvidence())
        live.add("packages", looks_like)
        live.add("package", looks_like)
        live.also("inbox", looks_like)
        sweeps.add("lock in force", work.settle, 2.0)
        sweeps.add("requests for packages", work.refresh, 5.0)
        sweeps.add("dead package workers", work.give_up_dead, 5.0)
        sweeps.add("lost package tasks", work.enqueue_lost, 15.0)
        sweeps.add("image is there", work.image_is_there, 15.0)
        verbs.to_record.connect(work.enqueue_record, dispatch_uid="record-package")
        verbs.to_build.connect(work.enqueue_build, dispatch_uid="build-image")
        builds.lock_changed.connect(work.settle_now, dispatch_uid="settle-lock")
