"""What language models cost: tokens and money against caps, calls, and failures by class.

Kept in a file, so that killing and starting the runner again does not refill a cap. Prices are
what a person gave; nothing here knows a provider.
"""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runner.interfaces import BudgetExceeded
from sandbox.files import put

MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a million tokens cost, in one currency for all models."""

    prompt: float = 0.0
    answer: float = 0.0

    def of(self, prompt_tokens: int, answer_tokens: int) -> float:
        """The price of one call."""
        return (prompt_tokens * self.prompt + answer_tokens * self.answer) / MILLION


FREE = Price()


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a call that is being made may cost at most."""

    prompt_tokens: int
    answer_tokens: int
    cost: float
    model: str


@dataclass(kw_only=True)
class Ledger:
    """Tokens and money spent, against caps; in `path` they survive a restart of the runner.

    Levels 1 and 2 ask from threads of their own: each method may be called from any.
    """

    cap_tokens: int
    cap_cost: float | None = None
    path: Path | None = None
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0
    calls: int = 0
    estimated_calls: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    models: dict[str, Counter[str]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False, repr=False)
    _held: dict[int, Held] = field(default_factory=dict, init=False)
    _holds: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.path is not None and self.path.exists():
            try:
                self._take(json.loads(self.path.read_text()))
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                raise BudgetExceeded(
                    f"{self.path} says what was spent and can't be read ({error}): mend it; "
                    "removing it refills the caps"
                ) from error

    def _take(self, kept: dict[str, Any]) -> None:
        self.prompt_tokens, self.answer_tokens = kept["prompt_tokens"], kept["answer_tokens"]
        self.calls, self.estimated_calls = kept["calls"], kept["estimated_calls"]
        self.faults = Counter(kept["faults"])
        self.cost = kept.get("cost", 0.0)  # ledgers of before had neither
        self.models = {name: Counter(of) for name, of in kept.get("models", {}).items()}
        for call in [Held(**held) for held in kept.get("open", [])]:
            self._interrupted(call)
        counts = (self.prompt_tokens, self.answer_tokens, self.calls, self.estimated_calls)
        if any(type(count) is not int or count < 0 for count in counts):
            raise ValueError("a count is no whole number")
        if not (math.isfinite(self.cost) and self.cost >= 0):  # NaN is below every cap
            raise ValueError(f"a cost of {self.cost}")

    def _interrupted(self, call: Held) -> None:
        """A call that was being made when the runner was killed: nobody knows what it cost."""
        self._count(call.prompt_tokens, call.answer_tokens, call.cost, call.model)
        self.estimated_calls += 1
        self.faults["interrupted"] += 1
        self.models[call.model]["interrupted"] += 1

    @property
    def total_tokens(self) -> int:
        """All tokens so far."""
        return self.prompt_tokens + self.answer_tokens

    @contextmanager
    def reserved(
        self, prompt_tokens: int, answer_tokens: int, *, model: str = "", price: Price = FREE
    ) -> Iterator[int]:
        """Room for one call while it is made, so that two at once break no cap together; gives what
        `spend` settles. It is in the file before the call is made: one that is killed with the
        runner is counted at the next start.

        Raises BudgetExceeded before a call that would break a cap.
        """
        cost = price.of(prompt_tokens, answer_tokens)
        with self._lock:
            self._check(prompt_tokens + answer_tokens, cost)
            self._holds += 1
            held = self._holds
            self._held[held] = Held(
                prompt_tokens=prompt_tokens, answer_tokens=answer_tokens, cost=cost, model=model
            )
            self.save()
        try:
            yield held
        finally:
            with self._lock:
                if self._held.pop(held, None) is not None:
                    self.save()

    def _check(self, tokens: int, cost: float) -> None:
        held = self._held.values()
        beside = f" ({len(held)} more being asked)" if held else ""
        known = self.total_tokens + sum(h.prompt_tokens + h.answer_tokens for h in held)
        if known + tokens > self.cap_tokens:
            raise BudgetExceeded(
                f"{self.total_tokens} of {self.cap_tokens} tokens are spent{beside} and the next "
                f"question needs about {tokens}: raise the cap and start the run again"
            )
        if self.cap_cost is not None and self.cost + sum(h.cost for h in held) + cost > (
            self.cap_cost
        ):
            raise BudgetExceeded(
                f"{self.cost:.4f} of {self.cap_cost:.4f} is spent{beside} and the next question "
                f"may cost {cost:.4f}: raise the cost cap and start the run again"
            )

    def spend(
        self,
        prompt_tokens: int,
        answer_tokens: int,
        *,
        estimated: bool,
        model: str = "",
        price: Price = FREE,
        held: int = 0,
    ) -> None:
        """Count one call, in place of what was `held` for it."""
        with self._lock:
            self._held.pop(held, None)
            cost = price.of(prompt_tokens, answer_tokens)
            self._count(prompt_tokens, answer_tokens, cost, model)
            self.estimated_calls += estimated
            self.save()

    def _count(self, prompt_tokens: int, answer_tokens: int, cost: float, model: str) -> None:
        counted = {"calls": 1, "prompt_tokens": prompt_tokens, "answer_tokens": answer_tokens}
        self.prompt_tokens += prompt_tokens
        self.answer_tokens += answer_tokens
        self.cost += cost
        self.calls += 1
        self.models.setdefault(model, Counter()).update(counted)

    def fault(self, fault: str, model: str) -> None:
        """Count one failure."""
        with self._lock:
            self.faults[fault] += 1
            self.models.setdefault(model, Counter())[fault] += 1
            self.save()

    def save(self) -> None:
        """Write the ledger, all or nothing. Raises BudgetExceeded: no money is spent unseen."""
        if self.path is None:
            return
        try:
            put(self.path, json.dumps(self.summary()).encode(), mode=0o644)
        except OSError as error:
            raise BudgetExceeded(
                f"what is spent can't be written to {self.path} ({error}): make room, and start "
                "the run again"
            ) from error

    def summary(self) -> dict[str, Any]:
        """The ledger as plain data."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "answer_tokens": self.answer_tokens,
            "cost": self.cost,
            "calls": self.calls,
            "estimated_calls": self.estimated_calls,
            "faults": dict(sorted(self.faults.items())),
            "open": [asdict(held) for held in self._held.values()],
            "models": {name: dict(sorted(of.items())) for name, of in sorted(self.models.items())},
        }
