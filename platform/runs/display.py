"""What a page says about each mechanism of a run: n, kept, best, and the gain where it is known.

The judgement is `runs.attribution`'s; this turns it into rows and words.
"""

from __future__ import annotations

from typing import Any

from runs.models import Run


def attribution_rows(run: Run) -> list[dict[str, Any]]:
    """One row a mechanism in the order of its first trial, without the baseline."""
    rows: dict[str, dict[str, Any]] = {}
    for trial in run.trials.exclude(digest="").order_by("number"):
        row = rows.setdefault(
            trial.digest,
            {"name": trial.mechanism, "digest": trial.digest, "n": 0, "kept": 0, "best": None},
        )
        row["n"] += 1
        row["kept"] += trial.status == "kept"
        if trial.metric is not None:
            known = [trial.metric] if row["best"] is None else [trial.metric, row["best"]]
            row["best"] = min(known) if run.minimize else max(known)
        row["words"] = "not enough data"
    return list(rows.values())
