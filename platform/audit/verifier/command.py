"""The command: `python verify.py [FOLDER] [--public-key FILE] [--json]` in an unpacked bundle."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from audit.verifier.bundle import Unreadable, verify_bundle
from audit.verifier.result import as_json, report


def main(arguments: Sequence[str] | None = None) -> int:
    """Verify the bundle that this file lies in, or the one that is named."""
    parser = argparse.ArgumentParser(description="Verify an evidence bundle of Escapement.")
    parser.add_argument("folder", nargs="?", default=str(Path(__file__).resolve().parent))
    parser.add_argument("--public-key", metavar="FILE", help="the key that you trust, as hex")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    options = parser.parse_args(arguments)
    try:
        key = Path(options.public_key).read_text().strip() if options.public_key else ""
        if key and len(bytes.fromhex(key)) != 32:
            raise ValueError(f"{options.public_key} holds no Ed25519 public key (64 hex digits)")
        result = verify_bundle(Path(options.folder), key=key)
    except (Unreadable, OSError, ValueError) as error:
        sys.stderr.write(f"could not look: {error}\n")
        return 2
    sys.stdout.write((as_json(result) if options.json else report(result)) + "\n")
    return result.exit_code
