"""Asks often and takes the first answer always."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        answers = view.ask(count=count)
        view.ask("think of something else", count)
        return answers
