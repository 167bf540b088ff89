"""What must hold after a disturbed run, from what is left on the disk: the journal, the platform's
database, and the list in which each training wrote down when it began and what it printed.

The strongest check is a replay: every trial is chosen and decided once more in this process, by the
bytes whose digest the trial names, with the seed of its number, from the trials before it. A lost,
repeated or exchanged trial, a decision made twice, a mechanism's state that was lost or applied
twice, a wrong digest: each gives another history.
"""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from collections import Counter
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.levels.strategy import HabitPrior
from runner.loop import decisions
from runner.loop.decisions import Asked, InProcess
from runner.storage.journal import BASELINE, Entry, derive, entry_of
from runner.storage.store import DATABASE
from sandbox.mechanism import Mechanism, Space, Trial, View
from sandbox.report import digest_of

LIBRARY = Path(__file__).resolve().parents[1] / "mechanisms_repo" / "mechanisms"
MINE = (
    "SELECT number, config, changes, metric, status, failure, digest, version, best_metric,"
    " repeats, reason FROM trials ORDER BY number"
)
THEIRS = (
    "SELECT t.number, t.config, t.changes, t.metric, t.status, t.failure, t.digest, t.version,"
    " t.best_metric, t.repeats, t.reason FROM runs_trial t JOIN runs_run r ON r.id = t.run_id"
    " WHERE replace(r.run_id, '-', '') = ? ORDER BY t.number"
)
UNTRAINED = {"mechanism", "no_candidate", "constraint"}
Row = tuple[Any, ...]
Mechanisms = dict[str, type[Mechanism]]


def library(names: Collection[str]) -> Mechanisms:
    """Mechanisms of the seed library by the digest of their bytes."""
    found: Mechanisms = {}
    for path in (LIBRARY / f"{name}.py" for name in names):
        spec = importlib.util.spec_from_file_location(f"chaos_{path.stem}", path)
        assert spec is not None  # noqa: S101 - it is a file
        assert spec.loader is not None  # noqa: S101
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        (found[digest_of(path.read_bytes())],) = (
            c for c in vars(module).values()
            if isinstance(c, type) and issubclass(c, Mechanism) and c is not Mechanism
            and c.__module__ == module.__name__
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Left:
    """What one runner's run left behind."""

    entries: list[Entry]
    reports: Counter[str]
    meta: dict[str, Any]
    states: dict[str, Any]
    steering: list[tuple[int, dict[str, Any]]]
    measurements: list[tuple[str, int, int, float | None]]
    drafts: list[Row]
    trials: list[Row]
    waiting: int

    @property
    def seed(self) -> int:
        return int(self.meta["identity"]["seed"])

    @property
    def run_id(self) -> str:
        return str(self.meta["identity"]["run_id"])


def left_by(folder: Path) -> Left:
    """Read a journal that nobody writes any more."""
    with closing(sqlite3.connect(f"{(folder / DATABASE).as_uri()}?mode=ro", uri=True)) as db:
        meta = {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}
        states = dict(db.execute("SELECT digest, state FROM states"))
        steering = db.execute("SELECT after_trial, value FROM steering ORDER BY 1").fetchall()
        measured = db.execute("SELECT purpose, trial, number, metric FROM measurements").fetchall()
        attested = "SELECT COUNT(*) FROM attestations WHERE report = 'waiting'"
        waiting = db.execute(attested).fetchone()[0]
        trials = [plain(row) for row in db.execute(MINE)]
        drafts = db.execute(
            "SELECT draft_id, after_trial, proposal FROM drafts WHERE proposal IS NOT NULL"
        ).fetchall()
        reports = Counter(row[0] for row in db.execute("SELECT report FROM trials"))
        db.row_factory = sqlite3.Row
        entries = [entry_of(row) for row in db.execute("SELECT * FROM trials ORDER BY number")]
    return Left(
        entries=entries,
        reports=reports,
        meta=meta,
        states={digest: json.loads(state) for digest, state in states.items()},
        steering=[(after, json.loads(value)) for after, value in steering],
        measurements=measured,
        drafts=drafts,
        trials=trials,
        waiting=waiting,
    )


def plain(row: Row) -> Row:
    """A row with its JSON as data."""
    number, config, changes, *rest, repeats, reason = row
    return (number, json.loads(config), json.loads(changes), *rest, json.loads(repeats), reason)


# --- the trainings ---


def expected(left: Left) -> dict[int, tuple[float | None, dict[str, Any]]]:
    """The seed of every training that the journal knows: what it gave, of which configuration."""
    found = {}
    configs = {entry.number: dict(entry.config) for entry in left.entries}
    words = {"baseline": "repeat", "confirm": "confirm", "final": "final"}
    for purpose, trial, number, metric in left.measurements:
        seed = derive(left.seed, trial, f"{words[purpose]}/{number}")
        found[seed] = (metric, configs[trial])
    for entry in left.entries:
        if entry.number != BASELINE and entry.failure not in UNTRAINED:
            first = entry.repeats[0] if entry.repeats else entry.metric
            found[derive(left.seed, entry.number, "train")] = (first, dict(entry.config))
    return found


def of_trainings(lefts: list[Left], log: list[dict[str, Any]], kills: int) -> dict[str, bool]:
    """The journals against the trainings' own list."""
    known = {seed: what for left in lefts for seed, what in expected(left).items()}
    begun = Counter(line["seed"] for line in log if line["what"] == "begin")
    ended: dict[int, set[tuple[str, str]]] = {}
    for line in log:
        if line["what"] == "end":
            shown = (line["loss"], json.dumps(line["config"], sort_keys=True))
            ended.setdefault(line["seed"], set()).add(shown)
    right = {
        seed: {(f"{metric:.6f}", json.dumps(config, sort_keys=True))}
        for seed, (metric, config) in known.items()
        if metric is not None
    }
    twice = Counter((line["seed"], line["runner"]) for line in log if line["what"] == "begin")
    again = sum(count - 1 for count in begun.values())
    return {
        "no seed is used for two things": len(known) == sum(len(expected(one)) for one in lefts),
        "every training that began is in a journal": set(begun) <= set(known),
        "every result is what that training printed, of that configuration": all(
            ended.get(seed) == shown for seed, shown in right.items()
        ),
        "no runner trained the same twice": max(twice.values(), default=1) == 1,
        "trained again: only what was being trained when its runner ended": again <= kills,
    }


# --- the replay ---


def replayed(
    left: Left, mechanisms: Mechanisms, space: Space, *, parallel: int, trials: int
) -> list[str]:
    """Every choice and decision once more; what came out otherwise than in the journal. `space` is
    the task's own: the order of its knobs counts."""
    return _Replay(left, mechanisms, space, parallel, trials).run()


class _Replay:
    def __init__(
        self, left: Left, mechanisms: Mechanisms, space: Space, parallel: int, trials: int
    ) -> None:
        self.left, self.parallel, self.trials = left, parallel, trials
        self.report, self.rules = left.meta["run_report"], left.meta["rules"]
        self.space = space
        self.mechanisms = mechanisms
        self.states: dict[str, Any] = {}
        self.trace: list[Trial] = [left.entries[BASELINE].trial()]
        self.wrong: list[str] = []

    def run(self) -> list[str]:
        number = 1
        while number < len(self.left.entries):
            number += self._round(number)
        for digest, state in self.left.states.items():
            if self.states.get(digest, {}) != state:
                self.wrong.append(f"the state of {digest[:12]}: {state} in the journal")
        return self.wrong

    def _view(self, first: int) -> View:
        frozen = [s["frozen"] for after, s in self.left.steering if after < first]
        return decisions.view_of(
            tuple(self.trace),
            self.space,
            frozen=frozenset(frozen[-1] if frozen else ()),
            minimize=self.report["minimize"],
            noise=self.left.meta["noise"]["sigma"],
            keep_sigma=self.rules["keep_sigma"],
        )

    def _round(self, first: int) -> int:
        entry = self.left.entries[first]
        host = InProcess(self.mechanisms[entry.digest]())
        if entry.digest in self.states:
            host.restore(self.states[entry.digest])
        count = 1
        if entry.failure != "mechanism":  # a worker that was killed while it chose chose nothing
            count = self._proposed(host, first)
        for number in range(first, first + count):
            self._decided(host, self.left.entries[number], first)
        return count

    def _proposed(self, host: InProcess, first: int) -> int:
        guidance = [s["guidance"] for after, s in self.left.steering if after < first]
        view, seed = self._view(first), self.left.seed
        asked = Asked(
            prior=HabitPrior(),
            view=view,
            guidance=guidance[-1] if guidance else "",
            seed=seed,
            number=first,
        )
        wanted = min(self.parallel, self.trials + 1 - first)
        choices = decisions.propose(
            host, view, wanted, asked=asked, seed=derive(seed, first, "propose")
        ).choices
        found = self.left.entries[first : first + max(len(choices), 1)]
        self._keep(host, found[0].digest)
        if choices and [(dict(c.changes), c.reason) for c in choices] != [
            (dict(e.changes), e.reason) for e in found
        ]:
            self.wrong.append(f"trial {first}: its mechanism would have chosen {choices}")
        if len({entry.version for entry in found}) > 1:
            self.wrong.append(f"trial {first}: a round of two versions")
        return len(found)

    def _decided(self, host: InProcess, entry: Entry, first: int) -> None:
        view, seed = self._view(first), self.left.seed
        if entry.metric is not None and "nobody decided" not in entry.message:
            tried = replace(entry, status="discarded").trial()
            kept, _ = decisions.accept(host, tried, view, seed=derive(seed, entry.number, "accept"))
            if kept != (entry.status == "kept"):
                self.wrong.append(f"trial {entry.number}: kept should be {kept}")
        trial = entry.trial()
        after = decisions.after(view, trial)
        host.observe(trial, after, seed=derive(seed, entry.number, "observe"))
        self._keep(host, entry.digest)
        self.trace.append(trial)
        best = after.best.metric
        if entry.best_metric != best:
            self.wrong.append(f"trial {entry.number}: the best is {best}")

    def _keep(self, host: InProcess, digest: str) -> None:
        self.states[digest] = json.loads(json.dumps(host.state()))


# --- the platform ---


def of_platform(left: Left, database: Path) -> dict[str, bool]:
    """One run's journal against what the platform holds."""
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        theirs = [plain(row) for row in db.execute(THEIRS, (left.run_id.replace("-", ""),))]
        versions = dict(db.execute("SELECT version, digest FROM proposals_activation"))
        proposals = "SELECT COUNT(*), COUNT(DISTINCT draft_id) FROM proposals_proposal"
        all_drafts, different = db.execute(proposals).fetchone()
        known = {str(row[0]).replace("-", "") for row in db.execute(
            "SELECT draft_id FROM proposals_proposal")}  # fmt: skip
    named = [(entry.version, entry.digest) for entry in left.entries if entry.number != BASELINE]
    numbers = [entry.number for entry in left.entries]
    return {
        "every trial is there once and decided": numbers == list(range(len(numbers)))
        and all(entry.status for entry in left.entries),
        "every trial and attestation is acknowledged": set(left.reports) == {"sent"}
        and not left.waiting,
        "journal and platform agree": left.trials == theirs,
        "every trial names the bytes of its version": all(
            versions.get(version) == digest for version, digest in named
        ),
        "versions never go back": [v for v, _ in named] == sorted(v for v, _ in named),
        "every draft is there once": all_drafts == different
        and {str(row[0]).replace("-", "") for row in left.drafts} <= known,
    }
