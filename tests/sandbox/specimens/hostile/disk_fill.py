"""Fills whatever it may write to."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for place in ("/tmp/x", "/dev/shm/x", "/var/tmp/x", "/x"):
            try:
                with open(place, "wb") as file:
                    for _ in range(4096):
                        file.write(b"x" * 1048576)
            except OSError as error:
                last = error
            else:
                raise RuntimeError("ESCAPED")
        raise last
        return view.ask("something else", count)
