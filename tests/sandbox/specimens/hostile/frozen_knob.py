"""Changes a frozen knob."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if view.frozen:
            name = sorted(view.frozen)[0]
            return [Candidate(changes={name: view.space[name].low})]
        return view.ask("something else", count)
