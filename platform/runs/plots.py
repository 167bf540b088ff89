"""A run as a drawing: spans of mechanisms, the noise around the baseline, and the chart for paper
and for browsers without script.

Data in, SVG out; the live plot is drawn in the browser from `plot_data`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from runs.models import Run, Trial

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 300, 58, 8, 14, 22
COLOURS = 8
MAX_POINTS = 2000


@dataclass(frozen=True, kw_only=True)
class Span:
    """Consecutive trials that one mechanism chose. Colour 0 is the baseline."""

    name: str
    digest: str
    first: int
    last: int
    colour: int


def colours_of(trials: Sequence[Trial]) -> dict[str, int]:
    """Digest -> number of a colour, in the order of appearance; the baseline has 0."""
    colours = {"": 0}
    for trial in trials:
        if trial.digest not in colours:
            colours[trial.digest] = 1 + (len(colours) - 1) % (COLOURS - 1)
    return colours


def spans_of(trials: Sequence[Trial]) -> list[Span]:
    """The spans, oldest first."""
    colours = colours_of(trials)
    spans: list[Span] = []
    for trial in trials:
        name = trial.mechanism or "baseline"
        goes_on = bool(spans) and spans[-1].digest == trial.digest
        first = spans.pop().first if goes_on else trial.number
        spans.append(
            Span(
                name=name,
                digest=trial.digest,
                first=first,
                last=trial.number,
                colour=colours[trial.digest],
            )
        )
    return spans


def noise_band(run: Run) -> tuple[float, float, float] | None:
    """The pooled baseline, and one sigma below and above it; None where they are not known."""
    mean = (run.noise or {}).get("mean")
    if mean is None or run.sigma is None:
        return None
    return mean, mean - run.sigma, mean + run.sigma


def plot_data(run: Run, trials: Sequence[Trial]) -> dict[str, Any]:
    """What the live plot is drawn from."""
    return {
        "metric": run.metric,
        "minimize": run.minimize,
        "noise": noise_band(run),
        "trials": [
            {
                "number": t.number,
                "metric": t.metric,
                "best": t.best_metric,
                "status": t.status,
                "failure": t.failure,
                "measurements": max(len(t.repeats), 1),
                "mechanism": t.mechanism,
                "changes": ", ".join(f"{k}={v}" for k, v in list(t.changes.items())[:6])[:200],
            }
            for t in trials
        ],
        "spans": [
            {"name": s.name, "first": s.first, "last": s.last, "colour": s.colour}
            for s in spans_of(trials)
        ],
    }


def chart(run: Run, trials: Sequence[Trial]) -> SafeString:
    """The same as SVG."""
    trials = trials[-MAX_POINTS:]
    values = [t.metric for t in trials if t.metric is not None]
    if not values:
        return format_html('<p class="muted">{}</p>', "No trial has measured a value yet.")
    noise = noise_band(run)
    low, high = min(*values, *(noise or values)), max(*values, *(noise or values))
    pad = (high - low) * 0.06 or abs(high) * 0.01 or 1.0
    low, high = low - pad, high + pad
    first, last = trials[0].number, max(trials[-1].number, trials[0].number + 5)

    def x(number: float) -> float:
        return round(LEFT + (number - first + 0.5) / (last - first + 1) * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        return round(TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    bands = format_html_join(
        "",
        '<rect class="span band-{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
        (
            (s.colour, x(s.first - 0.5), TOP, round(x(s.last + 0.5) - x(s.first - 0.5), 1),
             HEIGHT - TOP - BOTTOM, s.name)
            for s in spans_of(trials)
        ),
    )  # fmt: skip
    ticks = [low + (high - low) * step / 4 for step in range(5)]
    grid = format_html_join(
        "",
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text x="{}" y="{}" text-anchor="end">{}</text>',
        ((LEFT, WIDTH - RIGHT, y(t), y(t), LEFT - 6, y(t) + 4, f"{t:.4g}") for t in ticks),
    )
    every = max(1, round((last - first) / 10))
    below = format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="middle">{}</text>',
        ((x(n), HEIGHT - 6, n) for n in range(first, last + 1, every)),
    )
    held = next((t.best_metric for t in reversed(trials) if t.best_metric is not None), None)
    told = "no best yet" if held is None else f"best {held:.4f}"
    return format_html(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '{}{}{}{}<path class="best" d="{}"/>{}</svg>',
        WIDTH,
        HEIGHT,
        f"{run.metric} over {len(trials)} trials; {told}",
        bands,
        _noise(noise, y),
        grid,
        below,
        _best_path(trials, x, y),
        _marks(trials, x, y, low),
    )


def _noise(noise: tuple[float, float, float] | None, y: Any) -> SafeString:
    if noise is None:
        return SafeString("")
    mean, low, high = (y(value) for value in noise)
    return format_html(
        '<rect class="noise" x="{}" y="{}" width="{}" height="{}"><title>baseline and one sigma'
        '</title></rect><line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>',
        LEFT, high, WIDTH - LEFT - RIGHT, round(low - high, 1), LEFT, WIDTH - RIGHT, mean, mean,
    )  # fmt: skip


def _best_path(trials: Sequence[Trial], x: Any, y: Any) -> str:
    parts: list[str] = []
    for trial in trials:
        if trial.best_metric is not None:
            parts.append(
                f"H{x(trial.number)}V{y(trial.best_metric)}"
                if parts
                else f"M{x(trial.number)} {y(trial.best_metric)}"
            )
    return "".join(parts)


def _marks(trials: Sequence[Trial], x: Any, y: Any, low: float) -> SafeString:
    rows = []
    for t in trials:
        tip = f"trial {t.number}: {t.status}"
        if t.metric is None:
            cx, cy = x(t.number), y(low) - 8
            path = f"m{cx - 4} {cy - 4} 8 8m0-8-8 8"
            rows.append(
                format_html(
                    '<path class="failed" d="{}"><title>{} {}</title></path>', path, tip, t.failure
                )
            )
        else:
            kind = "kept" if t.status == "kept" else "discarded"
            rows.append(
                format_html(
                    '<circle class="{}" cx="{}" cy="{}" r="3.5"><title>{}, {}</title></circle>',
                    kind,
                    x(t.number),
                    y(t.metric),
                    tip,
                    f"{t.metric:.4f}",
                )
            )
    return format_html_join("", "{}", ((row,) for row in rows))
