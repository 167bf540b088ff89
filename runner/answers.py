"""What a language model's answer is: the text of a chat completion, and the one JSON object in it,
checked against a schema. Whatever can't be used is a classified `LlmError`; nothing is asked here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from runner.borders import PriorError

M = TypeVar("M", bound=BaseModel)

SHOWN_CHARACTERS = 300


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


class LlmError(PriorError):
    """No usable answer after the retries; `fault` is the class of the last failure.

    `wait_seconds`: how long the server asks to be left alone. `tokens`: what the failed call is
    taken to have cost, asked and answered.
    """

    tokens: tuple[int, int] = (0, 0)

    def __init__(self, fault: Fault, message: str, *, wait_seconds: float = 0.0) -> None:
        super().__init__(f"language model, {fault}: {message}")
        self.fault = fault
        self.detail = message
        self.wait_seconds = wait_seconds


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back; `cut`: the server ended it at the limit. Tokens are -1 where it told none."""

    text: str
    cut: bool
    prompt_tokens: int
    answer_tokens: int


def parse(body: bytes) -> Reply:
    """The chat completion's text. Raises LlmError."""
    try:
        data = json.loads(body)
        choice = data["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        str(text).encode()  # half a surrogate pair is no text
        usage = data.get("usage") or {}
        counts = [usage.get("prompt_tokens", -1), usage.get("completion_tokens", -1)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        start = shown(body.decode(errors="replace"))
        raise LlmError(Fault.NO_PROTOCOL, f"this is no chat completion: {start}") from error
    if refusal:
        raise LlmError(Fault.REFUSED, shown(str(refusal)))
    if text is not None and not isinstance(text, str):
        raise LlmError(Fault.NO_PROTOCOL, f"the content is a {type(text).__name__}, not a text")
    tokens = [n if type(n) is int and 0 <= n < 10**9 else -1 for n in counts]
    cut = choice.get("finish_reason") == "length"
    return Reply(text=text or "", cut=cut, prompt_tokens=tokens[0], answer_tokens=tokens[1])


def checked(reply: Reply, schema: type[M]) -> M:
    """The answer as its schema, or the class of what is wrong with it."""
    if not reply.text.strip():
        why = ": all its tokens went elsewhere, such as into reasoning" if reply.cut else ""
        raise LlmError(Fault.EMPTY, f"the answer is empty{why}")
    data = extract(reply.text)
    if data is None:
        half = reply.cut or "{" in reply.text
        fault = Fault.CUT_OFF if half else Fault.NOT_JSON
        raise LlmError(fault, f"no whole JSON object in: {shown(reply.text)}")
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()[:5]
        )
        raise LlmError(Fault.WRONG_SCHEMA, shown(problems)) from error


def extract(text: str) -> dict[str, Any] | None:
    """The first whole JSON object in a text (bare, in a fence, or within prose), or None; what is
    thought aloud before it (up to `</think>`) is passed over."""
    _, thought, after = text.rpartition("</think>")
    found = _first_object(after) if thought else None
    return _first_object(text) if found is None else found


def _first_object(text: str) -> dict[str, Any] | None:
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    text = text.rstrip()
    start = text.find("{")
    for _ in range(20):
        if start < 0:
            return None
        try:
            data, _end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
                return None  # cut off: a part of it is not what was meant
        except (ValueError, RecursionError):
            pass  # no number of JSON, or too deep: perhaps the next one
        else:
            return data if isinstance(data, dict) else None
        start = text.find("{", start + 1)
    return None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def strict(schema: type[BaseModel]) -> dict[str, Any]:
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


def shown(text: str) -> str:
    """The beginning of what somebody else wrote, on one line and harmless to a terminal."""
    cut = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
    return "".join(c if c.isprintable() else " " for c in cut)
