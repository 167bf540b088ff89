"""Starts threads without end."""

import threading
import time

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        while True:
            threading.Thread(target=time.sleep, args=(60,)).start()
        return view.ask("something else", count)
