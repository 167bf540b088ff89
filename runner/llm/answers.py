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
MOST_OBJECTS = 100
_THOUGHT = r"(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|analysis|scratchpad)"
_OPEN = rf"<{_THOUGHT}>|\[THINK\]|\u25c1think\u25b7|<\|START_THINKING\|>|<\|channel\|>analysis"
_CLOSE = rf"</{_THOUGHT}>|\[/THINK\]|\u25c1/think\u25b7|<\|END_THINKING\|>|<\|channel\|>final"
_CLOSED = re.compile(_CLOSE, re.IGNORECASE)
# A brace begins an object where a key follows (in wrong quotes, or behind a comment, it is one with
# a mistake), or the end: others are prose.
_KEY = r'\{\s*(?:"(?:[^"\\]|\\.)*"\s*:|\}|"(?:[^"\\]|\\.)*"?\s*\Z|//|/\*|\'[^\'\n]*\'\s*:)'
_MARK = re.compile(
    rf"(?P<opened>{_OPEN})|(?P<closed>{_CLOSE})|(?P<object>{_KEY})", re.IGNORECASE | re.DOTALL
)
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
    BAD_JSON = "bad_json"  # a JSON object with a mistake in it
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
        super().__init__(f"language model, {fault}: {message}", rule=fault.value)
        self.fault = fault
        self.detail = message
        self.wait_seconds = wait_seconds
        self.billed = billed


class Unfit(ValueError):
    """A JSON object that is none that anybody may rely on; the message says why."""

    def __init__(self, why: str, fault: Fault = Fault.WRONG_SCHEMA) -> None:
        super().__init__(why)
        self.fault = fault


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
    """The chat completion's text, or what is wrong with it: the call is paid for either way."""
    usage: Any = None
    try:
        data = json.loads(body)
        usage = data.get("usage")
        choices = data.get("choices")
        if not choices and (told := data.get("error")):
            return _useless(body, usage, Fault.SERVER_ERROR, f"an error within a 200: {told}")
        choice = choices[0]
        text, problem = _said(choice, choice["message"])
        text.encode()  # half a surrogate pair is no text
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        start = body.decode(errors="replace")
        why = "streams, which was not asked for" if start.startswith("data:") else "answers"
        told = f"this is no chat completion; the server {why}: {start or 'nothing'}"
        return _useless(body, usage, Fault.NO_PROTOCOL, told)
    asked, answered = _counted(usage, answered=bool(text))
    cut = choice.get("finish_reason") in ENDED_EARLY
    return Reply(text=text, cut=cut, prompt_tokens=asked, answer_tokens=answered, problem=problem)


def _useless(body: bytes, usage: Any, fault: Fault, why: str) -> Reply:
    """Whatever was answered is on the bill, so that its length counts where nothing else does."""
    asked, answered = _counted(usage, answered=False)
    text, problem = body.decode(errors="replace"), (fault, shown(why))
    return Reply(text=text, prompt_tokens=asked, answer_tokens=answered, problem=problem)


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
    elif message.get("reasoning_content") or message.get("reasoning"):
        why = ": all that it wrote are thoughts"
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
        found = objects(reply.text)
    except Unfit as error:
        raise LlmError(error.fault, shown(f"{error}, in: {reply.text}")) from error
    if not found:
        fault = Fault.CUT_OFF if reply.cut else Fault.NOT_JSON
        why = f"no whole JSON object in: {shown(reply.text)}"
        raise LlmError(fault, why)
    fitting: list[M] = []
    wrong: ValidationError | None = None
    for data in found:
        try:
            value = schema.model_validate(data)
        except ValidationError as error:
            wrong = error
        else:
            fitting += [] if value in fitting else [value]
    if len(fitting) > 1:
        why = f"it gives {len(fitting)} different answers: give one"
        raise LlmError(Fault.WRONG_SCHEMA, shown(f"{why}, in: {reply.text}"))
    if not fitting and wrong is not None:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'answer'}: {e['msg']}" for e in wrong.errors()[:5]
        )
        raise LlmError(Fault.WRONG_SCHEMA, shown(problems)) from wrong
    return fitting[0]


def objects(text: str) -> list[dict[str, Any]]:
    """The whole JSON objects of a text (bare, in fences, or within prose), none of them part of
    another; what is thought aloud, or stands before the end of a thought, is passed over.

    Raises Unfit where one is broken: its parts are not what was meant.
    """
    text = text.rstrip()
    found: list[dict[str, Any]] = []
    place = 0
    for _ in range(MOST_OBJECTS):
        mark = _MARK.search(text, place)
        if mark is None:
            return found
        place = mark.end()
        if mark["closed"]:
            found = []
        elif mark["opened"]:
            if not found and not _CLOSED.search(text, place):
                raise Unfit("its thoughts have no end", Fault.CUT_OFF)
            place = _after_thought(text, place)
        else:
            try:
                data, place = _object_at(text, mark.start())
            except Unfit:
                if not _CLOSED.search(text, place):
                    raise
                place = _after_thought(text, place)  # it was one
            else:
                found += [data]
    raise Unfit(f"it has over {MOST_OBJECTS} objects")


def _after_thought(text: str, place: int) -> int:
    closed = _CLOSED.search(text, place)
    return closed.start() if closed else len(text)


def _object_at(text: str, start: int) -> tuple[dict[str, Any], int]:
    """The object that begins there, and where it ends. Raises Unfit."""
    decoder = json.JSONDecoder(
        strict=False,  # some write a line's end in a text as it is; that can mean one thing alone
        parse_constant=_no_constant,
        parse_int=_integer,
        object_pairs_hook=_object,
    )
    try:
        data, end = decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        if error.pos >= len(text) or error.msg.startswith("Unterminated string"):
            raise Unfit("the JSON object ends before its end", Fault.CUT_OFF) from error
        why = f"the JSON object has a mistake at its character {error.pos - start}: {error.msg}"
        raise Unfit(why, Fault.BAD_JSON) from error
    except RecursionError as error:
        raise Unfit("the JSON object is nested too deeply", Fault.BAD_JSON) from error
    _check_texts(data)
    return data, end


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
