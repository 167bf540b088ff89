"""A tiny real task for tests: an analytic surface, measured in a subprocess or in this process,
a deterministic prior, and a mechanism with a state."""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Callable
from typing import Any

from runner.interfaces import Outcome, PriorError
from runner.processes import subprocesses
from sandbox.mechanism import Candidate, Config, Knob, Mechanism, Space, Trial, View

SPACE = Space(
    {
        "RATE": Knob(kind="float", default=1.0, low=0.001, high=10.0, log=True),
        "BATCH": Knob(kind="power_of_two", default=512, low=8, high=1024),
        "DEPTH": Knob(kind="int", default=4, low=1, high=12),
    }
)


def surface(config: Config, seed: int) -> float:
    """A bowl with a little seeded noise; DEPTH 12 gives NaN."""
    if config["DEPTH"] == 12:
        return math.nan
    noise = random.Random(seed).gauss(0, 0.01)
    rate, batch, depth = (float(config[name]) for name in ("RATE", "BATCH", "DEPTH"))
    return (
        3
        + math.log10(rate / 0.02) ** 2
        + 0.1 * (math.log2(batch) - 5) ** 2
        + 0.05 * (depth - 6) ** 2
        + noise
    )


class SurfaceTask:
    """The surface, in a subprocess (as a real task) or in this process (fast)."""

    name = "surface"
    metric = "loss"
    minimize = True
    space = SPACE
    description = "An analytic surface for tests."
    digest = "5" * 64

    def __init__(self, *, subprocess: bool = False) -> None:
        self.subprocess = subprocess
        self.trained: list[tuple[dict[str, Any], int]] = []

    def host(self) -> dict[str, Any]:
        return {"cpu": "test"}

    def run(
        self, config: Config, *, seed: int, progress: Callable[[str], None] | None = None
    ) -> Outcome:
        self.trained.append((dict(config), seed))
        if self.subprocess:
            args = [sys.executable, __file__, json.dumps(dict(config)), str(seed)]
            done = subprocesses.run(
                args, deadline_seconds=60, env={"PYTHONPATH": ":".join(sys.path)}
            )
            value = float(done.output)
        else:
            value = surface(config, seed)
        if not math.isfinite(value):
            return Outcome(metric=None, failure="nan", message="not finite")
        return Outcome(metric=value)


class WalkPrior:
    """Random steps from the view's randomness; sometimes outside the space, rarely an error."""

    label = "walk (test)"

    def __init__(self, *, errors: bool = False) -> None:
        self.errors = errors

    def ask(self, view: View, guidance: str, count: int) -> list[Candidate]:
        draw = view.random
        # Never twice in a row: after three of them the run would rightly pause.
        if self.errors and len(view.trace) % 3 == 0 and draw.random() < 0.3:
            raise PriorError("the endpoint answered with nonsense")
        return [self._one(view, draw) for _ in range(count)]

    def _one(self, view: View, draw: random.Random) -> Candidate:
        name = draw.choice(view.free())
        value: float | int
        if name == "RATE":
            value = float(view.best.config[name]) * 10 ** draw.uniform(-1, 1)
        elif name == "BATCH":
            value = int(int(view.best.config[name]) * draw.choice((0.5, 4)))
        else:
            value = int(view.best.config[name]) + draw.choice((-1, 1, 9))
        return Candidate(changes={name: value}, reason=f"step on {name}")


class Counting(Mechanism):
    """Has a state that matters: every third acceptance needs a real gain, and it uses its own
    randomness and the order of what it is shown and keeps. A run that lost or repeated a call, or
    gives a state back in another order, decides otherwise afterwards."""

    name = "counting"

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.proposed = 0
        self.accepted = 0
        self.latest: dict[str, str] = {}  # the last knob of each trial, the latest first

    def propose(self, view: View, count: int) -> list[Candidate]:
        self.proposed += 1
        found = view.ask(count=count)
        if (self.proposed + len(self.seen)) % 4 == 0:
            told = "".join(f"{n}{knob}" for n, knob in self.latest.items())
            depth = 1 + (view.random.randint(0, 11) + sum(map(ord, told[:3]))) % 12
            return [Candidate(changes={"DEPTH": depth}, reason=f"own idea {told[:9]}")]
        return found

    def accept(self, trial: Trial, view: View) -> bool:
        self.accepted += 1
        assert trial.metric is not None
        assert view.best.metric is not None
        slack = 0.05 if (self.accepted + self.proposed) % 3 == 0 else 0.0
        return trial.metric < view.best.metric + slack

    def observe(self, trial: Trial, view: View) -> None:
        self.seen.append(trial.number)
        self.latest = {str(trial.number): list(trial.config)[-1], **self.latest}

    def state(self) -> dict[str, Any]:
        counts = {"seen": self.seen, "proposed": self.proposed, "accepted": self.accepted}
        return {**counts, "latest": self.latest}

    def restore(self, state: dict[str, Any]) -> None:
        self.seen = list(state["seen"])
        self.proposed, self.accepted = state["proposed"], state["accepted"]
        self.latest = dict(state["latest"])


if __name__ == "__main__":
    sys.stdout.write(str(surface(json.loads(sys.argv[1]), int(sys.argv[2]))))
