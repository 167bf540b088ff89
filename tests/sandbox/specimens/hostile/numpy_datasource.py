"""Downloads with numpy."""

from sandbox.mechanism import Mechanism

import numpy as np


class Specimen(Mechanism):
    def propose(self, view, count):
        np.lib.npyio.DataSource("/tmp").open("http://example.org/x")
        return view.ask("something else", count)
