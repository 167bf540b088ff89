"""The null mechanism: plain Level 1. It tries what the prior says and keeps what is better.

Every other mechanism is compared with it, and a target starts with it.
"""

from sandbox.mechanism import Mechanism


class Null(Mechanism):
    """Overrides nothing."""

    name = "null"
