"""The library of approved operators: entered, marked by people, revoked, forged; what counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from audit import keys
from django.db import IntegrityError, transaction
from proposals import catalogue, lifecycle, operators, standing, sweeps
from proposals.evidence import ProposalEvidence
from proposals.models import OperatorEntry, Proposal

from sandbox.draft import draft_from_files
from sandbox.report import Draft

Standing = OperatorEntry.Standing
BOUNDS: dict[str, tuple[float, float]] = {"STEP": (0.1, 1.0)}


def entry(name: str) -> OperatorEntry:
    return OperatorEntry.objects.get(name=name)


def nominate(world: Any, proposal: Proposal, by: str = "ada", **more: Any) -> OperatorEntry:
    values: dict[str, Any] = {"bounds": BOUNDS, "reason": "it is small and it held"}
    return lifecycle.nominate(proposal_id=proposal.pk, person=world[by], **(values | more))


def agree(world: Any, made: OperatorEntry, by: str = "grace", **more: Any) -> OperatorEntry:
    values: dict[str, Any] = {
        "terms_digest": operators.terms_digest(made),
        "reason": "I read it too",
    }
    return lifecycle.agree(entry_id=made.pk, person=world[by], **(values | more))


def variant(world: Any, operator: str, name: str, **values: Any) -> dict[str, str]:
    """The operator's files with other values and another name."""
    one = world.repository.library(world.repository.head())[operator]
    text = one.source.decode().replace(f'name = "{operator}"', f'name = "{name}"')
    lines = []
    for line in text.split("\n"):
        key = line.split(" = ")[0]
        comment = line[line.index("  #") :] if "  #" in line else ""
        lines.append(f"{key} = {values[key]}{comment}" if key in values else line)
    test = one.test.decode().replace(f"mechanisms.{operator}", f"mechanisms.{name}")
    return {f"mechanisms/{name}.py": "\n".join(lines), f"tests/test_{name}.py": test}


def draft_of(files: dict[str, str]) -> Draft:
    return draft_from_files({path: text.encode() for path, text in files.items()})


# --- the seed ---


def test_the_seed_is_entered_once_and_signed(world: Any) -> None:
    names = set(OperatorEntry.objects.values_list("name", flat=True))
    assert {"null", "tabu", "bandit"} <= names
    assert lifecycle.enter_seed() == []
    good, bad = operators.approved()
    assert (set(good), bad) == (names, {})
    for one in OperatorEntry.objects.all():
        said = json.loads(one.statement)
        assert (one.kind, one.proposal, said["approved_by"]) == ("seed", None, [])
        assert keys.verify(b"escapement operator v1\n" + one.statement.encode(), one.signature)
    told = world.entries("operator.entered")
    assert {body["actor"]["kind"] for body in told} == {"system"}
    assert len(told) == len(names)


def test_what_people_revoked_is_not_entered_again(world: Any) -> None:
    lifecycle.revoke(entry_id=entry("tabu").pk, person=world["linus"], reason="it misled us")
    assert lifecycle.enter_seed() == []
    assert "tabu" not in operators.approved()[0]


# --- which lane ---


def test_within_the_bounds_it_is_low_risk_and_outside_it_is_new_code(world: Any) -> None:
    inside = world.passed("tabu_a", files=variant(world, "tabu", "tabu_a", TENURE=20))
    assert inside.recognised == "tabu"
    assert inside.screenings.first().verdict["risk"] == "low"
    for name, tenure in (("tabu_b", "21"), ("tabu_c", "2"), ("tabu_d", "1e999")):
        outside = world.passed(name, files=variant(world, "tabu", name, TENURE=tenure))
        assert outside.recognised == ""
        assert outside.screenings.first().verdict["quorum"] == 2
        assert "no variant" in catalogue.lane(outside)["words"]
        lifecycle.reject(proposal_id=outside.pk, person=world["ada"], reason="too far")


def test_text_that_nobody_has_read_takes_the_slow_lane(world: Any) -> None:
    honest = variant(world, "tabu", "tabu_a", TENURE=9)
    assert operators.recognise(draft_of(honest)).operator == "tabu"
    for path, old, new in (
        ("mechanisms", "# trials that a failed move", "# approved already: trials that a"),
        ("mechanisms", '"""Tabu search: a move', '"""Safe, says the policy: a move'),
        ("tests", '"""', '"""Trust me. '),
    ):
        edited = {p: t.replace(old, new, 1) if p.startswith(path) else t for p, t in honest.items()}
        assert edited != honest
        found = operators.recognise(draft_of(edited))
        assert (found.operator, found.near) == ("", "tabu")
        assert found.problems


# --- revoked, forged, taken back ---


def test_revoking_turns_a_waiting_variant_into_new_code(world: Any) -> None:
    proposal = world.passed("tabu_a", files=variant(world, "tabu", "tabu_a", TENURE=9))
    lifecycle.revoke(entry_id=entry("tabu").pk, person=world["grace"], reason="it misled us")
    assert any(
        "counts no longer" in words for words in lifecycle.may_approve(world["ada"], proposal)
    )
    assert sweeps.rescreen_stale() == 1
    world.screen(Proposal.objects.get(pk=proposal.pk))
    proposal.refresh_from_db()
    verdict = proposal.screenings.first().verdict
    assert (verdict["risk"], verdict["quorum"]) == ("high", 2)


def test_an_approved_variant_is_not_activated_once_its_operator_is_revoked(
    world: Any, refused: Any
) -> None:
    proposal = world.approved("tabu_a", files=variant(world, "tabu", "tabu_a", TENURE=9))
    lifecycle.revoke(entry_id=entry("tabu").pk, person=world["linus"], reason="it misled us")
    with refused("stale"):
        lifecycle.activate(proposal_id=proposal.pk)


FORGERIES: dict[str, dict[str, Any]] = {
    "signature": {"signature": "00" * 64},
    "statement": {"statement": "{}"},
    "no JSON": {"statement": "approved, really"},
    "terms": {"terms": {"name": "tabu", "parameters": []}},
    "commit": {"commit": "0" * 40},
    "kind": {"kind": "people"},
    "name": {"name": "other"},
}


def test_an_entry_that_does_not_hold_counts_for_nothing_loudly(
    db: None, place: Any, make_world: Any
) -> None:
    world = make_world()
    other = world.passed("gentle")
    whole = OperatorEntry.objects.filter(name="tabu").values()[0]
    row = OperatorEntry.objects.filter(pk=whole["id"])
    files = variant(world, "tabu", "tabu_a", TENURE=9)
    draft = draft_of(files)
    for kind, changes in FORGERIES.items():
        row.update(**changes, **({"proposal": other} if kind == "kind" else {}))
        assert operators.recognise(draft).operator == "", kind
        assert len(operators.problems()) == 1, kind
        assert "does not hold" in standing.banners()[0]["title"]
        row.update(**whole)
        assert operators.recognise(draft).operator == "tabu"


def test_a_signature_of_another_key_counts_for_nothing(
    db: None, place: Any, make_world: Any, settings: Any
) -> None:
    world = make_world()
    settings.KEYS = place / "other"
    keys.ensure_keys()
    stolen = keys.sign(b"escapement operator v1\n" + entry("tabu").statement.encode())
    settings.KEYS = place / "keys"
    OperatorEntry.objects.filter(name="tabu").update(signature=stolen)
    assert world.submit("tabu_a", files=variant(world, "tabu", "tabu_a", TENURE=9)).recognised == ""


def test_the_verifier_sees_an_entry_that_was_brought_back(
    db: None, place: Any, make_world: Any
) -> None:
    world = make_world()
    lifecycle.revoke(entry_id=entry("tabu").pk, person=world["linus"], reason="it misled us")
    OperatorEntry.objects.filter(name="tabu").update(standing=Standing.APPROVED)
    assert "tabu" in operators.approved()[0]  # the signature is genuine ...
    (problem,) = world.verify()  # ... and the log knows better
    assert "operator:" in problem
    assert "state is 'approved', the log says 'revoked'" in problem


def test_the_database_wants_a_signature(world: Any) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        OperatorEntry.objects.filter(name="tabu").update(signature="")


# --- marked by people ---


def test_two_independent_people_make_a_live_mechanism_an_operator(world: Any) -> None:
    proposal = world.live("gentle")
    made = nominate(world, proposal)
    assert made.standing == Standing.NOMINATED
    assert "gentle" not in operators.approved()[0]
    agree(world, made)
    made.refresh_from_db()
    assert made.standing == Standing.APPROVED
    assert [p["name"] for p in json.loads(made.statement)["approved_by"]] == ["ada", "grace"]
    assert "gentle" in operators.approved()[0]
    files = variant(world, "gentle", "gentle_v2", STEP=0.9)
    assert world.submit("gentle_v2", files=files).recognised == "gentle"
    files = variant(world, "gentle", "gentle_v3", STEP=1.1)
    assert world.submit("gentle_v3", files=files).recognised == ""
    assert [b["verb"] for b in world.entries("operator.approved")] == ["operator.approved"]
    row = next(r for r in ProposalEvidence().rows("default") if r["of"] == f"operator:{made.pk}")
    assert row["state"] == "approved"


def test_who_may_not_nominate(world: Any, refused: Any) -> None:
    proposal = world.live("gentle")
    for by in ("linus", "katherine", "eve"):  # linus operates the runner, and is no reviewer
        with refused("not_entitled"):
            nominate(world, proposal, by)


def test_four_eyes_are_kept(world: Any, refused: Any) -> None:
    world["linus"].groups.add(world["ada"].groups.get())
    proposal = world.live("gentle")
    with refused("is_requester"):  # he operates the runner, and so requested it
        nominate(world, proposal, "linus")
    made = nominate(world, proposal)
    with refused("already_decided"):
        agree(world, made, "ada")
    with refused("is_requester"):
        agree(world, made, "linus")
    with refused("stale"):
        agree(world, made, "grace", terms_digest="00" * 32)
    with refused("no_reason"):
        agree(world, made, "grace", reason=" ")
    lifecycle.decline(entry_id=made.pk, person=world["grace"], reason="the bounds are too wide")
    with refused("wrong_state"):
        agree(world, made, "grace")


def test_only_what_was_live_and_was_not_taken_back(world: Any, refused: Any) -> None:
    waiting = world.passed("waiting")
    with refused("wrong_state"):
        nominate(world, waiting)
    seed = world.target.activations.get(version=1)
    proposal = world.live("gentle")
    made = nominate(world, proposal)
    world.roll_back(seed)
    with refused("wrong_state"):
        nominate(world, Proposal.objects.get(pk=proposal.pk))
    with refused("wrong_state"):
        agree(world, made)


def test_an_operator_whose_mechanism_was_taken_back_counts_for_nothing(world: Any) -> None:
    seed = world.target.activations.get(version=1)
    made = nominate(world, world.live("gentle"))
    agree(world, made)
    world.roll_back(seed)
    good, bad = operators.approved()
    assert "gentle" not in good
    assert "taken back" in bad["gentle"]
    assert operators.problems() == []  # as it should be, and no alarm


def test_bounds_that_do_not_fit_are_refused(world: Any, refused: Any) -> None:
    proposal = world.live("gentle")
    nan = float("nan")
    for bounds in ({"STEP": (2, 3)}, {"NOPE": (1, 2)}, {"STEP": (1.0, 0.1)}, {"STEP": (0.1, nan)}):
        with refused("bad_bounds"):
            nominate(world, proposal, bounds=bounds)
    assert not OperatorEntry.objects.filter(name="gentle").exists()


def test_one_open_entry_a_name(world: Any, refused: Any) -> None:
    proposal = world.live("gentle")
    made = nominate(world, proposal)
    with refused("name_exists"):
        nominate(world, proposal, "grace")
    lifecycle.decline(entry_id=made.pk, person=world["ada"], reason="not yet")
    again = nominate(world, proposal, "grace")
    agree(world, again, "ada")
    assert "gentle" in operators.approved()[0]


def test_who_may_not_revoke(world: Any, refused: Any) -> None:
    for by in ("katherine", "eve"):
        with refused("not_entitled"):
            lifecycle.revoke(entry_id=entry("tabu").pk, person=world[by], reason="I want to")
    with refused("no_reason"):
        lifecycle.revoke(entry_id=entry("tabu").pk, person=world["ada"], reason="")
    with refused("unknown"):
        lifecycle.revoke(entry_id=10_000, person=world["ada"], reason="gone")


def test_runners_are_told_which_operators_are_approved(world: Any) -> None:
    lifecycle.revoke(entry_id=entry("tabu").pk, person=world["ada"], reason="it misled us")
    world.live("gentle")
    told = world.door().get("/api/v1/runner/desired").json()["library"]
    approved = {one["name"]: one["approved"] for one in told}
    assert approved["bandit"]
    assert not approved["tabu"]  # still there, so that its name is not used twice
    assert not approved["gentle"]
