"""The table of an ablation as Markdown and as JSON. The same records give the same bytes: no times,
no host, every number rounded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runner.arms import statistics as tests
from runner.arms.runs import Record
from runner.arms.score import Arm, Scores, Yardstick, activation, identical
from runner.arms.spec import ARMS, REFERENCE, Mechanisms
from runner.foreign import Foreign

DIGITS = 6
MAX_MECHANISMS = 12
PLACEBO = "P"


def as_json(
    settings: Mapping[str, Any],
    scores: Scores,
    records: Mapping[str, Sequence[Record]],
    stick: Yardstick,
    beside: Sequence[Foreign],
) -> str:
    """Everything, for machines; losses are lower-is-better, whatever the metric."""
    body = {
        "format": "escapement arms v1",
        "settings": dict(settings),
        "test": tests.TEST,
        "optimum": stick.optimum,
        "sigma": stick.sigma,
        "target": stick.target,
        "best_tuner": scores.best_tuner,
        "arms": {x: _arm_data(arm, records[x]) for x, arm in scores.arms.items()},
        "comparisons": [
            {
                "arm": c.arm,
                "other": c.other,
                "p": c.p,
                **asdict(c.result),
                "p_uncorrected": c.result.p,
            }
            | {"p": c.p}
            for c in scores.comparisons
        ],
        "same_as_A": _same(records),
        "beside": [f.to_data() for f in beside],
    }
    return json.dumps(_rounded(body), sort_keys=True, indent=1, allow_nan=False) + "\n"


def _arm_data(arm: Arm, records: Sequence[Record]) -> dict[str, Any]:
    return {
        "title": ARMS[arm.letter].title,
        "prior": records[0].prior,
        "level2": records[0].level2,
        "n": len(arm.final),
        "final": list(arm.final),
        "start": list(arm.start),
        "final_summary": asdict(tests.summary(arm.final)),
        "gain": asdict(arm.gain),
        "at": {str(n): asdict(s) for n, s in arm.at.items()},
        "reached": list(arm.reached),
        "failures": arm.failures,
        "trainings": arm.trainings,
        "curves": [list(c) for c in arm.curves],
        "activation": activation(records),
        "events": [[dict(e) for e in r.events] for r in records],
    }


def _same(records: Mapping[str, Sequence[Record]]) -> dict[str, int]:
    if REFERENCE not in records:
        return {}
    rows = records[REFERENCE]
    return {x: identical(rows, other) for x, other in records.items() if x != REFERENCE}


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DIGITS) + 0.0  # never -0.0
    if isinstance(value, Mapping):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return value


# --- Markdown ------------------------------------------------------------------------------------


def as_markdown(
    settings: Mapping[str, Any],
    scores: Scores,
    records: Mapping[str, Sequence[Record]],
    stick: Yardstick,
    beside: Sequence[Foreign],
) -> str:
    """The tables, for people."""
    parts = [
        f"# Arms on {settings['task']}",
        _about(settings, stick),
        _main_table(scores, stick),
        _comparisons(scores),
        _activation(records),
        _beside(beside),
        "![Curves](curves.svg)",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(settings: Mapping[str, Any], stick: Yardstick) -> str:
    lines = [
        f"{settings['trials']} trainings an arm beside the shared baseline, "
        f"{settings['repeats']} repeats, seed {settings['seed']}. Metric: {settings['metric']} "
        f"({'lower' if settings['minimize'] else 'higher'} is better). "
        f"Task digest `{settings['task_digest'][:16]}`.",
        f"Level 1: {settings['prior']}. Level 2: {settings['level2']}, after every "
        f"{settings['level2_every']} trials. Mechanisms were screened by the gate and approved by "
        f"a policy made for this benchmark ({settings['policy']}); see `gate.jsonl`.",
    ]
    if stick.optimum is not None:
        best = _number(stick.sign * stick.optimum)
        lines.append(
            f"Known optimum: {best}; noise of one training (sigma): {_number(stick.sigma)}. "
            "*Regret*: what the answer's mean of all recorded trainings lacks to the optimum."
        )
    else:
        lines.append(
            "*Loss* at a checkpoint is the answer's as measured on the way, which flatters all of "
            "them; *gain* and the comparisons are of the answer trained anew with fresh seeds."
        )
    if stick.target is not None:
        lines.append(f"Target: {_number(stick.sign * stick.target)}.")
    return "\n\n".join(lines)


def _main_table(scores: Scores, stick: Yardstick) -> str:
    name = "regret" if stick.optimum is not None else "loss"
    points = list(next(iter(scores.arms.values())).at)
    head = ["arm", "", "n", "gain (mean, sd)", "95 % interval"]
    head += [f"{name} at {n}" for n in points]
    if stick.target is not None:
        head.append("to target (median; reached)")
    rows = []
    for letter, arm in scores.arms.items():
        gain = arm.gain
        row = [letter, ARMS[letter].title, str(gain.n)]
        row += [f"{_number(gain.mean)}, {_number(gain.sd)}", _interval(gain)]
        row += [f"{_number(arm.at[n].mean)} ({_interval(arm.at[n])})" for n in points]
        if stick.target is not None:
            row.append(_reached(arm))
        rows.append(row)
    return _table(head, rows)


def _reached(arm: Arm) -> str:
    """The median over all repeats, those that never got there counted as later than any."""
    known = sorted(n for n in arm.reached if n is not None)
    middle = len(arm.reached) // 2
    median = str(known[middle]) if len(known) > middle else "never"
    return f"{median}; {len(known)} of {len(arm.reached)}"


def _comparisons(scores: Scores) -> str:
    if not scores.comparisons:
        return ""
    rows = []
    for c in scores.comparisons:
        d = c.result.difference
        words = "identical in every repeat" if c.result.identical else ""
        p = "too few repeats" if c.p is None else "1" if c.p == 1 else f"{c.p:.2g}"
        rows.append(
            [
                f"{c.arm} - {c.other}",
                f"{_number(d.mean)} ({_interval(d)})",
                f"{c.result.better} / {c.result.worse}",
                p,
                words,
            ]
        )
    head = ["at the end", "difference (95 %)", "better / worse", "p", ""]
    best = f" The best tuner is {scores.best_tuner}." if scores.best_tuner else ""
    return f"Differences below zero are better. {tests.TEST}.{best}\n\n{_table(head, rows)}"


def _activation(records: Mapping[str, Sequence[Record]]) -> str:
    rows = []
    for letter, runs in records.items():
        if ARMS[letter].mechanisms is Mechanisms.NONE:
            continue
        used = activation(runs)
        for row in used[:MAX_MECHANISMS]:
            hooks = row["hooks"]
            rows.append(
                [
                    letter,
                    row["mechanism"],
                    f"`{row['digest'][:12]}`" if row["digest"] else "in process",
                    str(row["repeats"]),
                    str(row["trials"]),
                    f"{hooks['propose_calls']} / {hooks['accept_calls']}",
                    str(hooks["proposals_changed"]),
                    str(hooks["acceptances_changed"]),
                    str(hooks["raised"]),
                ]
            )
        if len(used) > MAX_MECHANISMS:
            rest = used[MAX_MECHANISMS:]
            trials = sum(row["trials"] for row in rest)
            rows.append([letter, f"{len(rest)} more (arms.json)", "", "", str(trials)] + [""] * 4)
    if not rows:
        return ""
    head = ["arm", "mechanism", "digest", "repeats", "trials", "propose / accept calls"]
    head += ["proposals changed", "acceptances changed", "raised"]
    text = "What chose the trials, counted outside the sandbox:\n\n" + _table(head, rows)
    if PLACEBO in records and REFERENCE in records:
        same = identical(records[REFERENCE], records[PLACEBO])
        text += (
            f"\n\nArm P did exactly the trainings of arm A, with the same outcomes, in {same} of "
            f"{len(records[PLACEBO])} repeats."
        )
    return text


def _beside(beside: Sequence[Foreign]) -> str:
    if not beside:
        return ""
    rows = [
        [f.name, f.format, str(len(f.trials)), str(f.broken_count), _number(f.best)] for f in beside
    ]
    head = ["foreign trace", "format", "trials", "broken rows", "best"]
    return "Shown beside (other task, other host: no comparison):\n\n" + _table(head, rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _interval(summary: tests.Summary) -> str:
    if summary.low is None or summary.high is None:
        return "n = 1"
    return f"{_number(summary.low)} to {_number(summary.high)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{round(value, 4) + 0.0:.4f}"
