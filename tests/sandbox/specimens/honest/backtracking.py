"""Undo: for every kept trial of several changes, tries it again with one change taken back."""

from collections import ChainMap, OrderedDict

from sandbox.mechanism import Candidate, Mechanism, View


class Backtracking(Mechanism):
    """Ockham's razor for configurations: what a gain does not need is put back to its default."""

    name = "backtracking"

    def propose(self, view: View, count: int) -> list[Candidate]:
        defaults = view.space.defaults()
        moved = OrderedDict(
            (name, defaults[name])
            for name in view.free()
            if view.best.config[name] != defaults[name]
        )
        tried = [ChainMap(dict(t.changes), dict(t.config)) for t in view.trace]
        found = []
        for name, value in moved.items():
            config = view.config_of({name: value})
            if view.space.problems(config) or any(all(t[k] == v for k, v in config.items()) for t in tried):
                continue
            found.append(Candidate(changes={name: value}, reason=f"does it need {name}?"))
        if len(found) < count:
            found += view.ask(count=count - len(found))
        return found[:count]
