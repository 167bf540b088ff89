"""k nearest neighbours as a surrogate: of many mutations, the one whose neighbourhood did best."""

import heapq
import math

from sandbox.mechanism import Candidate, Mechanism, View


def _distance(a: list[float], b: list[float]) -> float:
    return math.dist(a, b)


class NearestNeighbours(Mechanism):
    name = "knn_surrogate"
    k = 3
    pool = 60

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = view.free()

        def embed(config) -> list[float]:
            return [view.space[n].position(config[n]) for n in names]

        known = [(embed(t.config), t.metric) for t in view.trace if t.metric is not None]
        if len(known) <= self.k:
            return view.ask(count=count)

        def estimate(config) -> float:
            here = embed(config)
            near = heapq.nsmallest(self.k, known, key=lambda row: _distance(row[0], here))
            weights = [1.0 / (1e-3 + _distance(point, here)) for point, _ in near]
            return sum(w * y for w, (_, y) in zip(weights, near)) / sum(weights)

        pool: list[tuple[float, int, dict]] = []
        for index in range(self.pool):
            chosen = view.random.sample(names, k=min(len(names), 1 + index % 3))
            changes = {}
            for n in chosen:
                knob = view.space[n]
                changes[n] = knob.at(knob.position(view.best.config[n]) + view.random.uniform(-0.3, 0.3))
            if any(view.best.config[n] != v for n, v in changes.items()):
                config = view.config_of(changes)
                if not view.space.problems(config):
                    score = estimate(config) if view.minimize else -estimate(config)
                    heapq.heappush(pool, (score, index, changes))
        best = [heapq.heappop(pool) for _ in range(min(count, len(pool)))]
        return [Candidate(changes=c, reason=f"neighbours say {s:.4f}") for s, _, c in best]
