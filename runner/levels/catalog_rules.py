"""When each approved operator fits, which values a diagnosis suggests, and their bounds.

One rule an operator, a table of data and small functions of the diagnosis
(`runner.levels.diagnosis`). Which of them is drafted is decided elsewhere
(`runner.levels.catalog`). The bounds are such that the operators' own tests hold at them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runner.levels.variation import Number

Diagnosis = Mapping[str, Any]
Values = dict[str, Number]
SEARCHERS = frozenset({"pathfinder", "gp", "tpe", "cma"})
"""Operators with a model of the whole trace: they get better with each trial, if they are left."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """When an operator fits (0 to 1, and why), which values the diagnosis suggests, and within
    which bounds (both included) its parameters may be varied."""

    fit: Callable[[Diagnosis], tuple[float, str]]
    values: Callable[[Diagnosis], Values]
    bounds: Mapping[str, tuple[Number, Number]]


def _clamp(value: float, low: int, high: int) -> int:
    return int(min(high, max(low, round(value))))


def _tabu_fit(d: Diagnosis) -> tuple[float, str]:
    wasted = d["repeats"] + d["moves_repeated_in_vain"]
    return min(1.0, wasted / max(1, d["trials"])), (
        f"{d['repeats']} repeats and {d['moves_repeated_in_vain']} moves repeated in vain "
        f"in {d['trials']} trials"
    )


def _orthogonal_fit(d: Diagnosis) -> tuple[float, str]:
    untried = len(d["never_tried"]) / max(1, d["knobs"])
    # An experiment costs nine trials before anything is made of it: no first choice of a new run.
    return 0.95 * untried, f"{len(d['never_tried'])} of {d['knobs']} knobs were never tried"


def _bandit_fit(d: Diagnosis) -> tuple[float, str]:
    most, one_way = d["most_tried"], len(d["one_direction_only"])
    share = most.get("share", 0.0) * (1 - most.get("kept", 0) / max(1, most.get("times", 1)))
    fit = 0.6 * share + 0.8 * one_way / max(1, d["knobs"])
    name = most.get("knob", "no knob")
    return fit, (
        f"{name} takes {most.get('share', 0.0):.0%} of the trials; "
        f"{one_way} knobs were tried in vain in one direction alone"
    )


def _restart_fit(d: Diagnosis) -> tuple[float, str]:
    return min(1.0, d["best_age"] / 20), f"the best trial is {d['best_age']} trials old"


def _little_gained(d: Diagnosis) -> float:
    """1.0 where no trial was kept, 0.0 where every other one was."""
    return float(max(0.0, 1.0 - 2 * d["kept"] / max(1, d["trials"])))


def _pathfinder_fit(d: Diagnosis) -> tuple[float, str]:
    return 0.8 + 0.2 * _little_gained(d), (
        f"{d['kept']} of {d['trials']} trials were kept; compared with the other operators it "
        "gained most"
    )


def _gp_fit(d: Diagnosis) -> tuple[float, str]:
    few = d["knobs"] <= 8
    return (0.65 if few else 0.4) * (0.6 + 0.4 * _little_gained(d)), (
        f"{d['knobs']} knobs are {'few' if few else 'many'} for one smooth model"
    )


def _tpe_fit(d: Diagnosis) -> tuple[float, str]:
    share = min(1.0, d["trials"] / 15)
    return 0.5 * share * (0.6 + 0.4 * _little_gained(d)), (
        f"{d['trials']} trials say where good ones lie"
    )


def _cma_fit(d: Diagnosis) -> tuple[float, str]:
    return min(0.55, d["trials"] / 80), f"{d['trials']} trials are {d['trials'] // 6} generations"


def _annealing_fit(d: Diagnosis) -> tuple[float, str]:
    tried = 1 - len(d["never_tried"]) / max(1, d["knobs"])
    return 0.8 * tried * min(1.0, d["best_age"] / 20), (
        f"{tried:.0%} of the knobs were tried and the best trial is {d['best_age']} trials old"
    )


def _batch_fit(d: Diagnosis) -> tuple[float, str]:
    return 0.3 + 0.3 * d["failure_share"], (
        f"{d['failure_share']:.0%} of the trials failed: a forest learns where, a batch spreads"
    )


RULES: dict[str, Rule] = {
    "pathfinder": Rule(
        fit=_pathfinder_fit,
        bounds={"RADIUS": (0.15, 0.5), "KNOBS": (2, 8)},
        values=lambda d: {
            "RADIUS": 0.3 if d["kept"] <= d["trials"] / 8 else 0.25,
            "KNOBS": 8 if d["knobs"] <= 8 else 4,
        },
    ),
    "gp": Rule(
        fit=_gp_fit,
        bounds={"SPREAD": (2, 10), "NEAR": (0.04, 0.2)},
        values=lambda d: {
            "SPREAD": _clamp(d["knobs"] / 2, 2, 8),
            "NEAR": 0.12 if d["kept"] == 0 else 0.06,
        },
    ),
    "tpe": Rule(
        fit=_tpe_fit,
        bounds={"STARTUP": (3, 12), "PRIOR_SHARE": (0.05, 0.4)},
        values=lambda d: {
            "STARTUP": 3 if d["trials"] >= 10 else 8,
            "PRIOR_SHARE": 0.1 if d["kept"] <= d["trials"] / 8 else 0.3,
        },
    ),
    "cma": Rule(
        fit=_cma_fit,
        bounds={"SIGMA": (0.08, 0.3), "POPULATION": (4, 12), "PRIOR_SHARE": (0.1, 0.3)},
        values=lambda d: {
            "SIGMA": 0.25 if d["kept"] == 0 else 0.12,
            "POPULATION": _clamp(4 + d["knobs"] / 4, 5, 9),
            "PRIOR_SHARE": 0.1 if d["kept"] <= d["trials"] / 8 else 0.3,
        },
    ),
    "annealing": Rule(
        fit=_annealing_fit,
        bounds={"HEAT": (0.2, 1.5), "HALF_LIFE": (3, 12)},
        values=lambda d: {
            "HEAT": 1.0 if d["kept"] == 0 else 0.4,
            "HALF_LIFE": _clamp(d["trials"] / 4, 4, 12),
        },
    ),
    "batch": Rule(
        fit=_batch_fit,
        bounds={"RADIUS": (0.15, 0.5), "DARING": (0.3, 2.0)},
        values=lambda d: {
            "RADIUS": 0.4 if d["kept"] == 0 else 0.25,
            "DARING": 0.5 if d["failure_share"] > 0.2 else 1.5,
        },
    ),
    "tabu": Rule(
        fit=_tabu_fit,
        bounds={"TENURE": (3, 20), "MAX_ASKS": (2, 4), "STEP": (0.05, 0.3)},
        values=lambda d: {
            "TENURE": _clamp(d["longest_streak_without_progress"] + 2, 4, 16),
            "MAX_ASKS": 2 if d["moves_repeated_in_vain"] > d["trials"] / 2 else 3,
            "STEP": 0.2 if d["kept"] == 0 else 0.1,
        },
    ),
    "orthogonal": Rule(
        fit=_orthogonal_fit,
        bounds={"PATIENCE": (2, 6), "STEP": (0.05, 0.25), "FACTORS": (3, 7)},
        values=lambda d: {
            "PATIENCE": 2 if d["best_age"] >= 6 else 4,
            "STEP": 0.18 if d["kept"] == 0 else 0.08,
            "FACTORS": _clamp(len(d["never_tried"]), 4, 7),
        },
    ),
    "bandit": Rule(
        fit=_bandit_fit,
        bounds={"PRIOR_SHARE": (0.05, 0.5), "EXPLORATION": (0.1, 0.6)},
        values=lambda d: {
            "PRIOR_SHARE": 0.1 if d["kept"] <= d["trials"] / 8 else 0.3,
            "EXPLORATION": 0.6 if len(d["never_tried"]) > d["knobs"] / 3 else 0.25,
        },
    ),
    "restart": Rule(
        fit=_restart_fit,
        bounds={"PATIENCE": (3, 12), "KNOBS": (1, 4), "REACH": (0.15, 0.6)},
        values=lambda d: {
            "PATIENCE": _clamp(d["best_age"] / 2, 3, 12),
            "KNOBS": 3 if d["kept"] == 0 else 2,
            "REACH": 0.5 if d["kept"] == 0 else 0.25,
        },
    ),
}
