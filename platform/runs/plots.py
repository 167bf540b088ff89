"""A run as a drawing: spans of mechanisms, the noise around the baseline, and the chart for paper
and for browsers without script.

Data in, SVG out; the live plot is drawn in the browser from `plot_data`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from runs.models import Run, Trial

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 300, 58, 8, 14, 22
COLOURS = 8
MAX_POINTS = 1000
MAX_SPANS = 100
FAR_OUT = 20  # quartile distances beyond the quartiles: such a value would flatten all others
LARGEST, SMALLEST = 1e300, 1e-290  # beyond, differences are no numbers any more


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


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What the axis shows. `worst`: where a trial that measured nothing is drawn."""

    low: float
    high: float
    worst: float

    def outside(self, value: float | None) -> bool:
        """Whether a measured value is off the scale."""
        return value is not None and not self.low <= value <= self.high

    def clipped(self, value: float) -> float:
        """The value, or the edge that it lies beyond."""
        return min(max(value, self.low), self.high)


def scale_of(run: Run, trials: Sequence[Trial]) -> Scale | None:
    """An axis for all values but those far out, with room for names above; None without a value.

    The best that is held now is always on it."""
    metrics = [_bounded(t.metric) for t in trials if t.metric is not None]
    if not metrics:
        return None
    held = [_bounded(t.best_metric) for t in trials if t.best_metric is not None]
    shown = [*metrics, *held, *map(_bounded, noise_band(run) or ())]
    if len(metrics) > 3:
        first, _, third = statistics.quantiles(metrics, n=4)
        reach = max(third - first, _bounded(run.sigma or 0.0)) * FAR_OUT
        near = [v for v in shown if first - reach <= v <= third + reach]
        shown = near if reach else shown
    shown += held[-1:]
    low, high = min(shown), max(shown)
    size, room = max(abs(low), abs(high)), high - low
    if room <= max(size * 1e-12, SMALLEST):  # too near for floating point: as if they were one
        room = size * 0.1 if size > SMALLEST else 1.0
    return Scale(
        low=low - room * 0.06,
        high=high + room * 0.12,
        worst=high if run.minimize else low,
    )


def _bounded(value: float) -> float:
    return min(max(value, -LARGEST), LARGEST)


def drawn(trials: Sequence[Trial]) -> list[Trial]:
    """At most about MAX_POINTS of the trials, evenly: first and last, and kept ones first."""
    if len(trials) <= MAX_POINTS:
        return list(trials)
    kept = [i for i, t in enumerate(trials) if t.status == "kept"]
    others = [i for i, t in enumerate(trials) if t.status != "kept"]
    chosen = {0, len(trials) - 1}
    for indices in (kept, others):
        chosen.update(indices[:: max(1, math.ceil(2 * len(indices) / MAX_POINTS))])
    return [trials[i] for i in sorted(chosen)]


def plot_data(run: Run, trials: Sequence[Trial]) -> dict[str, Any]:
    """What the live plot is drawn from."""
    scale = scale_of(run, trials)
    return {
        "metric": run.metric,
        "noise": noise_band(run),
        "low": scale and scale.low,
        "high": scale and scale.high,
        "worst": scale and scale.worst,
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
            for t in drawn(trials)
        ],
        "spans": [
            {"name": s.name, "first": s.first, "last": s.last, "colour": s.colour}
            for s in spans_of(trials)[-MAX_SPANS:]
        ],
    }


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Where a trial and a value are in the drawing."""

    first: int
    last: int
    left: float
    scale: Scale

    def x(self, number: float) -> float:
        share = (number - self.first + 0.5) / (self.last - self.first + 1)
        return round(self.left + share * (WIDTH - self.left - RIGHT), 1)

    def y(self, value: float) -> float:
        share = (self.scale.high - self.scale.clipped(value)) / (self.scale.high - self.scale.low)
        return round(TOP + share * (HEIGHT - TOP - BOTTOM), 1)


def chart(run: Run, trials: Sequence[Trial]) -> SafeString:
    """The same as SVG."""
    scale = scale_of(run, trials)
    if scale is None:
        return format_html('<p class="muted">{}</p>', "No trial has measured a value yet.")
    ticks = [scale.low + (scale.high - scale.low) * step / 4 for step in range(5)]
    labels = _labels(ticks)
    frame = _Frame(
        first=trials[0].number,
        last=max(trials[-1].number, trials[0].number + 5),
        left=max(LEFT, 7 * max(map(len, labels))),
        scale=scale,
    )
    held = next((t.best_metric for t in reversed(trials) if t.best_metric is not None), None)
    told = "no best yet" if held is None else f"best {held:.4f}" if abs(held) < 1e6 else f"{held:g}"
    points = drawn(trials)
    return format_html(
        '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">'
        '{}{}{}{}<path class="best" d="{}"/>{}</svg>',
        WIDTH,
        HEIGHT,
        f"{run.metric} over {len(trials)} trials; {told}",
        _bands(spans_of(trials)[-MAX_SPANS:], frame),
        _noise(noise_band(run), frame),
        _grid(ticks, labels, frame),
        _numbers(frame),
        _best_path(points, frame),
        _marks(points, frame),
    )


def _labels(ticks: Sequence[float]) -> list[str]:
    """As many digits as tell neighbours apart."""
    step, largest = ticks[1] - ticks[0], max(map(abs, ticks))
    digits = min(max(math.ceil(math.log10(largest / step)) + 1, 4), 15)
    return [f"{t:.{digits}g}" for t in ticks]


def _bands(spans: Sequence[Span], frame: _Frame) -> SafeString:
    return format_html_join(
        "",
        '<rect class="span band-{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>',
        (
            (s.colour, left, TOP, round(right - left, 1), HEIGHT - TOP - BOTTOM, s.name)
            for s in spans
            for left, right in ((frame.x(s.first - 0.5), frame.x(s.last + 0.5)),)
        ),
    )  # fmt: skip


def _grid(ticks: Sequence[float], labels: Sequence[str], frame: _Frame) -> SafeString:
    return format_html_join(
        "",
        '<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>'
        '<text x="{}" y="{}" text-anchor="end">{}</text>',
        (
            (frame.left, WIDTH - RIGHT, y, y, frame.left - 6, y + 4, text)
            for y, text in zip(map(frame.y, ticks), labels, strict=True)
        ),
    )


def _numbers(frame: _Frame) -> SafeString:
    every = max(1, round((frame.last - frame.first) / 10))
    return format_html_join(
        "",
        '<text x="{}" y="{}" text-anchor="middle">{}</text>',
        ((frame.x(n), HEIGHT - 6, n) for n in range(frame.first, frame.last + 1, every)),
    )


def _noise(noise: tuple[float, float, float] | None, frame: _Frame) -> SafeString:
    if noise is None:
        return SafeString("")
    mean, low, high = (frame.y(value) for value in noise)
    return format_html(
        '<rect class="noise" x="{}" y="{}" width="{}" height="{}"><title>baseline and one sigma'
        '</title></rect><line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>',
        frame.left, high, WIDTH - frame.left - RIGHT, round(low - high, 1), frame.left,
        WIDTH - RIGHT, mean, mean,
    )  # fmt: skip


def _best_path(trials: Sequence[Trial], frame: _Frame) -> str:
    parts: list[str] = []
    for trial in trials:
        if trial.best_metric is not None:
            x, y = frame.x(trial.number), frame.y(trial.best_metric)
            parts.append(f"H{x}V{y}" if parts else f"M{x} {y}")
    return "".join(parts)


def _marks(trials: Sequence[Trial], frame: _Frame) -> SafeString:
    return format_html_join("", "{}", ((_mark(t, frame),) for t in trials))


def _mark(t: Trial, frame: _Frame) -> SafeString:
    tip, x = f"trial {t.number}: {t.status}", frame.x(t.number)
    if t.metric is None:
        return format_html(
            '<path class="failed" d="{}"><title>{} {}</title></path>',
            f"M{x - 4:.1f} {frame.y(frame.scale.worst) - 4:.1f}l8 8m0-8-8 8", tip, t.failure,
        )  # fmt: skip
    tip = f"{tip}, {t.metric:.6g}"
    kind = "kept" if t.status == "kept" else "discarded"
    y = frame.y(t.metric)
    if frame.scale.outside(t.metric):
        away = 7 if t.metric > frame.scale.high else -7
        return format_html(
            '<path class="{}" d="{}"><title>{}, off the scale</title></path>',
            kind, f"M{x} {y}l-4 {away}h8z", tip,
        )  # fmt: skip
    return format_html(
        '<circle class="{}" cx="{}" cy="{}" r="3.5"><title>{}</title></circle>', kind, x, y, tip
    )
