"""Leaves a process behind that outlives it."""

import os
import time

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    time.sleep(1)
            os._exit(0)
        os._exit(0)
