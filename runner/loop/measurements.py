"""Trainings beside the first one of each trial, and what the run measures by: the journal's third
part.

A baseline is repeated, a gain too small to trust is confirmed, the best is measured anew at the
end: each such training is stored under its purpose before the next starts, and counted. The rules
of a run (how many sigmas, how many at once) are settled once. Nothing is trained or judged here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from runner.interfaces import Outcome
from runner.loop.noise import Noise
from runner.storage.journal import BASELINE, Journal
from runner.storage.store import JournalError


class Purpose(StrEnum):
    """Why a configuration was trained (again)."""

    BASELINE = "baseline"
    CONFIRM = "confirm"
    FINAL = "final"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How a run measures and keeps. `keep_sigma`: a gain above so many sigmas is kept (0: any);
    `confirmations`: trainings that a smaller one may be given to prove itself; `parallel`:
    trainings at once, which is part of what a metric depends on."""

    keep_sigma: float = 2.0
    confirmations: int = 1
    parallel: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.keep_sigma <= 10 or not 0 <= self.confirmations <= 10:
            raise ValueError("keep_sigma and confirmations: give 0 to 10")
        if not 1 <= self.parallel <= 64:
            raise ValueError("parallel: give 1 to 64")


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine as far as metrics depend on it: `key` (SHA-256 hex) is the same for runs whose
    metrics can be compared, `label` says it to people."""

    key: str
    label: str


class Measurements:
    """The repeated trainings and the rules of one run, in its journal's database."""

    def __init__(self, journal: Journal) -> None:
        self.store = journal.store

    # --- trainings ---

    def outcomes(self, purpose: Purpose, trial: int = BASELINE) -> list[Outcome]:
        """Every training of a trial's configuration for a purpose, failed ones too, in order."""
        query = "SELECT * FROM measurements WHERE purpose = ? AND trial = ? ORDER BY number"
        return [
            Outcome(
                metric=row["metric"],
                failure=row["failure"],
                message=row["message"],
                seconds=row["seconds"],
            )
            for row in self.store.rows(query, purpose, trial)
        ]

    def known(self, purpose: Purpose, trial: int = BASELINE) -> frozenset[int]:
        """The numbers of the trainings that are stored."""
        query = "SELECT number FROM measurements WHERE purpose = ? AND trial = ?"
        return frozenset(int(row[0]) for row in self.store.rows(query, purpose, trial))

    def add(self, purpose: Purpose, trial: int, number: int, outcome: Outcome) -> None:
        """Store one training."""
        values = (purpose, trial, number, outcome.metric, outcome.failure, outcome.message)
        with self.store.transaction() as db:
            db.execute(
                "INSERT INTO measurements VALUES (?, ?, ?, ?, ?, ?, ?)", (*values, outcome.seconds)
            )

    def count(self, purpose: Purpose) -> int:
        """How many trainings there were for a purpose, in the whole run."""
        query = "SELECT COUNT(*) FROM measurements WHERE purpose = ?"
        return int(self.store.rows(query, purpose)[0][0])

    # --- rules, host, noise ---

    def settle(self, *, defaults: Rules, wanted: Mapping[str, Any]) -> Rules:
        """The rules of this run: those of its first start, for ever. `wanted`: options that were
        given now; None stands for what was settled. Raises JournalError where they differ."""
        given = {name: value for name, value in wanted.items() if value is not None}
        stored = self.store.get("rules")
        if stored is None:
            rules = Rules(**{**asdict(defaults), **given})
            self.store.put("rules", asdict(rules))
            return rules
        for name, value in given.items():
            if stored[name] != value:
                option = "--" + name.replace("_", "-")
                raise JournalError(
                    f"this run was begun with {option} {stored[name]}, not {value}: its metrics "
                    f"would mean something else. Leave {option} away, or choose another --out"
                )
        return Rules(**stored)

    @property
    def rules(self) -> Rules:
        """The rules of this run. Raises JournalError before `settle`."""
        stored = self.store.get("rules")
        if stored is None:
            raise JournalError("settle() comes first")
        return Rules(**stored)

    def set_host(self, host: Host) -> None:
        """Note the machine that the baseline was measured on. Raises JournalError on another one:
        what was measured there can't be compared with what is measured here."""
        known = self.store.get("host")
        if known is not None and known["key"] != host.key:
            raise JournalError(
                f"this run was measured on {known['label']}, this is {host.label}: metrics of two "
                "machines can't be compared. Go on there, or choose another --out"
            )
        if known is None:
            self.store.put("host", asdict(host))

    @property
    def host(self) -> Host | None:
        """The machine that the run is measured on."""
        found = self.store.get("host")
        return None if found is None else Host(**found)

    @property
    def noise(self) -> Noise | None:
        """The noise that this run decides by, pooled once when its baseline was complete."""
        found = self.store.get("noise")
        return None if found is None else Noise(**found)
