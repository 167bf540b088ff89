"""What a page says of a run and of each mechanism in it: n, kept, best, noise, gains in words.

The numbers are `runs.attribution`'s; this only lines them up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from runs import attribution
from runs.models import Run, Trial

MAX_ROWS = 30
UNREAD = ("config", "changes", "reason", "message", "repeats")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stretch of trials that one mechanism chose, against the stretch before it."""

    name: str
    digest: str
    first: int
    last: int
    n: int
    failed: int
    kept: int
    calls: int
    decisions_changed: int
    proposals_changed: int
    acceptances_changed: int
    raised: int
    held_before: float | None
    held_after: float | None
    tone: str
    words: str
    earlier: int  # stretches of the run before this one


def attribution_rows(run: Run, *, of: str = "") -> list[Row]:
    """The latest MAX_ROWS stretches in order, without the baseline; where there are more, those of
    the mechanism with the digest `of` alone, if one is given."""
    trials = list(run.trials.order_by("number").defer(*UNREAD))
    held = trials[0].best_metric if trials else None
    trials = [t for t in trials if t.number]
    stretches = [list(group) for _, group in groupby(trials, key=lambda t: t.digest)]
    shown = list(range(len(stretches)))
    if of and len(shown) > MAX_ROWS:
        shown = [index for index in shown if stretches[index][0].digest == of]
    rows = []
    for index in shown[-MAX_ROWS:]:
        stretch = stretches[index]
        counts = attribution.count(stretch)
        before = stretches[index - 1][-1].best_metric if index else held
        words, tone = _gain(run, stretch, stretches[index - 1] if index else [])
        rows.append(
            Row(
                earlier=index,
                name=stretch[0].mechanism or "none",
                digest=stretch[0].digest,
                first=stretch[0].number,
                last=stretch[-1].number,
                n=counts.trials,
                failed=counts.failed,
                kept=counts.kept,
                calls=counts.calls,
                decisions_changed=counts.decisions_changed,
                proposals_changed=counts.hooks["proposals_changed"],
                acceptances_changed=counts.hooks["acceptances_changed"],
                raised=counts.hooks["raised"],
                held_before=before,
                held_after=counts.last_best,
                tone=tone,
                words=words,
            )
        )
    return rows


def _gain(run: Run, after: list[Trial], before: list[Trial]) -> tuple[str, str]:
    if not before:
        return "nothing before it to compare with", ""
    if run.sigma is None:
        return "not enough data (the noise was not measured)", ""
    if not run.sigma:
        return "no gain in sigma (the noise was measured as 0)", ""
    gain = attribution.gain(after, before, unit=run.sigma, minimize=run.minimize)
    return gain_in_words(gain, changed=attribution.count(after).decisions_changed)


def gain_in_words(gain: attribution.Gain | None, *, changed: int) -> tuple[str, str]:
    """A gain with n and interval, and its tone; or that there is not enough data. What `changed`
    no decision can't have gained or lost anything: it gets no tone."""
    if gain is None:
        return f"not enough data (at least {attribution.MIN_TRIALS} measured trials each)", ""
    tone = "good" if gain.low > 0 else "bad" if gain.high < 0 else ""
    if tone and not changed:
        return f"{gain}: not its doing, it changed no decision", ""
    return str(gain), tone


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How a run was measured, wherever a gain of it is shown: noise with n, host, rules, counts."""

    sigma: float | None
    noise_words: str
    rule: str
    trainings: str
    memory: str


def measured(run: Run) -> Measured:
    """What to say of a run's noise and rules."""
    noise, rules = run.noise or {}, run.measuring or {}
    words = "not measured"
    if noise.get("sigma") is not None:
        runs = noise["runs"]
        where = f" in {runs} runs pooled" if runs > 1 else ""
        words = f"of {noise['n']} baseline measurements{where}, on {noise['host'] or 'one host'}"
        if left_out := noise.get("left_out"):
            words += f"; {left_out} more of it differ by more than noise and are left out"
    elif run.sigma is not None:
        words = "of the baseline's repeats"
    k = rules.get("keep_sigma")
    rule = "any gain is kept" if not k else f"a gain above {k:g} sigma is kept"
    if k and rules.get("confirmations"):
        rule += f"; a smaller one is trained again (at most {rules['confirmations']} times)"
    trainings = "not reported"
    if rules:
        done = f"{rules['baseline']} baseline, {rules['confirming']} confirming"
        trainings = f"{done}, {rules['final']} of the best anew; {rules['parallel']} at once"
    memory = ""
    if rules.get("memory"):
        memory = f"{rules['earlier_runs']} earlier runs offered to the prior ({rules['memory']})"
    return Measured(
        sigma=run.sigma, noise_words=words, rule=rule, trainings=trainings, memory=memory
    )


def result_words(run: Run) -> tuple[str, str]:
    """What the run found in the end, and its tone."""
    result = run.result
    if not result:
        return "the best is measured anew when the run ends", ""
    if not result["trial"]:
        so_far = " so far" if run.state == "running" else ""
        return f"no trial was better than the baseline by the run's rule{so_far}", ""
    if not result["metrics"]:
        return f"trial {result['trial']} failed each time it was measured anew", "bad"
    n, n_baseline = len(result["metrics"]), (run.noise or {}).get("n", 0)
    counts = f"n = {n} against {n_baseline}"
    if result.get("failed"):
        counts += f", {result['failed']} failed"
    if result["sigmas"] is None:
        why = "noise not known" if run.sigma is None else "noise measured as 0"
        return f"gain {result['gain']:+.4g}, {counts}, {why}", ""
    tone = "good" if result["low"] > 0 else "bad" if result["high"] < 0 else ""
    return (
        f"{result['sigmas']:+.1f} sigma (95 %: {result['low']:+.1f} to {result['high']:+.1f}; "
        f"{counts})",
        tone,
    )


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look of Level 2. `number`: its proposal, 0 where none came of it."""

    after_trial: int
    outcome: str
    words: str
    generator: str
    at: datetime | None
    number: int


def looks(run: Run) -> tuple[list[Look], int]:
    """What came of Level 2's latest looks, newest first, and how many older ones are not told."""
    report = run.level2 or {"looks": 0, "outcomes": []}
    told = report["outcomes"]
    known = run.proposal_set.filter(draft_id__in=[o["draft_id"] for o in told])
    numbers = {str(draft_id): pk for draft_id, pk in known.values_list("draft_id", "pk")}
    rows = [
        Look(
            after_trial=one["after_trial"],
            outcome=one["outcome"],
            words=one["reason"] or one["title"],
            generator=one["generator"],
            at=datetime.fromisoformat(one["at"]) if one["at"] else None,
            number=numbers.get(one["draft_id"], 0),
        )
        for one in reversed(told)
    ]
    return rows, max(report["looks"] - len(rows), 0)
