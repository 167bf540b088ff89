"""Small drawings as SVG, for pages and for paper: what a mechanism would have changed.

Data in, an SVG string out; every number is ours and every text is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, NARROW, CELL_HEIGHT, TOP, AXIS = 760, 330, 20, 4, 16
MAX_CELLS = 400


def effect_of(row: Mapping[str, Any]) -> str:
    """What differs in one replayed step: changed, accept, both, or nothing."""
    null, mechanism = row.get("null", {}), row.get("mechanism", {})
    proposal = null.get("changes") != mechanism.get("changes")
    accept = null.get("accept") != mechanism.get("accept")
    if proposal and accept:
        return "both"
    if accept:
        return "accept"
    return "changed" if proposal or row.get("changed") else ""


def replay_strip(rows: Sequence[Mapping[str, Any]], label: str, width: int = WIDTH) -> SafeString:
    """One cell a step: upper half the proposal, lower half the acceptance."""
    rows = rows[:MAX_CELLS]
    if not rows:
        return format_html("{}", "")
    pitch = width / len(rows)
    cells = []
    for index, row in enumerate(rows):
        effect = effect_of(row)
        x, wide = round(index * pitch, 2), round(max(pitch - 1, 0.6), 2)
        upper = "changed" if effect in {"changed", "both"} else "step"
        lower = "accept" if effect in {"accept", "both"} else "step"
        half = CELL_HEIGHT / 2
        tip = f"step {row.get('step', index)}: {_said(effect)}"
        cells.append((x, TOP, wide, half - 0.5, upper, x, TOP + half + 0.5, wide, half, lower, tip))
    bars = format_html_join(
        "",
        '<g><rect x="{}" y="{}" width="{}" height="{}" class="{}"/>'
        '<rect x="{}" y="{}" width="{}" height="{}" class="{}"/><title>{}</title></g>',
        cells,
    )
    every = max(1, round(len(rows) / 10 / 5) * 5) if len(rows) > 10 else 1
    labels = format_html_join(
        "",
        '<text x="{}" y="{}">{}</text>',
        (
            (round(i * pitch, 2), TOP + CELL_HEIGHT + AXIS - 3, rows[i].get("step", i))
            for i in range(0, len(rows), every)
        ),
    )
    return format_html(
        '<svg class="strip" viewBox="0 0 {} {}" role="img" aria-label="{}">{}{}</svg>',
        width, TOP + CELL_HEIGHT + AXIS, label, bars, labels,
    )  # fmt: skip


def _said(effect: str) -> str:
    return {
        "changed": "another proposal",
        "accept": "another acceptance",
        "both": "another proposal and another acceptance",
    }.get(effect, "the same")


# --- the predicted gain ------------------------------------------------------------------------

LEFT, RIGHT, UPPER, LOWER, GAP = 46, 8, 150, 96, 30
TICKS = 4


def gain_chart(prediction: Mapping[str, Any], label: str, width: int = WIDTH) -> SafeString:
    """Above: how much better than the start each search is, after each trial, in sigma. Below: by
    how much the mechanism is ahead, with zero as the line to clear. Bands are 95 % intervals."""
    curves, sigma = prediction.get("curves") or {}, float(prediction.get("sigma") or 0)
    if not curves or sigma <= 0:
        return format_html("{}", "")
    scaled = {name: [_scaled(point, sigma) for point in curve] for name, curve in curves.items()}
    upper = _Panel(0, UPPER, width, [*scaled["null"], *scaled["mechanism"]])
    lower = _Panel(UPPER + GAP, LOWER, width, scaled["difference"])
    height = UPPER + GAP + LOWER + AXIS + 4
    parts = [
        upper.grid("sigma better than the start"),
        upper.curve(scaled["null"], "null"),
        upper.curve(scaled["mechanism"], "own"),
        lower.grid("sigma ahead of the null mechanism"),
        lower.curve(scaled["difference"], "own"),
        _trials(len(scaled["null"]), width, height),
    ]
    body = format_html_join("", "{}", ((part,) for part in parts))
    return format_html(
        '<svg class="chart gain" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>',
        width, height, label, body,
    )  # fmt: skip


Point = tuple[float, float, float]


def _scaled(point: Mapping[str, Any], sigma: float) -> Point:
    value = float(point["value"])
    low = value if point["low"] is None else float(point["low"])
    high = value if point["high"] is None else float(point["high"])
    return value / sigma, low / sigma, high / sigma


class _Panel:
    """One part of a chart with a scale of its own, zero always in it."""

    def __init__(self, top: int, height: int, width: int, points: Sequence[Point]) -> None:
        self._top, self._height, self._width = top, height, width
        low, high = min(0.0, *(p[1] for p in points)), max(0.0, *(p[2] for p in points))
        self._step = _nice((high - low or 1.0) / TICKS)
        self._low = math.floor(low / self._step) * self._step
        self._high = max(math.ceil(high / self._step), 1) * self._step

    def _y(self, value: float) -> float:
        share = (value - self._low) / (self._high - self._low)
        return round(self._top + self._height - share * (self._height - 18), 2)

    def grid(self, title: str) -> SafeString:
        """Lines and numbers; the line of zero is stronger."""
        rows, value = [], self._low
        while value <= self._high + self._step / 2:
            kind = "zero" if abs(value) < self._step / 2 else "line"
            y = self._y(value)
            rows.append((LEFT, y, self._width - RIGHT, y, kind, LEFT - 6, y + 4, f"{value:g}"))
            value += self._step
        lines = format_html_join(
            "",
            '<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>'
            '<text x="{}" y="{}" text-anchor="end">{}</text>',
            rows,
        )
        return format_html(
            '<text x="{}" y="{}" class="title">{}</text>{}', LEFT, self._top + 10, title, lines
        )

    def curve(self, points: Sequence[Point], kind: str) -> SafeString:
        """A line with its band."""
        last = max(len(points) - 1, 1)
        pitch = (self._width - LEFT - RIGHT) / last
        xs = [round(LEFT + i * pitch, 2) for i in range(len(points))]
        up = [f"{x},{self._y(p[2])}" for x, p in zip(xs, points, strict=True)]
        down = [f"{x},{self._y(p[1])}" for x, p in zip(xs, points, strict=True)]
        line = [f"{x},{self._y(p[0])}" for x, p in zip(xs, points, strict=True)]
        return format_html(
            '<polygon points="{}" class="band {}"/><polyline points="{}" class="curve {}"/>',
            " ".join([*up, *reversed(down)]), kind, " ".join(line), kind,
        )  # fmt: skip


def _nice(step: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= step * 0.999)


def _trials(count: int, width: int, height: int) -> SafeString:
    pitch = (width - LEFT - RIGHT) / max(count - 1, 1)
    every = max(1, round(count / 6))
    rows = [
        (round(LEFT + i * pitch, 2), height - 3, "end" if i else "start", i)
        for i in range(0, count, every)
    ]
    rows[-1] = (*rows[-1][:3], f"trial {rows[-1][3]}")  # type: ignore[assignment]
    return format_html_join("", '<text x="{}" y="{}" text-anchor="{}">{}</text>', rows)
