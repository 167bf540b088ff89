"""Imports in a function for the whole file, and takes a forbidden name."""

from sandbox.mechanism import Mechanism


def prepare():
    global n
    import numpy as n


prepare()


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask(str(n.fromfile("/etc/passwd.none", dtype="u1")), count)
