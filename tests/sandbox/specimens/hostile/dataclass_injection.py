"""Puts code into the text that @dataclass evaluates."""

from dataclasses import dataclass

from sandbox.mechanism import Mechanism


@dataclass
class Settings:
    __annotations__ = {"x: int = print('injected'), y": int}


class Specimen(Mechanism):
    def propose(self, view, count):
        return view.ask("something else", count)
