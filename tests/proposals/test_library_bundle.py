"""An auditor checks the library of a bundle offline: terms, people and signatures of each entry."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit import export, keys, verifier
from audit.actors import SYSTEM
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from proposals import lifecycle, operators
from proposals.models import OperatorEntry, Proposal

Entry = dict[str, Any]
Change = Callable[[Path], None]


@pytest.fixture
def bundle(world: Any, tmp_path: Path) -> Path:
    """A bundle with the seed, one entry that two people made, one nominated, one revoked."""
    made = [_nominated(world, world.live(name)) for name in ("gentle", "second")]
    word = operators.terms_digest(made[0])
    lifecycle.agree(
        entry_id=made[0].pk, person=world["grace"], terms_digest=word, reason="I read it too"
    )
    tabu = OperatorEntry.objects.get(name="tabu")
    lifecycle.revoke(entry_id=tabu.pk, person=world["linus"], reason="it misled us")
    export.write(tmp_path / "b.zip", actor=SYSTEM)
    with zipfile.ZipFile(tmp_path / "b.zip") as packed:
        packed.extractall(tmp_path / "bundle")
    return tmp_path / "bundle"


def _nominated(world: Any, proposal: Proposal) -> OperatorEntry:
    return lifecycle.nominate(
        proposal_id=proposal.pk, person=world["ada"], bounds={"STEP": (0.1, 1.0)}, reason="small"
    )


def file_of(folder: Path, name: str) -> Path:
    (path,) = (folder / "operators").glob(f"*-{name}.json")
    return path


def rewrite(name: str, change: Callable[[Entry], object]) -> Change:
    def apply(folder: Path) -> None:
        entry = json.loads(file_of(folder, name).read_text())
        change(entry)
        file_of(folder, name).write_text(json.dumps(entry))

    return apply


def restated(entry: Entry, **said: Any) -> None:
    """Another statement, signed by a key of the forger's own."""
    text = json.dumps({**json.loads(entry["statement"]), **said})
    signed = verifier.OPERATOR_PREFIX + text.encode()
    entry["signature"] = Ed25519PrivateKey.generate().sign(signed).hex()
    entry["statement"] = text


def wider(entry: Entry) -> None:
    entry["terms"]["parameters"][0]["high"] = "99"


def borrowed(folder: Path) -> None:
    """A genuine signature, of another entry."""
    other = json.loads(file_of(folder, "bandit").read_text())["signature"]
    rewrite("gentle", lambda e: e.update(signature=other))(folder)


def added(folder: Path) -> None:
    shutil.copy(file_of(folder, "gentle"), folder / "operators" / "99-gentle.json")


TAMPERED: list[tuple[Change, str]] = [
    (rewrite("gentle", lambda e: e.update(signature="00" * 64)), "its signature does not hold"),
    (rewrite("gentle", lambda e: e.update(signature="")), "its signature does not hold"),
    (rewrite("gentle", lambda e: e.update(signature="zz")), "its signature does not hold"),
    (borrowed, "its signature does not hold"),
    (rewrite("gentle", lambda e: restated(e, approved_by=[])), "its signature does not hold"),
    (rewrite("gentle", lambda e: restated(e, approved_by=[])), "names other people"),
    (rewrite("gentle", lambda e: restated(e, at="2020")), "statement of operator:"),
    (rewrite("gentle", wider), "says something else than its signed statement"),
    (rewrite("gentle", wider), "terms_digest of operator:"),
    (rewrite("gentle", lambda e: e["terms"].update(path="x.py")), "path is not that of its terms"),
    (rewrite("gentle", lambda e: e.update(digest="0" * 64)), "digest of operator:"),
    (rewrite("gentle", lambda e: e.update(statement="")), "a signature and no statement"),
    (rewrite("gentle", lambda e: e.update(statement="{")), "can't be read as an operator"),
    (rewrite("gentle", lambda e: e.update(statement=7)), "can't be read as an operator"),
    (rewrite("gentle", lambda e: e.update(signature=7)), "can't be read as an operator"),
    (rewrite("gentle", lambda e: e.pop("terms")), "can't be read as an operator"),
    (rewrite("tabu", lambda e: e.update(standing="approved")), "the log says 'revoked'"),
    (rewrite("second", lambda e: e.update(standing="approved")), "the log says 'nominated'"),
    (lambda b: file_of(b, "gentle").unlink(), "can't be read as an operator"),
    (lambda b: file_of(b, "gentle").write_text("[]"), "can't be read as an operator"),
    (added, "the log knows no such operator"),
]


def test_each_entry_is_held_against_the_log_and_its_signature(bundle: Path, tmp_path: Path) -> None:
    whole = verifier.verify_bundle(bundle, key=keys.public_key_hex())
    assert whole.ok, whole.problems
    assert list(verifier.signed_operators(bundle, whole.facts, key=whole.key)) == []
    for change, words in TAMPERED:
        copy = tmp_path / "copy"
        shutil.copytree(bundle, copy)
        change(copy)
        # Without the manifest's word, which would name any changed file.
        found = verifier.signed_operators(copy, whole.facts, key=whole.key)
        said = "\n".join(str(problem) for problem in found)
        assert words in said, said
        shutil.rmtree(copy)
    rewrite("gentle", wider)(bundle)
    assert "operators/" in verifier.report(verifier.verify_bundle(bundle))


def test_another_key_s_library_is_not_ours(bundle: Path) -> None:
    facts = verifier.verify_bundle(bundle).facts
    found = verifier.signed_operators(bundle, facts, key="ab" * 32)
    kinds = {problem.kind for problem in found}
    assert kinds == {verifier.Kind.BAD_SIGNATURE}
