"""Batches that are spread out: a determinantal pick from many suggestions, greedily."""

import numpy as np

from sandbox.mechanism import Candidate, Mechanism, View


class BatchDiversity(Mechanism):
    name = "batch_diversity"

    def propose(self, view: View, count: int) -> list[Candidate]:
        asked = view.ask("Each suggestion shall change another knob.", min(64, 4 * count))
        asked = [c for c in asked if not view.space.problems(view.config_of(c.changes))]
        if len(asked) <= 1:
            return asked
        names = list(view.space)
        rows = []
        for candidate in asked:
            config = view.config_of(candidate.changes)
            rows.append([view.space[n].position(config[n]) for n in names])
        x = np.array(rows)
        kernel = np.exp(-8.0 * ((x[:, None] - x[None]) ** 2).sum(-1)) + 1e-6 * np.eye(len(x))
        chosen: list[int] = []
        for _ in range(min(count, len(asked))):
            gains = []
            for i in range(len(asked)):
                if i in chosen:
                    gains.append(-np.inf)
                    continue
                index = chosen + [i]
                gains.append(float(np.linalg.slogdet(kernel[np.ix_(index, index)])[1]))
            chosen.append(int(np.argmax(gains)))
        return [asked[i] for i in chosen]
