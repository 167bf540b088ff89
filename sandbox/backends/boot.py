"""What every backend starts, as whom and with which environment; no engine is known here."""

from __future__ import annotations

from pathlib import Path

from sandbox.backends.base import Switch
from sandbox.errors import InfrastructureError

UID = 64000
SECCOMP = Path(__file__).parents[1] / "seccomp.json"

# Not -I: it implies -E, which would ignore PYTHONHASHSEED, and the order of sets would differ
# from run to run. -P and -s are the rest of -I: no script folder and no user site on sys.path.
# Our folder comes last, so that nothing in it can shadow the standard library.
BOOT = "import sys; sys.path.append('/opt/sandbox'); import sandbox.worker as w; w.main()"
PYTHON = ["/usr/local/bin/python3", "-P", "-s", "-B", "-X", "utf8", "-c"]
COMMAND = [*PYTHON, BOOT]
ENVIRONMENT = {"PYTHONHASHSEED": "0"}


def refuse_drill(without: Switch | None) -> None:
    """A sandbox with a control off has no fingerprint, so that no verdict can be kept for it and
    nothing is ever cleared to run in it. Raises InfrastructureError."""
    if without is not None:
        raise InfrastructureError(f"This is a drill without {without}: nothing is run in it.")
