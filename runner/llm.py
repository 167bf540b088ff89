"""The language model: any OpenAI-compatible `base_url`. The only file that knows openai.

One question, one schema-checked answer. The richest form of structured output that the server
takes is probed once (json_schema, json_object, plain text with extraction). Every call has a
deadline and a cap in bytes, retries are bounded, tokens are counted against a cap. Whatever can't
be used is a classified, counted `LlmError`; there is no default answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import httpx2
import openai
from pydantic import BaseModel

from runner.answers import Fault, LlmError, Reply, checked, parse, shown, strict
from runner.ledger import FREE, Ledger, Price

M = TypeVar("M", bound=BaseModel)

CHARACTERS_A_TOKEN = 3  # a cautious estimate, used where the server does not count
SYSTEM = "You are a careful research engineer. Answer with one JSON object and nothing else."
NO_RETRY = (Fault.REFUSED, Fault.TOO_LARGE)
UNSEEN = (Fault.DEADLINE, Fault.TOO_LARGE)  # the model may have written all that it was allowed
CHARGED = (*UNSEEN, Fault.NO_PROTOCOL)  # the question was asked, and will be on the bill
BUSY = (408, 429)
LONGEST_WAIT_SECONDS = 3600.0


class LanguageModel(Protocol):
    """What asks: one model (`Llm`), or several in their order (`runner.providers`)."""

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
        self.answer_bytes = answer_bytes
        self.answer_tokens = answer_tokens
        self._form = _Form()
        self._pause = pause
        self._client = openai.OpenAI(
            base_url=base_url,
            api_key=api_key or "none",
            max_retries=0,
            timeout=httpx2.Timeout(deadline_seconds, connect=min(10.0, deadline_seconds)),
            http_client=httpx2.Client(
                trust_env=False,
                headers={"Accept-Encoding": "identity"},
                transport=_Bounded(limit_bytes=answer_bytes, deadline_seconds=deadline_seconds),
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
        asked = answered = 0
        question, error = prompt, LlmError(Fault.EMPTY, "never asked")
        for attempt in range(self.retries + 1):
            if attempt:
                wait = max(min(0.5 * 2**attempt, 10.0), error.wait_seconds)
                if time.monotonic() + wait - started > self.question_seconds:
                    break
                self._pause(wait)
            try:
                reply = self._reply(question, schema)
                asked, answered = asked + reply.prompt_tokens, answered + reply.answer_tokens
                value = checked(reply, schema)
            except LlmError as failure:
                error = failure
                asked, answered = asked + failure.tokens[0], answered + failure.tokens[1]
                self.ledger.fault(failure.fault.value, self.model)
                if failure.fault in NO_RETRY:
                    break
                if failure.fault in {Fault.NOT_JSON, Fault.CUT_OFF, Fault.WRONG_SCHEMA}:
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

    def _reply(self, prompt: str, schema: type[BaseModel]) -> Reply:
        """One call, in the best form that the server takes. Raises LlmError, BudgetExceeded."""
        expected = len(SYSTEM + prompt) // CHARACTERS_A_TOKEN
        form = self._form
        while True:
            try:
                with self.ledger.reserved(expected, self.answer_tokens, self.price):
                    reply = self._counted(prompt, schema, form, expected)
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                lower = form.lower(str(error))
                if lower is None:  # it was about something else: the best form is asked again
                    raise LlmError(Fault.REFUSED, shown(str(error))) from error
                form = lower
                continue
            self._form = form
            return reply

    def _counted(self, prompt: str, schema: type[BaseModel], form: _Form, expected: int) -> Reply:
        """One call, its tokens counted: as the server says, or as they are estimated."""
        spend = partial(self.ledger.spend, model=self.model, price=self.price)
        try:
            reply = self._call(prompt, schema, form)
        except LlmError as error:
            if error.fault in CHARGED:
                error.tokens = (expected, self.answer_tokens if error.fault in UNSEEN else 0)
                spend(*error.tokens, estimated=True)
            raise
        estimated = reply.prompt_tokens < 0 or reply.answer_tokens < 0
        if estimated:
            answered = len(reply.text) // CHARACTERS_A_TOKEN + 1
            reply = replace(reply, prompt_tokens=expected, answer_tokens=answered)
        spend(reply.prompt_tokens, reply.answer_tokens, estimated=estimated)
        return reply

    def _call(self, prompt: str, schema: type[BaseModel], asked: _Form) -> Reply:
        extra: dict[str, Any] = {asked.limit_name: self.answer_tokens}
        if asked.mode is Mode.JSON_SCHEMA:
            form = {"name": schema.__name__, "schema": strict(schema), "strict": True}
            extra["response_format"] = {"type": "json_schema", "json_schema": form}
        elif asked.mode is Mode.JSON_OBJECT:
            extra["response_format"] = {"type": "json_object"}
        try:
            with self._client.chat.completions.with_streaming_response.create(
                model=self.model,
                messages=[
                    {"role": "system", "content": SYSTEM},
                    {"role": "user", "content": prompt},
                ],
                **extra,
            ) as response:
                body = response.read()
        except (openai.BadRequestError, openai.UnprocessableEntityError):
            raise
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise _classified(error, self.deadline_seconds) from error
        return parse(body)


def _classified(error: Exception, deadline_seconds: float) -> LlmError:
    """What a failed call is an instance of."""
    if isinstance(error.__cause__, LlmError):  # raised in the transport, wrapped by the client
        return error.__cause__
    if isinstance(error, httpx2.ConnectTimeout) or isinstance(
        error.__cause__, httpx2.ConnectTimeout
    ):
        return LlmError(Fault.UNREACHABLE, "no connection in time")
    if isinstance(error, (openai.APITimeoutError, httpx2.TimeoutException)):
        return LlmError(Fault.DEADLINE, f"no answer within {deadline_seconds:g} s")
    if isinstance(error, openai.APIStatusError):
        server = error.status_code >= 500 or error.status_code in BUSY
        fault = Fault.SERVER_ERROR if server else Fault.REFUSED
        wait = _retry_after(error.response.headers.get("retry-after", "")) if server else 0.0
        why = f"HTTP {error.status_code}: {shown(str(error))}"
        return LlmError(fault, why, wait_seconds=wait)
    return LlmError(Fault.UNREACHABLE, shown(str(error)))


def _retry_after(text: str) -> float:
    """Seconds that a server asks to wait, as a number or as a date; 0 where it says neither."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return 0.0
    return min(seconds, LONGEST_WAIT_SECONDS) if seconds > 0 else 0.0


class _Bounded(httpx2.HTTPTransport):
    """Answers of any status are cut off by an error at a size and at a deadline: a server may
    flood, or drip a byte a second, which no timeout for a single read would notice."""

    def __init__(self, *, limit_bytes: int, deadline_seconds: float) -> None:
        super().__init__()
        self.limit_bytes = limit_bytes
        self.deadline_seconds = deadline_seconds

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send, and bound what comes back."""
        deadline = time.monotonic() + self.deadline_seconds
        response = super().handle_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            response.close()
            raise LlmError(Fault.NO_PROTOCOL, "the answer is compressed, and was asked not to be")
        assert isinstance(response.stream, httpx2.SyncByteStream)  # noqa: S101 - it is no async one
        response.stream = _BoundedStream(response.stream, self.limit_bytes, deadline)
        return response


class _BoundedStream(httpx2.SyncByteStream):
    def __init__(self, inner: httpx2.SyncByteStream, limit_bytes: int, deadline: float) -> None:
        self.inner, self.limit_bytes, self.deadline = inner, limit_bytes, deadline

    def __iter__(self) -> Iterator[bytes]:
        seen = 0
        for chunk in self.inner:
            seen += len(chunk)
            if seen > self.limit_bytes:
                raise LlmError(Fault.TOO_LARGE, f"the answer has over {self.limit_bytes} bytes")
            if time.monotonic() > self.deadline:
                raise LlmError(Fault.DEADLINE, "the answer was not finished at the deadline")
            yield chunk

    def close(self) -> None:
        self.inner.close()
