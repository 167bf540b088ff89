"""The trainer's command line: its options, its knobs as JSON, its exit codes. No torch here."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.gpt.space import SPACE

LOCKED = ("DEPTH", "ASPECT_RATIO")
EXIT_CODES = {"crash": 1, "nan": 3, "oom": 4, "constraint": 5, "infrastructure": 6}


class TrainingFailure(Exception):
    """This trial gives no metric; `failure` is its class."""

    def __init__(self, failure: str, message: str) -> None:
        super().__init__(message)
        self.failure = failure


def checked_knobs(given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults with `given` over them; a locked knob may be set here, unlike in the benchmark."""
    if not isinstance(given, Mapping):
        raise TrainingFailure(
            "constraint", f"the knobs are a {type(given).__name__}, no JSON object"
        )
    if unknown := sorted(set(given) - set(SPACE)):
        raise TrainingFailure("constraint", f"unknown knobs {unknown}; known: {sorted(SPACE)}")
    knobs = {**SPACE.defaults(), **given}
    wrong = [f"{n}: {p}" for n in SPACE if n not in LOCKED and (p := SPACE[n].problem(knobs[n]))]
    wrong += [p for rule in SPACE.constraints if (p := rule.problem(knobs))]
    if wrong:
        raise TrainingFailure("constraint", "; ".join(wrong))
    return knobs


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options, with the knobs as JSON text."""
    parser = argparse.ArgumentParser(
        prog="runner.gpt.train", description="Train one configuration."
    )
    parser.add_argument("knobs", nargs="?", default="{}", help="JSON; '-' reads it from stdin")
    parser.add_argument("--budget-seconds", type=float, default=3.0)
    parser.add_argument("--max-steps", type=int, default=0, help="steps instead of a budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-mb", type=int, default=0, help="0: no limit of our own")
    parser.add_argument("--corpus", default="", help="PATH:DIGEST:TRAIN_BYTES of a cache file")
    parser.add_argument("--cache", type=Path, default=Path("var/corpus"))
    options = parser.parse_args(arguments)
    if options.knobs == "-":
        options.knobs = sys.stdin.read(64 * 1024)
    return options
