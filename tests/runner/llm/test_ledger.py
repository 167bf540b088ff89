"""What language models cost: the ledger against a real local server that counts, lies or dies."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from runner.interfaces import BudgetExceeded
from runner.llm.answers import LlmError
from runner.llm.ledger import Ledger, Price
from tests.runner.llm.test_client import GOOD, ask, client
from tests.runner.llmserver import breaks, flood, serving, stall, status


@pytest.mark.parametrize(
    ("answer", "answered", "deadline_seconds"),
    [
        (stall, 500, 2),
        (flood, 500, 60),
        (breaks, 500, 60),
        (lambda h: h.send(200, b"<html>"), 3, 60),
    ],
)
def test_a_call_without_an_answer_is_on_the_bill(answer, answered, deadline_seconds):
    with serving(answer) as server:
        llm = client(server, deadline_seconds=deadline_seconds, retries=0)
        with pytest.raises(LlmError):
            ask(llm)
    assert llm.ledger.estimated_calls == 1
    assert llm.ledger.prompt_tokens > 20
    assert llm.ledger.answer_tokens == answered


def test_what_is_no_chat_completion_is_paid_for_too():
    body = b'{"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 7}}'
    with serving(lambda h: h.send(200, body)) as server, pytest.raises(LlmError):
        ask(llm := client(server, retries=0))
    assert (llm.ledger.prompt_tokens, llm.ledger.answer_tokens) == (11, 7)
    assert llm.ledger.estimated_calls == 0
    with serving(lambda h: h.send(200, b"data: x\n" * 10_000)) as server, pytest.raises(LlmError):
        ask(llm := client(server, retries=0))
    assert llm.ledger.answer_tokens == 500  # all that it could have had


PAGE = {"Content_Encoding": "gzip"}


@pytest.mark.parametrize(
    "answer", [status(500), status(401), lambda h: h.send(502, b"\x1f\x8bpage", **PAGE)]
)
def test_a_refusal_costs_nothing(answer):
    with serving(answer) as server:
        llm = client(server)
        with pytest.raises(LlmError):
            ask(llm)
    assert (llm.ledger.calls, llm.ledger.total_tokens) == (0, 0)


def test_two_levels_that_ask_at_once_lose_no_token(tmp_path):
    ledger = Ledger(cap_tokens=10**9, path=tmp_path / "ledger.json")

    def work(model):
        for _ in range(100):
            with ledger.reserved(1, 1):
                ledger.spend(1, 2, estimated=False, model=model)
                ledger.fault("empty", model)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, "abcd"))
    again = Ledger(cap_tokens=1, path=tmp_path / "ledger.json")
    assert (again.prompt_tokens, again.answer_tokens, again.calls) == (400, 800, 400)
    assert again.faults == {"empty": 400}
    assert [again.models[m]["calls"] for m in "abcd"] == [100] * 4


def test_two_calls_at_once_break_no_cap_together():
    ledger = Ledger(cap_tokens=100, cap_cost=1.0)
    with ledger.reserved(40, 20), pytest.raises(BudgetExceeded), ledger.reserved(30, 20):
        pass
    with ledger.reserved(30, 20):
        pass


def test_a_refusal_and_a_filter_are_paid_for():
    usage = {"prompt_tokens": 11, "completion_tokens": 7}
    with serving(lambda h: h.completion(None, message={"refusal": "no"}, usage=usage)) as server:
        llm = client(server)
        with pytest.raises(LlmError):
            ask(llm)
    assert (llm.ledger.prompt_tokens, llm.ledger.answer_tokens) == (11, 7)
    assert llm.ledger.estimated_calls == 0


@pytest.mark.parametrize(
    ("usage", "asked", "answered"),
    [
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 1015}, 10, 1005),
        ({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": "15"}, 10, 5),
        ({"input_tokens": 10, "output_tokens": 5}, 10, 5),
    ],
)
def test_tokens_are_counted_as_the_bill_will_have_them(usage, asked, answered):
    with serving(lambda h: h.completion(GOOD, usage=usage)) as server:
        llm = client(server)
        ask(llm)
    assert (llm.ledger.prompt_tokens, llm.ledger.answer_tokens) == (asked, answered)
    assert llm.ledger.estimated_calls == 0


def test_a_server_that_counts_more_than_expected_breaks_no_cap():
    usage = {"prompt_tokens": 4000, "completion_tokens": 900}
    with serving(lambda h: h.completion(GOOD, usage=usage)) as server:
        llm = client(server, ledger=Ledger(cap_tokens=10_000))
        ask(llm)
        ask(llm)
        with pytest.raises(BudgetExceeded):
            ask(llm)
        assert len(server.requests) == 2
    assert llm.ledger.total_tokens == 9800


def test_a_call_that_was_killed_is_counted_at_the_next_start(tmp_path):
    path, price = tmp_path / "ledger.json", Price(prompt=2.0, answer=10.0)
    ledger = Ledger(cap_tokens=10_000, path=path)
    ledger.spend(10, 5, estimated=False, model="m", price=price)
    with ledger.reserved(100, 500, model="m", price=price) as held:
        killed = path.read_text()
        ledger.spend(90, 50, estimated=False, model="m", price=price, held=held)
        settled = path.read_text()
    path.write_text(killed)
    for _ in range(2):  # starting again is not one more call
        again = Ledger(cap_tokens=10_000, path=path)
        assert (again.prompt_tokens, again.answer_tokens) == (110, 505)
        assert (again.calls, again.estimated_calls) == (2, 1)
        assert again.models["m"]["interrupted"] == again.faults["interrupted"] == 1
        assert again.cost == pytest.approx(0.00527)
    path.write_text(settled)
    assert Ledger(cap_tokens=10_000, path=path).total_tokens == 155


def test_a_call_that_is_stopped_in_the_middle_is_counted():
    with serving(GOOD) as server:
        llm = client(server)

        def stopped(*_arguments):
            raise KeyboardInterrupt

        llm._call = stopped
        with pytest.raises(KeyboardInterrupt):
            ask(llm)
    assert (llm.ledger.calls, llm.ledger.estimated_calls) == (1, 1)
    assert llm.ledger.answer_tokens == 500


def test_the_cap_stops_before_the_call_and_survives_a_restart(tmp_path):
    path = tmp_path / "ledger.json"
    with serving(GOOD) as server:
        llm = client(server, ledger=Ledger(cap_tokens=900, path=path))
        ask(llm)
        ask(llm)
        with pytest.raises(BudgetExceeded, match="300 of 900 tokens"):
            ask(llm)
        again = client(server, ledger=Ledger(cap_tokens=900, path=path))
        with pytest.raises(BudgetExceeded):
            ask(again)
        assert len(server.requests) == 2


UNTOLD = [
    None,
    {},
    [1],
    {"prompt_tokens": -5, "completion_tokens": "many"},
    {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    {"prompt_tokens": 10**12, "completion_tokens": 5},
]


@pytest.mark.parametrize("usage", UNTOLD)
def test_tokens_are_estimated_where_the_server_does_not_count(usage):
    with serving(lambda h: h.completion(GOOD, usage=usage)) as server:
        llm = client(server)
        ask(llm)
    assert llm.ledger.estimated_calls == 1
    assert llm.ledger.prompt_tokens > 20
    assert llm.ledger.answer_tokens > 5
