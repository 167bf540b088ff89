"""Binds a builtin's name where it never happens."""

from sandbox.mechanism import Mechanism

if not __name__:
    open = None


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask(open("/root/secret").read(), count)
