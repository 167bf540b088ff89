"""The verifier finds whatever is done to stored entries, and says what and where."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from audit import canonical, merkle, verifier
from audit.verifier import Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.audit.stories import GRACE, Log, act, kinds, plain_log

SIZE = 12
BASE = plain_log(SIZE)
LONG = plain_log(105)


def fresh(base: Log = BASE) -> Log:
    """A copy that may be damaged (the key is shared: it can't be copied)."""
    made = copy.copy(base)
    made.rows = copy.deepcopy(base.rows)
    made.notes = list(base.notes)
    made.head = dict(base.head or {})
    return made


def found(log: Log, kind: Kind, seq: int | None = None, **more: Any) -> bool:
    return any(
        p.kind == kind and (seq is None or p.seq == seq) for p in log.verify(**more).problems
    )


def test_a_log_that_nobody_touched_is_ok() -> None:
    assert fresh().verify().problems == []
    assert fresh().verify().ok
    assert LONG.verify().ok
    assert Log().verify().ok


@pytest.mark.parametrize("seq", range(1, SIZE + 1))
def test_an_edited_entry_is_named(seq: int) -> None:
    log = fresh()
    text, stored = log.rows[seq - 1]
    log.rows[seq - 1] = (text.replace("user:", "user_"), stored)
    assert [(p.kind, p.seq) for p in log.verify().problems] == [(Kind.EDITED, seq)]


@pytest.mark.parametrize("seq", range(1, SIZE + 1))
def test_an_edited_entry_with_a_new_digest_is_named(seq: int) -> None:
    log = fresh()
    log.rows[seq - 1] = log.row({**log.body(seq), "reason": "another"})
    assert [(p.kind, p.seq) for p in log.verify().problems] == [(Kind.EDITED, seq)]


@pytest.mark.parametrize("seq", range(1, SIZE + 1))
def test_a_rewritten_chain_is_a_fork(seq: int) -> None:
    log = fresh()
    log.rows[seq - 1] = log.row({**log.body(seq), "reason": "another"})
    log.rechain(seq)
    expected = Kind.EDITED if seq == SIZE else Kind.FORK
    assert kinds(log.verify()) == {expected}


@pytest.mark.parametrize("seq", range(1, SIZE))
def test_a_removed_entry_is_named(seq: int) -> None:
    log = fresh()
    del log.rows[seq - 1]
    assert [(p.kind, p.seq) for p in log.verify().problems] == [(Kind.REMOVED, seq)]


def test_a_removed_entry_with_renumbered_followers_is_found() -> None:
    log = fresh()
    del log.rows[4]
    log.rechain(5)
    assert Kind.TAIL_CUT in kinds(log.verify())


def test_a_cut_tail_is_found_by_the_head() -> None:
    log = fresh()
    del log.rows[-3:]
    assert found(log, Kind.TAIL_CUT, SIZE - 2)
    log.rows.clear()
    assert found(log, Kind.TAIL_CUT, 1)


def test_a_cut_tail_with_the_old_head_is_found_by_a_checkpoint() -> None:
    log, old = fresh(LONG), plain_log(3)
    log.rows = log.rows[:99]
    assert found(log, Kind.TAIL_CUT, 100)
    # The head of that time put back, and all checkpoints removed: somebody else remembers.
    key = old.key
    cut = Log()
    cut.key, cut.public = key, old.public
    for n in range(3):
        cut.add(act(GRACE, "auth.login", f"user:{n}", {}, target=""))
    remembered = cut.note(cut.rows[-1][1]["digest"])
    shorter = Log()
    shorter.key, shorter.public = key, old.public
    for n in range(2):
        shorter.add(act(GRACE, "auth.login", f"user:{n}", {}, target=""))
    assert shorter.verify().ok
    assert {Kind.TAIL_CUT, Kind.HEAD_ROLLED_BACK} <= kinds(shorter.verify(anchors=[remembered]))


def test_an_old_head_over_a_longer_log_is_found() -> None:
    log, shorter = fresh(), Log()
    shorter.key, shorter.public = log.key, log.public
    for text, _ in BASE.rows[:5]:
        body = json.loads(text)
        shorter.add({k: body[k] for k in ("actor", "verb", "subject", "target", "data")})
    log.head = shorter.head
    assert found(log, Kind.HEAD_ROLLED_BACK, 6)


def test_swapped_entries_are_found() -> None:
    log = fresh()
    log.rows[2], log.rows[6] = log.rows[6], log.rows[2]
    assert Kind.REORDERED in kinds(log.verify())
    # with the stored numbers put right, too
    for index in (2, 6):
        text, stored = log.rows[index]
        log.rows[index] = (text, {**stored, "seq": index + 1})
    assert kinds(log.verify()) == {Kind.REORDERED}


def test_a_duplicated_entry_is_named() -> None:
    log = fresh()
    text, stored = log.rows[4]
    log.rows.append((text, {**stored, "seq": SIZE + 1}))
    assert found(log, Kind.DUPLICATED, SIZE + 1)


def test_two_entries_with_one_number_are_a_fork() -> None:
    log = fresh()
    log.rows.insert(5, log.row({**log.body(5), "reason": "the other"}))
    assert found(log, Kind.FORK, 5)


def test_a_skipped_number_is_a_gap() -> None:
    log = fresh()
    body = {**log.body(SIZE), "seq": SIZE + 1}
    log.rows[-1] = log.row(body)
    assert found(log, Kind.GAP, SIZE)


@pytest.mark.parametrize("seq", [0, -5, SIZE + 2, 2**52, "seven", None, 1.5, True])
def test_a_number_that_is_none_is_found(seq: Any) -> None:
    log = fresh()
    text, stored = log.rows[-1]
    log.rows[-1] = (text, {**stored, "seq": seq})
    assert log.verify().problems
    if type(seq) is int:
        log.rows[-1] = log.row({**log.body(SIZE), "seq": seq})
        assert log.verify().problems
        log.rows[-1] = (text, {**stored, "seq": seq, "digest": "0" * 64})
        assert log.verify().problems


def test_a_whole_stretch_that_was_removed_is_one_problem() -> None:
    log = fresh()
    del log.rows[3:7]
    problems = log.verify().problems
    assert [(p.kind, p.seq) for p in problems] == [(Kind.REMOVED, 4)]
    assert "up to entry 7" in problems[0].message


def test_an_entry_that_nobody_signed_is_found() -> None:
    log = fresh()
    body = {**log.body(SIZE), "seq": SIZE + 1, "prev": log.rows[-1][1]["digest"]}
    log.rows.append(log.row(body))
    assert found(log, Kind.HEAD_ROLLED_BACK, SIZE + 1)


@pytest.mark.parametrize(
    "column",
    ["at", "actor_kind", "actor_id", "actor_name", "verb", "subject", "target", "reason", "prev"],
)
def test_an_edited_column_is_named(column: str) -> None:
    log = fresh()
    text, stored = log.rows[3]
    log.rows[3] = (text, {**stored, column: "x"})
    problems = log.verify().problems
    assert [(p.kind, p.seq) for p in problems] == [(Kind.COLUMN_EDITED, 4)]
    assert column in problems[0].message


def test_another_key_is_told_from_a_broken_signature() -> None:
    log, other = fresh(), plain_log(1)
    assert kinds(log.verify(key=other.public)) == {Kind.WRONG_KEY}
    log.head = {**(log.head or {}), "signature": "00" * 64}
    assert kinds(log.verify()) == {Kind.BAD_SIGNATURE}
    log.head = {**(log.head or {}), "signature": None}
    assert kinds(log.verify()) == {Kind.HEAD}
    assert kinds(log.verify(head=None)) == {Kind.HEAD}


def test_a_log_signed_anew_by_somebody_else_has_the_wrong_key() -> None:
    forged = plain_log(SIZE)
    assert kinds(forged.verify(key=BASE.public)) == {Kind.WRONG_KEY}
    assert not forged.verify(key="").pinned


def test_checkpoints_that_are_due_must_be_there_and_genuine() -> None:
    log = fresh(LONG)
    log.notes.clear()
    assert found(log, Kind.CHECKPOINT, 100)
    log.notes = [LONG.notes[0].replace("\n100\n", "\n99\n")]
    assert {Kind.BAD_SIGNATURE, Kind.CHECKPOINT} <= kinds(log.verify())
    log.notes = ["nonsense"]
    assert Kind.CHECKPOINT in kinds(log.verify())


def test_a_fork_that_the_platform_signed_itself_is_found() -> None:
    """Two logs under one key: what one party remembers contradicts what another is shown."""
    log = fresh(LONG)
    forked = Log()
    forked.key, forked.public = LONG.key, LONG.public
    for n in range(105):
        forked.add(act(GRACE, "auth.login", f"user:{n}", {}, target=""))
    assert forked.verify().ok
    assert found(log, Kind.FORK, None, anchors=forked.notes)


def test_without_cryptography_it_is_not_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    result = fresh().verify()
    assert (result.ok, result.exit_code, result.signatures) == (False, 2, "not checked")
    assert "NOT CHECKED" in verifier.report(result)


# --- properties --------------------------------------------------------------------------------

numbers = st.integers(0, SIZE - 1)


@settings(max_examples=60, deadline=None)
@given(index=numbers, place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_any_changed_byte_is_found(index: int, place: int, byte: int) -> None:
    log = fresh()
    text, stored = log.rows[index]
    raw = bytearray(text.encode())
    place %= len(raw)
    if raw[place] == byte:
        return
    raw[place] = byte
    log.rows[index] = (raw.decode("utf-8", "replace"), stored)
    assert log.verify().problems


@settings(max_examples=60, deadline=None)
@given(order=st.permutations(range(SIZE)), renumber=st.booleans())
def test_any_other_order_is_found(order: list[int], renumber: bool) -> None:
    log = fresh()
    log.rows = [BASE.rows[n] for n in order]
    if renumber:
        log.rows = [(t, {**s, "seq": n + 1}) for n, (t, s) in enumerate(log.rows)]
    assert bool(log.verify().problems) == (order != list(range(SIZE)))


@settings(max_examples=60, deadline=None)
@given(picked=st.lists(numbers, min_size=0, max_size=SIZE + 4), bare=st.booleans())
def test_any_selection_but_the_whole_is_found(picked: list[int], bare: bool) -> None:
    """Removing, repeating, cutting, shuffling, in all combinations; with and without columns."""
    log = fresh()
    log.rows = [(t, {} if bare else s) for t, s in (BASE.rows[n] for n in picked)]
    assert bool(log.verify().problems) == (picked != list(range(SIZE)))


@settings(max_examples=40, deadline=None)
@given(index=numbers, column=st.sampled_from(sorted(BASE.rows[0][1])), value=st.text(max_size=5))
def test_any_edited_column_is_found(index: int, column: str, value: str) -> None:
    log = fresh()
    text, stored = log.rows[index]
    new: Any = SIZE + 5 if column == "seq" else value
    if stored[column] == new:
        return
    log.rows[index] = (text, {**stored, column: new})
    assert log.verify().problems


leaves = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(leaves)
def test_the_verifier_s_bytes_are_the_log_s_bytes(value: Any) -> None:
    assert verifier.canonical(canonical.plain(value)) == canonical.encode(canonical.plain(value))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=4), max_size=40))
def test_the_tree_is_that_of_rfc_6962(data: list[bytes]) -> None:
    def reference(hashes: list[bytes]) -> bytes:
        if not hashes:
            return merkle.EMPTY_ROOT
        if len(hashes) == 1:
            return hashes[0]
        half = 1 << ((len(hashes) - 1).bit_length() - 1)
        return merkle.node_hash(reference(hashes[:half]), reference(hashes[half:]))

    frontier: list[bytes] = []
    for size, item in enumerate(data):
        frontier = merkle.grow(frontier, size, merkle.leaf_hash(item))
    expected = reference([merkle.leaf_hash(item) for item in data])
    assert merkle.root(frontier) == expected
    assert verifier.root_of(frontier) == expected.hex()
