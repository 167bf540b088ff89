"""Ignores every signal and loops."""

import signal

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for number in range(1, 32):
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                pass
        while True:
            pass
