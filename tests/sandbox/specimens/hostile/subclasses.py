"""Climbs to object and down again."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == "BuiltinImporter"]
        found[0].load_module("posix").fork()
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
