"""The catalog: which approved operator it chooses for which diagnosis, and how it varies it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.levels.catalog import LABEL, SETTLED_AGE, CatalogResearcher, choices_for
from runner.levels.catalog_rules import RULES
from runner.levels.diagnosis import diagnose
from runner.levels.variation import VariationError, fresh_name, parameters, stem, vary
from runner.protocol import DraftSubmission, LibraryEntry
from sandbox.draft import draft_from_files
from sandbox.operators import recognise
from tests.runner.levels.test_steering import context, trace_of

SEED_FOLDER = Path(__file__).resolve().parents[3] / "mechanisms_repo"
STUCK = [({"TOTAL_BATCH_SIZE": 2**15}, 5.4, False)] * 6


def library_entry(name, source=None, test=None):
    source = source or (SEED_FOLDER / "mechanisms" / f"{name}.py").read_text()
    test = test if test is not None else (SEED_FOLDER / "tests" / f"test_{name}.py").read_text()
    digest = hashlib.sha256(source.encode()).hexdigest()
    return LibraryEntry(name=name, digest=digest, source=source, test=test)


LIBRARY = tuple(map(library_entry, ("bandit", "null", "orthogonal", "restart", "tabu")))
SOURCES = {entry.name: entry.source.encode() for entry in LIBRARY}
EVERYTHING = tuple(
    library_entry(path.stem) for path in sorted((SEED_FOLDER / "mechanisms").glob("*.py"))
)


def draft(steps=STUCK, **more):
    return CatalogResearcher().draft(context(trace_of(*steps), library=LIBRARY, **more))


def name_of(made):
    return next(p for p in made.files if p.startswith("mechanisms/"))[11:-3]


def test_a_draft_is_a_recognised_variant_with_its_test():
    made = draft()
    name = name_of(made)
    assert set(made.files) == {f"mechanisms/{name}.py", f"tests/test_{name}.py"}
    draft_from_files({path: text.encode() for path, text in made.files.items()})
    source = made.files[f"mechanisms/{name}.py"]
    assert recognise(source.encode(), SOURCES) == made.operator == stem(name)
    old, new = parameters(SOURCES[made.operator].decode()), parameters(source)
    assert made.parameters == {k: v for k, v in new.items() if v != old[k]} != {}
    assert f'name = "{name}"' in source
    assert f"mechanisms.{name} " in made.files[f"tests/test_{name}.py"]
    assert made.generator == CatalogResearcher.label == LABEL


def test_the_rounds_say_that_no_model_was_asked():
    made = draft()
    assert [r.name for r in made.rounds] == ["explore", "critique", "specify", "generate"]
    assert all("no language model was asked" in r.prompt for r in made.rounds)
    assert all(r.prompt_tokens == r.answer_tokens == 0 for r in made.rounds)
    assert json.loads(made.rounds[0].answer) == made.diagnosis
    rated = json.loads(made.rounds[1].answer)
    assert rated[0]["operator"] == made.operator
    assert [r["fit"] for r in rated] == sorted((r["fit"] for r in rated), reverse=True)
    assert made.rounds[3].answer == made.files[f"mechanisms/{name_of(made)}.py"]


def test_a_draft_crosses_the_wire():
    made = draft()
    DraftSubmission.model_validate(
        {
            "draft_id": "0" * 36,
            "run_id": "r",
            "title": made.title,
            "summary": made.summary,
            "files": made.files,
            "base_commit": "0" * 40,
            "base_digest": "0" * 64,
            "generator": made.generator,
            "operator": made.operator,
            "parameters": made.parameters,
            "diagnosis": made.diagnosis,
            "rounds": made.rounds,
        }
    )


def test_the_diagnosis_decides():
    assert draft().operator == "tabu"  # the same move, again and again
    spread = [({"WARMUP_RATIO": 0.01 * i}, 4.9 - i / 100, True) for i in range(1, 5)]
    assert draft(spread).operator == "orthogonal"  # progress, but most knobs were never tried
    moved = {
        name: knob
        for name, knob in context(trace_of()).space.items()
        if knob.at(0.0) != knob.at(1.0)
    }
    both = [
        ({name: value}, 5.1, False)
        for name, knob in moved.items()
        for value in (knob.at(0.9), knob.at(0.05))
        if value != knob.default and name not in {"TOTAL_BATCH_SIZE", "DEVICE_BATCH_SIZE"}
    ]
    assert draft(both).operator == "restart"  # everything was tried, nothing helped for long


def test_the_strongest_comes_first_where_little_was_gained_and_is_then_left_alone():
    little = context(trace_of(*STUCK), library=EVERYTHING)
    made = CatalogResearcher().draft(little)
    assert made.operator == "pathfinder"
    found = [({"WEIGHT_DECAY": 0.3 + i / 100}, 5.0 - i / 10, True) for i in range(8)]
    live = context(trace_of(*found), library=EVERYTHING, mechanism_name=name_of(made))
    assert CatalogResearcher().draft(live) is None
    idle = [*found, *[({"WEIGHT_DECAY": 0.7 + i / 99}, 6.0, False) for i in range(SETTLED_AGE + 1)]]
    stuck = context(trace_of(*idle), library=EVERYTHING, mechanism_name=name_of(made))
    assert CatalogResearcher().draft(stuck).operator != "pathfinder"


def test_a_look_at_the_baseline_alone_chooses_what_learns_from_every_trial():
    made = CatalogResearcher().draft(context(trace_of(), library=EVERYTHING))
    assert made.operator == "pathfinder"
    assert draft([]).operator == "orthogonal"  # where there is no model, an experiment


def test_nothing_fits_a_run_that_has_just_begun_well():
    steps = [({"MATRIX_LR": 0.03}, 4.9, True)]
    assert CatalogResearcher().draft(context(trace_of(*steps), library=LIBRARY[1:2])) is None
    assert CatalogResearcher().draft(context(trace_of(*steps), library=())) is None


def test_what_was_drafted_is_not_drafted_again_and_names_are_fresh():
    earlier, seen = (), set()
    for state in ["rejected", "failed", "live", "rolled_back"] * 4:
        made = draft(earlier_drafts=earlier)
        if made is None:
            break
        proposal = (made.operator, json.dumps(made.parameters, sort_keys=True))
        assert proposal not in seen
        assert name_of(made) not in {d["name"] for d in earlier}
        seen.add(proposal)
        memory = {"name": name_of(made), "state": state, "operator": made.operator}
        earlier = (*earlier, {**memory, "parameters": dict(made.parameters)})
    assert len(seen) >= 4
    assert len({operator for operator, _ in seen}) >= 3


def test_a_variant_that_is_approved_already_is_not_drafted_again():
    made = draft()
    path = f"mechanisms/{name_of(made)}.py"
    merged = library_entry(name_of(made), source=made.files[path], test="# its test\n")
    library = (*LIBRARY, merged)
    again = CatalogResearcher().draft(context(trace_of(*STUCK), library=library))
    assert name_of(again) not in {e.name for e in library}
    assert parameters(again.files[f"mechanisms/{name_of(again)}.py"]) != parameters(merged.source)
    assert again.operator in SOURCES


def test_a_variant_of_what_runs_now_is_less_likely():
    fits = {
        live: {
            c.entry.name: c.fit
            for c in choices_for(
                context(trace_of(*STUCK), library=LIBRARY, mechanism_name=live),
                diagnose(context(trace_of(*STUCK))),
            )
        }
        for live in ("null", "tabu_v2")
    }
    assert fits["tabu_v2"]["tabu"] == fits["null"]["tabu"] / 2
    assert fits["tabu_v2"]["restart"] == fits["null"]["restart"]


def test_an_operator_that_no_rule_knows_is_varied_too():
    source = LIBRARY[4].source.replace('name = "tabu"', 'name = "climber"').replace("Tabu", "Climb")
    other = library_entry("climber", source=source, test="from mechanisms.climber import Climb\n")
    made = CatalogResearcher().draft(context(trace_of(*STUCK), library=(other,)))
    assert made.operator == "climber"
    assert name_of(made) == "climber_v2"
    assert made.files["tests/test_climber_v2.py"] == "from mechanisms.climber_v2 import Climb\n"


def test_operators_without_a_test_or_without_parameters_are_left_alone():
    bare = (library_entry("tabu", test=""), library_entry("null"))
    assert CatalogResearcher().draft(context(trace_of(*STUCK), library=bare)) is None


def test_the_same_context_gives_the_same_draft():
    assert draft(seed=4).files == draft(seed=4).files


def test_every_rule_has_an_operator_and_names_its_parameters():
    found = diagnose(context(trace_of(*STUCK)))
    for name, rule in RULES.items():
        old, values = parameters(library_entry(name).source), rule.values(found)
        assert set(values) == set(rule.bounds) <= set(old)
        for key, (low, high) in rule.bounds.items():
            assert low <= values[key] <= high
            assert low <= old[key] <= high
            assert type(low) is type(high) is type(old[key])
        fit, why = rule.fit(found)
        assert 0 <= fit <= 1
        assert why


# --- variation ---

TRICKY = '''"""Ünïcode \\\\ docs with \\"quotes\\"."""

from sandbox.mechanism import Mechanism

RATE = 0.5  # ünïcode comment
COUNT = 3
TEXT = "RATE = 0.5"
lower = 0.5


class Tricky(Mechanism):
    name = "tricky"; other = "tricky"
'''


def test_only_the_values_the_name_and_the_docstring_change():
    variant = vary(
        library_entry("tricky", TRICKY, "import mechanisms.tricky\n"), {"RATE": 0.25}, "t"
    )
    lines, old = variant.source.splitlines(), TRICKY.splitlines()
    assert "RATE = 0.25  # ünïcode comment" in lines
    assert '    name = "t"; other = "tricky"' in lines
    assert [line for line in lines if line.startswith(("COUNT", "TEXT", "lower"))] == old[5:8]
    assert "Variant of tricky: RATE=0.25 (was 0.5)." in variant.source
    assert variant.test == "import mechanisms.t\n"


@pytest.mark.parametrize("values", [{}, {"RATE": 0.5}, {"NO_SUCH": 1}, {"TEXT": 1}])
def test_what_is_no_variation_is_refused(values):
    with pytest.raises(VariationError):
        vary(library_entry("tricky", TRICKY, "x"), values, "t")


@settings(max_examples=40)
@given(
    st.floats(min_value=-1e6, max_value=1e6).filter(lambda x: x != 0.5),
    st.integers(-(10**6), 10**6),
)
def test_any_values_are_written_so_that_they_are_read_back(rate, count):
    entry = library_entry("tricky", TRICKY, "x")
    if rate < 0 or count < 0:
        variant = vary(entry, {"RATE": rate, "COUNT": count}, "t")
        assert recognise(variant.source.encode(), {"tricky": TRICKY.encode()}) == "tricky"
        return
    variant = vary(entry, {"RATE": rate, "COUNT": count}, "t")
    assert parameters(variant.source) == {"RATE": rate, "COUNT": count}


def test_fresh_names():
    assert fresh_name("tabu", {"tabu"}) == "tabu_v2"
    assert fresh_name("tabu_v2", {"tabu", "tabu_v2", "tabu_v3"}) == "tabu_v4"
    assert len(fresh_name("x" * 60, {"y"})) <= 60


def test_what_is_not_approved_is_not_varied():
    none = tuple(entry.model_copy(update={"approved": False}) for entry in LIBRARY)
    assert CatalogResearcher().draft(context(trace_of(*STUCK), library=LIBRARY)) is not None
    assert CatalogResearcher().draft(context(trace_of(*STUCK), library=none)) is None
