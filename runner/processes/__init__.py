"""A trial's processes and files that the kernel lets go. Knows no trial."""
