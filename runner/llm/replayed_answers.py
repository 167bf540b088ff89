"""A language model that is asked nothing twice: what was answered before the runner was killed is
answered again from what was kept of it, at no cost. What becomes of answers is not known here.
"""

from __future__ import annotations

import hashlib
from typing import TypeVar

from pydantic import BaseModel

from runner.interfaces import Memo
from runner.llm.answers import Reply, checked
from runner.llm.client import Answer, LanguageModel

M = TypeVar("M", bound=BaseModel)


class ReplayedAnswers:
    """Asks `llm` what `memo` does not hold."""

    def __init__(self, llm: LanguageModel, memo: Memo) -> None:
        self._llm = llm
        self._memo = memo

    @property
    def model(self) -> str:
        """Whoever is asked."""
        return self._llm.model

    def ask(self, prompt: str, *, schema: type[M], purpose: str) -> Answer[M]:
        """One question. Raises PriorError, BudgetExceeded: a failure is not kept."""
        key = hashlib.sha256(f"{purpose}\0{prompt}".encode()).hexdigest()
        known = self._memo.get(key)
        if known is not None:
            return Answer(value=checked(Reply(text=known["text"]), schema), **known)
        answer = self._llm.ask(prompt, schema=schema, purpose=purpose)
        kept = {
            "prompt": answer.prompt,
            "text": answer.text,
            "prompt_tokens": answer.prompt_tokens,
            "answer_tokens": answer.answer_tokens,
            "seconds": answer.seconds,
            "model": answer.model,
        }
        self._memo.put(key, kept)
        return answer
