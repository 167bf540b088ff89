"""Changes kernel settings and reads its memory."""

from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        for path, mode in (("/proc/sys/kernel/core_pattern", "w"), ("/proc/kcore", "rb"), ("/proc/sysrq-trigger", "w"), ("/dev/mem", "rb"), ("/sys/kernel/uevent_helper", "w")):
            try:
                with open(path, mode):
                    pass
            except OSError as error:
                last = error
            else:
                raise RuntimeError("ESCAPED")
        raise last
