"""Level 2 with a language model: four rounds against a real local server, honest and hostile."""

from __future__ import annotations

import json

import pytest

from runner.interfaces import BudgetExceeded, DraftRefused, PriorError
from runner.levels.refusals import fingerprint, twin
from runner.levels.research import OpenAIResearcher
from runner.llm.client import Llm
from runner.llm.ledger import Ledger
from runner.llm.prompting import Prompts
from tests.runner.levels.test_catalog import LIBRARY, STUCK
from tests.runner.levels.test_steering import context, trace_of
from tests.runner.llmserver import serving, status

SOURCE = '''"""Asks twice and takes the second answer."""

from sandbox.mechanism import Candidate, Mechanism, View

ASKS = 2


class Second(Mechanism):
    """The second answer."""

    name = "NAME"

    def propose(self, view: View, count: int) -> list[Candidate]:
        answers: list[Candidate] = []
        for _ in range(ASKS):
            answers = view.ask("something else", count)
        return answers
'''
TEST = """from mechanisms.NAME import Second
from sandbox.testing import make_view, scripted_prior


def test_it_takes_the_second():
    prior = scripted_prior([{"WEIGHT_DECAY": 0.2}, {"WEIGHT_DECAY": 0.3}])
    (answer,) = Second().propose(make_view(prior=prior), 1)
    assert answer.changes["WEIGHT_DECAY"] == 0.3
"""
IDEA = {"name": "second", "idea": "ask twice", "why": "it repeats itself"}
EXPLORED = json.dumps({"observations": ["it repeats itself"], "ideas": [IDEA]})
ASSESSMENT = {"name": "second", "verdict": "good", "reason": "cheap"}
CRITICISED = json.dumps({"assessments": [ASSESSMENT], "selected": "second"})
NONE = json.dumps({"assessments": [ASSESSMENT], "selected": None})
SPECIFIED = json.dumps(
    {
        "behaviour": "Asks twice.",
        "parameters": [{"name": "ASKS", "value": 2, "why": "the first is a habit"}],
        "state": "none",
        "test_cases": ["takes the second"],
        "risks": "costs tokens",
    }
)


def generated(name="second", source=SOURCE, test=TEST):
    texts = {"source": source.replace("NAME", name), "test": test.replace("NAME", name)}
    return json.dumps({"title": "Ask twice", "summary": "Takes the second answer.", **texts})


def research(*answers, cap=10**7, **more):
    """The draft and the server after all rounds."""
    with serving(*answers) as server:
        llm = Llm(
            base_url=server.url,
            model="test-model",
            api_key="k",
            ledger=Ledger(cap_tokens=cap),
            deadline_seconds=60.0,
            pause=lambda _s: None,
        )
        values = {"library": LIBRARY, "mechanism_source": "# the live source", **more}
        researcher = OpenAIResearcher(llm, metric="val_bpb")
        told: list[str] = []
        draft = researcher.draft(context(trace_of(*STUCK), **values), told.append)
        return draft, server, told


def test_four_rounds_make_a_draft():
    draft, server, told = research(EXPLORED, CRITICISED, SPECIFIED, generated())
    assert set(draft.files) == {"mechanisms/second.py", "tests/test_second.py"}
    assert draft.files["mechanisms/second.py"] == SOURCE.replace("NAME", "second")
    assert (draft.title, draft.operator) == ("Ask twice", "")
    assert draft.generator == f"test-model (prompts {Prompts().digest[:12]})"
    assert [r.name for r in draft.rounds] == ["explore", "critique", "specify", "generate"]
    assert [r.prompt for r in draft.rounds] == server.prompts()
    assert [r.answer for r in draft.rounds] == [EXPLORED, CRITICISED, SPECIFIED, generated()]
    assert all((r.prompt_tokens, r.answer_tokens) == (100, 50) for r in draft.rounds)
    assert draft.diagnosis["repeats"] == 5
    assert len(told) == 4


def test_each_round_sees_what_it_needs():
    _, server, _ = research(EXPLORED, CRITICISED, SPECIFIED, generated())
    for prompt in server.prompts():
        assert "class Mechanism:" in prompt  # the interface, from the file itself
        assert "def space_to_data" not in prompt
        assert "# the live source" in prompt
        assert "TOTAL_BATCH_SIZE | power_of_two" in prompt
        assert "6 | discarded | 5.40000 | +0.40000" in prompt
        assert '"longest_streak_without_progress": 6' in prompt
        assert "- tabu: Tabu search" in prompt
    explore, critique, specify, generate = server.prompts()
    assert "it repeats itself" in critique
    assert '"idea":"ask twice"' in specify
    assert "Asks twice." in generate
    assert "heapq" in generate  # what may be imported, from the check's own table
    assert "it repeats itself" not in explore


def test_none_selected_is_no_draft():
    draft, server, _ = research(EXPLORED, NONE)
    assert draft is None
    assert len(server.requests) == 2


def test_a_taken_name_gets_a_number():
    earlier = ({"name": "second", "state": "rejected", "digest": "0" * 64, "parameters": {}},)
    draft, server, _ = research(
        EXPLORED, CRITICISED, SPECIFIED, generated("second_2"), earlier_drafts=earlier
    )
    assert "mechanisms/second_2.py" in draft.files
    assert "`name` is exactly `second_2`" in server.prompts()[3]
    assert '"state": "rejected"' in server.prompts()[0]


BROKEN = {
    "syntax_error": generated(source="class Second(Mechanism:\n"),
    "no_mechanism": generated(source="X = 1\n"),
    "two_mechanisms": generated(source=SOURCE + SOURCE.partition("\n\n\n")[2]),
    "syntax_error: tests": generated(test="def test(:\n"),
    "no_test": generated(test="def test_it():\n    assert True\n"),
    "no_test: imported": generated(test="from mechanisms.NAME import Second\n"),
    "the class attribute `name`": generated(source=SOURCE.replace("NAME", "other")),
    "deeply_nested": generated(source=SOURCE + "X = " + "-" * 300 + "1\n"),
    "approved operator tabu": generated(
        source=LIBRARY[4].source.replace('"tabu"', '"NAME"').replace("Tabu", "Other")
    ),
}


@pytest.mark.parametrize("rule", [*BROKEN])
def test_what_is_no_draft_is_told_and_asked_for_once_more(rule):
    draft, server, _ = research(EXPLORED, CRITICISED, SPECIFIED, BROKEN[rule], generated())
    assert draft.files["mechanisms/second.py"] == SOURCE.replace("NAME", "second")
    assert [r.name for r in draft.rounds][3:] == ["generate", "generate"]
    assert "## Your last answer was refused" in server.prompts()[4]
    assert rule.partition(":")[0] in server.prompts()[4]


RULES = {
    "the class attribute `name`": "interface",
    "approved operator tabu": "duplicate",
    "neither `propose": "interface",
    "propose never returns": "interface",
    "propose never returns anything": "interface",
    "accept never returns": "interface",
    "changes Mechanism.accept": "interface",
    "changes sandbox.mechanism.View.ask": "interface",
    "changes View,": "interface",
    "runner.loop.search": "imports",
    "importlib": "imports",
    "U+202E": "characters",
}
BROKEN |= {  # after the test above: one at a time is slow enough
    "syntax_error: A file begins with '```python'": generated(source=f"```python\n{SOURCE}```"),
    "syntax_error: A file begins with '@@ -1 +1 @@'": generated(source=f"@@ -1 +1 @@\n{SOURCE}"),
    "neither `propose": generated(source=SOURCE.replace("def propose", "def pr\u043epose")),
    "propose never returns": generated(source=SOURCE.replace("        return answers\n", "")),
    "propose never returns anything": generated(
        source=SOURCE.replace("        return answers\n", "        return None\n")
    ),
    "accept never returns": generated(
        source=SOURCE + "\n    def accept(self, trial, view):\n        raise NotImplementedError\n"
    ),
    "changes Mechanism.accept": generated(source=f"{SOURCE}\nMechanism.accept = len\n"),
    "changes sandbox.mechanism.View.ask": generated(
        source=f"import sandbox.mechanism\n{SOURCE}\nsandbox.mechanism.View.ask = len\n"
    ),
    "changes View,": generated(source=f"{SOURCE}\nsetattr(View, 'ask', len)\n"),
    "runner.loop.search": generated(source=f"import runner.loop.search\n{SOURCE}"),
    "importlib": generated(source=f"import importlib\n{SOURCE}"),
    "U+202E": generated(source=SOURCE.replace("second answer", "\u202esecond answer")),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_twice_no_draft_is_an_error(rule):
    with pytest.raises(DraftRefused) as caught:
        research(EXPLORED, CRITICISED, SPECIFIED, BROKEN[rule])
    assert caught.value.rule == RULES.get(rule, rule.partition(":")[0])
    assert str(caught.value).startswith(f"{caught.value.rule}: ")
    assert caught.value.title == "Ask twice"
    assert rule.rpartition(": ")[2] in str(caught.value) or rule == "no_test: imported"
    assert len(caught.value.rounds) == 5


def test_a_hook_may_be_bound_in_another_way():
    source = SOURCE.replace("def propose", "def _chosen") + "\n    propose = _chosen\n"
    draft, _, _ = research(EXPLORED, CRITICISED, SPECIFIED, generated(source=source))
    assert draft is not None


def earlier(source, state):
    return {"earlier_drafts": ({"name": "x", "state": state, "source": source},)}


NEAR = {
    "the same": SOURCE,
    "constants and texts": SOURCE.replace("ASKS = 2", "ASKS = 3").replace(
        "something else", "other"
    ),
    "names": SOURCE.replace("answers", "found").replace("Second", "Next").replace("view", "v"),
    "comments": SOURCE.replace("        for", "        # As people do.\n\n        for"),
    "docstrings": SOURCE.replace('    """The second answer."""\n\n', ""),
    "annotations": SOURCE.replace(": list[Candidate] =", " =").replace(" -> list[Candidate]", ""),
}
STATES = ["rejected", "failed", "rolled_back", "submitted", "passed", "live", "local", "waiting"]


@pytest.mark.parametrize("how", NEAR)
def test_a_near_duplicate_of_a_refused_draft_is_not_submitted(how):
    known = earlier(SOURCE, "rejected")
    with pytest.raises(PriorError, match="nearly the same, is rejected"):
        research(EXPLORED, CRITICISED, SPECIFIED, generated(source=NEAR[how]), **known)


@pytest.mark.parametrize("state", STATES)
def test_what_was_judged_or_will_be_is_not_submitted_again(state):
    with pytest.raises(PriorError, match=f"nearly the same, is {state}"):
        research(EXPLORED, CRITICISED, SPECIFIED, generated(), **earlier(SOURCE, state))


@pytest.mark.parametrize("state", ["withdrawn", "expired"])
def test_what_nobody_judged_may_come_again(state):
    draft, _, _ = research(EXPLORED, CRITICISED, SPECIFIED, generated(), **earlier(SOURCE, state))
    assert draft is not None


@pytest.mark.parametrize(
    ("reason", "again"), [("too_many_open: 5 wait", True), ("name_exists: there is one", False)]
)
def test_what_a_shut_door_refused_may_come_again(reason, again):
    (known,) = earlier(SOURCE, "refused")["earlier_drafts"]
    why = twin(NEAR["names"], [{**known, "reason": reason}])
    assert why == ("" if again else "duplicate: the draft 'x', nearly the same, is refused")


def test_what_runs_now_is_not_submitted_again():
    with pytest.raises(PriorError, match="the mechanism that runs now"):
        research(EXPLORED, CRITICISED, SPECIFIED, generated(), mechanism_source=NEAR["names"])


HELPED = """
class Helped(Mechanism):
    name = "helped"

    def __init__(self):
        self._seen = []

    def propose(self, view, count):
        changes = self._made(view, seed=1)
        return [Candidate(changes=changes, reason="r")]

    def _made(self, view, seed):
        self._seen.append(seed)
        return {name: knob.default for name, knob in view.space.items()}
"""


def test_a_fingerprint_is_of_the_structure():
    assert fingerprint(SOURCE) == fingerprint(SOURCE.replace("ASKS", "TIMES").replace("2", "7"))
    assert fingerprint(SOURCE) != fingerprint(SOURCE.replace("return answers", "return []"))
    assert len({fingerprint(entry.source) for entry in LIBRARY}) == len(LIBRARY)
    renamed = HELPED.replace("_seen", "_past").replace("_made", "_build").replace("seed", "start")
    renamed = renamed.replace("changes = ", "new = ").replace("changes=changes", "changes=new")
    assert fingerprint(HELPED) == fingerprint(renamed)
    first, second = HELPED.index("    def propose"), HELPED.index("    def _made")
    moved = HELPED[:first] + HELPED[second:] + "\n" + HELPED[first:second]
    assert fingerprint(HELPED) == fingerprint(moved)
    assert fingerprint(HELPED) != fingerprint(HELPED.replace("knob.default", "knob.low"))
    assert fingerprint(HELPED) != fingerprint(HELPED.replace("append(seed)", "clear()"))


NO_WORDS = ["None", "null", "", "nothing", "None selected", " `none`. ", "N/A", "\u2014"]


@pytest.mark.parametrize("word", [*NO_WORDS, "None of the above: each is an operator already."])
def test_the_word_none_selects_nothing(word):
    draft, server, _ = research(EXPLORED, NONE.replace("null", json.dumps(word)))
    assert draft is None
    assert len(server.requests) == 2


@pytest.mark.parametrize("word", ["Second", " `second`\n", '"second"'])
def test_an_idea_is_selected_by_its_name_in_any_writing(word):
    answers = (EXPLORED, CRITICISED.replace('"second"}', f"{json.dumps(word)}}}"), SPECIFIED)
    draft, _, _ = research(*answers, generated())
    assert next(iter(draft.files)) == "mechanisms/second.py"


@pytest.mark.parametrize("word", ["noise_search", "node", "\u00absecond\u00bb", "seconds"])
def test_what_was_no_idea_is_an_error(word):
    with pytest.raises(PriorError, match="which is none of its ideas") as caught:
        research(EXPLORED, CRITICISED.replace('"second"}', f"{json.dumps(word)}}}"))
    assert caught.value.rule == "unknown_idea"


def test_a_word_of_python_gets_a_number():
    rounds = (EXPLORED, CRITICISED, SPECIFIED)
    answers = [text.replace('"second"', '"lambda"') for text in rounds]
    draft, _, _ = research(*answers, generated("lambda_2"))
    assert "mechanisms/lambda_2.py" in draft.files


def test_a_title_is_there_to_be_seen():
    nothing = generated().replace("Ask twice", "\\u200b ")
    with pytest.raises(PriorError, match="title: String should match pattern"):
        research(EXPLORED, CRITICISED, SPECIFIED, nothing)


def test_a_name_may_be_annotated_and_a_title_moves_no_terminal():
    source = SOURCE.replace('name = "NAME"', 'name: str = "NAME"')
    texts = generated(source=source).replace("Ask twice", "Ask\\u001b[2J\\ntwice")
    draft, _, _ = research(EXPLORED, CRITICISED, SPECIFIED, texts)
    assert draft.title == "Ask [2J twice"


def test_of_many_earlier_drafts_the_newest_are_shown():
    drafts = tuple({"name": f"d{i}", "state": "failed", "reason": "x" * 2000} for i in range(300))
    _, server, _ = research(EXPLORED, NONE, earlier_drafts=drafts)
    assert "(260 older drafts are left out)" in server.prompts()[0]
    assert '"name": "d299"' in server.prompts()[0]


class Noted(dict):
    """A memo in memory."""

    put = dict.__setitem__


def test_what_was_answered_before_is_not_asked_again():
    memo = Noted()
    with pytest.raises(PriorError, match="server_error"):
        research(EXPLORED, CRITICISED, status(500), memo=memo)
    draft, server, _ = research(SPECIFIED, generated(), memo=memo)
    assert len(server.requests) == 2
    assert [r.name for r in draft.rounds] == ["explore", "critique", "specify", "generate"]
    assert [r.prompt_tokens for r in draft.rounds] == [100] * 4
    again, silent, _ = research(status(500), memo=memo)
    assert not silent.requests
    assert again == draft


@pytest.mark.parametrize(
    "answers",
    [
        ("The search is stuck, I think.",),
        (EXPLORED[:50],),
        (status(500),),
        ("",),
        (EXPLORED.replace("second", "../../etc/passwd"),),
        (EXPLORED, CRITICISED.replace('"selected": "second"', '"selected": "another"')),
        (EXPLORED, CRITICISED.replace('"selected": "second"', '"selected": 7')),
        (EXPLORED, CRITICISED, SPECIFIED.replace("Asks twice.", "")),
        (EXPLORED, CRITICISED, SPECIFIED, json.dumps({"title": "x" * 1000})),
        (EXPLORED, CRITICISED, SPECIFIED, generated(source=SOURCE + "#" * 70_000)),
        (EXPLORED, CRITICISED, SPECIFIED, generated(source=SOURCE + 'X = "\ud800"\n')),
        ("\ud800" + EXPLORED,),
    ],
)
def test_hostile_answers_are_errors(answers):
    with pytest.raises(PriorError):
        research(*answers)


def test_the_cap_ends_the_drafting():
    with pytest.raises(BudgetExceeded):
        research(EXPLORED, CRITICISED, SPECIFIED, generated(), cap=12_000)
