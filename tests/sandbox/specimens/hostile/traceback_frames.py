"""Walks the frames of an exception."""

from sandbox.mechanism import Candidate, Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        try:
            1 / 0
        except ZeroDivisionError as error:
            frame = error.__traceback__.tb_frame
            while frame.f_back:
                frame = frame.f_back
            frame.f_globals["sys"].modules["os"].fork()
            raise RuntimeError("ESCAPED")
        return view.ask("something else", count)
