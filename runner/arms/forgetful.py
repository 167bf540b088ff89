"""Arm R: a prior that forgets. What the published groups with Level 2 really were: every so many
trials the search begins anew with an empty trace.

The prior sees the baseline and the trials since the last restart, as if there had been no others.
What it proposes is given as changes against the run's best, which stays what it is. Not a
mechanism: it is part of the arm, and learns nothing.
"""

from __future__ import annotations

from dataclasses import replace

from runner.interfaces import Prior
from sandbox.mechanism import Candidate, Mechanism, Trial, View


class ForgetfulPrior:
    """Another prior, with a restart every `every` trials."""

    def __init__(self, prior: Prior, *, every: int) -> None:
        self.prior = prior
        self.every = every
        self.label = f"{prior.label}, restarted every {every} trials"

    def ask(self, view: View, guidance: str, count: int) -> list[Candidate]:
        """What the prior proposes from what it still remembers. Raises PriorError."""
        remembered = since_restart(view, self.every)
        found = []
        for candidate in self.prior.ask(remembered, guidance, count):
            whole = remembered.config_of(candidate.changes)
            changes = {n: v for n, v in whole.items() if v != view.best.config.get(n)}
            found.append(Candidate(changes=changes, reason=candidate.reason))
        return found


def since_restart(view: View, every: int) -> View:
    """The view without the trials before the last restart; kept is what was better since then."""
    done = len(view.trace) - 1
    first = done - done % every + 1
    shown = replace(view, trace=view.trace[:1], best=view.trace[0])
    for trial in view.trace[first:]:
        kept = trial.metric is not None and Mechanism().accept(trial, shown)
        seen = _as_seen(trial, shown.best, kept=kept)
        shown = replace(shown, trace=(*shown.trace, seen), best=seen if kept else shown.best)
    return shown


def _as_seen(trial: Trial, best: Trial, *, kept: bool) -> Trial:
    """The trial with its changes against what was best since the restart."""
    changes = {n: v for n, v in trial.config.items() if v != best.config.get(n)}
    if trial.metric is None:
        return replace(trial, changes=changes, status="failed")
    return replace(trial, changes=changes, status="kept" if kept else "discarded")
