"""The platform's doors from the runner's side, over real HTTP: what fails, and what then."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runner.control.outbox import Outbox
from runner.control.platform_client import (
    Credentials,
    CredentialsError,
    PlatformClient,
    Refused,
    TokenInvalid,
    Unreachable,
)
from runner.interfaces import Outcome, ResearchDraft
from runner.protocol import Observed
from runner.storage.drafts import Drafts, DraftState
from runner.storage.journal import Entry, Journal, Phase
from tests.runner.platformserver import HEAD, NULL, FakePlatform, serve


@pytest.fixture
def fake() -> Iterator[FakePlatform]:
    with serve() as platform:
        platform.want(NULL)
        yield platform


@pytest.fixture
def client(fake: FakePlatform) -> Iterator[PlatformClient]:
    made = PlatformClient(fake.credentials(), longest_pause=0.01)
    yield made
    made.close()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(tmp_path / "run")
    made.identify(task="surface", task_digest="5" * 64, seed=1)
    yield made
    made.close()


def entry(number: int) -> Entry:
    return Entry(
        number=number,
        phase=Phase.DECIDED,
        config={"RATE": 1.0},
        changes={},
        metric=1.0,
        status="kept",
        best_metric=1.0,
        finished_at=datetime.now(UTC),
    )


def draft() -> ResearchDraft:
    return ResearchDraft(
        title="tabu_v2",
        summary="",
        files={"mechanisms/tabu_v2.py": "x = 1\n", "tests/test_tabu_v2.py": ""},
        operator="tabu",
        parameters={"TENURE": 5},
        diagnosis={"streak": 4},
        rounds=(),
        generator="test",
    )


def drafted(journal: Journal, fake: FakePlatform, *, digest: str = "") -> Drafts:
    drafts = Drafts(journal)
    drafts.due(10)
    assert fake.desired is not None
    made = drafts.all()[0]
    drafts.drafted(made.draft_id, draft(), commit="b" * 40, digest=digest or fake.desired.digest)
    return drafts


# --- one request ---


def test_server_errors_are_tried_again(fake: FakePlatform, client: PlatformClient) -> None:
    fake.faults = [(500, b"oops"), (503, {})]
    assert client.desired() == fake.desired
    assert len(fake.requests) == 3


def test_lasting_errors_are_unreachable(fake: FakePlatform, client: PlatformClient) -> None:
    fake.faults = [(500, b"oops")] * 3
    with pytest.raises(Unreachable, match="500"):
        client.desired()


@pytest.mark.parametrize("body", [b"<html>a proxy's page</html>", b"{}", b'{"version": NaN}', b""])
def test_an_answer_that_makes_no_sense_is_no_answer(
    fake: FakePlatform, client: PlatformClient, body: bytes
) -> None:
    fake.faults = [(200, body)] * 3
    with pytest.raises(Unreachable, match="understands"):
        client.desired()


def test_a_desired_state_that_did_not_change_is_the_known_one(
    fake: FakePlatform, client: PlatformClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = client.desired()
    monkeypatch.setattr(client, "_known", ('"tag"', known))
    fake.want(NULL)
    fake.faults = [(304, b"")]
    assert client.desired() is known
    assert client.desired() == fake.desired != known  # without a tag nothing is kept
    fake.faults = [(304, b"")] * 3
    with pytest.raises(Unreachable, match="304"):
        client.desired()


def test_an_endless_answer_is_cut(
    fake: FakePlatform, client: PlatformClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.control.platform_client.MAX_ANSWER_BYTES", 1000)
    fake.faults = [(200, b" " * 100_000)] * 3
    with pytest.raises(Unreachable, match="over 1000 bytes"):
        client.desired()


def test_refused_is_final(fake: FakePlatform, client: PlatformClient) -> None:
    fake.refuse["observed"] = [(409, "wrong_digest")]
    with pytest.raises(Refused, match="wrong_digest") as caught:
        client.observed(Observed(version=1, state="live", digest="0" * 64))
    assert caught.value.code == "wrong_digest"
    assert len(fake.requests) == 1


def test_a_redirect_is_not_followed(fake: FakePlatform, client: PlatformClient) -> None:
    fake.faults = [(302, b"")] * 3
    with pytest.raises(Unreachable, match="302"):
        client.desired()


def test_a_wrong_token_is_its_own_error(fake: FakePlatform) -> None:
    with pytest.raises(TokenInvalid, match="register again"):
        PlatformClient(fake.credentials(token="other")).desired()
    assert len(fake.requests) == 1


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"  # held, so that nobody else gets it
        with pytest.raises(Unreachable, match="can't be reached"):
            PlatformClient(at(url), longest_pause=0.01).desired()


@pytest.mark.parametrize("drip", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_byte_now_and_then_is_no_answer(drip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.control.platform_client.WHOLE_SECONDS", 0.3)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve_slowly() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(drip)
                while not over.wait(0.02):
                    connection.sendall(b" ")

        thread = threading.Thread(target=serve_slowly)
        thread.start()
        try:
            with pytest.raises(Unreachable, match="can't be reached"):
                PlatformClient(
                    at(f"http://127.0.0.1:{server.getsockname()[1]}"), attempts=1
                ).desired()
        finally:
            over.set()
            thread.join()


def at(url: str) -> Credentials:
    return Credentials.model_validate(
        {"url": url, "token": "t", "public_key": "0" * 64, "runner": "r", "target": "t"}
    )


# --- credentials ---


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"url": "ftp://x"}, "no http"),
        ({"url": "http://example.org"}, "unencrypted"),
        ({"public_key": "zz"}, "public_key"),
        ({"extra": "1"}, "extra"),
    ],
)
def test_credentials_that_cannot_be_used(tmp_path: Path, change: dict[str, str], why: str) -> None:
    fields = {
        "url": "https://x",
        "token": "t",
        "public_key": "0" * 64,
        "runner": "r",
        "target": "t",
    }
    path = tmp_path / "runner.json"
    path.write_text(json.dumps({**fields, **change}))
    path.chmod(0o600)
    with pytest.raises(CredentialsError, match=why):
        Credentials.read(path)


def test_credentials_that_others_can_read(tmp_path: Path) -> None:
    path = tmp_path / "runner.json"
    path.write_text("{}")
    path.chmod(0o644)
    with pytest.raises(CredentialsError, match="chmod 600"):
        Credentials.read(path)
    with pytest.raises(CredentialsError, match="register_runner"):
        Credentials.read(tmp_path / "missing.json")


# --- the outbox ---


def test_what_was_not_acknowledged_is_sent_later_in_order(
    fake: FakePlatform, client: PlatformClient, journal: Journal
) -> None:
    outbox = Outbox(client, journal, lambda _: None)
    journal.plan([entry(0), entry(1)], state=None)
    Drafts(journal).attest(Observed(version=1, state="live", digest="1" * 64))
    fake.down = True
    with pytest.raises(Unreachable):
        outbox.flush()
    journal.plan([entry(2)], state=None)
    fake.down = False
    outbox.flush()
    assert sorted(fake.trials) == [0, 1, 2]
    assert fake.attested() == [(1, "1" * 64)]
    assert not any(Drafts(journal).backlog().values())
    outbox.flush()  # nothing is sent twice
    assert fake.requests.count("POST trials") == 1


def test_an_acknowledgement_that_got_lost_repeats_nothing(
    fake: FakePlatform, client: PlatformClient, journal: Journal
) -> None:
    journal.plan([entry(0)], state=None)
    outbox = Outbox(client, journal, lambda _: None)
    fake.do("POST", "trials", _batch(journal))  # it arrived, but the answer did not
    outbox.flush()
    assert sorted(fake.trials) == [0]


def _batch(journal: Journal) -> bytes:
    from runner.loop.reports import trial_report
    from runner.protocol import TrialBatch

    reports = [trial_report(e) for e in journal.waiting_trials(9)]
    return TrialBatch(run_id=journal.run_id, trials=reports).model_dump_json().encode()


def test_a_refused_trial_is_loud_and_holds_nothing_up(
    fake: FakePlatform, client: PlatformClient, journal: Journal
) -> None:
    said: list[str] = []
    journal.plan([entry(0), entry(1)], state=None)
    fake.refuse["trials"] = [(422, "invalid")]  # the batch; then each is sent alone
    Outbox(client, journal, said.append).flush()
    assert sorted(fake.trials) == [0, 1]
    journal.plan([entry(2)], state=None)
    fake.refuse["trials"] = [(422, "invalid")]
    Outbox(client, journal, said.append).flush()
    assert any("REFUSED: trial 2" in text for text in said)
    assert not journal.waiting_trials(9)


def test_a_draft_is_submitted_once(
    fake: FakePlatform, client: PlatformClient, journal: Journal
) -> None:
    drafts = drafted(journal, fake)
    outbox = Outbox(client, journal, lambda _: None)
    outbox.flush()
    outbox.flush()
    assert fake.requests.count("POST proposals") == 1
    (kept,) = drafts.all(DraftState.SUBMITTED)
    assert (kept.proposal, kept.remote) == (1, "submitted")
    assert fake.drafts[kept.draft_id].parameters == {"TENURE": 5}


def test_a_stale_base_is_renewed_once(
    fake: FakePlatform, client: PlatformClient, journal: Journal
) -> None:
    drafts = drafted(journal, fake)
    fake.refuse["proposals"] = [(409, "stale_base")]
    Outbox(client, journal, lambda _: None).flush()
    (kept,) = drafts.all(DraftState.SUBMITTED)
    assert kept.resubmitted
    assert fake.drafts[kept.draft_id].base_commit == HEAD


def test_a_base_that_stays_stale_is_refused(
    fake: FakePlatform, client: PlatformClient, journal: Journal
) -> None:
    drafts = drafted(journal, fake)
    fake.refuse["proposals"] = [(409, "stale_base")] * 5
    Outbox(client, journal, lambda _: None).flush()
    (kept,) = drafts.all(DraftState.REFUSED)
    assert "stale_base" in kept.reason
    assert fake.requests.count("POST proposals") == 2


def test_a_draft_against_a_mechanism_that_no_longer_runs_is_not_renewed(
    fake: FakePlatform, client: PlatformClient, journal: Journal
) -> None:
    drafts = drafted(journal, fake, digest="9" * 64)
    fake.refuse["proposals"] = [(409, "stale_base")]
    Outbox(client, journal, lambda _: None).flush()
    assert drafts.all(DraftState.REFUSED)
    assert fake.requests.count("POST proposals") == 1


@pytest.mark.parametrize(("status", "code"), [(429, "too_many_open"), (409, "name_exists")])
def test_a_refused_draft_is_remembered(
    fake: FakePlatform, client: PlatformClient, journal: Journal, status: int, code: str
) -> None:
    drafts = drafted(journal, fake)
    fake.refuse["proposals"] = [(status, code)]
    Outbox(client, journal, lambda _: None).flush()
    assert code in drafts.all(DraftState.REFUSED)[0].reason


def test_a_draft_over_the_wires_limit_is_refused_here(
    fake: FakePlatform, client: PlatformClient, journal: Journal
) -> None:
    drafts = Drafts(journal)
    drafts.due(10)
    too_long = ResearchDraft(**{**draft().__dict__, "title": "x" * 5000})
    drafts.drafted(drafts.all()[0].draft_id, too_long, commit="b" * 40, digest="1" * 64)
    Outbox(client, journal, lambda _: None).flush()
    assert "limit of the wire" in drafts.all(DraftState.REFUSED)[0].reason
    assert "POST proposals" not in fake.requests


def test_another_task_or_seed_or_platform_does_not_resume(journal: Journal, tmp_path: Path) -> None:
    from runner.storage.store import JournalError

    with pytest.raises(JournalError, match="another runner"):
        Journal(tmp_path / "run")
    with pytest.raises(JournalError, match="can't be compared"):
        journal.identify(task="surface", task_digest="6" * 64, seed=1)
    with pytest.raises(JournalError, match="seed 1, not 2"):
        journal.identify(task="surface", task_digest="5" * 64, seed=2)
    journal.identify(task="surface", task_digest="5" * 64, seed=None)
    journal.bind("1" * 64)
    with pytest.raises(JournalError, match="another platform"):
        journal.bind("2" * 64)


def test_a_measured_trial_is_measured_once(journal: Journal) -> None:
    from runner.storage.store import JournalError

    planned = Entry(number=1, phase=Phase.PLANNED, config={}, changes={})
    journal.plan([planned], state=None)
    journal.measure(1, Outcome(metric=1.0))
    with pytest.raises(JournalError, match="not planned"):
        journal.measure(1, Outcome(metric=2.0))
