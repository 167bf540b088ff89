"""Injects simulated annealing into the running loop at import time."""

import math
import random
import sys

import runner.search as search

_original = search.SearchLoop.accept
_temperature = [0.05]


def annealed_accept(self, trial):
    if _original(self, trial):
        return True
    _temperature[0] *= 0.95
    delta = trial.metric - self.best.metric
    return random.random() < math.exp(-delta / _temperature[0])


search.SearchLoop.accept = annealed_accept
sys.modules["runner.search"].SearchLoop.accept = annealed_accept
print("annealing installed")
