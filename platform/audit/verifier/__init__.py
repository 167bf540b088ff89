"""Verify an audit log: the chain, the signatures, and the rules, from the entries alone.

It trusts nothing of the platform. Inside of it, `manage.py verify_audit` uses it; in an evidence
bundle these modules are joined into one file, `verify.py` (`audit.onefile`):

    python verify.py [FOLDER] [--public-key FILE] [--json]

Standard library, and `cryptography` for the signatures: without it they are *not checked*, which
is not "ok". Exit 0: all holds. 1: tampered or a rule broken. 2: could not look.
It does not judge whether an approval was wise.
"""

from audit.verifier.bundle import (
    MANIFEST_PREFIX,
    POPULATION,
    Unreadable,
    verify_bundle,
)
from audit.verifier.command import main
from audit.verifier.ledger import PATHS
from audit.verifier.operators import OPERATOR_PREFIX, signed_operators
from audit.verifier.result import Kind, Problem, Result, as_json, report
from audit.verifier.rules import Rules, compare_rows, verify
from audit.verifier.signed import CHECKPOINT_EVERY, CHECKPOINT_VERBS
from audit.verifier.signing import (
    NOTE_ORIGIN,
    Note,
    canonical,
    head_bytes,
    key_id,
    parse_note,
    root_of,
    sha256,
)

__all__ = [
    "CHECKPOINT_EVERY",
    "CHECKPOINT_VERBS",
    "MANIFEST_PREFIX",
    "NOTE_ORIGIN",
    "OPERATOR_PREFIX",
    "PATHS",
    "POPULATION",
    "Kind",
    "Note",
    "Problem",
    "Result",
    "Rules",
    "Unreadable",
    "as_json",
    "canonical",
    "compare_rows",
    "head_bytes",
    "key_id",
    "main",
    "parse_note",
    "report",
    "root_of",
    "sha256",
    "signed_operators",
    "verify",
    "verify_bundle",
]
