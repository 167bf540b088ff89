"""Sets a release agent in its control group."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for path in ("/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/memory/notify_on_release", "/sys/fs/cgroup/cgroup.procs"):
            try:
                with open(path, "w") as file:
                    file.write("1")
            except OSError as error:
                last = error
            else:
                raise RuntimeError("ESCAPED")
        raise last
