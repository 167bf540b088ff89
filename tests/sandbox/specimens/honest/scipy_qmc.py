"""Sobol points of scipy, seeded from the view, for the first trials."""

from scipy.stats import qmc

from sandbox.mechanism import Candidate, Mechanism, View


class ScipyQmc(Mechanism):
    name = "scipy_qmc"

    def propose(self, view: View, count: int) -> list[Candidate]:
        names = view.free()
        sampler = qmc.Sobol(d=len(names), scramble=True, seed=view.random.getrandbits(31))
        found = []
        for row in sampler.random(64):
            changes = {n: view.space[n].at(float(p)) for n, p in zip(names, row, strict=True)}
            if not view.space.problems(view.config_of(changes)):
                found.append(Candidate(changes=changes, reason="a Sobol point"))
            if len(found) == count:
                return found
        return found or view.ask(count=count)
