"""The trainer of the GPU task, its cards and its shards. Knows no search."""
