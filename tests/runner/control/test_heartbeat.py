"""A heartbeat says what is so when it is sent, whatever was sent while it waited for its turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from runner.control.hotload import Loader
from runner.control.platform_client import PlatformClient
from runner.control.platform_link import Link
from runner.protocol import Observed
from runner.storage.journal import Journal, Report
from sandbox.backends.base import Backend
from tests.runner.platformserver import serve

LIVE = Observed(version=2, state="live", digest="1" * 64)


def no_sandbox() -> Backend:
    raise AssertionError("nothing is loaded here")


def beat_while(folder: Path, *, sent: bool) -> list[str]:
    """The states that a platform is told of by a beat before which LIVE was attested, and `sent`,
    while the beat waited for another sender."""
    with serve() as fake, closing(Journal(folder)) as journal:
        journal.identify(task="surface", task_digest="5" * 64, seed=1)
        client = PlatformClient(fake.credentials())
        loader = Loader(no_sandbox, public_key="", target="demo")
        link = Link(client=client, journal=journal, loader=loader, say=lambda _: None)

        @contextmanager
        def in_turn() -> Iterator[None]:
            link._attest(LIVE)
            if sent:
                ((key, _),) = link.drafts.waiting_attestations()
                client.observed(LIVE)
                link.drafts.attestation_done(key, Report.SENT)
            yield

        link._sending = in_turn()  # type: ignore[assignment]
        link._send(link._heartbeat)
        client.close()
        return [o.state for o in fake.observed]


def test_what_was_attested_while_it_waited_is_not_taken_back(tmp_path: Path) -> None:
    assert beat_while(tmp_path, sent=True) == ["live", "live"]


def test_it_never_goes_ahead_of_an_attestation(tmp_path: Path) -> None:
    assert beat_while(tmp_path, sent=False) == []
