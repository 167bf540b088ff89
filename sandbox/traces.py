"""Recorded traces that a mechanism is replayed over, as data files beside this module.

The ones that come with it are `analytic`: null searches on `sandbox.surface` with the scripted
prior, and they say so. `python -m sandbox.traces` writes them again, byte for byte. A platform may
add traces of real runs with `trace_from_data`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.mechanism import (
    Mechanism,
    Space,
    Trial,
    space_from_data,
    space_to_data,
    trial_from_data,
    trial_to_data,
)
from sandbox.scripted_prior import ScriptedPrior
from sandbox.surface import RATES, SCORE, SOURCE, TRAINER, Search, Surface

FOLDER = Path(__file__).with_name("traces")
BUNDLED: dict[str, tuple[Surface, int, int]] = {  # surface, the prior's seed, steps
    "trainer": (TRAINER, 5, 32),
    "score": (SCORE, 9, 32),
    "plateau": (RATES, 14, 44),
}


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One recorded run: its space and its trials, the baseline first."""

    name: str
    source: str  # "analytic", or where it was measured
    space: Space
    trials: tuple[Trial, ...]
    minimize: bool = True
    frozen: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if len(self.trials) < 2 or self.trials[0].status != "kept":
            raise ValueError(f"the trace {self.name!r} needs a kept baseline and one more trial")


def trace_to_data(trace: Trace) -> dict[str, Any]:
    """A trace as plain JSON data."""
    return {
        "name": trace.name,
        "source": trace.source,
        "minimize": trace.minimize,
        "frozen": sorted(trace.frozen),
        "space": space_to_data(trace.space),
        "trials": [trial_to_data(t) for t in trace.trials],
    }


def trace_from_data(data: Mapping[str, Any]) -> Trace:
    """The trace that `trace_to_data` wrote."""
    return Trace(
        name=data["name"],
        source=data["source"],
        minimize=data["minimize"],
        frozen=frozenset(data["frozen"]),
        space=space_from_data(data["space"]),
        trials=tuple(trial_from_data(t) for t in data["trials"]),
    )


def bundled_traces() -> list[Trace]:
    """The traces that come with the sandbox."""
    return [
        trace_from_data(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))
        for name in BUNDLED
    ]


def record(name: str, surface: Surface, seed: int, steps: int) -> Trace:
    """Let the null mechanism search on a surface."""
    search, null = Search(surface=surface), Mechanism()
    for _ in range(steps):
        view = search.view()
        (candidate,) = ScriptedPrior(view, seed=str(seed))("", 1)
        trial = search.attempt(candidate)
        search.finish(trial, keep=trial.metric is not None and null.accept(trial, view))
    return Trace(
        name=name,
        source=SOURCE,
        space=surface.space,
        trials=tuple(search.trials),
        minimize=surface.minimize,
        frozen=surface.frozen,
    )


def rendered(name: str) -> str:
    """The text of a bundled trace's file."""
    data = trace_to_data(record(name, *BUNDLED[name]))
    trials = ",\n  ".join(json.dumps(t, sort_keys=True) for t in data.pop("trials"))
    head = json.dumps(data, sort_keys=True)[1:-1]
    return f'{{{head},\n "trials": [\n  {trials}\n ]}}\n'


def main() -> None:
    """Write the bundled traces."""
    FOLDER.mkdir(exist_ok=True)
    for name in BUNDLED:
        (FOLDER / f"{name}.json").write_text(rendered(name), encoding="utf-8")


if __name__ == "__main__":
    main()
