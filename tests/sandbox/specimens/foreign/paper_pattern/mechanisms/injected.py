"""
Mechanism: Multi-Scale Bandit Proposer
Injected by Level 2 into the runner class at run time.
"""
import sys
import importlib.util
from dataclasses import dataclass, field
from typing import List, Dict, Optional

@dataclass
class ScaleArm:
    """One arm: a multiplicative scale for a hyperparameter."""
    scale: float
    successes: int = 1
    failures: int = 1
    recent: List[float] = field(default_factory=list)

class MultiScaleBanditProposer:
    """Proposes changes at several scales; each scale is an arm."""
    def __init__(self, scales: Optional[List[float]] = None):
        self.arms = [ScaleArm(s) for s in (scales or [0.5, 0.9, 1.1, 2.0])]

    def propose(self, current: Dict[str, float], trace: list) -> Dict[str, float]:
        import random
        arm = max(self.arms, key=lambda a: random.betavariate(a.successes, a.failures))
        return {k: v * arm.scale for k, v in current.items() if isinstance(v, float)}

    def update(self, scale: float, improved: bool) -> None:
        for arm in self.arms:
            if arm.scale == scale:
                arm.successes += improved
                arm.failures += not improved

class ExperimentRunner:
    """The runner, with the mechanism imported."""
    def __init__(self, task):
        self.task = task
        self.trace = []
        self.applied = False

    def run(self, iterations: int = 30):
        for _ in range(iterations):
            result = self.task.evaluate(self.task.propose(self.trace))
            self.trace.append(result)

def load_mechanism(path: str):
    spec = importlib.util.spec_from_file_location("mechanism", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["mechanism"] = module
    spec.loader.exec_module(module)
    return module
