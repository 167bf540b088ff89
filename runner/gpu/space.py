"""The settings and knobs of the gpt-gpu task: the 50M-parameter benchmark, and a tiny twin.

Plain values without torch. `50m` is the field's public setting (eight layers of width 512, value
embeddings, context 2048, vocabulary 8192, five minutes on one card). `tiny` has every part of it
at a size that a CPU can train within seconds: it is for tests, and says so wherever it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from runner.gpt.space import ADAM_BETAS, WINDOW_PATTERNS
from sandbox.mechanism import Constraint, Knob, Space

LOCKED = ("DEPTH", "ASPECT_RATIO")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is fixed about one size. Lengths in tokens; `space` holds what may be changed."""

    name: str
    sequence_length: int
    vocabulary: int
    evaluation_tokens: int
    space: Space


def _rate(default: float) -> Knob:
    return Knob(kind="float", default=default, low=default / 20, high=default * 10, log=True)


def _share(default: float) -> Knob:
    return Knob(kind="float", default=default, low=0.0, high=1.0)


def _power(default: int, low: int, high: int) -> Knob:
    return Knob(kind="power_of_two", default=default, low=low, high=high, log=True)


def _fixed(value: int) -> Knob:
    return Knob(kind="int", default=value, low=value, high=value)


def _space(
    *, depth: int, aspect: int, head: Knob, total: Knob, device: Knob, sequence: int
) -> Space:
    knobs = {
        "DEPTH": _fixed(depth),
        "ASPECT_RATIO": _fixed(aspect),
        "HEAD_DIM": head,
        "WINDOW_PATTERN": Knob(kind="choice", default="SSSL", choices=WINDOW_PATTERNS),
        "TOTAL_BATCH_SIZE": total,
        "DEVICE_BATCH_SIZE": device,
        "EMBEDDING_LR": _rate(0.6),
        "UNEMBEDDING_LR": _rate(0.004),
        "MATRIX_LR": _rate(0.04),
        "SCALAR_LR": _rate(0.5),
        "WEIGHT_DECAY": _share(0.2),
        "ADAM_BETAS": Knob(kind="choice", default=ADAM_BETAS[0], choices=ADAM_BETAS),
        "WARMUP_RATIO": Knob(kind="float", default=0.0, low=0.0, high=0.5),
        "WARMDOWN_RATIO": _share(0.5),
        "FINAL_LR_FRAC": _share(0.0),
    }
    rule = Constraint(name="TOTAL_BATCH_SIZE", of="DEVICE_BATCH_SIZE", factor=sequence)
    return Space(MappingProxyType(knobs), (rule,))


SETTINGS = MappingProxyType(
    {
        "50m": Setting(
            name="50m",
            sequence_length=2048,
            vocabulary=8192,
            evaluation_tokens=40 * 2**19,
            space=_space(
                depth=8,
                aspect=64,
                head=_power(128, 32, 256),
                total=_power(2**19, 2**14, 2**21),
                device=_power(128, 4, 256),
                sequence=2048,
            ),
        ),
        "tiny": Setting(
            name="tiny",
            sequence_length=64,
            vocabulary=512,
            evaluation_tokens=2**12,
            space=_space(
                depth=2,
                aspect=32,
                head=_power(16, 8, 64),
                total=_power(2**10, 2**8, 2**14),
                device=_power(8, 1, 64),
                sequence=64,
            ),
        ),
    }
)


def windows_as(chosen: str | None, *, device: str, compiler: str) -> str:
    """How windows of attention are computed: `flex` (block masks, compiled, for a card) or `mask`
    (everywhere, slower). What is not chosen is flex where it can be. Raises ValueError."""
    can_be = device == "cuda" and compiler == "inductor"
    if chosen == "flex" and not can_be:
        raise ValueError("flex attention needs the device cuda and the compiler inductor")
    return chosen or ("flex" if can_be else "mask")
