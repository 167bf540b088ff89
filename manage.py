#!/usr/bin/env python
"""Django's command line, with the source root `platform/` on the path.

`platform/` is a folder of packages, never a package itself: it would hide the standard library's.
"""

import os
import sys
from pathlib import Path


def main() -> None:
    """Run one management command."""
    root = Path(__file__).resolve().parent
    sys.path[:0] = [p for p in (str(root), str(root / "platform")) if p not in sys.path]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    from django.core.management import execute_from_command_line  # noqa: PLC0415

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
