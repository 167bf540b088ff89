"""The language model: any OpenAI-compatible `base_url`. The only file that knows openai.

One question, one schema-checked answer. The richest form of structured output that the server takes
is probed once (json_schema, json_object, plain text with extraction). Every call has a deadline and
a cap in bytes (`runner.llm.bounded`), retries are bounded, tokens are counted against a cap.
Whatever can't be used is a classified, counted `LlmError`; there is no default answer.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import httpx2
import openai
from pydantic import BaseModel

from runner.llm.answers import Fault, LlmError, Reply, checked, parse, shown, strict
from runner.llm.bounded import Bounded
from runner.llm.ledger import FREE, Ledger, Price

M = TypeVar("M", bound=BaseModel)

CHARACTERS_A_TOKEN = 3  # a cautious estimate, used where the server does not count
SYSTEM = "You are a careful research engineer. Answer with one JSON object and nothing else."
NO_RETRY = (Fault.REFUSED, Fault.TOO_LARGE)
MENDABLE = (Fault.NOT_JSON, Fault.CUT_OFF, Fault.BAD_JSON, Fault.WRONG_SCHEMA)
BUSY = (408, 425, 429)
FORM_WORDS = ("response_format", "json_schema", "json_object", "grammar", "guided")
MOVED = " (redirects are not followed, so that no key goes elsewhere: give the final base URL)"
HINTS = {
    **dict.fromkeys((301, 302, 303, 307, 308), MOVED),
    401: " (is the key right? It is read from ESCAPEMENT_LLM_KEY)",
    404: " (are the base URL, which often ends in /v1, and the model's name right?)",
}
LONGEST_WAIT_SECONDS = 3600.0


class LanguageModel(Protocol):
    """What asks: one model (`Llm`), or several in their order (`runner.llm.providers`)."""

    @property
    def model(self) -> str: ...

    def ask(self, prompt: str, *, schema: type[M], purpose: str) -> Answer[M]: ...


class Mode(StrEnum):
    """Forms of structured output, best first."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    PLAIN = "plain"


@dataclass(frozen=True, kw_only=True)
class _Form:
    """How a question is put: the structure asked for, and what the limit of tokens is called."""

    mode: Mode = Mode.JSON_SCHEMA
    limit_name: str = "max_completion_tokens"

    def lower(self, message: str) -> _Form | None:
        """After a refusal: the other name of the limit, or the next mode; None if none is left."""
        if self.limit_name == "max_completion_tokens" and self.limit_name in message:
            return replace(self, limit_name="max_tokens")
        later = list(Mode)[list(Mode).index(self.mode) + 1 :]
        return replace(self, mode=later[0]) if later else None


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[M]):
    """A checked answer with its text and its cost (all attempts together)."""

    value: M
    prompt: str
    text: str
    prompt_tokens: int
    answer_tokens: int
    seconds: float
    model: str


class Llm:
    """One model behind one `base_url`."""

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str,
        ledger: Ledger,
        price: Price = FREE,
        deadline_seconds: float = 120.0,
        question_seconds: float = 300.0,
        retries: int = 2,
        answer_bytes: int = 512 * 1024,
        answer_tokens: int = 8000,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.model = model
        self.ledger = ledger
        self.price = price
        self.question_seconds = question_seconds
        self.deadline_seconds = deadline_seconds
        self.retries = retries
        self.answer_tokens = answer_tokens
        self._form = _Form()
        self._ratio = 1.0  # of tokens that were counted to those that were expected: the highest
        self._longest = answer_tokens
        self._pause = pause
        self._key = api_key.encode(errors="replace") or b"none"
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            max_retries=0,
            http_client=httpx2.Client(
                trust_env=False,
                headers={"Accept-Encoding": "identity"},
                transport=Bounded(limit_bytes=answer_bytes),
            ),
        )

    @property
    def mode(self) -> Mode:
        """The form of structured output that the server is known to take."""
        return self._form.mode

    def ask(self, prompt: str, *, schema: type[M], purpose: str) -> Answer[M]:
        """One question: `retries` more calls, and none begun after `question_seconds`.

        Raises LlmError (a PriorError) or BudgetExceeded.
        """
        started = time.monotonic()
        ends = started + self.question_seconds
        asked = answered = 0
        question, error = prompt, LlmError(Fault.EMPTY, "never asked")
        for attempt in range(self.retries + 1):
            if attempt:
                wait = max(min(0.5 * 2**attempt, 10.0), error.wait_seconds)
                if time.monotonic() + wait > ends:
                    break
                self._pause(wait)
            try:
                reply = self._reply(question, schema, ends)
                asked, answered = asked + reply.prompt_tokens, answered + reply.answer_tokens
                value = checked(reply, schema)
            except LlmError as failure:
                error = failure
                asked, answered = asked + failure.tokens[0], answered + failure.tokens[1]
                self.ledger.fault(failure.fault.value, self.model)
                if failure.fault in NO_RETRY:
                    break
                if failure.fault in MENDABLE:
                    question = f"{prompt}\n\nYour last answer was refused: {failure.detail}"
                continue
            return Answer(
                value=value,
                prompt=question,
                text=reply.text,
                prompt_tokens=asked,
                answer_tokens=answered,
                seconds=time.monotonic() - started,
                model=self.model,
            )
        raise LlmError(
            error.fault, f"{purpose}: {error.detail}", wait_seconds=error.wait_seconds
        ) from error

    def _reply(self, prompt: str, schema: type[BaseModel], ends: float) -> Reply:
        """One call, in the best form that the server takes. Raises LlmError, BudgetExceeded."""
        form = self._form
        while True:
            try:
                reply = self._counted(prompt, schema, form, ends)
            except openai.APIStatusError as error:  # about the form, it may be
                lower = form.lower(_said(error))
                if lower is None:  # it was about something else: the best form is asked again
                    raise LlmError(Fault.REFUSED, shown(self._told(error))) from error
                form = lower
                continue
            self._form = form
            return reply

    def _counted(self, prompt: str, schema: type[BaseModel], form: _Form, ends: float) -> Reply:
        """One call, its tokens counted: as the server says, or as they are estimated."""
        shape = _shape(schema, form.mode)
        expected = len(SYSTEM + prompt + json.dumps(shape)) // CHARACTERS_A_TOKEN
        likely = math.ceil(expected * self._ratio)
        with self.ledger.reserved(
            likely, self._longest, model=self.model, price=self.price
        ) as held:
            spend = partial(self.ledger.spend, model=self.model, price=self.price, held=held)
            try:
                reply = self._call(prompt, {**shape, form.limit_name: self.answer_tokens}, ends)
            except openai.APIStatusError:
                raise
            except LlmError as error:
                if error.billed:
                    error.tokens = (likely, self._longest)  # nobody saw how much was written
                    spend(*error.tokens, estimated=True)
                raise
            except BaseException:  # it was stopped in the middle
                spend(likely, self._longest, estimated=True)
                raise
            estimated = reply.prompt_tokens < 0 or reply.answer_tokens < 0
            if estimated:
                answered = len(reply.text) // CHARACTERS_A_TOKEN + 1
                if reply.problem is not None:  # a web page, perhaps: no model wrote more than this
                    answered = min(answered, self._longest)
                reply = replace(reply, prompt_tokens=likely, answer_tokens=answered)
            spend(reply.prompt_tokens, reply.answer_tokens, estimated=estimated)
        self._ratio = max(self._ratio, reply.prompt_tokens / expected)
        self._longest = max(self._longest, reply.answer_tokens)  # some servers know no limit
        return reply

    def _call(self, prompt: str, extra: Mapping[str, Any], ends: float) -> Reply:
        """Raises LlmError, and an APIStatusError that may be about the form alone."""
        left = min(self.deadline_seconds, ends - time.monotonic())
        if left <= 0:
            raise LlmError(Fault.DEADLINE, f"no answer within {self.question_seconds:g} s")
        try:
            with self._client.chat.completions.with_streaming_response.create(
                model=self.model,
                messages=[
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": prompt},
                ],
                timeout=left,
                **extra,
            ) as response:
                body = self._hidden(response.read())
        except openai.APIStatusError as error:
            if _may_be_the_form(error):
                raise
            raise _classified(error, self._told(error)) from error
        except LlmError:
            raise
        except (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as error:
            if isinstance(error.__cause__, LlmError):  # from the transport, wrapped by the client
                raise error.__cause__ from error
            raise LlmError(Fault.UNREACHABLE, _plain(error)) from error
        return parse(body)

    def _told(self, error: openai.APIStatusError) -> str:
        return self._hidden(_said(error).encode(errors="replace")).decode(errors="replace")

    def _hidden(self, said: bytes) -> bytes:
        """What the server said, without the key: some echo what they are sent."""
        return said.replace(self._key, b"[the key]") if len(self._key) > 8 else said


def _shape(schema: type[BaseModel], mode: Mode) -> dict[str, Any]:
    """What asks for the structure of the answer."""
    if mode is Mode.JSON_SCHEMA:
        form = {"name": schema.__name__, "schema": strict(schema), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": form}}
    return {"response_format": {"type": "json_object"}} if mode is Mode.JSON_OBJECT else {}


def _said(error: openai.APIStatusError) -> str:
    """What the server said: the client knows `message` alone, and many say `detail`, or plain
    text."""
    body = error.body
    if not body or (isinstance(body, dict) and isinstance(body.get("message"), str)):
        return str(error)
    return f"{error}: {body if isinstance(body, str) else json.dumps(body)}"


def _may_be_the_form(error: openai.APIStatusError) -> bool:
    """Whether another form may help: 400 and 422, and a 5xx that speaks of it."""
    if error.status_code in {400, 422}:
        return True
    told = _said(error).lower()
    return error.status_code >= 500 and any(word in told for word in FORM_WORDS)


def _classified(error: openai.APIStatusError, told: str) -> LlmError:
    """What an answer with a bad status is an instance of."""
    server = error.status_code >= 500 or error.status_code in BUSY
    fault = Fault.SERVER_ERROR if server else Fault.REFUSED
    wait = _retry_after(error.response.headers.get("retry-after", "")) if server else 0.0
    why = f"HTTP {error.status_code}{HINTS.get(error.status_code, '')}: {shown(told)}"
    return LlmError(fault, why, wait_seconds=wait)


def _plain(error: Exception) -> str:
    """What can't be sent. Never the text of the error: it may have the key in it."""
    if isinstance(error, UnicodeError):
        return "the key, or the model's name, has characters that HTTP can't carry"
    return f"the question can't be sent ({type(error).__name__}): is the base URL right?"


def _retry_after(text: str) -> float:
    """Seconds that a server asks to wait, as a number or as a date; 0 where it says neither."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(seconds, LONGEST_WAIT_SECONDS) if seconds > 0 else 0.0
