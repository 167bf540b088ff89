"""The proposals app: gives its evidence to the audit log."""

from __future__ import annotations

from django.apps import AppConfig


class ProposalsConfig(AppConfig):
    """Wiring of the governed lifecycle."""

    name = "proposals"

    def ready(self) -> None:
        """Register the provider of evidence."""
        from audit import evidence  # noqa: PLC0415 - models need the app registry

        from proposals.evidence import ProposalEvidence  # noqa: PLC0415

        evidence.register(ProposalEvidence())
