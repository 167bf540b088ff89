"""The right base class, and the hooks of another library."""

from __future__ import annotations

from typing import Any, Dict, List

from sandbox.mechanism import Candidate, Mechanism, Trial, View


class ScaleBandit(Mechanism):
    """Picks the scale of the next step with a bandit."""

    name = "scale_bandit"

    def __init__(self) -> None:
        self.counts: Dict[str, int] = {}
        self.values: Dict[str, float] = {}

    def suggest(self, view: View, n_suggestions: int = 1) -> List[Candidate]:
        scale = max(self.values, key=self.values.get, default="small")
        return view.ask(f"Make a {scale} step.", n_suggestions)

    def should_accept(self, trial: Trial, view: View) -> bool:
        return trial.metric is not None and view.better(trial.metric, view.best.metric * 1.01)

    def update(self, trial: Trial, reward: float) -> None:
        self.counts["small"] = self.counts.get("small", 0) + 1
        self.values["small"] = reward

    def get_state(self) -> Dict[str, Any]:
        return {"counts": self.counts, "values": self.values}
