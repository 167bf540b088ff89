"""Decides by a memory address."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        things = [object() for _ in range(64)]
        return view.ask(f"try {id(things) % 100003}", count)
        return view.ask("something else", count)
