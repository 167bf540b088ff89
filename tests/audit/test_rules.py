"""The rules, re-checked from the log alone: each one broken in a log that is whole and signed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from audit import canonical, source, verifier
from audit.verifier import Kind
from proposals.states import TRANSITIONS, State

from tests.audit.stories import (
    ACTIVATED,
    ADA,
    FIRST,
    GRACE,
    LINUS,
    LIVE,
    LOADED,
    POLICY,
    RESTORED,
    RUNNER,
    SCREENED,
    SECOND,
    SEEDED,
    START,
    STARTED,
    SUBMITTED,
    SYSTEM,
    TAKEN,
    Act,
    Change,
    Log,
    act,
    approval,
    binding,
    kinds,
    move,
    walk,
)


def broken(change: Change) -> list[str]:
    acts = walk()
    change(acts)
    result = Log(acts).verify()
    assert kinds(result) <= {Kind.RULE}
    return [p.message for p in result.problems]


def test_the_walk_keeps_all_rules() -> None:
    result = Log(walk()).verify()
    assert result.problems == []
    assert result.facts["proposal:1"]["state"] == "rolled_back"
    assert result.facts["activation:3"]["state"] == "live"
    assert result.facts["review:1"]["state"] == "consumed"
    assert result.facts["target:demo"]["live_version"] == 3


def test_the_verifier_s_paths_are_the_table_of_states() -> None:
    table: dict[str, set[str]] = {"": {State.SUBMITTED}}
    for (before, _), after in TRANSITIONS.items():
        table.setdefault(before, set()).add(after)
    assert {str(k): {str(s) for s in v} for k, v in table.items()} == verifier.PATHS["proposal"]


def test_activations_and_reviews_have_the_states_of_the_models() -> None:
    from proposals.models import Activation, Review

    for what, states in (("activation", Activation.State), ("review", Review.Standing)):
        named = {s for after in verifier.PATHS[what].values() for s in after}
        assert named == {str(s) for s in states}


def put(index: int, **data: Any) -> Change:
    def change(acts: list[Act]) -> None:
        acts[index]["data"].update(data)

    return change


def by(index: int, actor: Act) -> Change:
    def change(acts: list[Act]) -> None:
        acts[index]["actor"] = actor

    return change


def without(index: int) -> Change:
    def change(acts: list[Act]) -> None:
        del acts[index]

    return change


def drop(index: int, key: str) -> Change:
    def change(acts: list[Act]) -> None:
        del acts[index]["data"][key]

    return change


def bound_to(**more: Any) -> Change:
    def change(acts: list[Act]) -> None:
        acts[FIRST] = approval(ADA, 1, bound=binding(**more))

    return change


def other_policy(acts: list[Act]) -> None:
    data = {"digest": "9" * 64, "mode": "manual", "editor": None}
    acts.insert(ACTIVATED, act(SYSTEM, "policy.loaded", "policy:9", data, target=""))


def editor_is_ada(acts: list[Act]) -> None:
    acts[LOADED]["data"]["editor"] = {"id": ADA["id"], "name": "ada"}


def second_activation(acts: list[Act]) -> None:
    data = {**acts[ACTIVATED]["data"], "activation": 4, "version": 4}
    data["moves"] = [move("activation:4", "", "activating")]
    acts.append(act(SYSTEM, "activation.requested", "proposal:1", data))


def voided_before(acts: list[Act]) -> None:
    data = {"proposal": 1, "reviews": [1], "moves": [move("review:1", "valid", "voided")]}
    acts.insert(ACTIVATED, act(SYSTEM, "review.voided", "proposal:1", data))


def two_live(acts: list[Act]) -> None:
    moves = acts[LIVE]["data"]["moves"]
    acts[LIVE]["data"]["moves"] = [m for m in moves if m["of"] != "activation:1"]


def not_consumed(acts: list[Act]) -> None:
    moves = acts[ACTIVATED]["data"]["moves"]
    acts[ACTIVATED]["data"]["moves"] = [m for m in moves if m["of"] != "review:1"]


def one_person_twice(acts: list[Act]) -> None:
    acts[SECOND]["actor"] = ADA


def restores_never_live(acts: list[Act]) -> None:
    acts[RESTORED]["data"]["restores"] = 3


def rebased_under_approval(acts: list[Act]) -> None:
    data = {k: binding()[k] for k in ("proposal", "tree", "base_commit", "digest")}
    data["commit"] = "d" * 40
    acts.insert(SECOND, act(SYSTEM, "proposal.rebased", "proposal:1", data))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # order
        (without(STARTED), "the log left it 'submitted'"),
        (without(SUBMITTED), "does not have the data"),
        (put(STARTED, moves=[move("proposal:1", "submitted", "live")]), "may not go"),
        (put(STARTED, moves=[move("proposal:1", "screening", "passed")]), "the log left it"),
        (put(SCREENED, outcome="failed"), "it passed, being failed"),
        (put(TAKEN, moves=[]), "not moved to rolled_back"),
        (drop(SUBMITTED, "requester"), "does not have the data"),
        (put(SCREENED, moves="x"), "does not have the data"),
        # four eyes
        (by(FIRST, LINUS), "four eyes: linus approved, being requester"),
        (by(FIRST, LINUS), "being operator of the runner"),
        (by(FIRST, RUNNER), "a runner approved"),
        (by(FIRST, SYSTEM), "a system approved"),
        (by(SUBMITTED, ADA), "being author"),
        (editor_is_ada, "being editor of the policy in force"),
        (one_person_twice, "approved twice"),
        (one_person_twice, "1 people approved, 2 were needed"),
        # binding
        (put(FIRST, binding_digest="0" * 64), "digest is not its own"),
        (bound_to(commit="d" * 40), "another commit"),
        (bound_to(tree="d" * 40), "another tree"),
        (bound_to(target="other"), "another target"),
        (bound_to(evidence_digest="d" * 64), "another evidence_digest"),
        (bound_to(image_id="sha256:2"), "another image_id"),
        (bound_to(policy_digest="d" * 64), "another policy_digest"),
        (put(SCREENED, policy_digest="d" * 64), "screened by another policy"),
        (put(SCREENED, verdict={"decision": "deny", "quorum": 2}), "the verdict denies"),
        (put(SCREENED, commit="d" * 40), "another commit was screened"),
        (rebased_under_approval, "were not voided before the commit moved"),
        # activation
        (put(FIRST, expires_at=canonical.utc(START)), "review:1 had expired"),
        (put(ACTIVATED, approvals=[2]), "1 people approved, 2 were needed"),
        (put(ACTIVATED, approvals=[]), "0 people approved"),
        (put(ACTIVATED, approvals=[1, 2, 7]), "does not have the data"),
        (put(ACTIVATED, binding_digest="0" * 64), "binds to something else"),
        (put(ACTIVATED, digest="0" * 64), "the digest is not the approved one"),
        (put(ACTIVATED, commit="0" * 40), "the commit is not the approved one"),
        (put(ACTIVATED, kind="policy"), "not by the policy"),
        (put(ACTIVATED, kind="rollback"), "and this was not"),
        (put(ACTIVATED, kind="seed"), "a seed is the first"),
        (put(ACTIVATED, kind="because"), "no kind of activation"),
        (put(ACTIVATED, version=7), "version 7 is not 2"),
        (put(SEEDED, version=2), "version 2 is not 1"),
        (not_consumed, "review:1 is not consumed"),
        (voided_before, "review:1 is voided, not valid"),
        (second_activation, "activated by approval before"),
        (other_policy, "a policy that is not in force"),
        (restores_never_live, "and this was not"),
        (put(RESTORED, digest="0" * 64), "and this was not"),
        # truth
        (put(LIVE, digest_attested="0" * 64), "the attested digest is not"),
        (by(LIVE, SYSTEM), "only a runner attests"),
        (put(LIVE, version=1), "requested as another version"),
        (two_live, "is live too"),
        (by(TAKEN, RUNNER), "a runner rolls nothing back"),
    ],
)
def test_a_broken_rule_is_named(change: Change, words: str) -> None:
    messages = broken(change)
    assert any(words in message for message in messages), messages


def automatic(acts: list[Act], *, mode: str = "guarded", decision: str = "allow") -> None:
    """The same walk, approved by the policy."""
    policy = {"kind": "policy", "id": POLICY, "name": "policy"}
    acts[LOADED]["data"]["mode"] = mode
    acts[SCREENED]["data"]["verdict"].update(decision=decision, automatic=True, quorum=1)
    acts[FIRST] = approval(policy, 1, move("proposal:1", "passed", "approved"))
    moves = [m for m in acts[ACTIVATED]["data"]["moves"] if m["of"] != "review:2"]
    acts[ACTIVATED]["data"].update(kind="policy", approvals=[1], moves=moves)
    del acts[SECOND]


def test_the_policy_may_approve_in_guarded_mode() -> None:
    assert broken(automatic) == []


def stopped(acts: list[Act]) -> None:
    automatic(acts)
    acts.insert(FIRST, act(GRACE, "autonomy.stopped", "autonomy", {"stop": 1}, target=""))


def stopped_and_released(acts: list[Act]) -> None:
    stopped(acts)
    acts.insert(FIRST + 1, act(ADA, "autonomy.released", "autonomy", {"stop": 1}, target=""))


def test_a_stop_of_autonomy_holds_until_it_is_released() -> None:
    assert any("autonomy is stopped" in message for message in broken(stopped))
    assert broken(stopped_and_released) == []


@pytest.mark.parametrize(
    ("more", "words"),
    [({"mode": "shadow"}, "not in guarded mode"), ({"decision": "escalate"}, "does not allow")],
)
def test_the_policy_approves_nothing_else(more: dict[str, str], words: str) -> None:
    messages = broken(lambda acts: automatic(acts, **more))
    assert any(words in message for message in messages)


def test_rows_are_compared_with_what_the_log_says() -> None:
    facts = Log(walk()).verify().facts
    rows = [{"of": of, **known} for of, known in facts.items() if of.startswith("proposal:")]
    assert verifier.compare_rows(facts, rows, kinds=["proposal"]) == []
    edited = [{**rows[0], "state": "live"}]
    assert "state is 'live'" in str(verifier.compare_rows(facts, edited, kinds=["proposal"])[0])
    assert "has no row" in str(verifier.compare_rows(facts, [], kinds=["proposal"])[0])
    added = [*rows, {"of": "proposal:2"}]
    assert "does not know" in str(verifier.compare_rows(facts, added, kinds=["proposal"])[0])


def test_rows_that_can_not_be_read_are_a_problem_and_no_traceback() -> None:
    class Damaged:
        name, kinds = "proposals", frozenset({"proposal"})

        def rows(self, using: str) -> Iterator[dict[str, Any]]:
            yield {"of": "proposal:1"}
            raise ValueError("Expecting value: line 1 column 1")

    (problem,) = source.compared(Damaged(), verifier.Result(), "default")
    assert problem.kind is Kind.ROW
    assert "rows of proposals can't be read" in problem.message
