"""The knobs of the gpt task: what may be changed, within which bounds, under which constraints.

Plain values without torch, shared by the task (which checks before it spends a trial) and by the
trainer (which takes its defaults from here). The default batch is about four times too large, as
in the published benchmark: there is something to find, and a start from where it can be found.
"""

from __future__ import annotations

from types import MappingProxyType

from sandbox.mechanism import Constraint, Knob, KnobValue, Space

SEQUENCE_LENGTH = 128
"""Bytes a training sequence has; also the factor between sequences and bytes of a batch."""

WINDOW_PATTERNS = ("L", "SL", "SSL", "SSSL", "S")
"""Attention by layer, repeated: L sees the whole sequence, S a quarter of it; last one is L."""

ADAM_BETAS = ("0.8,0.95", "0.9,0.95", "0.9,0.99", "0.95,0.99", "0.7,0.9")


def _rate(default: float, low: float, high: float) -> Knob:
    return Knob(kind="float", default=default, low=low, high=high, log=True)


def _share(default: float, high: float) -> Knob:
    return Knob(kind="float", default=default, low=0.0, high=high)


def _power(default: int, low: int, high: int) -> Knob:
    return Knob(kind="power_of_two", default=default, low=low, high=high, log=True)


def _choice(choices: tuple[KnobValue, ...]) -> Knob:
    return Knob(kind="choice", default=choices[0], choices=choices)


_KNOBS = {
    # Locked: a bigger or smaller model is another benchmark. One value is within the bounds.
    "DEPTH": Knob(kind="int", default=2, low=2, high=2),
    "ASPECT_RATIO": Knob(kind="int", default=32, low=32, high=32),
    "HEAD_DIM": _power(32, 8, 64),
    "WINDOW_PATTERN": _choice(WINDOW_PATTERNS),
    "TOTAL_BATCH_SIZE": _power(2**11, 2**8, 2**16),
    "DEVICE_BATCH_SIZE": _power(16, 1, 128),
    "EMBEDDING_LR": _rate(0.2, 0.005, 2.0),
    "UNEMBEDDING_LR": _rate(0.004, 0.0005, 0.2),
    "MATRIX_LR": _rate(0.02, 0.001, 0.2),
    "SCALAR_LR": _rate(0.2, 0.005, 2.0),
    "WEIGHT_DECAY": _share(0.2, 1.0),
    "ADAM_BETAS": _choice(ADAM_BETAS),
    "WARMUP_RATIO": _share(0.0, 0.5),
    "WARMDOWN_RATIO": _share(0.5, 1.0),
    "FINAL_LR_FRAC": _share(0.0, 1.0),
}

SPACE = Space(
    MappingProxyType(_KNOBS),
    (Constraint(name="TOTAL_BATCH_SIZE", of="DEVICE_BATCH_SIZE", factor=SEQUENCE_LENGTH),),
)
