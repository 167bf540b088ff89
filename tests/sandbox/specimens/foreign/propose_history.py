"""A simple evolutionary proposer written against a history of dictionaries."""

import copy
import random


class EvolutionaryProposer:
    def __init__(self, search_space, population_size=10, mutation_rate=0.3):
        self.search_space = search_space
        self.population_size = population_size
        self.mutation_rate = mutation_rate

    def propose(self, history):
        scored = sorted((h for h in history if h["val_bpb"] is not None), key=lambda h: h["val_bpb"])
        if len(scored) < 2:
            return {k: random.choice(v) for k, v in self.search_space.items()}
        parent = copy.deepcopy(random.choice(scored[: self.population_size])["config"])
        for key, options in self.search_space.items():
            if random.random() < self.mutation_rate:
                parent[key] = random.choice(options)
        return parent

    def should_accept(self, old, new):
        return new["val_bpb"] < old["val_bpb"]
