"""The table of an ablation as Markdown and as JSON. The same records give the same bytes: no times,
no host but that of the trainings, every number rounded. What is compared is `score`'s business.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runner.arms import statistics as tests
from runner.arms.runs import Record
from runner.arms.score import Arm, Scores, Yardstick, activation, identical
from runner.arms.spec import ARMS, REFERENCE, Mechanisms
from runner.foreign import Foreign

DIGITS = 6
MAX_PLACES = 8
LARGE = 1e7
MAX_MECHANISMS = 12
PLACEBO = "P"
HOST_FACTS = ("cpu", "gpu", "cores", "system", "python", "torch")
P_VALUES = frozenset({"p", "p_uncorrected"})  # never rounded to zero


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
        "noise": stick.noise,
        "host": dict(stick.host),
        "target": stick.target,
        "best_tuner": scores.best_tuner,
        "arms": {x: _arm_data(arm, records[x]) for x, arm in scores.arms.items()},
        "comparisons": [
            asdict(c.result)
            | {"arm": c.arm, "other": c.other, "p": c.p, "p_uncorrected": c.result.p}
            for c in scores.comparisons
        ],
        "same_as_A": _same(records),
        "without_mechanism": _idle(records),
        "beside": [f.to_data() for f in beside],
    }
    plain = _rounded(body, DIGITS + stick.more_digits)
    return json.dumps(plain, sort_keys=True, indent=1, allow_nan=False) + "\n"


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


def _rounded(value: Any, digits: int) -> Any:
    if isinstance(value, float):
        return round(value, digits) + 0.0  # never -0.0
    if isinstance(value, Mapping):
        return {
            str(key): float(f"{item:.6g}") if key in P_VALUES and item else _rounded(item, digits)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_rounded(item, digits) for item in value]
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
        _comparisons(scores, stick),
        _activation(scores, records, stick),
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
        _levels(settings),
    ]
    sigma = "not known" if stick.sigma is None else f"{_number(stick.sigma, stick)}, {stick.noise}"
    host = ", ".join(f"{n} {_line(stick.host[n])}" for n in HOST_FACTS if n in stick.host)
    recorded = " (recorded)" if stick.host.get("recorded") else ""
    lines.append(f"Noise of one training (sigma): {sigma}. Trained on{recorded}: {host}.")
    if stick.optimum is not None:
        best = _number(stick.sign * stick.optimum, stick)
        lines.append(
            f"Known optimum: {best}. *Regret*: what the answer's mean of all recorded trainings "
            "lacks to the optimum, which is the best such mean."
        )
    else:
        lines.append(
            "*Loss* at a checkpoint is the answer's as measured on the way, which flatters all of "
            "them; *gain* and the comparisons are of the answer trained anew with fresh seeds."
            + ("" if settings["minimize"] else " A loss is the metric with its sign turned.")
        )
    if stick.target is not None:
        lines.append(f"Target: {_number(stick.sign * stick.target, stick)}.")
    return "\n\n".join(lines)


def _levels(settings: Mapping[str, Any]) -> str:
    """What the levels were, and how mechanisms were approved where arms of this table have any."""
    used = {ARMS[letter].mechanisms for letter in settings["arms"]}
    text = f"Level 1: {settings['prior']}. Level 2: {settings['level2']}"
    if Mechanisms.LEVEL2 in used:
        text += f", after every {settings['level2_every']} trials"
    if used == {Mechanisms.NONE}:
        return f"{text}. No arm of this table has mechanisms."
    return (
        f"{text}. Mechanisms were screened by the gate and approved by "
        f"a policy made for this benchmark ({settings['policy']}); see `gate.jsonl`."
    )


def _main_table(scores: Scores, stick: Yardstick) -> str:
    name = "regret" if stick.optimum is not None else "loss"
    points = list(next(iter(scores.arms.values())).at)
    head = ["arm", "", "n", "gain (mean, sd)", "95 % interval", "in sigma (95 %)"]
    head += [f"{name} at {n}" for n in points]
    if stick.target is not None:
        head.append("to target (median; reached)")
    head.append("trainings (failed)")
    rows = []
    for letter, arm in scores.arms.items():
        gain = arm.gain
        row = [letter, ARMS[letter].title, str(gain.n)]
        row += [f"{_number(gain.mean, stick)}, {_number(gain.sd, stick)}", _interval(gain, stick)]
        row.append(_in_sigma(gain, stick))
        row += [f"{_number(arm.at[n].mean, stick)} ({_interval(arm.at[n], stick)})" for n in points]
        if stick.target is not None:
            row.append(_reached(arm))
        row.append(f"{arm.trainings} ({arm.failures})")
        rows.append(row)
    return _table(head, rows)


def _reached(arm: Arm) -> str:
    """The median over all repeats, those that never got there counted as later than any."""
    known = [n for n in arm.reached if n is not None]
    median = statistics.median(math.inf if n is None else n for n in arm.reached)
    words = "never" if math.isinf(median) else f"{median:g}"
    return f"{words}; {len(known)} of {len(arm.reached)}"


def _comparisons(scores: Scores, stick: Yardstick) -> str:
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
                f"{_number(d.mean, stick)} ({_interval(d, stick)})",
                f"{c.result.better} / {c.result.worse}",
                p,
                words,
            ]
        )
    head = ["at the end", "difference (95 %)", "better / worse", "p", ""]
    best = ""
    if scores.best_tuner:
        best = (
            f" The best tuner is {scores.best_tuner}: it has the least mean loss at the end in "
            "these very repeats, which flatters it (U, random, is not counted as a tuner)."
        )
    return f"Differences below zero are better. {tests.TEST}.{best}\n\n{_table(head, rows)}"


def _idle(records: Mapping[str, Sequence[Record]]) -> dict[str, int]:
    """Of each arm with Level 2: in how many repeats no mechanism of its chose a trial."""
    return {
        letter: sum(not any(m["digest"] for m in run.mechanisms) for run in runs)
        for letter, runs in records.items()
        if ARMS[letter].mechanisms is Mechanisms.LEVEL2
    }


def _activation(scores: Scores, records: Mapping[str, Sequence[Record]], stick: Yardstick) -> str:
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
    for letter, count in _idle(records).items():
        if count:
            plain = "B" if ARMS[letter].steered else "A"
            text += (
                f"\n\n**In {count} of {len(records[letter])} repeats of arm {letter} no mechanism "
                f"of Level 2 chose a trial**: there it is arm {plain} under another name."
            )
    return text + _placebo(scores, records, stick)


def _placebo(scores: Scores, records: Mapping[str, Sequence[Record]], stick: Yardstick) -> str:
    """What the placebo did against arm A, in words."""
    if PLACEBO not in records or REFERENCE not in records:
        return ""
    same, n = identical(records[REFERENCE], records[PLACEBO]), len(records[PLACEBO])
    text = (
        f"\n\nArm P did exactly the trainings of arm A, with the same outcomes, in {same} of {n} "
    )
    text += "repeats."
    if same < n:
        found = next(c for c in scores.comparisons if (c.arm, c.other) == (PLACEBO, REFERENCE))
        d = found.result.difference
        text += f" P - A at the end: {_number(d.mean, stick)} ({_interval(d, stick)}), n = {d.n}"
        text += f"; in sigma: {_in_sigma(d, stick)}."
    return text


def _beside(beside: Sequence[Foreign]) -> str:
    if not beside:
        return ""
    rows = [
        [
            _cell(f.name),
            f.format,
            str(len(f.trials)),
            str(f.broken_count),
            "-" if f.best is None else f"{f.best:.6g}",
            "lower" if f.minimize else "higher",
        ]
        for f in beside
    ]
    head = ["foreign trace", "format", "trials", "broken rows", "best kept", "better is"]
    return "Shown beside (other task, other host: no comparison):\n\n" + _table(head, rows)


def _cell(text: str) -> str:
    """Text from outside in one cell of a table."""
    return "".join(c if c.isprintable() and c not in "|`<>[]*_\\" else " " for c in text)[:80]


def _line(fact: Any) -> str:
    """A fact of a host, which a recorded surface may say as it likes, on one line."""
    return "".join(c if c.isprintable() and c not in "<>" else " " for c in str(fact))[:120]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _interval(summary: tests.Summary, stick: Yardstick) -> str:
    if summary.low is None or summary.high is None:
        return "n = 1"
    return f"{_number(summary.low, stick)} to {_number(summary.high, stick)}"


def _in_sigma(summary: tests.Summary, stick: Yardstick) -> str:
    """A difference in units of the noise, with its interval."""
    if not stick.sigma:
        return "noise not known" if stick.sigma is None else "noise is 0"
    value = f"{summary.mean / stick.sigma + 0.0:.2f}"
    if summary.low is None or summary.high is None:
        return f"{value} (n = 1)"
    return f"{value} ({summary.low / stick.sigma:.2f} to {summary.high / stick.sigma:.2f})"


def _number(value: float | None, stick: Yardstick) -> str:
    """Four places, or as many as the size of the metric asks for; powers of ten where those would
    be unreadable."""
    if value is None:
        return "-"
    places = 4 + stick.more_digits
    short = round(value, places) + 0.0
    plain = stick.scale < LARGE and places <= MAX_PLACES
    return f"{short:.{places}f}" if plain else f"{short:.5g}"
