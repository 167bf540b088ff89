"""Appending: with its act or not at all, inside limits, and on a proved end only."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from audit import checkpoints, keys, log
from audit.actors import SYSTEM, Actor, ActorKind
from audit.models import Checkpoint, Entry, Head
from django.db import connection, transaction

pytestmark = pytest.mark.django_db(transaction=True)


def add(**more: Any) -> Entry:
    with transaction.atomic():
        return log.append(**{"actor": SYSTEM, "verb": "auth.login", "subject": "user:ada", **more})


def test_an_entry_is_chained_signed_and_canonical() -> None:
    first, second = add(), add(reason="because", data={"b": 1, "a": ["x", None, True]})
    assert (first.seq, second.seq, second.prev) == (1, 2, first.digest)
    body = json.loads(second.body)
    assert body["data"] == {"a": ["x", None, True], "b": 1}
    assert second.body == json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert Head.objects.get().size == 2
    assert Head.objects.get().hash == second.digest


def test_no_entry_without_a_transaction() -> None:
    with pytest.raises(log.OutsideTransaction):
        log.append(actor=SYSTEM, verb="auth.login", subject="user:ada")


def test_an_act_that_fails_leaves_no_entry() -> None:
    add()
    with suppress(ZeroDivisionError), transaction.atomic():
        log.append(actor=SYSTEM, verb="auth.login", subject="user:ada")
        raise ZeroDivisionError
    assert Entry.objects.count() == Head.objects.get().size == 1


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"data": {"x": 0.5}}, "float"),
        ({"data": {"x": object()}}, "canonical"),
        ({"data": {"x": "y" * 70_000}}, "digest"),
        ({"data": {"x": 2**60}}, "canonical"),
        ({"reason": "y" * 8001}, "8000"),
        ({"verb": "Approve"}, "verb"),
        ({"verb": "approve"}, "verb"),
        ({"subject": ""}, "subject"),
        ({"subject": "s" * 201}, "200"),
        ({"actor": Actor(kind=ActorKind.PERSON, id="", name="x")}, "actor"),
    ],
)
def test_bad_entries_are_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(log.AuditError, match=words):
        add(**more)
    assert not Entry.objects.exists()


def test_hostile_text_is_kept_visible() -> None:
    entry = add(subject="user:a\x00b", reason="lone \ud800 surrogate")
    entry.refresh_from_db()
    assert entry.subject == "user:a\\x00b"
    assert entry.reason == "lone \\ud800 surrogate"


def test_checkpoints_come_every_hundred_and_with_what_matters() -> None:
    for _ in range(100):
        add()
    add(verb="policy.loaded", subject="policy:0", data={})
    assert list(Checkpoint.objects.values_list("size", flat=True)) == [101, 100]
    assert checkpoints.contradiction(checkpoints.anchor()) == ""


def test_a_heartbeat_covers_what_is_not_covered() -> None:
    assert checkpoints.heartbeat(every_seconds=0) is None
    add()
    assert checkpoints.heartbeat(every_seconds=600) is None
    made = checkpoints.heartbeat(every_seconds=0)
    assert made is not None
    assert made.size == 1
    assert checkpoints.heartbeat(every_seconds=0) is None
    assert checkpoints.make() == made


def test_notes_that_come_back_are_compared() -> None:
    add()
    checkpoints.make()
    note = checkpoints.anchor()
    assert checkpoints.contradiction(note) == ""
    assert "signed by" in checkpoints.contradiction(note.replace("\n1\n", "\n2\n"))
    assert "no note" in checkpoints.contradiction("hello")
    assert "too long" in checkpoints.contradiction("x" * 3000)


def test_a_cut_log_contradicts_a_note_and_takes_no_more(unprotected: Any) -> None:
    for _ in range(3):
        add()
    checkpoints.make()
    note = checkpoints.anchor()
    with unprotected(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM audit_entry WHERE seq = 3")
    with pytest.raises(log.LogBroken, match="verify_audit"):
        add()
    with unprotected(), connection.cursor() as cursor:
        cursor.execute("UPDATE audit_head SET size = 2")
        cursor.execute("DELETE FROM audit_checkpoint")
    assert "cut" in checkpoints.contradiction(note)


@pytest.mark.parametrize("column", ["hash", "root", "frontier", "signature", "key"])
def test_a_head_that_was_edited_is_not_built_upon(unprotected: Any, column: str) -> None:
    add()
    with unprotected(), connection.cursor() as cursor:
        cursor.execute(f"UPDATE audit_head SET {column} = %s", ["ab" * 32])
    with pytest.raises(log.LogBroken):
        add()
    assert Entry.objects.count() == 1


def test_a_body_that_was_edited_gets_no_checkpoint(unprotected: Any) -> None:
    add()
    add()
    with unprotected(), connection.cursor() as cursor:
        cursor.execute("UPDATE audit_entry SET body = replace(body, 'ada', 'eve') WHERE seq = 1")
    with pytest.raises(log.LogBroken, match="changed"):
        checkpoints.make()


def test_no_act_passes_without_the_triggers() -> None:
    from audit import triggers

    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER audit_entry_update")
    try:
        with pytest.raises(log.LogBroken, match="audit_entry_update"):
            add()
    finally:
        triggers.install(connection)


def test_keys_are_private_and_never_replaced(settings: Any, tmp_path: Any) -> None:
    settings.KEYS = tmp_path / "keys"
    with pytest.raises(keys.KeyProblem, match="init"):
        keys.signer()
    assert keys.ensure_keys()
    assert not keys.ensure_keys()
    assert keys.verify(b"x", keys.sign(b"x"))
    assert not keys.verify(b"y", keys.sign(b"x"))
    assert not keys.verify(b"x", "zz")
    private = settings.KEYS / "platform.key"
    assert private.stat().st_mode & 0o777 == 0o600
    private.chmod(0o644)
    with pytest.raises(keys.KeyProblem, match="chmod"):
        keys.signer()
    private.unlink()
    with pytest.raises(keys.KeyProblem, match="restore"):
        keys.ensure_keys()
