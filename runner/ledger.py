"""What language models cost: tokens against a cap, calls, and failures by class.

Kept in a file, so that killing and starting the runner again does not refill the cap.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.borders import BudgetExceeded


@dataclass(kw_only=True)
class Ledger:
    """Tokens spent, against a cap; in `path` they survive a restart of the runner."""

    cap_tokens: int
    path: Path | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    calls: int = 0
    estimated_calls: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            kept = json.loads(self.path.read_text())
            self.prompt_tokens, self.answer_tokens = kept["prompt_tokens"], kept["answer_tokens"]
            self.calls, self.estimated_calls = kept["calls"], kept["estimated_calls"]
            self.faults = Counter(kept["faults"])

    @property
    def total_tokens(self) -> int:
        """All tokens so far."""
        return self.prompt_tokens + self.answer_tokens

    def check(self, expected_tokens: int) -> None:
        """Raise BudgetExceeded before a call that would break the cap."""
        if self.total_tokens + expected_tokens > self.cap_tokens:
            raise BudgetExceeded(
                f"{self.total_tokens} of {self.cap_tokens} tokens are spent and the next question "
                f"needs about {expected_tokens}: raise the cap and start the run again"
            )

    def spend(self, prompt_tokens: int, answer_tokens: int, *, estimated: bool) -> None:
        """Count one call."""
        self.prompt_tokens += prompt_tokens
        self.answer_tokens += answer_tokens
        self.calls += 1
        self.estimated_calls += estimated
        self.save()

    def fault(self, fault: str) -> None:
        """Count one failure."""
        self.faults[fault] += 1
        self.save()

    def save(self) -> None:
        """Write the ledger, all or nothing."""
        if self.path is None:
            return
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.summary()))
        temporary.replace(self.path)

    def summary(self) -> dict[str, Any]:
        """The ledger as plain data."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "calls": self.calls,
            "estimated_calls": self.estimated_calls,
            "faults": dict(sorted(self.faults.items())),
        }
