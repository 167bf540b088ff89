"""The placebo: every hook is its own, and not one decision is.

It is the control of the arms: whatever changes with it was changed by the machinery around it.
"""

from typing import Any

from sandbox.mechanism import Candidate, Mechanism, Trial, View


class Placebo(Mechanism):
    """Asks the prior as plain Level 1 does, keeps what plain Level 1 keeps, and counts trials."""

    name = "placebo"

    def __init__(self) -> None:
        self.seen = 0

    def propose(self, view: View, count: int) -> list[Candidate]:
        """What the prior says."""
        return view.ask(count=count)

    def accept(self, trial: Trial, view: View) -> bool:
        """The default rule."""
        return super().accept(trial, view)

    def observe(self, trial: Trial, view: View) -> None:
        """Count it."""
        self.seen += 1

    def state(self) -> dict[str, Any]:
        """How many trials were seen."""
        return {"seen": self.seen}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.seen = int(state["seen"])
