"""Patches Level 1 so that stuck searches restart with a fresh perspective."""

from runner import Level1
from runner.search import SearchLoop, TrialResult
from runner.llm import call_llm


class RestartLevel1(Level1):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stagnation = 0
        self.max_stagnation = 10

    def propose(self, trace):
        if self.stagnation >= self.max_stagnation:
            self.stagnation = 0
            return call_llm("Propose something radically different", trace[-1:])
        return super().propose(trace)

    def on_result(self, result: TrialResult):
        self.stagnation = 0 if result.improved else self.stagnation + 1
