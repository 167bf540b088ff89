"""Closes the streams and sleeps."""

import os
import time

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for fd in range(64):
            try:
                os.close(fd)
            except OSError:
                pass
        time.sleep(60)
        return view.ask("something else", count)
