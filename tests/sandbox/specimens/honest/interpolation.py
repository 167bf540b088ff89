"""Radial basis functions of scipy through all trials; their minimum along random lines."""

import numpy as np
from scipy.interpolate import RBFInterpolator
from scipy.optimize import minimize_scalar

from sandbox.mechanism import Candidate, Mechanism, View


class Interpolation(Mechanism):
    name = "interpolation"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = [n for n in view.free() if view.space[n].kind == "float"]
        seen = {}
        for trial in view.trace:
            if trial.metric is not None:
                key = tuple(view.space[n].position(trial.config[n]) for n in names)
                seen[key] = trial.metric if view.minimize else -trial.metric
        if len(seen) < len(names) + 2:
            return view.ask("Vary the continuous knobs.", count)
        model = RBFInterpolator(np.array(list(seen)), np.array(list(seen.values())), kernel="linear", smoothing=0.1)
        best = np.array([view.space[n].position(view.best.config[n]) for n in names])
        out = []
        for _ in range(4 * count):
            direction = np.array([view.random.gauss(0, 1) for _ in names])
            direction /= np.linalg.norm(direction) or 1.0
            line = minimize_scalar(
                lambda s, d=direction: float(model(np.clip(best + s * d, 0, 1)[None, :])[0]),
                bounds=(-0.4, 0.4), method="bounded", options={"maxiter": 12},
            )
            point = np.clip(best + line.x * direction, 0, 1)
            changes = {n: view.space[n].at(float(p)) for n, p in zip(names, point)}
            if not view.space.problems(view.config_of(changes)):
                out.append(Candidate(changes=changes, reason="lowest along a random line"))
            if len(out) == count:
                break
        return out or view.ask(count=count)
