"""Bracket a knob and halve the bracket: successive halving of the step, by knob."""

from enum import Enum, auto

from sandbox.mechanism import Candidate, Mechanism, Trial, View


class Side(Enum):
    LOW = auto()
    HIGH = auto()


class Halving(Mechanism):
    name = "halving"

    def __init__(self):
        self._width = {}
        self._side = {}

    def _width_of(self, name):
        return self._width.setdefault(name, 0.5)

    def propose(self, view: View, count: int) -> list[Candidate]:
        numeric = [n for n in view.free() if view.space[n].kind in ("float", "int", "power_of_two")]
        ordered = sorted(numeric, key=lambda n: (-self._width_of(n), n))
        answer = []
        for name in ordered[:count]:
            side = self._side.get(name, Side.LOW)
            delta = -self._width_of(name) if side is Side.LOW else self._width_of(name)
            knob = view.space[name]
            value = knob.at(knob.position(view.best.config[name]) + delta)
            if not view.space.problems(view.config_of({name: value})):
                answer.append(Candidate(changes={name: value}, reason=f"{side.name.lower()} half"))
            else:
                self._flip(name)
        return answer if answer else view.ask("a small change to one knob", count)

    def _flip(self, name):
        if self._side.get(name, Side.LOW) is Side.HIGH:
            self._width[name] = self._width_of(name) / 2
            self._side[name] = Side.LOW
        else:
            self._side[name] = Side.HIGH

    def observe(self, trial: Trial, view: View) -> None:
        for name in trial.changes:
            if name in view.space:
                self._flip(name)

    def state(self):
        return {"width": dict(self._width), "side": {k: v.name for k, v in self._side.items()}}

    def restore(self, state):
        self._width = dict(state["width"])
        self._side = {k: Side[v] for k, v in state["side"].items()}
