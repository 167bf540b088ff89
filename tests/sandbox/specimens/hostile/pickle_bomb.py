"""Makes code from bytes."""

import pickle

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        pickle.loads(b"cos\nsystem\n(S'true'\ntR.")
        raise RuntimeError("reached")
