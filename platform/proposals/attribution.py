"""What a proposal's mechanism did since it went live, for its page: counts, and its gain against
what was live before it, over all runs of its target.

The numbers are `runs.attribution`'s; which trials are compared is said here. Nothing is judged:
the canary does that, by the policy.
"""

from __future__ import annotations

from typing import Any

from runs import attribution
from runs.display import attribution_rows, gain_in_words, measured
from runs.models import Trial

from proposals.canary import predecessor, trials_of
from proposals.models import Activation, Proposal

MAX_RUNS = 5


def production_of(subject: Proposal) -> dict[str, Any]:
    """The context of `_production.html`."""
    activations = list(subject.activations.select_related("target"))
    if not activations:
        return {"production": None}
    rows = Trial.objects.filter(digest=subject.digest, run__target=subject.target)
    trials = list(rows.select_related("run").order_by("finished_at", "number"))
    runs = list({t.run_id: t.run for t in reversed(trials)}.values())
    lived = [a for a in activations if a.live_at is not None]
    return {
        "activations": activations,
        "production": {
            "trials": len(trials),
            "counts": attribution.count(trials),
            "against": [_against(activation) for activation in lived],
            "runs": [
                {
                    "run": run,
                    "rows": attribution_rows(run, of=subject.digest),
                    "measured": measured(run),
                }
                for run in runs[:MAX_RUNS]
            ],
            "more_runs": max(len(runs) - MAX_RUNS, 0),
        },
    }


def _against(activation: Activation) -> dict[str, Any]:
    """One activation against its predecessor on the target."""
    earlier = predecessor(activation)
    if earlier is None:
        words, tone = "nothing was live before it", ""
    else:
        trials = trials_of(activation)
        gain = attribution.compare(trials, trials_of(earlier))
        words, tone = gain_in_words(gain, changed=attribution.count(trials).decisions_changed)
    return {
        "version": activation.version,
        "earlier": earlier,
        "words": words,
        "tone": tone,
        "canary": activation.canary,
    }
