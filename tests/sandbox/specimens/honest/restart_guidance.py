"""Restart by words alone: after a long streak of discards, guide the prior elsewhere."""

from sandbox.mechanism import Candidate, Mechanism, View

PATIENCE = 4


class RestartGuidance(Mechanism):
    name = "restart_guidance"

    def propose(self, view: View, count: int) -> list[Candidate]:
        streak = 0
        for trial in reversed(view.trace):
            if trial.status == "kept":
                break
            streak += 1
        if streak < PATIENCE:
            return view.ask(count=count)
        used = {name for trial in view.trace[-streak:] for name in trial.changes}
        fresh = [name for name in view.free() if name not in used] or view.free()
        return view.ask(f"Start over: {streak} trials gave nothing. Use {', '.join(fresh)}.", count)
