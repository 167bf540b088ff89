"""An L8 orthogonal array: seven two-level factors in eight runs, then the better levels together."""

from __future__ import annotations

from statistics import fmean

from sandbox.mechanism import Candidate, Mechanism, View

L8 = (
    (0, 0, 0, 0, 0, 0, 0),
    (0, 0, 0, 1, 1, 1, 1),
    (0, 1, 1, 0, 0, 1, 1),
    (0, 1, 1, 1, 1, 0, 0),
    (1, 0, 1, 0, 1, 0, 1),
    (1, 0, 1, 1, 0, 1, 0),
    (1, 1, 0, 0, 1, 1, 0),
    (1, 1, 0, 1, 0, 0, 1),
)
LEVELS = (-0.12, 0.12)
MARK = "L8 row"


class Taguchi(Mechanism):
    name = "taguchi"

    def _factors(self, view: View) -> list[str]:
        return [n for n in view.free() if view.space[n].kind == "float"][:7]

    def _row(self, view: View, row: int) -> Candidate | None:
        changes = {}
        for name, level in zip(self._factors(view), L8[row], strict=False):
            knob = view.space[name]
            base = knob.position(knob.default)
            changes[name] = knob.at(base + LEVELS[level])
        valid = changes and not view.space.problems(view.config_of(changes))
        return Candidate(changes=changes, reason=f"{MARK} {row}") if valid else None

    def _together(self, view: View) -> Candidate | None:
        """Main effects: the level of each factor that measured better on average."""
        changes = {}
        for name in self._factors(view):
            knob = view.space[name]
            sides: dict[bool, list[float]] = {False: [], True: []}
            for trial in view.trace[1:]:
                if trial.metric is not None and name in trial.changes:
                    sides[knob.position(trial.config[name]) > knob.position(knob.default)].append(trial.metric)
            if all(sides.values()):
                up = view.better(fmean(sides[True]), fmean(sides[False]))
                changes[name] = knob.at(knob.position(knob.default) + (0.2 if up else -0.2))
        if not changes or view.space.problems(view.config_of(changes)):
            return None
        return Candidate(changes=changes, reason="better level of every factor")

    def propose(self, view: View, count: int) -> list[Candidate]:
        done = len(view.trace) - 1
        if done < len(L8):
            rows = [self._row(view, r) for r in range(done, min(done + count, len(L8)))]
        else:
            rows = [self._together(view)] if done % 4 == 0 else []
        found = [c for c in rows if c is not None]
        if len(found) < count:
            found += view.ask(count=count - len(found))
        return found[:count]
