"""Prints what the project and the named extras need: for an image that has only its own part.

`python scripts/requirements.py web operators | pip install -c constraints.txt -r /dev/stdin`
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
project = tomllib.loads(PYPROJECT.read_text())["project"]
extras = project["optional-dependencies"]
if unknown := set(sys.argv[1:]) - set(extras):
    sys.exit(f"unknown extras: {', '.join(sorted(unknown))}; there are {', '.join(extras)}")
lines = [*project["dependencies"], *(line for name in sys.argv[1:] for line in extras[name])]
sys.stdout.write("\n".join(lines) + "\n")
