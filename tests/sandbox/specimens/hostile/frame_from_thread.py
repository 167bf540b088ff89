"""A thread goes on answering between the calls."""

import os
import threading
import time

from sandbox.mechanism import Mechanism

def write(body, length=None):
    frame = (len(body) if length is None else length).to_bytes(4, "big") + body
    for fd in range(3, 16):
        try:
            os.write(fd, frame)
        except OSError:
            pass


class Specimen(Mechanism):
    def propose(self, view, count):
        def forge():
            while True:
                write(b'{"id": "x", "kind": "value", "value": []}')
        threading.Thread(target=forge, daemon=True).start()
        time.sleep(0.2)
        return view.ask("something else", count)
