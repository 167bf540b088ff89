"""Novelty search: of the prior's suggestions and a few of its own, the farthest from the archive."""

from sandbox.mechanism import Candidate, Mechanism, View


class Novelty(Mechanism):
    """Cares about where nobody has been, not about what was good there."""

    name = "novelty"

    def propose(self, view: View, count: int) -> list[Candidate]:
        suggestions = list(view.ask(count=max(2, count)))
        suggestions += [c for c in (self._jump(view) for _ in range(6)) if c]
        valid = [c for c in suggestions if not view.space.problems(view.config_of(c.changes))]
        ranked = sorted(
            enumerate(valid), key=lambda pair: (-self._novelty(view, pair[1]), pair[0])
        )
        return [candidate for _, candidate in ranked[:count]]

    def _jump(self, view: View):
        name = view.random.choice(view.free())
        value = view.space[name].at(view.random.random())
        return None if value == view.best.config[name] else Candidate({name: value}, "far away") if False else (
            None if value == view.best.config[name] else Candidate(changes={name: value}, reason="far away")
        )

    def _novelty(self, view: View, candidate: Candidate) -> float:
        config = view.config_of(candidate.changes)

        def gap(trial) -> float:
            return sum(
                abs(view.space[n].position(config[n]) - view.space[n].position(trial.config[n]))
                for n in view.free()
                if trial.failure != "constraint"
            )

        return min((gap(t) for t in view.trace), default=0.0)
