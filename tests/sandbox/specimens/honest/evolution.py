"""A small differential evolution over positions, with plain lists and no library."""

from sandbox.mechanism import Candidate, Mechanism, Trial, View

FACTOR = 0.7
CROSSOVER = 0.6


class Vector(dict):
    def __sub__(self, other):
        return Vector({k: self[k] - other[k] for k in self})

    def scaled(self, factor):
        return Vector({k: v * factor for k, v in self.items()})

    def __add__(self, other):
        return Vector({k: self[k] + other[k] for k in self})


class Evolution(Mechanism):
    name = "evolution"

    def _vector(self, view: View, trial: Trial) -> Vector:
        return Vector({n: view.space[n].position(trial.config[n]) for n in view.free()})

    def propose(self, view: View, count: int) -> list[Candidate]:
        usable = [t for t in view.trace if not view.space.problems(t.config)]
        if len(usable) < 4:
            return view.ask(count=count)
        made = []
        tries = 0
        while len(made) < count and tries < 10 * count:
            tries += 1
            a, b, c = (self._vector(view, t) for t in view.random.sample(usable, 3))
            child = a + (b - c).scaled(FACTOR)
            changes = {
                n: view.space[n].at(child[n])
                for n in view.free()
                if view.random.random() < CROSSOVER
            }
            if changes and not view.space.problems(view.config_of(changes)):
                made.append(Candidate(changes=changes, reason="difference of two trials"))
        return made or view.ask(count=count)
