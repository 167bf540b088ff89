"""The table task: a recorded surface in place of trainings, so that searches can be compared in
seconds, with many repeats and a known optimum.

Every number was measured once by real trainings (`runner.recording`); nothing is computed between
the points. Where a point was trained several times, the trial's seed draws one of them. It starts
no process and trains nothing.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from runner.interfaces import Outcome
from runner.surfaces.surface_file import SurfaceError, SurfaceFile, read_surface
from runner.tasks.base import ROOT, TaskError, constraint_outcome, digest_over, host_facts
from runner.tasks.kinds import Places, TaskKind, TaskOptions
from sandbox.mechanism import Config

COMMITTED = ROOT / "runner" / "surfaces" / "gpt-cpu.json.gz"
MISSING = "no_metric"


class TableTask:
    """Looks the outcome of a configuration up. `minimize` and `metric` are the recorded task's."""

    name = "table"

    def __init__(self, surface: SurfaceFile, *, path: Path) -> None:
        """Raises TaskError where the surface has nothing to search on."""
        recipe = surface.recipe
        self.surface = surface
        self.path = path
        self.metric = recipe.metric
        self.minimize = recipe.minimize
        self.space = recipe.space()
        self.description = (
            f"Recorded trainings of {recipe.name} on a grid of {recipe.points} points, "
            f"{recipe.budget_seconds:g} s of processor time each: {recipe.about}"
        )
        if not self._means:
            raise TaskError(f"the surface {path} has no training that gave a metric")

    @cached_property
    def digest(self) -> str:
        """The surface's own digest: recipe, origin and every result."""
        return digest_over({"task": self.name, "surface": self.surface.digest})

    def host(self) -> dict[str, Any]:
        """This host, and the one that the trainings ran on."""
        origin = self.surface.origin
        return {
            **host_facts(),
            "recorded": True,
            "surface": self.surface.recipe.name,
            "surface_digest": self.surface.digest,
            "recorded_on": origin["host"],
            "recorded_torch": origin["torch"],
        }

    def run(
        self, config: Config, *, seed: int, progress: Callable[[str], None] | None = None
    ) -> Outcome:
        """One of the recorded trainings at that point, drawn by the seed."""
        if (refused := constraint_outcome(self.space, config)) is not None:
            return refused
        recorded = self.surface.results[self.surface.recipe.number(config)]
        if not recorded:
            message = f"the surface {self.surface.recipe.name} lacks this point"
            return Outcome(metric=None, failure=MISSING, message=message)
        index = random.Random(seed).randrange(len(recorded))  # noqa: S311 - reproducible
        one = recorded[index]
        details = {"recorded_repeat": index, "num_steps": one.steps}
        message = "" if one.metric is not None else f"recorded as {one.failure}"
        return Outcome(
            metric=one.metric,
            failure=one.failure,
            message=message,
            seconds=one.seconds,
            details=details,
        )

    # --- what only a recorded task knows ---

    def truth(self, config: Config) -> float | None:
        """The mean of the trainings recorded at a point; None where there is none."""
        if self.space.problems(config):
            return None
        return self._means.get(self.surface.recipe.number(config))

    @cached_property
    def optimum(self) -> tuple[float, dict[str, Any]]:
        """The best mean of any point, and that point."""
        sign = 1 if self.minimize else -1
        number = min(self._means, key=lambda n: (sign * self._means[n], n))
        return self._means[number], self.surface.recipe.point(number)

    @cached_property
    def sigma(self) -> float | None:
        """The noise of one training: pooled over the points that were trained several times."""
        groups = [[m.metric for m in p if m.metric is not None] for p in self.surface.results]
        several = [g for g in groups if len(g) > 1]
        freedom = sum(len(g) - 1 for g in several)
        if not freedom:
            return None
        squares = sum(statistics.variance(g) * (len(g) - 1) for g in several)
        return float((squares / freedom) ** 0.5)

    @cached_property
    def _means(self) -> dict[int, float]:
        found = {}
        for number, point in enumerate(self.surface.results):
            good = [one.metric for one in point if one.metric is not None]
            if good and len(good) * 2 > len(point):  # a point that mostly fails is no optimum
                found[number] = statistics.fmean(good)
        return found


class TableOptions(TaskOptions):
    """Which surface."""

    surface: Path = Field(default=COMMITTED, description="a file that `record` wrote")


def _make(options: TableOptions, _places: Places) -> TableTask:
    try:
        surface = read_surface(options.surface)
    except SurfaceError as error:
        raise TaskError(f"{error}; `python -m runner record` records one") from None
    return TableTask(surface, path=options.surface)


KIND = TaskKind(
    name=TableTask.name,
    about="recorded outcomes of real trainings, to compare searches in seconds; its own metric",
    options=TableOptions,
    make=_make,
)
