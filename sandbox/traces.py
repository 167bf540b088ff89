"""Recorded traces that a mechanism is replayed over, as data files beside this module.

Two kinds come with it. `NAME.json` is `analytic`: a null search on `sandbox.surface` with the
scripted prior, and it says so; `python -m sandbox.traces` writes these again, byte for byte.
`NAME.json.gz` was measured: a run of real trainings, with where and how; `scripts/record_trace.py`
makes one from a run's folder. A platform may add further ones with `trace_from_data`.
"""

from __future__ import annotations

import functools
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.errors import InfrastructureError
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
    "trainer": (TRAINER, 100, 20),
    "score": (SCORE, 43, 20),
    "plateau": (RATES, 114, 42),
}
MAX_TRACE_BYTES = 1024 * 1024  # of one file, unpacked


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One recorded run: its space and its trials, the baseline first.

    `noise` is the standard deviation of one measurement, None where nobody measured it;
    `provenance` says of a measured trace where it comes from.
    """

    name: str
    source: str  # "analytic", or where it was measured
    space: Space
    trials: tuple[Trial, ...]
    minimize: bool = True
    frozen: frozenset[str] = frozenset()
    noise: float | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

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
        "noise": trace.noise,
        "provenance": dict(trace.provenance),
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
        noise=data["noise"],
        provenance=dict(data["provenance"]),
        space=space_from_data(data["space"]),
        trials=tuple(trial_from_data(t) for t in data["trials"]),
    )


@functools.cache
def bundled_traces() -> tuple[Trace, ...]:
    """The traces that come with the sandbox: the measured ones first, then the analytic ones.

    Raises InfrastructureError where a file of ours can't be read: nobody can judge without.
    """
    measured = sorted(path.name for path in FOLDER.glob("*.json.gz"))
    return tuple(_read(FOLDER / name) for name in [*measured, *(f"{n}.json" for n in BUNDLED)])


def _read(path: Path) -> Trace:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(MAX_TRACE_BYTES + 1)
        if len(data) > MAX_TRACE_BYTES:
            raise ValueError(f"over {MAX_TRACE_BYTES} bytes")
        return trace_from_data(json.loads(data))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error) as error:
        raise InfrastructureError(
            f"the trace {path.name} can't be read ({error}): take it from the repository again"
        ) from error


def packed(trace: Trace) -> bytes:
    """The bytes of a measured trace's file: the same trace, the same bytes."""
    text = json.dumps(trace_to_data(trace), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return gzip.compress(text.encode(), compresslevel=9, mtime=0)


def record(name: str, surface: Surface, seed: int, steps: int) -> Trace:
    """Let the null mechanism search on a surface."""
    noise = surface.sigma if surface.minimize else None  # known on some, and not on others
    search, null = Search(surface=surface, noise=noise), Mechanism()
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
        noise=noise,
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
