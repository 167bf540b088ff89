"""The curves of an ablation as SVG and PNG: mean loss of the answer after each training, with its
95 % interval. The same numbers give the same bytes on the same matplotlib.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.arms import statistics as tests
from runner.arms.score import Arm, Scores, Yardstick
from runner.arms.spec import ARMS, ArmsError
from runner.foreign import Foreign

SIZE_INCHES = (9.0, 5.5)
DPI = 120
WIDE = 1.5  # of the span of the means: how far an interval is shown
COLOURS = {
    "A": "#4d4d4d",
    "B": "#8c8c8c",
    "C": "#0b6e4f",
    "D": "#d1495b",
    "R": "#b08900",
    "P": "#9d4edd",
    "T": "#00798c",
    "G": "#2f4b9c",
    "E": "#66a182",
    "S": "#ed8b3b",
    "U": "#bbbbbb",
}
DASHED = frozenset("BRPSU")


def write_curves(
    folder: Path, scores: Scores, stick: Yardstick, *, metric: str, beside: Sequence[Foreign]
) -> None:
    """Write `curves.svg` and `curves.png`. Raises ArmsError where matplotlib is missing."""
    try:
        import matplotlib as mpl  # noqa: PLC0415 - an extra, and slow
        from matplotlib.figure import Figure  # noqa: PLC0415
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415
    except ImportError:
        raise ArmsError(
            "the plots need matplotlib: pip install -c constraints.txt -e '.[arms]'"
        ) from None
    settings: Any = {
        "svg.hashsalt": "escapement",
        "svg.fonttype": "path",
        "font.family": "DejaVu Sans",
    }
    with mpl.rc_context():
        mpl.rcdefaults()  # whatever a person has set at home
        mpl.rcParams.update(settings)
        wide = bool(beside)
        figure = Figure(figsize=(SIZE_INCHES[0] * (1.6 if wide else 1.0), SIZE_INCHES[1]))
        axes = figure.subplots(1, 2 if wide else 1, squeeze=False)[0]
        _ours(axes[0], scores, stick, metric)
        for panel in axes:
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        if wide:
            _foreign(axes[1], beside)
        figure.tight_layout()
        for name, metadata in (
            ("curves.svg", {"Date": None, "Creator": "escapement"}),
            ("curves.png", {"Software": "escapement"}),
        ):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=name[-3:], dpi=DPI, metadata=metadata)
            (folder / name).write_bytes(buffer.getvalue())


def _ours(axes: Any, scores: Scores, stick: Yardstick, metric: str) -> None:
    floor = stick.optimum if stick.optimum is not None else 0.0
    scale = 1.0 if stick.optimum is not None else stick.sign
    for letter, arm in scores.arms.items():
        mean, low, high = _band(arm, floor, scale)
        steps = range(len(mean))
        axes.plot(
            steps,
            mean,
            color=COLOURS[letter],
            linestyle="--" if letter in DASHED else "-",
            linewidth=1.8,
            label=f"{letter}  {ARMS[letter].title} (n = {len(arm.final)})",
        )
        axes.fill_between(steps, low, high, color=COLOURS[letter], alpha=0.12, linewidth=0)
    regret = stick.optimum is not None
    bottom, top = _shown(axes, scores, floor, scale)
    axes.set_ylim(bottom=bottom, top=top)
    axes.set_xlabel("trainings")
    axes.set_ylabel(f"simple regret ({metric})" if regret else f"{metric} of the answer")
    if regret:
        axes.set_ylim(bottom=0.0)
        if stick.sigma:
            label = "noise of one training (sigma)"
            axes.axhline(stick.sigma, color="#000000", linestyle=":", linewidth=1.0, label=label)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False, title="mean, and its 95 % interval", title_fontsize=8)


def _shown(axes: Any, scores: Scores, floor: float, scale: float) -> tuple[float, float]:
    """What is shown: all of it, unless the intervals of few repeats would press the means flat."""
    means = [m for arm in scores.arms.values() for m in _band(arm, floor, scale)[0]]
    span = max(means) - min(means)
    bottom, top = axes.get_ylim()
    if not span:
        return float(bottom), float(top)
    return max(bottom, min(means) - span * WIDE), min(top, max(means) + span * WIDE)


def _band(arm: Arm, floor: float, scale: float) -> tuple[list[float], list[float], list[float]]:
    rows = list(zip(*arm.curves, strict=True))
    mean = [scale * (statistics.fmean(row) - floor) for row in rows]
    half = []
    for row in rows:
        found = tests.summary(row)
        half.append(0.0 if found.high is None else found.high - found.mean)
    low = [m - h for m, h in zip(mean, half, strict=True)]
    high = [m + h for m, h in zip(mean, half, strict=True)]
    return mean, low, high


def _plain(text: str) -> str:
    """Text from outside as a label: no mathematics, and shown though it begins with `_`."""
    return " " + "".join(c if c.isprintable() else " " for c in text)[:60].replace("$", r"\$")


def _foreign(axes: Any, beside: Sequence[Foreign]) -> None:
    for place, trace in enumerate(beside):
        curve = trace.curve()
        colour = f"C{place % 10}"
        axes.plot(
            range(len(curve)), curve, color=colour, label=_plain(f"{trace.name} ({trace.format})")
        )
    axes.set_title("beside: other task, other host", fontsize=10)
    axes.set_xlabel("trials")
    axes.set_ylabel("best kept, as written there")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)
