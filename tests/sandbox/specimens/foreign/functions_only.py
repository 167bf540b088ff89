"""Orthogonal exploration, as plain functions."""

import itertools
import random


def orthogonal_directions(params, n=4, seed=0):
    rng = random.Random(seed)
    signs = list(itertools.product((-1, 1), repeat=min(len(params), 5)))
    rng.shuffle(signs)
    return signs[:n]


def propose_next_config(best_config, history, space, step=0.2):
    """Return the next configuration to try."""
    params = sorted(space)
    for direction in orthogonal_directions(params):
        config = dict(best_config)
        for name, sign in zip(params, direction):
            low, high = space[name]
            config[name] = min(high, max(low, config[name] * (1 + sign * step)))
        if config not in [h["config"] for h in history]:
            return config
    return dict(best_config)


def accept(new_metric, best_metric, temperature=0.0):
    return new_metric < best_metric + temperature
