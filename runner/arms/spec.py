"""The arms: what each is made of. Names and flags alone; `loops` and `tuners` run them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What runs an arm: the search loop of this project, or a tuner from a library."""

    LOOP = "loop"
    TUNER = "tuner"


class Mechanisms(StrEnum):
    """Where an arm's mechanism comes from; each but NONE goes through the gate and the hot-load."""

    NONE = "none"
    LEVEL2 = "level2"
    PLACEBO = "placebo"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm of the comparison."""

    letter: str
    title: str
    kind: Kind = Kind.LOOP
    steered: bool = False  # Level 1.5
    mechanisms: Mechanisms = Mechanisms.NONE
    restart_every: int = 0  # trials; 0: never


_ALL = (
    Arm(letter="A", title="Level 1"),
    Arm(letter="B", title="Levels 1 and 1.5", steered=True),
    Arm(letter="C", title="Levels 1, 1.5 and 2", steered=True, mechanisms=Mechanisms.LEVEL2),
    Arm(letter="D", title="Levels 1 and 2", mechanisms=Mechanisms.LEVEL2),
    Arm(letter="R", title="Level 1, restarted every 10 trials", restart_every=10),
    Arm(letter="P", title="Level 1 and a placebo", mechanisms=Mechanisms.PLACEBO),
    Arm(letter="T", title="TPE (optuna)", kind=Kind.TUNER),
    Arm(letter="G", title="GP, expected improvement (scikit-learn)", kind=Kind.TUNER),
    Arm(letter="E", title="CMA-ES with margin (cmaes)", kind=Kind.TUNER),
    Arm(letter="S", title="batch line search, then TPE", kind=Kind.TUNER),
    Arm(letter="U", title="random", kind=Kind.TUNER),
)
ARMS = {arm.letter: arm for arm in _ALL}
REFERENCE = "A"


class ArmsError(ValueError):
    """An ablation that can't be run as asked; the message says what to do."""


def arms_named(text: str) -> tuple[Arm, ...]:
    """The arms of `A,B,C`, in that order. Raises ArmsError."""
    letters = [part.strip() for part in text.split(",")]
    unknown = [letter for letter in letters if letter not in ARMS]
    if unknown:
        known = ", ".join(f"{a.letter} ({a.title})" for a in _ALL)
        raise ArmsError(f"there is no arm {unknown[0]!r}; there are: {known}")
    if len(set(letters)) != len(letters):
        raise ArmsError("an arm is named twice")
    return tuple(ARMS[letter] for letter in letters)
