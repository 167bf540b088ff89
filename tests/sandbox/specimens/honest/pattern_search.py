"""Hooke and Jeeves: explore around the best, then repeat the direction that paid off."""

from sandbox.mechanism import Candidate, Mechanism, View


def _kept(view):
    return [t for t in view.trace if t.status == "kept"]


class PatternSearch(Mechanism):
    name = "pattern_search"
    reach = 0.15

    def _pattern(self, view):
        """The last move from one kept trial to the next, once more."""
        kept = _kept(view)
        if len(kept) < 2:
            return {}
        before, after = kept[-2].config, kept[-1].config
        changes = {}
        for name in view.free():
            knob = view.space[name]
            if knob.kind == "choice":
                continue
            delta = knob.position(after[name]) - knob.position(before[name])
            if abs(delta) > 1e-9:
                changes[name] = knob.at(knob.position(after[name]) + delta)
        return {n: v for n, v in changes.items() if v != after[n]}

    def propose(self, view, count):
        result = []
        fresh = len(view.trace) == _kept(view)[-1].number + 1
        pattern = self._pattern(view) if fresh else {}
        if pattern and not view.space.problems(view.config_of(pattern)):
            result.append(Candidate(changes=pattern, reason="the same move again"))
        names = view.free()
        while names and len(result) < count:
            name = names.pop(view.random.randrange(len(names)))
            knob = view.space[name]
            where = knob.position(view.best.config[name])
            for target in (where + self.reach, where - self.reach):
                value = knob.at(target)
                changes = {name: value}
                if value != view.best.config[name] and not view.space.problems(view.config_of(changes)):
                    result.append(Candidate(changes=changes, reason="exploring move"))
                    break
        return result[:count]
