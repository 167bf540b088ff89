"""A run, round by round: ask the mechanism, train, confirm, decide, and what a gain is worth. Knows
no trainer, no language model, no platform, and not where a mechanism comes from."""
