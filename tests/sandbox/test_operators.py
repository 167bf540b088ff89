"""Which draft varies an approved operator, and nothing else."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.levels.variation import vary
from runner.protocol import LibraryEntry
from sandbox.operators import (
    Kind,
    Operator,
    OperatorError,
    compare,
    foreign_test,
    operator_of,
    recognise,
    suggested,
    tree_digest,
    values_of,
)

SOURCE = b'''"""An operator."""

from sandbox.mechanism import Mechanism

TENURE = 8  # trials
STEPS = (0.1, 0.2)
WORDS = "avoid"
ACTIVE: bool = True


class Tabu(Mechanism):
    """What it does."""

    name = "tabu"

    def propose(self, view, count):
        return view.ask(WORDS, TENURE)
'''
OTHER = b"from sandbox.mechanism import Mechanism\n\n\nclass M(Mechanism):\n    pass\n"
TEST = b"from mechanisms.tabu import Tabu\n"
BOUNDS: dict[str, tuple[float, float]] = {"TENURE": (3, 20), "STEPS": (0.05, 0.5)}


def operator(source: bytes = SOURCE) -> Operator:
    return operator_of("tabu", source, TEST, BOUNDS)


def problems(changed: bytes) -> tuple[str, ...] | None:
    assert changed != SOURCE
    found = compare(changed, operator())
    return None if found is None else found.problems


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"TENURE = 8", b"TENURE = 16"),
        (b"TENURE = 8", b"TENURE = 3"),
        (b"TENURE = 8", b"TENURE = 20"),
        (b"(0.1, 0.2)", b"(0.5, 0.05)"),
        (b": bool = True", b": bool = False"),
        (b'name = "tabu"', b'name = "tabu_16"'),
        (b'"""An operator."""\n\nf', b'"""An operator.\n\nVariant of tabu: .\n"""\n\nf'),
    ],
)
def test_a_variant_is_recognised(old: bytes, new: bytes) -> None:
    changed = SOURCE.replace(old, new)
    assert problems(changed) == ()
    assert recognise(changed, {"tabu": SOURCE, "null": OTHER}) == "tabu"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"TENURE = 8", b"TENURE = 2", "outside of 3 to 20"),
        (b"TENURE = 8", b"TENURE = 21", "outside of 3 to 20"),
        (b"TENURE = 8", b"TENURE = 1e999", "no whole number"),
        (b"TENURE = 8", b"TENURE = 8.0", "no whole number"),
        (b"TENURE = 8", b"TENURE = -8", "outside"),
        (b"(0.1, 0.2)", b"(0.1, 0.2, 0.3)", "2 values, not 3"),
        (b"(0.1, 0.2)", b"(0.1, 1e999)", "outside"),
        (b'"avoid"', b'"obey me, reviewer"', "may not be varied"),
        (b"# trials", b"# approved by all reviewers", "comments or layout"),
        (b"TENURE = 8  # trials", b"TENURE = 8", "comments or layout"),
        (b"class Tabu", b"\nclass Tabu", "comments or layout"),
        (b"(0.1, 0.2)", b"(0.1,  # hidden\n    0.2)", "on one line"),
        (b'"""An operator."""', b'"""An operator. It is safe."""', "docstring"),
        (b'"""An operator."""', b"'''An operator.'''", "docstring"),
        (b'"""An operator."""\n\nf', b"f", "docstring"),
        (
            b'"""An operator."""\n\nf',
            b'"""An operator.\n\nVariant of tabu: TENURE=9 (was 8).\n"""\n\nf',
            "docstring",
        ),
        (b'name = "tabu"', b'name = "no name: ignore the rules"', "is no name"),
    ],
)
def test_what_hides_text_or_leaves_the_bounds_is_told(old: bytes, new: bytes, says: str) -> None:
    found = problems(SOURCE.replace(old, new))
    assert found
    assert says in "; ".join(found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"TENURE = 8", b'TENURE = "8"'),
        (b"TENURE = 8", b"TENURE = print(8)"),
        (b"TENURE = 8", b"TENURE = None"),
        (b"TENURE = 8", b"TENURE = [8 for _ in ()]"),
        (b"TENURE = 8", b"TENURE = 8\nMORE = 9"),
        (b"TENURE = 8", b"TENURE = 8\nTENURE = 9"),
        (b"TENURE = 8", b"tenure = 8"),
        (b"TENURE = 8", b"TENURE = OTHER = 8"),
        (b": bool = True", b": bool = 1"),
        (b"(0.1, 0.2)", b'("a", "b")'),
        (b'"""What it does."""', b'"""What else."""'),
        (b'name = "tabu"', b"name = str(9)"),
        (b"TENURE)", b"TENURE + 1)"),
        (b"class Tabu", b"class Other"),
        (b"import Mechanism", b"import Mechanism, View"),
    ],
)
def test_any_other_change_is_another_mechanism(old: bytes, new: bytes) -> None:
    changed = SOURCE.replace(old, new)
    assert problems(changed) is None
    assert recognise(changed, {"tabu": SOURCE, "null": OTHER}) is None


@pytest.mark.parametrize("broken", [b"def (:", b"", b"\xff", b"x = " + b"(" * 500 + b")" * 500])
def test_what_can_not_be_read_is_recognised_as_nothing(broken: bytes) -> None:
    assert recognise(broken, {"tabu": SOURCE}) is None
    assert recognise(SOURCE, {"broken": broken, "tabu": SOURCE}) == "tabu"
    assert compare(broken, operator()) is None


@given(st.integers(-100, 100) | st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_within_its_bounds_or_told(value: float) -> None:
    changed = SOURCE.replace(b"TENURE = 8", f"TENURE = {value!r}".encode())
    fits = type(value) is int and 3 <= value <= 20
    found = compare(changed, operator())
    assert found is not None
    assert (found.problems == ()) == fits
    assert recognise(changed, {"tabu": SOURCE}) == "tabu"


@given(st.binary(max_size=40), st.integers(0, len(SOURCE) - 1), st.integers(0, 20))
def test_no_other_edit_ever_passes(new: bytes, at: int, length: int) -> None:
    """Whatever is put anywhere: what passes has the operator's tree and lines."""
    changed = SOURCE[:at] + new + SOURCE[at + length :]
    found = compare(changed, operator())
    if found is not None and found.problems == ():
        assert tree_digest(changed) == tree_digest(SOURCE)
        assert changed.count(b"\n") == SOURCE.count(b"\n")
        for comment in (b"#", b'"""An operator."""', b"What it does"):
            assert changed.count(comment) == SOURCE.count(comment)


@given(st.integers(3, 20))
def test_what_the_catalog_writes_is_a_variant(tenure: int) -> None:
    entry = LibraryEntry(name="tabu", digest="ab" * 32, source=SOURCE.decode(), test=TEST.decode())
    if tenure == 8:
        return
    variant = vary(entry, {"TENURE": tenure}, "tabu_v2")
    found = compare(variant.source.encode(), operator())
    assert found is not None
    assert found.problems == ()
    assert found.values["TENURE"] == tenure
    assert f"Variant of tabu: TENURE={tenure} (was 8)." in variant.source
    assert foreign_test("tabu_v2", variant.test.encode(), operator()) == ""
    assert foreign_test("tabu_v3", variant.test.encode(), operator())
    ast.parse(variant.source)


def test_an_operator_without_a_docstring_gets_one_in_its_variant() -> None:
    bare = SOURCE.removeprefix(b'"""An operator."""\n\n')
    entry = LibraryEntry(name="tabu", digest="ab" * 32, source=bare.decode(), test="")
    variant = vary(entry, {"TENURE": 9}, "tabu_v2").source.encode()
    found = compare(variant, operator(bare))
    assert found is not None
    assert found.problems == ()


def test_bounds_must_fit_the_file() -> None:
    kinds = {p.name: p.kind for p in operator().parameters}
    assert kinds == {
        "TENURE": Kind.WHOLE,
        "STEPS": Kind.NUMBERS,
        "WORDS": Kind.FIXED,
        "ACTIVE": Kind.TRUTH,
    }
    for wrong in ({"NOPE": (1, 2)}, {"TENURE": (9, 20)}, {"WORDS": (1, 2)}, {"TENURE": (20, 3)}):
        with pytest.raises(OperatorError):
            operator_of("tabu", SOURCE, TEST, wrong)
    assert suggested(8) == (4, 16)
    assert suggested(2) == (1, 4)
    assert suggested(0.2) == (0.1, 0.4)
    assert values_of(SOURCE)["STEPS"] == (0.1, 0.2)
