"""The trainer of the CPU task and its text. Knows no search."""
