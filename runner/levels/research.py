"""Level 2 with a language model: explore, critique, specify, generate; the result is a draft.

It sees the interface, the live mechanism's source, the space, the trace and a computed diagnosis,
and has no way to load or run anything: a draft goes to the gate like everybody's. The catalog
(`runner.levels.catalog`) is the other researcher.
"""

from __future__ import annotations

import ast
import json
import keyword
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

import sandbox.mechanism
from runner.interfaces import DraftRefused, PriorError, ResearchContext, ResearchDraft
from runner.levels.diagnosis import diagnose
from runner.levels.refusals import refusal
from runner.levels.strategy import earlier_table, history_table, space_table
from runner.llm.answers import harmless, shown
from runner.llm.prompting import Prompts
from runner.llm.replayed_answers import ReplayedAnswers
from runner.protocol import NAME, Round
from sandbox.checks.table import MECHANISM_MODULES
from sandbox.syntax import tree_of

if TYPE_CHECKING:
    from runner.llm.client import Answer, LanguageModel

GENERATE_ATTEMPTS = 2
NO_IDEA = re.compile(r"\W*((none|null|nothing|nil|no|n/?a)(\W.*)?)?", re.DOTALL)  # in some words
EARLIER_DRAFTS = 40
REASON_CHARACTERS = 500
MAX_PROMPT_CHARACTERS = 190_000  # a retry adds the reason of the refusal; the wire takes 200,000
MAX_ANSWER_CHARACTERS = 100_000

M = TypeVar("M", bound=BaseModel)
Tell = Callable[[str], None]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Idea(_Strict):
    """One idea of round 1."""

    name: str = Field(pattern=NAME)
    idea: str = Field(max_length=4000)
    why: str = Field(max_length=4000)


class Explored(_Strict):
    """Round 1."""

    observations: list[str] = Field(min_length=1, max_length=20)
    ideas: list[Idea] = Field(min_length=1, max_length=8)


class Assessment(_Strict):
    """One verdict of round 2."""

    name: str = Field(max_length=60)
    verdict: str = Field(max_length=1000)
    reason: str = Field(max_length=4000)


class Criticised(_Strict):
    """Round 2; `selected` null means that no idea would help."""

    assessments: list[Assessment] = Field(max_length=8)
    selected: str | None = Field(max_length=500)


class Parameter(_Strict):
    """One parameter of round 3."""

    name: str = Field(max_length=60)
    value: int | float | str
    why: str = Field(max_length=2000)


class Specified(_Strict):
    """Round 3."""

    behaviour: str = Field(min_length=1, max_length=20_000)
    parameters: list[Parameter] = Field(max_length=20)
    state: str = Field(max_length=4000)
    test_cases: list[str] = Field(min_length=1, max_length=20)
    risks: str = Field(max_length=4000)


class Generated(_Strict):
    """Round 4."""

    title: str = Field(pattern=r"[^\W_]", max_length=150)
    summary: str = Field(min_length=1, max_length=8000)
    source: str = Field(min_length=1, max_length=64 * 1024)
    test: str = Field(min_length=1, max_length=64 * 1024)


class OpenAIResearcher:
    """Drafts mechanisms with any OpenAI-compatible language model."""

    def __init__(self, llm: LanguageModel, *, metric: str, prompts: Prompts | None = None) -> None:
        self.llm = llm
        self.metric = metric
        self.prompts = prompts or Prompts()
        self.label = f"{llm.model} (prompts {self.prompts.digest[:12]})"

    def draft(
        self, context: ResearchContext, progress: Callable[[str], None] | None = None
    ) -> ResearchDraft | None:
        """A draft, or None where no mechanism was selected. Raises PriorError (which holds the
        rounds until then), BudgetExceeded."""
        drafting = _Drafting(self, context, progress or (lambda _text: None))
        try:
            return drafting.run()
        except PriorError as error:
            error.rounds = tuple(drafting.rounds)
            raise


class _Drafting:
    """One pass through the four rounds."""

    def __init__(self, by: OpenAIResearcher, context: ResearchContext, tell: Tell) -> None:
        self.llm: LanguageModel = (
            by.llm if context.memo is None else ReplayedAnswers(by.llm, context.memo)
        )
        self.prompts = by.prompts
        self.context = context
        self.tell = tell
        self.diagnosis = diagnose(context)
        values = _shown_context(context, self.diagnosis, by.metric)
        self.shown = self.prompts.fill("context.md", **values)
        self.rounds: list[Round] = []

    def run(self) -> ResearchDraft | None:
        explored = self._round("explore", Explored, context=self.shown)
        ideas = explored.value.model_dump_json()  # what was checked: no prose, no thoughts
        criticised = self._round("critique", Criticised, context=self.shown, explored=ideas)
        selected = (criticised.value.selected or "").strip(" \t\n`'\"*.").lower()
        idea = next((i for i in explored.value.ideas if i.name == selected), None)
        if idea is None and NO_IDEA.fullmatch(selected):
            self.tell("critique: none selected")
            return None
        if idea is None:
            why = f"critique selected {shown(selected)!r}, which is none of its ideas"
            raise PriorError(why, rule="unknown_idea")
        specified = self._round(
            "specify",
            Specified,
            context=self.shown,
            explored=ideas,
            criticised=criticised.value.model_dump_json(),
            selected=idea.model_dump_json(),
        )
        return self._generate(idea, specified.value.model_dump_json())

    def _generate(self, idea: Idea, specified: str) -> ResearchDraft:
        """Round 4, once more if what came back is no draft; the refusal is part of the prompt."""
        name = _unique(idea.name, self.context)
        refused = ""
        for _ in range(GENERATE_ATTEMPTS):
            answer = self._round(
                "generate",
                Generated,
                context=self.shown,
                specified=specified,
                name=name,
                imports=", ".join(MECHANISM_MODULES),
                refused=refused and f"## Your last answer was refused\n{refused}",
            )
            files = {
                f"mechanisms/{name}.py": answer.value.source,
                f"tests/test_{name}.py": answer.value.test,
            }
            refused = refusal(files, name, self.context)
            if not refused:
                return self._finished(answer, files)
        raise DraftRefused(refused, title=harmless(answer.value.title))

    def _finished(self, answer: Answer[Generated], files: dict[str, str]) -> ResearchDraft:
        generated = answer.value
        return ResearchDraft(
            title=harmless(generated.title),
            summary=generated.summary,
            files=files,
            operator="",
            parameters={},
            diagnosis=self.diagnosis,
            rounds=tuple(self.rounds),
            generator=f"{answer.model} (prompts {self.prompts.digest[:12]})"[:200],
        )

    def _round(self, kind: str, schema: type[M], **values: str) -> Answer[M]:
        self.tell(f"Level 2, {kind}: waiting for {self.llm.model}")
        prompt = self.prompts.fill(f"{kind}.md", **values)
        if len(prompt) > MAX_PROMPT_CHARACTERS:
            raise PriorError(
                f"level 2, {kind}: the prompt has {len(prompt)} characters, the limit is "
                f"{MAX_PROMPT_CHARACTERS}: the trace is too long for one question",
                rule="long_prompt",
            )
        answer = self.llm.ask(prompt, schema=schema, purpose=f"level 2, {kind}")
        if len(answer.text) > MAX_ANSWER_CHARACTERS:
            why = f"level 2, {kind}: the answer has {len(answer.text)} characters"
            raise PriorError(why, rule="long_answer")
        kept = Round.model_validate(
            {
                "name": kind,
                "prompt": answer.prompt,
                "answer": answer.text,
                "prompt_tokens": answer.prompt_tokens,
                "answer_tokens": answer.answer_tokens,
                "seconds": round(answer.seconds, 3),
            }
        )
        self.rounds.append(kept)
        return answer


def _unique(name: str, context: ResearchContext) -> str:
    """The idea's name, with a number where the library or an earlier draft has it already."""
    taken = {e.name for e in context.library}
    taken |= {str(d.get("name", "")) for d in context.earlier_drafts} | {*keyword.kwlist}
    if name not in taken:
        return name
    return next(n for i in range(2, len(taken) + 3) if (n := f"{name[:54]}_{i}") not in taken)


def _shown_context(
    context: ResearchContext, diagnosis: dict[str, object], metric: str
) -> dict[str, str]:
    shown = Path(sandbox.mechanism.__file__).read_text(encoding="utf-8")
    return {
        "interface": shown.partition("# --- plain data for the wire")[0].rstrip(),
        "live_name": context.mechanism_name,
        "live_source": context.mechanism_source.rstrip(),
        "space": space_table(context.space, context.best.config, context.frozen),
        "history": history_table(context.trace, metric),
        "earlier_runs": earlier_table(context.earlier_runs),
        "diagnosis": json.dumps(diagnosis, indent=1),
        "library": "\n".join(f"- {e.name}: {_first_line(e.source)}" for e in context.library)
        or "none",
        "earlier": _earlier(context.earlier_drafts),
    }


def _first_line(source: str) -> str:
    return (ast.get_docstring(tree_of(source)) or "").partition("\n")[0]


def _earlier(drafts: Sequence[Mapping[str, Any]]) -> str:
    """A line for each of the newest drafts."""
    lines = [
        "- "
        + json.dumps(
            {
                "name": draft.get("name", ""),
                "operator": draft.get("operator", ""),
                "state": draft.get("state", ""),
                "reason": str(draft.get("reason", ""))[:REASON_CHARACTERS],
            }
        )
        for draft in drafts[-EARLIER_DRAFTS:]
    ]
    if len(drafts) > EARLIER_DRAFTS:
        lines.insert(0, f"({len(drafts) - EARLIER_DRAFTS} older drafts are left out)")
    return "\n".join(lines) or "none"
