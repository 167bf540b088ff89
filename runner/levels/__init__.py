"""Level 1, 1.5 and 2: what is tried next, what is frozen, which mechanism is drafted. Loads
nothing."""
