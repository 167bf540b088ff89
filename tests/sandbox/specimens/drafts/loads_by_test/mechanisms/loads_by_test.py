import numpy as np

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask(str(np.pi), count)
