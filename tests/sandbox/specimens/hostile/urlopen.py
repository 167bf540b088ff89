"""Downloads with urllib."""

from urllib.request import urlopen

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        urlopen("http://169.254.169.254/latest/meta-data/", timeout=2)
        raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
