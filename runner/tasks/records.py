"""What is kept of every trial of a script or command: its values, its log, its outcome, for ever.

One folder a trial below the run's folder, numbered in the order of their start; a trial that was
cut off keeps its folder too (without an outcome), and what it left running is ended when the next
one starts. Not the journal (`runner.storage.journal`), which alone decides what the search knows.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runner.interfaces import Outcome
from runner.tasks.base import disk_outcome
from runner.tasks.folders import discard
from sandbox.mechanism import Config

MARK = "ESCAPEMENT_TRIAL"
MAX_TRIALS = 1_000_000
ROUNDS = 20


@dataclass(frozen=True, kw_only=True)
class Record:
    """The folder of one trial. `work` is for its copy and gone afterwards; `mark` is in the
    environment of all that it starts."""

    folder: Path
    mark: str

    @property
    def work(self) -> Path:
        """Where the trial runs."""
        return self.folder / "work"

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder / "log.txt"

    def write(self, name: str, data: Mapping[str, Any]) -> None:
        """Keep plain data."""
        (self.folder / name).write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


class Records:
    """The trials below `out`; without `out` nothing is kept."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self._cleaned = False
        self._lock = threading.Lock()

    def kept(self, config: Config, seed: int, trial: Callable[[Record], Outcome]) -> Outcome:
        """What `trial` gives in a folder of its own, where the outcome is kept too; a folder that
        can't be used is a failed trial."""
        try:
            with self.trial(config, seed) as record:
                outcome = trial(record)
                record.write("outcome.json", {**asdict(outcome), "details": dict(outcome.details)})
        except OSError as error:
            return disk_outcome(error)
        return outcome

    @contextlib.contextmanager
    def trial(self, config: Config, seed: int) -> Iterator[Record]:
        """A new trial's folder; its processes and its working copy are gone afterwards."""
        if self._out is None:
            with tempfile.TemporaryDirectory(prefix="escapement-trial-") as name:
                yield from self._within(Path(name), config, seed)
            return
        trials = self._out / "trials"
        trials.mkdir(parents=True, exist_ok=True)
        with self._lock:  # trials may run side by side: none begins before this is done
            if not self._cleaned:
                self._clean(trials)
                self._cleaned = True
        yield from self._within(_claim(trials), config, seed)

    def _within(self, folder: Path, config: Config, seed: int) -> Iterator[Record]:
        record = Record(folder=folder, mark=secrets.token_hex(16))
        mark = {"mark": record.mark, "runner": os.getpid()}
        record.write("trial.json", {"config": dict(config), "seed": seed, **mark})
        try:
            yield record
        finally:
            end_marked(record.mark, record.work)
            discard(record.work)

    def _clean(self, trials: Path) -> None:
        """End what trials of a runner that was killed left running."""
        for folder in sorted(trials.iterdir())[-50:]:
            if (folder / "outcome.json").exists() or not (folder / "trial.json").is_file():
                continue
            with contextlib.suppress(ValueError, KeyError):  # cut off while it was written
                told = json.loads((folder / "trial.json").read_text())
                if not _alive(int(told["runner"])):
                    end_marked(str(told["mark"]), folder / "work")
                    discard(folder / "work")


def _claim(trials: Path) -> Path:
    """The next free number's folder: making it is the claim, so two runners never share one."""
    taken = [int(p.name) for p in trials.iterdir() if p.name.isdigit()]
    for number in range(max(taken, default=-1) + 1, MAX_TRIALS):
        with contextlib.suppress(FileExistsError):
            folder = trials / f"{number:06d}"
            folder.mkdir()
            return folder
    raise OSError(f"{trials} holds {MAX_TRIALS} trials: choose another --out")


def end_marked(mark: str, work: Path) -> None:
    """Kill every process of ours whose environment has this mark, or that works in the trial's
    copy, also if it left its group: one that clears its environment is still there."""
    for _ in range(ROUNDS):
        found = [pid for pid in _processes() if _has_mark(pid, mark) or _works_in(pid, work)]
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _processes() -> list[int]:
    own = os.getpid()
    return [
        pid for p in Path("/proc").iterdir() if p.name.isdigit() and (pid := int(p.name)) != own
    ]


def _has_mark(pid: int, mark: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended, or is another user's
        return False
    return f"{MARK}={mark}".encode() in environment


def _works_in(pid: int, work: Path) -> bool:
    """Whether its current folder is the trial's copy. A person's shell there is left alone: it has
    a terminal, and trials have none."""
    try:
        place = Path(os.readlink(f"/proc/{pid}/cwd").removesuffix(" (deleted)"))
        terminal = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4]
    except OSError:  # it ended, or is another user's
        return False
    return terminal == "0" and place.is_relative_to(work.resolve())


def _alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()
