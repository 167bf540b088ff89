"""A ridge regression around the best trial; the next step goes down its gradient."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sandbox.mechanism import Candidate, Mechanism, View

Floats = npt.NDArray[np.float64]
RIDGE = 1e-2
STEPS = (0.08, 0.16, 0.04)


def gradient(x: Floats, y: Floats, centre: Floats) -> Floats:
    distance = np.linalg.norm(x - centre, axis=1)
    weight = np.exp(-((distance / 0.5) ** 2))
    left = (x - centre) * weight[:, np.newaxis]
    return np.linalg.solve(left.T @ (x - centre) + RIDGE * np.eye(x.shape[1]), left.T @ (y - y.mean()))


class LocalLinear(Mechanism):
    name = "local_linear"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = [n for n in view.free() if view.space[n].kind != "choice"]
        done = [t for t in view.trace if t.metric is not None]
        if len(done) < 5:
            return view.ask(count=count)
        x = np.array([[view.space[n].position(t.config[n]) for n in names] for t in done])
        y = np.array([t.metric for t in done])
        here = np.array([view.space[n].position(view.best.config[n]) for n in names])
        slope = gradient(x, y if view.minimize else -y, here)
        length = float(np.linalg.norm(slope))
        if length < 1e-12:
            return view.ask(count=count)
        found = []
        for step in STEPS:
            target = here - step * slope / length
            changes = {
                n: value
                for n, p in zip(names, target.tolist())
                if (value := view.space[n].at(p)) != view.best.config[n]
            }
            if changes and not view.space.problems(view.config_of(changes)):
                found.append(Candidate(changes=changes, reason=f"down the local slope by {step}"))
        return found[:count] or view.ask(count=count)
