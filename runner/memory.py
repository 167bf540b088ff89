"""Memory: what other runs of the same task (same task digest) measured, found in the folders beside
this run's and asked of the platform.

Context to read: offered to Levels 1 and 2 under the name of its run and host, never part of this
run's trace, its best or its decisions. Baselines of the same host pool the noise. What was found
at the first start is kept in the journal, so that a resumed run goes on with the same. Bounded:
MAX_FOLDERS folders, MEMORY_RUNS runs, MEMORY_TRIALS trials of each.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.borders import EarlierRun
from runner.journal import BASELINE, Entry, Journal, entry_of
from runner.measurements import Host
from runner.noise import Baseline
from runner.protocol import MEMORY_RUNS, MEMORY_TRIALS, Memory, MemoryRun, MemoryTrial
from runner.store import DATABASE, SCHEMA_VERSION
from sandbox.mechanism import Trial

MAX_FOLDERS = 200
MACHINE_ID = Path("/etc/machine-id")
LABEL_FACTS = ("gpu", "device", "cpu", "cores", "threads")


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What memory holds for one run. `told` says where from, or what was in the way."""

    runs: tuple[EarlierRun, ...] = ()
    baselines: tuple[Baseline, ...] = ()  # of the same host
    told: str = ""


def host_of(facts: Mapping[str, Any], *, parallel: int) -> Host:
    """This machine, as far as metrics depend on it: the task's own facts, how many trainings run
    at once, and which machine it is."""
    machine = MACHINE_ID.read_text("ascii").strip() if MACHINE_ID.is_file() else ""
    whole = {
        "facts": dict(facts),
        "parallel": parallel,
        "machine": [machine, platform.node()],
    }
    text = json.dumps(whole, sort_keys=True, default=str)
    shown = [f"{name} {facts[name]}" for name in LABEL_FACTS if facts.get(name)]
    label = f"{platform.node()} ({', '.join(shown)}; {parallel} at once)"
    return Host(key=hashlib.sha256(text.encode()).hexdigest(), label=label[:300])


def remember(
    journal: Journal,
    *,
    task_digest: str,
    host: Host,
    folder: Path | None,
    ask_platform: Callable[[], Memory] | None,
    unreachable: tuple[type[Exception], ...] = (),
) -> Remembered:
    """What the journal kept from the first start; at the first start, what is found now.

    `folder` holds folders of runs (None: not looked at); `ask_platform` may raise one of
    `unreachable`: then `told` says so, and the next start asks again.
    """
    kept = journal.store.get("memory")
    if kept is not None and kept["complete"]:
        return _remembered(kept, host)
    found: list[tuple[str, MemoryRun]] = []
    told, complete = [], True
    if folder is not None:
        local, skipped = in_folder(folder, task_digest=task_digest, run_id=journal.run_id)
        found += [("folder", run) for run in local]
        told.append(
            f"{len(local)} run(s) in {folder}" + (f" ({skipped} unread)" if skipped else "")
        )
    if ask_platform is not None:
        try:
            known = {run.run_id for _, run in found}
            asked = [run for run in ask_platform().runs if run.run_id not in known]
            found += [("platform", run) for run in asked if run.run_id != journal.run_id]
            told.append(f"{len(asked)} more on the platform")
        except unreachable as error:
            complete = False
            told.append(f"the platform could not be asked: {error}"[:500])
    newest = sorted(found, key=lambda pair: pair[1].started_at, reverse=True)[:MEMORY_RUNS]
    body = {
        "runs": [{"source": source, "run": run.model_dump(mode="json")} for source, run in newest],
        "told": "; ".join(told),
        "complete": complete,
    }
    journal.store.put("memory", body)
    return _remembered(body, host)


def _remembered(kept: Mapping[str, Any], host: Host) -> Remembered:
    pairs = [(row["source"], MemoryRun.model_validate(row["run"])) for row in kept["runs"]]
    same = [run for _, run in pairs if run.host_key == host.key]
    return Remembered(
        runs=tuple(_earlier(source, run, host) for source, run in pairs),
        baselines=tuple(Baseline(run_id=r.run_id, metrics=tuple(r.baseline)) for r in same),
        told=kept["told"],
    )


def _earlier(source: str, run: MemoryRun, host: Host) -> EarlierRun:
    return EarlierRun(
        run_id=run.run_id,
        source=source,
        runner=run.runner,
        host=run.host,
        same_host=run.host_key == host.key,
        started_at=run.started_at.isoformat(timespec="seconds"),
        metric=run.metric,
        minimize=run.minimize,
        sigma=run.sigma,
        trials_in_all=run.trials_in_all,
        trials=tuple(
            Trial(
                number=t.number,
                config=t.config,
                changes=t.changes,
                metric=t.metric,
                status=t.status,
                failure=t.failure,
                seconds=t.seconds,
                mechanism=t.digest,
                measurements=t.measurements,
            )
            for t in run.trials
        ),
    )


def in_folder(folder: Path, *, task_digest: str, run_id: str) -> tuple[list[MemoryRun], int]:
    """Other runs of the task below `folder`, newest first, and how many folders with a journal
    could not be read (another version's, or broken)."""
    dated = []
    for path in folder.glob(f"*/{DATABASE}"):
        with suppress(FileNotFoundError):  # somebody removes it at this moment
            if path.is_file() and not _linked(path):
                dated.append((path.stat().st_mtime, path))
    paths = [path for _, path in sorted(dated, reverse=True)]
    found, skipped = [], 0
    for path in paths[:MAX_FOLDERS]:
        try:
            run = _read(path, task_digest=task_digest)
        except (sqlite3.Error, ValueError, LookupError, TypeError, ValidationError):
            skipped += 1  # counted and told: somebody else's run is no reason to stop this one
            continue
        if run is not None and run.run_id != run_id:
            found.append(run)
    found.sort(key=lambda run: run.started_at, reverse=True)
    return found[:MEMORY_RUNS], skipped


def _linked(path: Path) -> bool:
    """Whether it is somewhere else as well: a run counts once."""
    return path.is_symlink() or path.parent.is_symlink()


def _read(path: Path, *, task_digest: str) -> MemoryRun | None:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=1)) as db:
        db.row_factory = sqlite3.Row
        if db.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            raise ValueError("another version's journal")
        keys = ("identity", "host", "noise", "run_report")
        meta = {
            row["key"]: json.loads(row["value"])
            for row in db.execute("SELECT key, value FROM meta")
            if row["key"] in keys
        }
        if meta.get("identity", {}).get("task_digest") != task_digest or "noise" not in meta:
            return None  # another task's, or nothing measured yet
        query = "SELECT * FROM trials WHERE phase = 'decided' ORDER BY number"
        entries = [entry_of(row) for row in db.execute(query)]
    report, host = meta.get("run_report", {}), meta.get("host", {})
    if not entries or entries[0].number != BASELINE:
        raise ValueError("a journal without its baseline")
    return MemoryRun(
        run_id=meta["identity"]["run_id"],
        runner=path.parent.name[:60],
        host_key=host.get("key", ""),
        host=host.get("label", ""),
        started_at=datetime.fromisoformat(meta["identity"]["started_at"]),
        metric=report["metric"],
        minimize=report["minimize"],
        sigma=meta["noise"]["sigma"],
        baseline=list(entries[0].repeats),
        trials_in_all=len(entries),
        trials=[_trial(entry) for entry in selected(entries)],
    )


def _trial(entry: Entry) -> MemoryTrial:
    if entry.status is None:
        raise ValueError(f"trial {entry.number} is not decided")
    return MemoryTrial(
        number=entry.number,
        config=dict(entry.config),
        changes=dict(entry.changes),
        metric=entry.metric,
        status=entry.status,
        failure=entry.failure[:60],
        seconds=entry.seconds,
        digest=entry.digest,
        measurements=max(len(entry.repeats), 1),
    )


def selected(entries: Sequence[Any]) -> list[Any]:
    """Trials worth remembering, at most MEMORY_TRIALS, in their order: the baseline, what was kept
    (the newest of it), then the newest. Anything with a `number` and a `status` will do."""
    first = [e for e in entries if e.number == BASELINE]
    kept = [e for e in reversed(entries) if e.status == "kept" and e.number != BASELINE]
    rest = [e for e in reversed(entries) if e.status != "kept"]
    chosen: Iterable[Any] = (first + kept + rest)[:MEMORY_TRIALS]
    return sorted(chosen, key=lambda e: int(e.number))
