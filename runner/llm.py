"""The language model: any OpenAI-compatible `base_url`. The only file that knows openai.

One question, one schema-checked answer. The richest form of structured output that the server
takes is probed once (json_schema, json_object, plain text with extraction). Every call has a
deadline and a cap in bytes, retries are bounded, tokens are counted against a cap. Whatever can't
be used is a classified, counted `LlmError`; there is no default answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar

import httpx2
import openai
from pydantic import BaseModel, ValidationError

from runner.borders import PriorError
from runner.ledger import FREE, Ledger, Price

M = TypeVar("M", bound=BaseModel)

CHARACTERS_A_TOKEN = 3  # a cautious estimate, used where the server does not count
SHOWN_CHARACTERS = 300
SYSTEM = "You are a careful research engineer. Answer with one JSON object and nothing else."


class Fault(StrEnum):
    """Why an answer could not be used."""

    UNREACHABLE = "unreachable"  # no connection, or it broke
    DEADLINE = "deadline"
    SERVER_ERROR = "server_error"  # 5xx and 429
    REFUSED = "refused"  # other 4xx, or the model refused
    TOO_LARGE = "too_large"
    NO_PROTOCOL = "no_protocol"  # not what a chat completion looks like
    EMPTY = "empty"
    NOT_JSON = "not_json"  # prose
    CUT_OFF = "cut_off"  # half of a JSON object
    WRONG_SCHEMA = "wrong_schema"


NO_RETRY = (Fault.REFUSED, Fault.TOO_LARGE)


class LlmError(PriorError):
    """No usable answer after the retries; `fault` is the class of the last failure."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(f"language model, {fault}: {message}")
        self.fault = fault
        self.detail = message


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
class Answer(Generic[M]):
    """A checked answer with its text and its cost (all attempts together)."""

    value: M
    prompt: str
    text: str
    prompt_tokens: int
    answer_tokens: int
    seconds: float
    model: str


@dataclass(frozen=True, kw_only=True)
class _Reply:
    text: str
    cut: bool
    prompt_tokens: int
    answer_tokens: int


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
        self.mode = Mode.JSON_SCHEMA
        self._limit_name = "max_completion_tokens"
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

    def ask(self, prompt: str, *, schema: type[M], purpose: str) -> Answer[M]:
        """One question: `retries` more calls, and none begun after `question_seconds`.

        Raises LlmError (a PriorError) or BudgetExceeded.
        """
        started = time.monotonic()
        before = (self.ledger.prompt_tokens, self.ledger.answer_tokens)
        question, error = prompt, LlmError(Fault.EMPTY, "never asked")
        for attempt in range(self.retries + 1):
            if attempt:
                if time.monotonic() - started > self.question_seconds:
                    break
                self._pause(min(0.5 * 2**attempt, 10.0))
            try:
                reply = self._reply(question, schema)
                value = _checked(reply, schema)
            except LlmError as failure:
                error = failure
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
                prompt_tokens=self.ledger.prompt_tokens - before[0],
                answer_tokens=self.ledger.answer_tokens - before[1],
                seconds=time.monotonic() - started,
                model=self.model,
            )
        raise LlmError(error.fault, f"{purpose}: {error.detail}") from error

    def _reply(self, prompt: str, schema: type[BaseModel]) -> _Reply:
        """One call, in the best mode that the server takes."""
        expected = len(SYSTEM + prompt) // CHARACTERS_A_TOKEN
        while True:
            self.ledger.check(expected, self.answer_tokens, self.price)
            try:
                reply = self._call(prompt, schema)
            except openai.BadRequestError as error:
                if not self._step_down(str(error)):
                    raise LlmError(Fault.REFUSED, _shown(str(error))) from error
                continue
            estimated = reply.prompt_tokens < 0 or reply.answer_tokens < 0
            spent = (reply.prompt_tokens, reply.answer_tokens)
            if estimated:
                spent = (expected, len(reply.text) // CHARACTERS_A_TOKEN + 1)
            self.ledger.spend(*spent, estimated=estimated, model=self.model, price=self.price)
            return reply

    def _step_down(self, message: str) -> bool:
        """After a 400: another name of the limit, or the next mode; False if none is left."""
        if self._limit_name == "max_completion_tokens" and self._limit_name in message:
            self._limit_name = "max_tokens"
            return True
        modes = list(Mode)
        if self.mode is modes[-1]:
            return False
        self.mode = modes[modes.index(self.mode) + 1]
        return True

    def _call(self, prompt: str, schema: type[BaseModel]) -> _Reply:
        extra: dict[str, Any] = {self._limit_name: self.answer_tokens}
        if self.mode is Mode.JSON_SCHEMA:
            form = {"name": schema.__name__, "schema": _strict(schema), "strict": True}
            extra["response_format"] = {"type": "json_schema", "json_schema": form}
        elif self.mode is Mode.JSON_OBJECT:
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
        except openai.BadRequestError:
            raise
        except (openai.OpenAIError, httpx2.HTTPError) as error:
            raise _classified(error, self.deadline_seconds) from error
        return _parse(body)


def _classified(error: Exception, deadline_seconds: float) -> LlmError:
    """What a failed call is an instance of."""
    if isinstance(error.__cause__, LlmError):  # raised in the transport, wrapped by the client
        return error.__cause__
    if isinstance(error, (openai.APITimeoutError, httpx2.TimeoutException)):
        return LlmError(Fault.DEADLINE, f"no answer within {deadline_seconds:g} s")
    if isinstance(error, openai.APIStatusError):
        server = error.status_code >= 500 or error.status_code == 429
        fault = Fault.SERVER_ERROR if server else Fault.REFUSED
        return LlmError(fault, f"HTTP {error.status_code}: {_shown(str(error))}")
    return LlmError(Fault.UNREACHABLE, _shown(str(error)))


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


def _parse(body: bytes) -> _Reply:
    """The chat completion's text. Token counts are -1 where the server gave none."""
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        str(text).encode()  # half a surrogate pair is no text
        usage = data.get("usage") or {}
        counts = [usage.get("prompt_tokens", -1), usage.get("completion_tokens", -1)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        shown = _shown(body.decode(errors="replace"))
        raise LlmError(Fault.NO_PROTOCOL, f"this is no chat completion: {shown}") from error
    if refusal:
        raise LlmError(Fault.REFUSED, _shown(str(refusal)))
    if text is not None and not isinstance(text, str):
        raise LlmError(Fault.NO_PROTOCOL, f"the content is a {type(text).__name__}, not a text")
    tokens = [n if type(n) is int and 0 <= n < 10**9 else -1 for n in counts]
    cut = choice.get("finish_reason") == "length"
    return _Reply(text=text or "", cut=cut, prompt_tokens=tokens[0], answer_tokens=tokens[1])


def _checked(reply: _Reply, schema: type[M]) -> M:
    """The answer as its schema, or the class of what is wrong with it."""
    if not reply.text.strip():
        raise LlmError(Fault.EMPTY, "the answer is empty")
    data = extract(reply.text)
    if data is None:
        half = reply.cut or "{" in reply.text
        fault = Fault.CUT_OFF if half else Fault.NOT_JSON
        raise LlmError(fault, f"no whole JSON object in: {_shown(reply.text)}")
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()[:5]
        )
        raise LlmError(Fault.WRONG_SCHEMA, _shown(problems)) from error


def extract(text: str) -> dict[str, Any] | None:
    """The first whole JSON object in a text (bare, in a fence, or within prose), or None."""
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    start = text.find("{")
    for _ in range(20):
        if start < 0:
            return None
        try:
            data, _end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start = text.find("{", start + 1)
            continue
        return data if isinstance(data, dict) else None
    return None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _strict(schema: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema without what strict servers refuse; pydantic checks all of it afterwards."""
    unsupported = {"maxLength", "minLength", "title", "default", "maxItems", "minItems", "pattern"}

    def clean(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: {name: clean(part) for name, part in value.items()}
                if key in {"properties", "$defs"}
                else clean(value)
                for key, value in node.items()
                if key not in unsupported
            }
        return [clean(part) for part in node] if isinstance(node, list) else node

    cleaned: dict[str, Any] = clean(schema.model_json_schema())
    return cleaned


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
