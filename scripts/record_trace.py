"""Make a recorded trace for the replay out of a run's folder: real trainings, with provenance.

    python scripts/record_trace.py RUN_FOLDER NAME --budget-seconds 2

writes `sandbox/traces/NAME.json.gz`. The run must have been made by the null mechanism alone: what
another one chose would not be what plain Level 1 does. Nothing is made up here, and nothing that
was measured is left out but the texts.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from runner.gpt.space import SPACE  # noqa: E402 - the repository's root comes first
from runner.storage.journal import Entry, Journal  # noqa: E402
from runner.storage.store import DATABASE, JournalError  # noqa: E402
from sandbox.mechanism import Trial  # noqa: E402
from sandbox.traces import FOLDER, Trace, packed  # noqa: E402

NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")


def trial_of(entry: Entry) -> Trial:
    """A journal's entry as a trial of a trace; raises ValueError where another mechanism chose."""
    if entry.mechanism not in {"", "null"}:
        raise ValueError(f"trial {entry.number} was chosen by {entry.mechanism}, not by null")
    return replace(entry.trial(), seconds=round(entry.seconds, 2), mechanism="")


def check_space(trials: Sequence[Trial]) -> None:
    """The space of now must be the one that was searched; raises ValueError."""
    for trial in trials:
        refused = trial.failure == "constraint"
        if bool(SPACE.problems(trial.config)) != refused:
            raise ValueError(f"trial {trial.number} was made in another space: record a new run")


def trace_of(folder: Path, name: str, *, budget_seconds: float) -> Trace:
    """The trace of a finished run of the gpt task. Raises ValueError, JournalError."""
    journal = Journal(folder)
    try:
        entries = journal.decided()
        known = journal.store.get("identity")
        noise = journal.sigma
    finally:
        journal.close()
    if not known or known["task"] != "gpt":
        raise ValueError(f"{folder} holds no run of the gpt task: record one with --task gpt")
    trials = tuple(trial_of(entry) for entry in entries)
    check_space(trials)
    host = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return Trace(
        name=name,
        source=f"measured: {known['task']} on {host}, {budget_seconds:g} s a training",
        space=SPACE,
        trials=trials,
        noise=noise,
        provenance={
            "task": known["task"],
            "task_digest": known["task_digest"],
            "run_id": known["run_id"],
            "seed": known["seed"],
            "started_at": known["started_at"],
            "budget_seconds": budget_seconds,
            "prior": "habit (scripted, not a language model), steered by Level 1.5",
            "mechanism": "null",
            "host": host,
            "torch": version("torch"),
            "python": platform.python_version(),
            "trials": len(trials) - 1,
        },
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; 2 where the run can't be used."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path, help="the --out of `python -m runner run`")
    parser.add_argument("name", help="the trace's name: lower case, digits, - and _")
    parser.add_argument("--budget-seconds", type=float, required=True, help="as the run had it")
    options = parser.parse_args(arguments)
    try:
        if not NAME.fullmatch(options.name):
            raise ValueError(f"{options.name!r} is no name of a trace: lower case, digits, - and _")
        if not 0 < options.budget_seconds < math.inf:
            raise ValueError("--budget-seconds is the time that each training of the run had")
        if not (options.folder / DATABASE).is_file():
            raise ValueError(f"{options.folder} holds no run: give the folder of `run --out`")
        trace = trace_of(options.folder, options.name, budget_seconds=options.budget_seconds)
        path = FOLDER / f"{options.name}.json.gz"
        with path.open("xb") as file:  # a trace that was recorded is never replaced
            file.write(packed(trace))
    except (ValueError, JournalError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{path}: {len(trace.trials)} trials, {path.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
