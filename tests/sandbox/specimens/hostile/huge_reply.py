"""Proposes a text of ten megabytes."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return [Candidate(changes={}, reason="x" * 10_000_000)]
        return view.ask("something else", count)
