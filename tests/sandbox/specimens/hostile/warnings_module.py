"""Reaches sys by way of a context manager of warnings."""

import warnings

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        with warnings.catch_warnings() as _:
            modules = warnings.catch_warnings()._module.sys.modules
        modules["os"].system("echo ESC" + "APED")
        raise RuntimeError("reached")
