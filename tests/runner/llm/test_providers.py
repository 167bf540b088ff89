"""Several language models: the next one where one fails, never silently."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from runner.__main__ import run_settings
from runner.interfaces import BudgetExceeded
from runner.llm.answers import Fault, LlmError
from runner.llm.ledger import Ledger, Price
from runner.llm.providers import REST_SECONDS, Providers
from runner.settings import RunSettings
from tests.runner.llm.test_client import GOOD, Colour, ask, client
from tests.runner.llmserver import serving, stall, status


def providers(*servers, ledger=None, now=lambda: 0.0, first=(), **options):
    """`first`: options of the first model alone."""
    ledger = ledger or Ledger(cap_tokens=100_000)
    common = {"ledger": ledger, "retries": 0, **options}
    models = [
        client(server, model=f"model-{n}", **{**common, **dict(first if n == 0 else ())})
        for n, server in enumerate(servers)
    ]
    said = []
    return Providers(models, say=said.append, clock=now), said, ledger


def test_the_first_answers_and_no_other_is_asked():
    with serving(GOOD) as one, serving(GOOD) as two:
        llm, said, _ = providers(one, two)
        assert ask(llm).model == "model-0"
        assert (said, two.requests) == ([], [])
        assert llm.model == "model-0, else model-1"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [(status(503), "server_error"), ("prose", "not_json"), (stall, "deadline"), ("", "empty")],
)
def test_the_next_is_asked_and_that_is_said_and_counted(answer, fault):
    with serving(answer) as one, serving(GOOD) as two:
        short = {"deadline_seconds": 0.5} if fault == "deadline" else {}
        llm, said, ledger = providers(one, two, first=short)
        answered = ask(llm)
    assert (answered.model, answered.value) == ("model-1", Colour.model_validate_json(GOOD))
    [told] = said
    assert "LANGUAGE MODEL FAILED: model-0" in told
    assert "asking model-1 instead" in told
    assert ledger.models["model-0"][fault] == 1
    assert ledger.models["model-1"]["calls"] == 1


def test_one_that_is_away_rests_and_is_asked_again_afterwards():
    clock = [0.0]
    with serving(status(503)) as one, serving(GOOD) as two:
        llm, _, _ = providers(one, two, now=lambda: clock[0])
        ask(llm)
        ask(llm)
        assert len(one.requests) == 1
        clock[0] = REST_SECONDS + 1
        ask(llm)
        assert len(one.requests) == 2


def test_one_that_rests_is_asked_before_all_is_given_up():
    with serving(status(503), GOOD) as one, serving(GOOD, "prose") as two:
        llm, said, _ = providers(one, two)
        assert ask(llm).model == "model-1"
        assert ask(llm).model == "model-0"
    assert len(said) == 2


def test_where_none_answers_each_reason_is_told():
    with serving(status(503)) as one, serving("prose") as two:
        llm, _, _ = providers(one, two)
        with pytest.raises(LlmError, match=r"model-0: server_error.*model-1: not_json") as caught:
            ask(llm)
    assert caught.value.fault is Fault.NOT_JSON


def test_the_caps_hold_over_all_of_them_and_are_no_reason_to_ask_the_next(tmp_path):
    path = tmp_path / "ledger.json"
    price = Price(prompt=1000.0, answer=1000.0)  # 0.15 for the 150 tokens of each answer
    with serving(GOOD) as one, serving(GOOD) as two:
        ledger = Ledger(cap_tokens=100_000, cap_cost=1.0, path=path)
        llm, _, _ = providers(one, two, ledger=ledger, price=price)
        ask(llm)
        assert ledger.cost == pytest.approx(0.15)
        ask_until_it_costs_too_much = (ask(llm) for _ in range(20))
        with pytest.raises(BudgetExceeded, match="cost cap"):
            list(ask_until_it_costs_too_much)
        again = Ledger(cap_tokens=100_000, cap_cost=1.0, path=path)
        assert again.cost == pytest.approx(ledger.cost)
        assert again.cost <= 1.0
        assert two.requests == []


COUNTS = '"prompt_tokens": 1, "answer_tokens": 1, "estimated_calls": 0, "faults": {}'
BROKEN = [
    *("{", "[]", '{"prompt_tokens": 1}', ""),
    f'{{{COUNTS}, "calls": 1, "cost": NaN}}',
    f'{{{COUNTS}, "calls": 1, "cost": -3}}',
    f'{{{COUNTS}, "calls": "1"}}',
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_ledger_refills_no_cap(tmp_path, text):
    path = tmp_path / "ledger.json"
    path.write_text(text)
    with pytest.raises(BudgetExceeded, match="mend it"):
        Ledger(cap_tokens=10, path=path)


def test_a_run_with_a_broken_ledger_pauses_before_it_asks(tmp_path, capsys):
    (tmp_path / "tokens.json").write_text("{")
    options = {"task": "table", "trials": 1, "out": tmp_path, "generator": "openai"}
    made = RunSettings(**options, base_url="http://127.0.0.1:9/v1", model="m")
    assert run_settings(made) == 4
    assert "mend it" in capsys.readouterr().out


def settings(tmp_path, **options):
    needed = {"task": "gpt", "trials": 1, "out": tmp_path, "prior": "openai"}
    return RunSettings(**{**needed, "base_url": "http://a", "model": "a", **options})


def test_each_model_has_its_own_address_key_and_price(tmp_path, monkeypatch):
    monkeypatch.setenv("ESCAPEMENT_LLM_KEY", "first")
    monkeypatch.setenv("ESCAPEMENT_LLM_KEY_1", "second")
    found = settings(
        tmp_path, fallbacks=("b@x@http://b/v1", "c@https://c"), prices=("1,2", "3,4", "0.5,6")
    ).models()
    assert [entry[:3] for entry in found] == [
        ("a", "http://a", "first"),
        ("b@x", "http://b/v1", "second"),
        ("c", "https://c", ""),  # nobody else's key
    ]
    assert [(p.prompt, p.answer) for *_, p in found] == [(1, 2), (3, 4), (0.5, 6)]


@pytest.mark.parametrize(
    "options",
    [
        {"fallbacks": ("b",)},
        {"prices": ("1",)},
        {"prices": ("1,2", "1,2")},
        {"cost_cap": 1.0},
        {"cost_cap": -1.0, "prices": ("1,2",)},
    ],
)
def test_what_does_not_fit_together_is_refused(tmp_path, options):
    with pytest.raises(ValidationError):
        settings(tmp_path, **options)


def test_answers_are_kept_as_plain_json(tmp_path):
    with serving(GOOD) as one:
        llm, _, _ = providers(one, ledger=Ledger(cap_tokens=10_000, path=tmp_path / "l.json"))
        ask(llm)
    kept = json.loads((tmp_path / "l.json").read_text())
    assert kept["models"]["model-0"] == {
        "answer_tokens": 50,
        "calls": 1,
        "prompt_tokens": 100,
    }
