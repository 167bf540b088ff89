"""What the other files share."""

CONTEXT = 64
EVAL_BATCHES = 4
