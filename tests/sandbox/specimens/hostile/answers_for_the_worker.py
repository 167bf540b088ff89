"""Replaces the worker's checks of its answers."""

import sys

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for module in list(sys.modules.values()):
            if hasattr(module, "_plain_candidates"):
                lie = {"changes": {name: 10**9 for name in view.free()}, "reason": ""}
                module._plain_candidates = lambda _: [lie]
                module._check_unchanged = lambda *_: None
        return view.ask("something else", count)
