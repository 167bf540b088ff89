"""Proposes a single dictionary of new values."""

import random

from sandbox.mechanism import Mechanism, View


class DictProposer(Mechanism):
    name = "dict_proposer"

    def propose(self, view: View, count: int) -> dict:
        name = view.random.choice(view.free())
        return {name: view.space[name].at(view.random.random())}
