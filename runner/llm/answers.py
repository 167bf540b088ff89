"""What a language model's answer is: the text of a chat completion, and the one JSON object in it,
checked against a schema. Whatever can't be used is a classified `LlmError`; nothing is asked here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeGuard, TypeVar

from pydantic import BaseModel, ValidationError

from runner.interfaces import PriorError

M = TypeVar("M", bound=BaseModel)

SHOWN_CHARACTERS = 300
MAX_DIGITS = 300
MOST_TOKENS = 10**9
ENDED_EARLY = ("length", "max_tokens", "content_filter")
_OPENED = re.compile(r"\s*<think(ing)?>")
_CLOSED = re.compile(r"</think(ing)?>")
_UNFIT = re.compile(r"[\0\ud800-\udfff]")


class Fault(StrEnum):
    """Why an answer could not be used."""

    UNREACHABLE = "unreachable"  # no connection
    BROKEN = "broken"  # the connection broke after the question was sent
    DEADLINE = "deadline"
    SERVER_ERROR = "server_error"  # 5xx, 429, or the same within a 200
    REFUSED = "refused"  # other 4xx, or the model (or a filter before it) refused
    TOO_LARGE = "too_large"
    NO_PROTOCOL = "no_protocol"  # not what a chat completion looks like
    EMPTY = "empty"
    NOT_JSON = "not_json"  # prose
    CUT_OFF = "cut_off"  # half of a JSON object
    WRONG_SCHEMA = "wrong_schema"


class LlmError(PriorError):
    """No usable answer after the retries; `fault` is the class of the last failure.

    `wait_seconds`: how long the server asks to be left alone. `billed`: the call may be on the
    bill, though nobody says what it cost. `tokens`: what the failed call is taken to have cost,
    asked and answered.
    """

    tokens: tuple[int, int] = (0, 0)

    def __init__(
        self, fault: Fault, message: str, *, wait_seconds: float = 0.0, billed: bool = False
    ) -> None:
        super().__init__(f"language model, {fault}: {message}")
        self.fault = fault
        self.detail = message
        self.wait_seconds = wait_seconds
        self.billed = billed


class Unfit(ValueError):
    """A JSON object that is none that anybody may rely on; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back; `cut`: the server ended it early; `problem`: it is paid for, and no answer.
    Tokens are -1 where the server told none that can be."""

    text: str
    cut: bool = False
    prompt_tokens: int = -1
    answer_tokens: int = -1
    problem: tuple[Fault, str] | None = None


def parse(body: bytes) -> Reply:
    """The chat completion's text. Raises LlmError where it is none."""
    try:
        data = json.loads(body)
        choices = data.get("choices")
        if not choices and (told := data.get("error")):
            raise LlmError(Fault.SERVER_ERROR, shown(f"an error within a 200: {told}"), billed=True)
        choice = choices[0]
        text, problem = _said(choice, choice["message"])
        text.encode()  # half a surrogate pair is no text
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        start = shown(body.decode(errors="replace"))
        why = "streams, which was not asked for" if start.startswith("data:") else "answers"
        raise LlmError(
            Fault.NO_PROTOCOL, f"this is no chat completion; the server {why}: {start}", billed=True
        ) from error
    asked, answered = _counted(data.get("usage"), answered=bool(text))
    cut = choice.get("finish_reason") in ENDED_EARLY
    return Reply(text=text, cut=cut, prompt_tokens=asked, answer_tokens=answered, problem=problem)


def _said(choice: dict[str, Any], message: dict[str, Any]) -> tuple[str, tuple[Fault, str] | None]:
    """The text of a message, and what is wrong with it, if anything is."""
    content = message.get("content")
    if isinstance(content, list):  # in parts, of which thoughts are no answer
        parts = [p for p in content if p.get("type") in {"text", "output_text"}]
        content = "".join(p["text"] for p in parts)
    if refusal := message.get("refusal"):
        return "", (Fault.REFUSED, shown(str(refusal)))
    if told := choice.get("error"):
        return "", (Fault.SERVER_ERROR, shown(f"an error within a 200: {told}"))
    if content is not None and not isinstance(content, str):
        return "", (Fault.NO_PROTOCOL, f"the content is a {type(content).__name__}, not a text")
    if content and content.strip():
        return content, None
    if choice.get("finish_reason") == "content_filter":
        return "", (Fault.REFUSED, "the provider's content filter left nothing of the answer")
    why = ""
    if choice.get("finish_reason") in ENDED_EARLY:
        why = ": all its tokens went elsewhere, such as into reasoning"
    elif message.get("tool_calls") or message.get("function_call"):
        why = ": it calls a tool, and has none"
    return "", (Fault.EMPTY, f"the answer is empty{why}")


def _counted(usage: Any, *, answered: bool) -> tuple[int, int]:
    """Tokens asked and answered as the server counts them; -1, -1 where that can't be true."""
    told = usage if isinstance(usage, dict) else {}
    asked = told.get("prompt_tokens", told.get("input_tokens"))
    answer = told.get("completion_tokens", told.get("output_tokens"))
    total = told.get("total_tokens", 0)
    if not (_count(asked) and _count(answer)) or asked == 0 or (answered and answer == 0):
        return -1, -1  # some servers say 0 for everything: no cap would ever be reached
    thought = total - asked if _count(total) else 0  # some count thoughts in the total alone
    return asked, max(answer, thought)


def _count(number: object) -> TypeGuard[int]:
    return type(number) is int and 0 <= number < MOST_TOKENS


def checked(reply: Reply, schema: type[M]) -> M:
    """The answer as its schema, or the class of what is wrong with it."""
    if reply.problem is not None:
        raise LlmError(*reply.problem)
    try:
        data = extract(reply.text)
        if data is None:
            half = reply.cut or "{" in reply.text
            fault = Fault.CUT_OFF if half else Fault.NOT_JSON
            raise LlmError(fault, f"no whole JSON object in: {shown(reply.text)}")
        return schema.model_validate(data)
    except Unfit as error:
        raise LlmError(Fault.WRONG_SCHEMA, shown(f"{error}, in: {reply.text}")) from error
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in error.errors()[:5]
        )
        raise LlmError(Fault.WRONG_SCHEMA, shown(problems)) from error


def extract(text: str) -> dict[str, Any] | None:
    """The first whole JSON object in a text (bare, in a fence, or within prose), or None; what is
    thought aloud before it (up to `</think>`) is passed over, and never an answer where it says
    that it is a thought. Raises Unfit."""
    opened = _OPENED.match(text)
    for closed in [*_CLOSED.finditer(text)][
        :-10:-1
    ]:  # an answer may have the word in a text of its
        if (found := _first_object(text[closed.end() :])) is not None:
            return found
    return None if opened else _first_object(text)


def _first_object(text: str) -> dict[str, Any] | None:
    decoder = json.JSONDecoder(
        parse_constant=_no_constant, parse_int=_integer, object_pairs_hook=_object
    )
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
        except RecursionError:
            pass  # too deep: perhaps the next one
        else:
            _check_texts(data)
            return data if isinstance(data, dict) else None
        start = text.find("{", start + 1)
    return None


def _no_constant(name: str) -> Any:
    raise Unfit(f"{name} is no JSON")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise Unfit(f"a number has {len(digits)} digits")
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name in found if [n for n, _ in pairs].count(name) > 1)
        raise Unfit(f"the key {shown(twice)!r} is there twice")
    return found


def _check_texts(data: Any) -> None:
    """Raise Unfit where a text could be stored or shown nowhere."""
    parts = [data]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            parts += [*part, *part.values()]
        elif isinstance(part, list):
            parts += part
        elif isinstance(part, str) and _UNFIT.search(part):
            raise Unfit("a text has a NUL character, or half a surrogate pair")


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
    """The beginning of what somebody else wrote, harmless."""
    return harmless(text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "...")


def harmless(text: str) -> str:
    """What somebody else wrote, on one line, and moving no terminal."""
    return "".join(c if c.isprintable() else " " for c in text)
