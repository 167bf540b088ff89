"""A random forest of scikit-learn; the mean minus the spread of its trees is the score."""

import numpy as np
from sklearn.ensemble import ExtraTreesRegressor

from sandbox.mechanism import Candidate, Mechanism, View


class ForestLibrary(Mechanism):
    name = "forest_library"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = view.free()
        done = [t for t in view.trace if t.metric is not None]
        if len(done) < 8 or len(view.trace) % 4:
            return view.ask("Try something that differs from all trials so far.", count)
        x = np.array([[view.space[n].position(t.config[n]) for n in names] for t in done])
        y = np.array([t.metric for t in done]) * (1 if view.minimize else -1)
        forest = ExtraTreesRegressor(n_estimators=12, random_state=view.random.getrandbits(31)).fit(x, y)
        rng = np.random.default_rng(view.random.getrandbits(32))
        pool = np.clip(x[y.argmin()] + rng.normal(0, 0.2, (60, len(names))), 0, 1)
        votes = np.stack([tree.predict(pool) for tree in forest.estimators_])
        score = votes.mean(axis=0) - votes.std(axis=0)
        out = []
        for index in np.argsort(score, kind="stable"):
            changes = {n: view.space[n].at(float(p)) for n, p in zip(names, pool[index])}
            if not view.space.problems(view.config_of(changes)):
                out.append(Candidate(changes=changes, reason="the forest likes it"))
        return out[:count] or view.ask(count=count)
