"""Coordinate-wise line search."""

from sandbox.mechanism import Candidate, Mechanism


class LineSearch(Mechanism):
    name = "line_search"

    def propose(self, history, space, n=1):
        knob = sorted(space)[len(history) % len(space)]
        return [Candidate(changes={knob: space[knob].at(0.5)}, reason="line search")]

    def accept(self, new_metric, old_metric, minimize=True):
        return new_metric < old_metric if minimize else new_metric > old_metric
