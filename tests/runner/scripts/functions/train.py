#!/usr/bin/env python3
"""A training script in functions: a main(), flags in upper case, files beside it, checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path

import settings
from settings import CONTEXT as BLOCK

N_LAYER: int = 4
N_EMBD = 3 * 64
N_HEAD = 6
USE_BIAS = True
ACTIVATION = "relu"
LEARNING_RATE, MIN_LR = 3e-4, 3e-5
DROPOUT = 0.0; GRAD_CLIP = 1.0
BETAS = [
    0.9,  # first
    0.95,
]
MICRO_BATCH = 1 << 4
TOTAL_BATCH = MICRO_BATCH * BLOCK * 8  # tokens
STEPS = 5
EPSILON = 1e-8
RESUME = None
learning_rate_floor = 1e-6

ACTIVATIONS = {"relu": 1.0, "gelu": 0.9, "silu": 0.95}


def check(total, micro):
    """The parameters' names say nothing about the constants."""
    assert total % (micro * BLOCK) == 0


def loss(text):
    """A number that depends on everything above."""
    width = N_EMBD / N_HEAD
    shape = abs(math.log2(width / 48)) + abs(math.log2(N_LAYER / 6))
    order = (BETAS[0] - 0.92) ** 2 + (BETAS[1] - 0.97) ** 2
    noise = DROPOUT**2 + abs(math.log10(GRAD_CLIP)) + abs(math.log10(EPSILON) + 9) / 50
    extra = 0.01 * (not USE_BIAS) + math.log2(MICRO_BATCH) / 100
    factor = {"relu": 1.0, "gelu": 0.9, "silu": 0.95}[ACTIVATION]
    return factor * (1 + shape + order + noise + extra) + len(set(text)) / 1000


def main():
    assert N_EMBD % N_HEAD == 0, "heads must divide the width"
    if ACTIVATION not in ("relu", "gelu", "silu"):
        raise ValueError(ACTIVATION)
    here = Path(__file__).resolve().parent
    text = (here / "data" / "corpus.txt").read_text()
    check(TOTAL_BATCH, MICRO_BATCH)
    out = here / "checkpoints"
    out.mkdir()  # fails where an earlier trial left one
    for step in range(STEPS):
        print(f"step {step} loss {loss(text):.4f}")
    (out / "model.json").write_text(json.dumps({"layers": N_LAYER, "eval": settings.EVAL_BATCHES}))
    print(f"val_bpb: {loss(text):.6f}")
    print(f"learning_rate: {max(LEARNING_RATE, MIN_LR, learning_rate_floor)}")


if __name__ == "__main__":
    main()
