"""Reads a dunder with a class pattern."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        match view:
            case object(__class__=kind):
                match kind:
                    case object(__subclasses__=found):
                        raise OSError(str(len(found())))
        return view.ask("something else", count)
