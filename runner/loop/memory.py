"""Memory: what other runs of the same task (same task digest) measured, found in the folders beside
this run's and asked of the platform.

Context to read: offered to Levels 1 and 2 under the name of its run and host, never part of this
run's trace, its best or its decisions. Baselines of the same host pool the noise. What was found
at the first start is kept in the journal, so that a resumed run goes on with the same. Bounded:
MAX_FOLDERS folders, MEMORY_RUNS runs, MEMORY_TRIALS trials of each. A run counts once, however many
copies of its folder there are; a folder that can't be read is counted, named and left alone.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from runner.interfaces import EarlierRun
from runner.loop.measurements import Host
from runner.loop.noise import Baseline
from runner.protocol import MEMORY_RUNS, MEMORY_TRIALS, Memory, MemoryRun, MemoryTrial
from runner.storage.journal import BASELINE, Entry, Journal, entry_of
from runner.storage.store import DATABASE, SCHEMA_VERSION
from sandbox.mechanism import Trial

MAX_FOLDERS = 200
MAX_VALUE_BYTES = 1024 * 1024  # of one thing that is read: a configuration, a report
UNREAD_SHOWN = 3
MACHINE_ID = Path("/etc/machine-id")
BUSY_MILLISECONDS = 1000
META = "('identity', 'host', 'noise', 'run_report')"
# At most what `selected` may choose: it is never all of a run of a hundred thousand trials.
WORTH = """
SELECT * FROM trials WHERE phase = 'decided' AND (number = 0
    OR number IN (SELECT number FROM trials WHERE phase = 'decided' AND status = 'kept'
        ORDER BY number DESC LIMIT :most)
    OR number IN (SELECT number FROM trials WHERE phase = 'decided' AND status != 'kept'
        ORDER BY number DESC LIMIT :most))
ORDER BY number
"""
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
        local, unread = in_folder(folder, task_digest=task_digest, run_id=journal.run_id)
        found += [("folder", run) for run in local]
        shown = f" ({len(unread)} unread: {'; '.join(unread[:UNREAD_SHOWN])})" if unread else ""
        told.append(f"{len(local)} run(s) in {folder}{shown}")
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


class Unreadable(Exception):
    """A folder that looks like a run and can't be read as one; the message says why."""


def in_folder(folder: Path, *, task_digest: str, run_id: str) -> tuple[list[MemoryRun], list[str]]:
    """Other runs of the task below `folder`, newest first, each once; and the folders with a
    journal that could not be read (another version's, broken, somebody else's), with the reason."""
    dated, unread = [], []
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        return [], [f"{folder.name}: {error.strerror}"]
    for path in paths:
        try:
            if not path.is_symlink() and (path / DATABASE).is_file():  # a link: it is elsewhere too
                dated.append(((path / DATABASE).stat().st_mtime, path / DATABASE))
        except FileNotFoundError:  # somebody removes it at this moment
            continue
        except OSError as error:
            unread.append(f"{path.name}: {error.strerror}")
    found: dict[str, MemoryRun] = {}
    for _, path in sorted(dated, reverse=True)[:MAX_FOLDERS]:
        try:
            run = _read(path, task_digest=task_digest)
        except Unreadable as error:  # somebody else's run is no reason to stop this one
            unread.append(f"{path.parent.name}: {error}"[:200])
            continue
        if run is not None and run.run_id != run_id:
            known = found.setdefault(run.run_id, run)
            if run.trials_in_all > known.trials_in_all:  # that one is an older copy
                found[run.run_id] = run
    newest = sorted(found.values(), key=lambda run: run.started_at, reverse=True)
    return newest[:MEMORY_RUNS], unread


def _read(path: Path, *, task_digest: str) -> MemoryRun | None:
    """A run, or None where it is another task's. Raises Unreadable."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            db.execute(f"PRAGMA busy_timeout={BUSY_MILLISECONDS}")
            db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            db.row_factory = sqlite3.Row
            if db.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                raise Unreadable("another version's journal")
            return _run_of(db, task_digest=task_digest, name=path.parent.name)
    except (sqlite3.Error, OSError, UnicodeError) as error:
        raise Unreadable(str(error)) from error
    except ValidationError as error:
        raise Unreadable(str(error.errors()[0]["msg"])) from error
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise Unreadable(f"it holds what no runner writes: {error!r}"[:150]) from error
    except RecursionError as error:
        raise Unreadable("it holds what no runner writes, nested without end") from error


def _run_of(db: sqlite3.Connection, *, task_digest: str, name: str) -> MemoryRun | None:
    meta = {
        row["key"]: json.loads(row["value"])
        for row in db.execute(f"SELECT key, value FROM meta WHERE key IN {META}")  # noqa: S608 - ours
    }
    if meta.get("identity", {}).get("task_digest") != task_digest or "noise" not in meta:
        return None  # another task's, or nothing measured yet
    report, host = meta["run_report"], meta.get("host", {})
    entries = [entry_of(row) for row in db.execute(WORTH, {"most": MEMORY_TRIALS})]
    if not entries or entries[0].number != BASELINE:
        raise Unreadable("a journal without its baseline")
    count = "SELECT COUNT(*) FROM trials WHERE phase = 'decided'"
    return MemoryRun(
        run_id=meta["identity"]["run_id"],
        runner=name[:60],
        host_key=host.get("key", ""),
        host=host.get("label", ""),
        started_at=_aware(meta["identity"]["started_at"]),
        metric=report["metric"],
        minimize=report["minimize"],
        sigma=meta["noise"]["sigma"],
        baseline=list(entries[0].repeats),
        trials_in_all=db.execute(count).fetchone()[0],
        trials=[_trial(entry) for entry in selected(entries)],
    )


def _aware(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"a time without its zone: {text}")
    return found


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
