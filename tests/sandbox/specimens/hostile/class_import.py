"""Imports in a class, and takes a forbidden name from the class."""

from sandbox.mechanism import Mechanism


class Tools:
    import numpy as n


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask(str(Tools.n.fromfile("/etc/passwd.none", dtype="u1")), count)
