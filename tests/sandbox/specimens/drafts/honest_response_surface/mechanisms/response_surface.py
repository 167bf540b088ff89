"""A quadratic response surface by least squares over the most moved knobs; its stationary point."""

import numpy as np
from numpy.linalg import LinAlgError, lstsq, solve

from sandbox.mechanism import Candidate, Mechanism, View


class ResponseSurface(Mechanism):
    name = "response_surface"

    def propose(self, view: View, count: int) -> list[Candidate]:
        candidates = []
        try:
            candidate = self._stationary(view)
        except LinAlgError:
            candidate = None
        if candidate is not None:
            candidates.append(candidate)
        if (missing := count - len(candidates)) > 0:
            candidates.extend(view.ask("Vary learning rates and weight decay.", missing))
        return candidates[:count]

    def _stationary(self, view: View):
        floats = [n for n in view.free() if view.space[n].kind == "float"]
        moved = sorted(floats, key=lambda n: (-sum(n in t.changes for t in view.trace), n))[:2]
        rows = [t for t in view.trace if t.metric is not None]
        if len(moved) < 2 or len(rows) < 7:
            return None
        a, b = moved
        x = np.array([[view.space[n].position(t.config[n]) for n in moved] for t in rows])
        y = np.array([t.metric for t in rows]) * (1 if view.minimize else -1)
        design = np.column_stack([np.ones(len(x)), x, x**2, x[:, 0] * x[:, 1]])
        beta, *_ = lstsq(design, y, rcond=None)
        hessian = np.array([[2 * beta[3], beta[5]], [beta[5], 2 * beta[4]]]) + 1e-6 * np.eye(2)
        point = solve(hessian, -beta[1:3])
        if not np.all(np.isfinite(point)) or np.any(np.linalg.eigvalsh(hessian) <= 0):
            return None
        changes = {a: view.space[a].at(float(point[0])), b: view.space[b].at(float(point[1]))}
        if view.space.problems(view.config_of(changes)):
            return None
        return Candidate(changes=changes, reason=f"stationary point of {a} and {b}")
