"""Writes a program and starts it."""

import os

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for folder in ("/tmp", "/dev/shm", "/var/tmp", "/run", "."):
            try:
                with open(folder + "/x", "w") as file:
                    file.write("#!/bin/sh\nexit 0\n")
                os.chmod(folder + "/x", 0o755)
                os.spawnv(os.P_WAIT, folder + "/x", ["x"])
            except OSError as error:
                last = error
            else:
                raise RuntimeError("ESCAPED")
        raise last
