"""Small drawings as SVG, for pages and for paper: what a mechanism would have changed.

Data in, an SVG string out; every number is ours and every text is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

WIDTH, CELL_HEIGHT, TOP, AXIS = 760, 20, 4, 16
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


def replay_strip(rows: Sequence[Mapping[str, Any]], label: str) -> SafeString:
    """One cell a step: upper half the proposal, lower half the acceptance."""
    rows = rows[:MAX_CELLS]
    if not rows:
        return format_html("{}", "")
    pitch = WIDTH / len(rows)
    cells = []
    for index, row in enumerate(rows):
        effect = effect_of(row)
        x, width = round(index * pitch, 2), round(max(pitch - 1, 0.6), 2)
        upper = "changed" if effect in {"changed", "both"} else "step"
        lower = "accept" if effect in {"accept", "both"} else "step"
        half = CELL_HEIGHT / 2
        tip = f"step {row.get('step', index)}: {_said(effect)}"
        cells.append(
            (x, TOP, width, half - 0.5, upper, x, TOP + half + 0.5, width, half, lower, tip)
        )
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
        WIDTH, TOP + CELL_HEIGHT + AXIS, label, bars, labels,
    )  # fmt: skip


def _said(effect: str) -> str:
    return {
        "changed": "another proposal",
        "accept": "another acceptance",
        "both": "another proposal and another acceptance",
    }.get(effect, "the same")
