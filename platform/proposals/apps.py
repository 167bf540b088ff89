"""The proposals app: joins what must not know each other (evidence, tasks, versions, log-outs)."""

from __future__ import annotations

from django.apps import AppConfig


class ProposalsConfig(AppConfig):
    """Wiring of the governed lifecycle."""

    name = "proposals"

    def ready(self) -> None:
        """Register the provider of evidence, the screening task, and what `runs` asks for."""
        from audit import evidence  # noqa: PLC0415 - models need the app registry

        from proposals.evidence import ProposalEvidence  # noqa: PLC0415

        evidence.register(ProposalEvidence())
        wire()


def wire() -> None:
    """Connect signals; models are ready by now."""
    from django.contrib.auth.signals import user_logged_out  # noqa: PLC0415
    from runs import ingest  # noqa: PLC0415

    from proposals import screening, screenings, sessions  # noqa: PLC0415
    from proposals.facts import digest_of_version  # noqa: PLC0415

    screenings.screening_queued.connect(screening.enqueue, dispatch_uid="enqueue")
    ingest.register_versions(digest_of_version)
    user_logged_out.connect(sessions.logged_out, dispatch_uid="logged_out")
