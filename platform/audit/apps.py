"""The audit app: registers the check that the log's triggers are in place."""

from __future__ import annotations

from django.apps import AppConfig


class AuditConfig(AppConfig):
    """Wiring of the append-only log."""

    name = "audit"
    verbose_name = "Audit log"

    def ready(self) -> None:
        """Register system checks."""
        from audit import checks  # noqa: F401, PLC0415 - registration needs the app registry
