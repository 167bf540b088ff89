"""The language model's client against a real local server, honest and hostile."""

from __future__ import annotations

import gzip
import json
import socket
from types import SimpleNamespace

import pytest
from pydantic import BaseModel, ConfigDict, Field

from runner.interfaces import PriorError
from runner.llm.answers import Fault, LlmError
from runner.llm.client import Llm, Mode
from runner.llm.ledger import Ledger
from tests.runner.llmserver import (
    breaks,
    drip,
    flood,
    for_ever_soon,
    serving,
    slow_head,
    stall,
    status,
)


class Colour(BaseModel):
    """What the tests ask for."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=10)
    shades: list[int] = Field(max_length=3)


GOOD = '{"name": "red", "shades": [1, 2]}'


def client(server, **options):
    defaults = {
        "base_url": server.url,
        "model": "test-model",
        "api_key": "k-123",
        "ledger": Ledger(cap_tokens=100_000),
        "deadline_seconds": 60.0,
        "answer_bytes": 20_000,
        "answer_tokens": 500,
        "pause": lambda _seconds: None,
    }
    return Llm(**{**defaults, **options})


def ask(llm):
    return llm.ask("Which colour?", schema=Colour, purpose="test")


def test_a_good_answer_is_checked_and_counted():
    with serving(GOOD) as server:
        llm = client(server)
        answer = ask(llm)
    assert answer.value == Colour(name="red", shades=[1, 2])
    assert (answer.text, answer.prompt_tokens, answer.answer_tokens) == (GOOD, 100, 50)
    (request,) = server.requests
    assert request["path"] == "/v1/chat/completions"
    assert request["headers"]["authorization"] == "Bearer k-123"
    schema = request["response_format"]["json_schema"]
    assert schema["strict"] is True
    assert schema["schema"]["additionalProperties"] is False
    assert set(schema["schema"]["properties"]) == {"name", "shades"}
    assert "maxLength" not in json.dumps(schema)
    assert llm.ledger.total_tokens == 150


def test_the_best_mode_is_probed_once():
    def picky(handler):
        if handler.body.get("response_format", {}).get("type") == "json_schema":
            status(400, "response_format json_schema is not supported")(handler)
        else:
            handler.completion(GOOD)

    with serving(picky) as server:
        llm = client(server)
        ask(llm)
        ask(llm)
    kinds = [r.get("response_format", {}).get("type") for r in server.requests]
    assert kinds == ["json_schema", "json_object", "json_object"]
    assert llm.mode is Mode.JSON_OBJECT
    assert not llm.ledger.faults


def test_a_server_without_structured_output_is_asked_in_plain_text():
    def plain_only(handler):
        if "response_format" in handler.body:
            status(400, "unknown field response_format")(handler)
        else:
            handler.completion(f"Sure! Here it is:\n```json\n{GOOD}\n```\nAnything else?")

    with serving(plain_only) as server:
        llm = client(server)
        assert ask(llm).value.name == "red"
    assert llm.mode is Mode.PLAIN


def says(code: int, what: object):
    """An error in other words than those of the protocol."""
    return lambda handler: handler.send(code, json.dumps(what).encode())


WORDS = [
    status(400, "unrecognized argument: max_completion_tokens"),
    says(422, {"detail": [{"loc": ["body", "max_completion_tokens"], "msg": "Extra inputs"}]}),
    says(400, {"error": "max_completion_tokens is not known here"}),
    lambda handler: handler.send(400, b"no such field: max_completion_tokens"),
]


@pytest.mark.parametrize("refuse", WORDS)
def test_an_old_server_gets_the_old_name_of_the_limit(refuse):
    def old(handler):
        if "max_completion_tokens" in handler.body:
            refuse(handler)
        else:
            handler.completion(GOOD)

    with serving(old) as server:
        llm = client(server)
        ask(llm)
    assert llm.mode is Mode.JSON_SCHEMA
    assert server.requests[-1]["max_tokens"] == 500


@pytest.mark.parametrize("what", [{"detail": "pull it first"}, {"error": "pull it first"}])
def test_what_a_server_says_is_shown_however_it_says_it(what):
    with serving(says(404, what)) as server, pytest.raises(LlmError, match="pull it first"):
        ask(client(server))


HOSTILE = [
    (status(500), Fault.SERVER_ERROR, 3),
    (status(429), Fault.SERVER_ERROR, 3),
    (status(401), Fault.REFUSED, 1),
    (status(404), Fault.REFUSED, 1),
    ("", Fault.EMPTY, 3),
    ("   \n", Fault.EMPTY, 3),
    (lambda h: h.completion(None), Fault.EMPTY, 3),
    ("I would rather talk about the weather.", Fault.NOT_JSON, 3),
    ('{"name": "red", "sha', Fault.CUT_OFF, 3),
    (lambda h: h.completion("Well, first", finish_reason="length"), Fault.CUT_OFF, 3),
    ('{"name": "red"}', Fault.WRONG_SCHEMA, 3),
    ('{"name": "red", "shades": [1, 2, 3, 4]}', Fault.WRONG_SCHEMA, 3),
    ('{"name": "red", "shades": [], "extra": 1}', Fault.WRONG_SCHEMA, 3),
    ('{"name": "red", "shades": [NaN]}', Fault.WRONG_SCHEMA, 3),
    ('{"name": "red", "name": "blue", "shades": []}', Fault.WRONG_SCHEMA, 3),
    ('{"name": "\\ud800", "shades": []}', Fault.WRONG_SCHEMA, 3),
    ('{"name": "\\u0000", "shades": []}', Fault.WRONG_SCHEMA, 3),
    ('{"name": "red", "shades": [' + "9" * 400 + "]}", Fault.WRONG_SCHEMA, 3),
    (f"<think>{GOOD} perhaps", Fault.CUT_OFF, 3),
    (f"<think>{GOOD}</think>I can't say.", Fault.NOT_JSON, 3),
    ('{"name": "red", "shades": [],}', Fault.BAD_JSON, 3),
    ("{'name': 'red', 'shades': []}", Fault.BAD_JSON, 3),
    (lambda h: h.completion("", message={"reasoning_content": GOOD}), Fault.EMPTY, 3),
    (lambda h: h.completion(None, finish_reason="content_filter"), Fault.REFUSED, 1),
    (lambda h: h.completion(None, message={"tool_calls": [{}]}), Fault.EMPTY, 3),
    (lambda h: h.completion([{"type": "thinking", "text": GOOD}]), Fault.EMPTY, 3),
    (lambda h: h.completion([{"type": "text"}]), Fault.NO_PROTOCOL, 3),
    (lambda h: h.completion("", error={"code": 502}), Fault.SERVER_ERROR, 3),
    (lambda h: h.send(200, b'{"error": {"message": "busy", "code": 429}}'), Fault.SERVER_ERROR, 3),
    (lambda h: h.send(200, b'data: {"choices": []}\n\n'), Fault.NO_PROTOCOL, 3),
    (lambda h: h.send(307, b"", Location="http://127.0.0.1:9/"), Fault.REFUSED, 1),
    (lambda h: h.completion(None, message={"refusal": "I can't."}), Fault.REFUSED, 1),
    (lambda h: h.send(200, b"<html>proxy login</html>"), Fault.NO_PROTOCOL, 3),
    (lambda h: h.send(200, b'{"choices": []}'), Fault.NO_PROTOCOL, 3),
    (lambda h: h.send(200, b'{"choices": [{"message": {"content": 5}}]}'), Fault.NO_PROTOCOL, 3),
    (lambda h: h.send(200, b"[" * 15_000), Fault.NO_PROTOCOL, 3),
    (lambda h: h.send(200, gzip.compress(b" " * 10**7), Content_Encoding="gzip"), None, 3),
    (flood, Fault.TOO_LARGE, 1),
    (lambda h: h.send(500, b"x" * 10**6), Fault.TOO_LARGE, 1),
    (lambda h: h.connection.close(), Fault.BROKEN, 3),
    (breaks, Fault.BROKEN, 3),
]


@pytest.mark.parametrize(("answer", "fault", "calls"), HOSTILE)
def test_what_can_not_be_used_is_a_classified_counted_error(answer, fault, calls):
    with serving(answer) as server:
        llm = client(server)
        with pytest.raises(PriorError) as caught:
            ask(llm)
        assert len(server.requests) == calls
    assert isinstance(caught.value, LlmError)
    assert caught.value.fault is (fault or Fault.NO_PROTOCOL)
    assert llm.ledger.faults == {caught.value.fault.value: calls}
    assert len(str(caught.value)) < 600
    assert "k-123" not in str(caught.value)


@pytest.mark.parametrize(("code", "why"), [(422, "extra fields"), (500, "failed to parse grammar")])
def test_a_server_that_fails_at_a_form_is_asked_in_the_next(code, why):
    def strict(handler):
        kind = handler.body.get("response_format", {}).get("type")
        status(code, why)(handler) if kind else handler.completion(GOOD)

    with serving(strict) as server:
        llm = client(server)
        assert ask(llm).value.name == "red"
    assert (llm.mode, len(server.requests)) == (Mode.PLAIN, 3)


def test_a_question_that_is_refused_for_itself_costs_no_form():
    with serving(*[status(400, "context length exceeded")] * 3, GOOD) as server:
        llm = client(server)
        with pytest.raises(LlmError) as caught:
            ask(llm)
        assert caught.value.fault is Fault.REFUSED
        assert llm.mode is Mode.JSON_SCHEMA
        ask(llm)
    assert server.requests[-1]["response_format"]["type"] == "json_schema"


def busy(seconds):
    return lambda handler: handler.send(429, b"{}", Retry_After=str(seconds))


def test_a_server_that_names_a_time_is_left_alone_so_long():
    waited = []
    with serving(busy(7), busy("0.25"), GOOD) as server:
        ask(client(server, pause=waited.append))
    assert waited == [7.0, 2.0]


@pytest.mark.parametrize("seconds", [3600, "1e300", "Fri, 31 Dec 2100 23:59:59 GMT"])
def test_a_server_that_is_away_for_long_is_not_waited_for(seconds):
    with serving(busy(seconds)) as server:
        with pytest.raises(LlmError) as caught:
            ask(client(server, pause=pytest.fail))
        assert len(server.requests) == 1
    assert caught.value.wait_seconds == 3600.0


FAR = "Fri, 31 Dec 99999999999 23:59:59 GMT"


@pytest.mark.parametrize("seconds", ["", "-5", "nan", "soon", "inf-", "Fri, 99 Dec 2100", FAR])
def test_a_time_that_is_none_changes_nothing(seconds):
    waited = []
    with serving(busy(seconds), GOOD) as server:
        ask(client(server, pause=waited.append))
    assert waited == [1.0]


def test_reasoning_that_took_all_tokens_is_told():
    def thinks(handler):
        message = {"reasoning_content": "hm " * 100, "tool_calls": [{"type": "function"}]}
        handler.completion(None, finish_reason="length", message=message)

    with serving(thinks) as server, pytest.raises(LlmError, match="into reasoning") as caught:
        ask(client(server))
    assert caught.value.fault is Fault.EMPTY


@pytest.mark.parametrize("answer", [stall, drip, slow_head, for_ever_soon])
def test_a_call_ends_at_its_deadline(answer):
    with serving(answer) as server:
        with pytest.raises(LlmError) as caught:
            ask(client(server, deadline_seconds=0.4, retries=0))
        assert caught.value.fault is Fault.DEADLINE


def test_a_question_ends_at_its_deadline_too():
    with serving(stall) as server:
        with pytest.raises(LlmError) as caught:
            ask(client(server, deadline_seconds=0.4, question_seconds=0.6, retries=9))
        assert len(server.requests) <= 2
    assert caught.value.fault is Fault.DEADLINE


@pytest.mark.parametrize("key", ["k\n", "\u043a"])
def test_a_key_that_can_not_be_sent_is_not_shown(key):
    with serving(GOOD) as server, pytest.raises(LlmError, match="the key, or") as caught:
        ask(client(server, api_key=f"secret{key}", retries=0))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("code", [200, 400, 401, 500])
def test_a_key_that_a_server_echoes_is_not_shown(code):
    def echo(handler):
        said = {"error": {"message": f"you sent {handler.headers['Authorization']}"}}
        handler.send(code, json.dumps(said).encode())

    with serving(echo) as server, pytest.raises(LlmError, match=r"Bearer \[the key\]") as caught:
        ask(client(server, api_key="secret-key", retries=0))
    assert "secret" not in str(caught.value)


def test_an_answer_may_come_in_parts():
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": GOOD}]
    with serving(lambda h: h.completion(parts)) as server:
        assert ask(client(server)).value.name == "red"


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # held, so that nobody else gets it
        nobody = SimpleNamespace(url=f"http://127.0.0.1:{free.getsockname()[1]}/v1")
        with pytest.raises(LlmError) as caught:
            ask(client(nobody))
    assert caught.value.fault is Fault.UNREACHABLE


def test_a_retry_tells_what_was_wrong():
    with serving("no idea", GOOD) as server:
        llm = client(server)
        answer = ask(llm)
    assert answer.value.name == "red"
    assert "Your last answer was refused: no whole JSON object" in server.prompts()[1]
    assert answer.prompt == server.prompts()[1]
    assert answer.prompt_tokens == 200  # both attempts were paid for
    assert llm.ledger.faults == {"not_json": 1}


def test_what_is_quoted_moves_no_terminal():
    with serving("no\x1b[2J\nway\x00") as server, pytest.raises(LlmError, match=r"no \[2J way "):
        ask(client(server))


def test_of_several_objects_the_one_that_fits_is_the_answer():
    with serving(f'The form: {{"name": 1}}. So:\n{GOOD}\nOnce more: {GOOD}') as server:
        assert ask(client(server)).value.name == "red"
    other = GOOD.replace("red", "blue")
    with serving(f"{GOOD} or {other}", GOOD) as server:
        answer = ask(llm := client(server))
        assert "it gives 2 different answers: give one" in server.prompts()[1]
    assert answer.value.name == "red"
    assert llm.ledger.faults == {"wrong_schema": 1}
