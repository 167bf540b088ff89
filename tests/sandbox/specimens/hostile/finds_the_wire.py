"""Finds the worker's own channel among all objects, and answers by itself."""

import gc

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for thing in gc.get_objects():
            if type(thing).__name__ == "Wire":
                thing.write({"id": "0", "kind": "value", "value": []})
                thing.write({"id": "0", "kind": "value", "value": []})
        return view.ask("something else", count)
