"""The limits of one sandbox job: time, memory, bytes and counts. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one worker may use. `job_seconds` is the sum of the time spent inside the worker over
    its whole life, None for a worker that lives as long as a run; asking the prior never counts.
    """

    start_seconds: float = 60  # the engine's own work; too slow is an infrastructure error
    load_seconds: float = 60  # scikit-learn takes 1; on a cold, very busy machine over 30
    call_seconds: float = 5
    job_seconds: float | None = 180  # of the clock, and a machine may be busy
    reply_bytes: int = 256 * KIB
    output_bytes: int = MIB
    state_bytes: int = 64 * KIB
    asks_a_call: int = 16
    candidates: int = 64
    reason_chars: int = 2000
    guidance_chars: int = 8000
    memory_bytes: int = 512 * MIB
    processes: int = 64  # threads, in fact: no process can be made
    cpu_seconds: int = 120
    tmp_bytes: int = 16 * MIB  # for unit tests; a mechanism has no writable place at all

    @classmethod
    def screening(cls) -> Limits:
        """For a draft that nobody has approved: three minutes in all."""
        return cls()

    @classmethod
    def production(cls) -> Limits:
        """For an approved mechanism beside a search: patient, for as long as the run lasts."""
        return cls(load_seconds=60, call_seconds=60, job_seconds=None, cpu_seconds=7 * 86_400)
