from sandbox.mechanism import Mechanism


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask("something else", count)
