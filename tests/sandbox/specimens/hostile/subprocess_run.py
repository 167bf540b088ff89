"""Starts a process."""

import subprocess

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        subprocess.run(["/bin/sh", "-c", "true"], check=True)
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
