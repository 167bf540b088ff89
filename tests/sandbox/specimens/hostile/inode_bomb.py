"""Makes empty files until there is no inode left."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for folder in ("/tmp", "/dev/shm", "/run", "/"):
            for number in range(100_000):
                try:
                    open(f"{folder}/{number}", "w").close()
                except OSError as error:
                    last = error
                    break
        raise last
