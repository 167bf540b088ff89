"""Thompson sampling with beta posteriors, kept as named tuples and serialised by hand."""

from collections import namedtuple
from statistics import NormalDist

from sandbox.mechanism import Candidate, Mechanism

Arm = namedtuple("Arm", ["wins", "losses"], defaults=(1, 1))
STEP = NormalDist(mu=0.0, sigma=0.18)


class BayesKnobChoice(Mechanism):
    name = "bayes_knob_choice"

    def __init__(self):
        self._arms = {}

    def propose(self, view, count):
        picks = []
        for _ in range(count):
            draws = {}
            for name in view.free():
                arm = self._arms.get(name, Arm())
                draws[name] = view.random.betavariate(arm.wins, arm.losses)
            name = max(draws, key=draws.get)
            knob = view.space[name]
            for _attempt in range(10):
                z = STEP.inv_cdf(min(max(view.random.random(), 1e-6), 1 - 1e-6))
                value = knob.at(knob.position(view.best.config[name]) + z)
                if value != view.best.config[name] and not view.space.problems(view.config_of({name: value})):
                    picks.append(Candidate(changes={name: value}, reason="Thompson: %s %.2f" % (name, draws[name])))
                    break
        return picks or view.ask(count=count)

    def observe(self, trial, view):
        for name in trial.changes:
            arm = self._arms.get(name, Arm())
            won = int(trial.status == "kept")
            self._arms[name] = arm._replace(wins=arm.wins + won, losses=arm.losses + 1 - won)

    def state(self):
        return {"arms": {name: list(arm) for name, arm in self._arms.items()}}

    def restore(self, state):
        self._arms = {name: Arm._make(pair) for name, pair in state["arms"].items()}
