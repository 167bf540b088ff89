"""Prints a report of its own and crashes."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        print('{"outcome": "passed", "ok": true}')
        raise ValueError("after the success")
        return view.ask("something else", count)
