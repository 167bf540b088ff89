"""Fixed part of the sample: the context length, the budget and the evaluation."""

import math

MAX_SEQ_LEN = 2 * 1024
TIME_BUDGET = 300
EVAL_TOKENS = 40 * 524288


def evaluate_bpb(model):
    """Bits per byte of a "model", which here is a loss surface over the hyperparameters."""
    return sum(model.values()) / math.log(2)
