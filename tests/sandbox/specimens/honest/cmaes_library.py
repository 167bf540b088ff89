"""CMA-ES of the package cmaes, told the whole trace before each question."""

import numpy as np
from cmaes import CMA

from sandbox.mechanism import Candidate, Mechanism, View


class CmaesLibrary(Mechanism):
    name = "cmaes_library"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = [n for n in view.free() if view.space[n].kind == "float"]
        if len(names) < 2:
            return view.ask(count=count)
        best = np.array([view.space[n].position(view.best.config[n]) for n in names])
        bounds = np.array([[0.0, 1.0]] * len(names))
        optimizer = CMA(
            mean=np.clip(best, 0.01, 0.99), sigma=0.2, bounds=bounds, seed=view.random.getrandbits(31)
        )
        told = [
            (np.array([view.space[n].position(t.config[n]) for n in names]), t.metric)
            for t in view.trace
            if t.metric is not None
        ][-optimizer.population_size :]
        if len(told) == optimizer.population_size:
            optimizer.tell([(np.clip(x, 0, 1), y if view.minimize else -y) for x, y in told])
        out: list[Candidate] = []
        for _ in range(8 * count):
            point = optimizer.ask()
            changes = {n: view.space[n].at(float(p)) for n, p in zip(names, point, strict=True)}
            if not view.space.problems(view.config_of(changes)):
                out.append(Candidate(changes=changes, reason="CMA-ES"))
            if len(out) == count:
                break
        return out or view.ask(count=count)
