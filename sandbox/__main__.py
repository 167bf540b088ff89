"""The sandbox from the command line: screen a mechanism, make the image, examine, clean up.

    python -m sandbox screen PATH [--json] [--without-static-checks]

exits 0 if the mechanism passed, 1 if it failed, 2 if it could not be judged. The same judges as
the platform's, and no other path around them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from sandbox import bills, clearance, doctor, image_commands, sarif
from sandbox.backends import get_backend
from sandbox.backends.base import Backend, Switch
from sandbox.draft import lay_out, read_files
from sandbox.errors import InfrastructureError
from sandbox.report import DraftError, Outcome, Report
from sandbox.screen import screen
from sandbox.shown import refused_report, show

EXIT = {Outcome.PASSED: 0, Outcome.FAILED: 1}
COULD_NOT = 2
Progress = Callable[[str], None]


class _NoEngine:
    """Stands in where no engine answers: static checks run, and every worker is refused."""

    name = "none"

    def __init__(self, error: InfrastructureError) -> None:
        self._error = error

    @property
    def image_id(self) -> str:
        raise self._error

    @property
    def fingerprint(self) -> str:
        raise self._error

    def start(self, **_: Any) -> Any:
        raise self._error

    def reap(self) -> list[str]:
        raise self._error


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    arguments = _parser().parse_args(argv)
    status = Console(stderr=True)

    def progress(text: str) -> None:
        if not arguments.quiet:
            status.print(text, style="dim", markup=False, highlight=False)

    commands: dict[str, Callable[[argparse.Namespace, Progress], int]] = {
        "screen": _screen,
        "image": image_commands.command,
        "doctor": _doctor,
        "reap": _reap,
        "advisories": bills.advisories_command,
        "sbom": bills.sbom_command,
        "dependency": bills.dependency_command,
    }
    try:
        return commands[arguments.command](arguments, progress)
    except InfrastructureError as error:
        status.print(f"The sandbox can't work: {error}", style="red", markup=False)
        return COULD_NOT
    except KeyboardInterrupt:
        status.print("Stopped; nothing was judged.")
        return COULD_NOT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__.split("\n")[0])
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("screen", help="judge a mechanism: exit 0 passed, 1 failed, 2 not")
    one.add_argument("path", type=Path, help="a draft folder, or a single mechanism file")
    one.add_argument("--json", action="store_true", help="the whole report as JSON")
    one.add_argument("--sarif", type=Path, metavar="FILE", help="write the findings as SARIF 2.1.0")
    one.add_argument(
        "--without-static-checks",
        action="store_true",
        help="see what the sandbox alone stops; such a screening can't pass",
    )
    image_commands.add_parser(commands)
    examine = commands.add_parser("doctor", help="try what is forbidden, and say what holds")
    examine.add_argument(
        "--without",
        type=Switch,
        choices=list(Switch),
        metavar="CONTROL",
        help="a drill: start the probe with one control off, to see that it is noticed "
        f"({', '.join(Switch)}); exit 0 if it is",
    )
    bills.add_parsers(commands)
    commands.add_parser("reap", help="remove what killed processes left behind")
    return parser


def _screen(arguments: argparse.Namespace, progress: Progress) -> int:
    path: Path = arguments.path
    out = Console(soft_wrap=True)
    try:
        files = read_files(path)
        draft = lay_out(files, require_test=path.is_dir())
    except OSError as error:
        Console(stderr=True).print(
            f"{path} can't be read: {error.strerror or error}. Give a mechanism's file, or a "
            "folder with mechanisms/NAME.py and tests/test_NAME.py.",
            style="red",
            markup=False,
        )
        return COULD_NOT
    except DraftError as error:
        report = refused_report(path, error)
    else:
        backend = _backend(progress)
        report = screen(
            draft, backend=backend, static=not arguments.without_static_checks, progress=progress
        )
    _print(report, out, as_json=arguments.json)
    if arguments.sarif:
        bills.write(arguments.sarif, sarif.text(report.to_data()))
    return EXIT.get(report.outcome, COULD_NOT)


def _print(report: Report, out: Console, *, as_json: bool) -> None:
    if as_json:
        data = {**report.to_data(), "evidence_digest": report.evidence_digest}
        sys.stdout.write(json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n")
    else:
        show(report, out)


def _backend(progress: Progress) -> Backend:
    try:
        return get_backend(progress=progress)
    except InfrastructureError as error:
        progress(f"no sandbox: {error}")
        return _NoEngine(error)


def _doctor(arguments: argparse.Namespace, progress: Progress) -> int:
    out = Console(soft_wrap=True)
    if arguments.without is not None:
        return _drill(arguments.without, progress, out)
    controls = doctor.examine(progress)
    with suppress(InfrastructureError):  # no engine: the controls say so already
        clearance.record(get_backend(), controls)
    _show_controls(controls, out)
    return 0 if all(c.ok for c in controls) else 1


def _drill(without: Switch, progress: Progress, out: Console) -> int:
    """See that the doctor notices. Its verdict is about no sandbox that is used, and not kept."""
    backend = get_backend(without=without, progress=progress)
    controls = doctor.examine(progress, backend=backend)
    problem = clearance.problem_of(controls)
    _show_controls([c for c in controls if not c.ok], out)
    if not problem:
        out.print(f"NOT NOTICED: the doctor sees no difference without {without}", style="bold red")
        return 1
    out.print(f"noticed: a sandbox without {without} is refused", style="green")
    out.print("every screening on it would end as could not look:", style="dim")
    out.print(f"      {problem}", markup=False, highlight=False)
    return 0


def _show_controls(controls: list[doctor.Control], out: Console) -> None:
    for control in controls:
        mark = "[green]holds[/]" if control.ok else "[red]FAILS[/]"
        out.print(mark, end=" ")
        out.print(control.control, markup=False, highlight=False)
        if not control.ok:
            out.print(f"      {control.what_to_do}", markup=False, highlight=False)


def _reap(_: argparse.Namespace, progress: Progress) -> int:
    removed = get_backend(progress=progress).reap()
    Console().print(f"removed {len(removed)} abandoned workers", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
