"""What a script demands of its constants, read from its assertions before a trial is spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.tasks.assertions import constants_of, constraints_of, rules_of
from runner.tasks.constants import read
from sandbox.mechanism import Constraint

SAMPLES = Path(__file__).parents[1] / "scripts"


def source(text):
    return read(text.encode(), what="train.py")


def rules(text, folder=Path("/nowhere")):
    found = source(text)
    return found, rules_of(found, folder)


def test_the_batch_assertion_becomes_a_constraint():
    for name, whole, part, factor in (
        ("autoresearch", "TOTAL_BATCH_SIZE", "DEVICE_BATCH_SIZE", 2048),
        ("functions", "N_EMBD", "N_HEAD", 1),
    ):
        folder = SAMPLES / name
        found = read((folder / "train.py").read_bytes(), what=name)
        assert constraints_of(rules_of(found, folder), found.slots, {}) == (
            Constraint(name=whole, of=part, factor=factor),
        )


SAME = "A = 64\nB = 8\nT = 4\n"


@pytest.mark.parametrize(
    "text",
    [
        "assert A % (B * T) == 0",
        "step = B * T\nassert A % step == 0, 'message'",
        "def main():\n    step = T * B\n    assert A % step == 0\nmain()",
        "if A % (B * T) != 0:\n    raise ValueError('no')",
        "if A % (B * T):\n    print('no')\n    raise SystemExit",
        "if A % (B * T):\n    print('no')\n    sys.exit(1)",
        "if A % (B * T):\n    sys.exit(f'no {A}')",
        "assert not A % (B * T)",
        "assert A > 0 and A % (B * T) == 0",
        "if __name__ == '__main__':\n    assert A % (B * T) == 0",
        "def f(self):\n    def g():\n        assert A % (B * T) == 0\n    g()\nf(0)",
        "class C:\n    def forward(self):\n        assert A % (B * T) == 0",
    ],
)
def test_ways_to_say_it(text):
    found, known = rules(SAME + "T2 = T\n" + text + "\nprint(A, B, T, T2)")
    broken = [r for r in known if r.problem(constants_of(found, {"A": 65}))]
    assert broken
    fixed = constants_of(found, {})
    assert constraints_of(known, ["A", "B"], fixed) == (Constraint(name="A", of="B", factor=4),)
    assert constraints_of(known, ["A", "B", "T"], fixed) == ()


@pytest.mark.parametrize(
    "text",
    [
        "def f(A):\n    assert A == 65\nf(65)",  # a parameter of the same name
        "def f(A):\n    def g():\n        assert A == 64\n    g()\nf(64)",  # of the function around
        "def unused():\n    assert A == 64",
        "if B == 9:\n    assert A == 65",  # only sometimes
        "if A == 65:\n    B = 9\n    exit(1)",
        "if A == 65:\n    exit()",
        "if A == 65:\n    sys.exit(0)",
        "if A == 65:\n    leave(1)",
        "for i in range(3):\n    assert A == 65",
        "assert A == 65",  # broken by the default: the trial itself tells
        "assert A == unknown",
        "x = open('y')\nassert A == x",
        "assert 1 == 1",
        "def f():\n    A = 3\n    A = 4\n    assert A == 4\nf()",
    ],
)
def test_what_is_no_rule(text):
    assert rules(SAME + text + "\nprint(A, B, T)")[1] == []


def test_rules_that_grow_without_end_are_given_up():
    text = "X0 = LR + LR\n" + "".join(f"X{i} = X{i - 1} + X{i - 1}\n" for i in range(1, 30))
    found, known = rules(f"LR = 1\n{text}assert X29 > 0\nprint(LR)")
    assert "LR" in found.slots
    assert known == []


def test_names_come_from_files_beside_the_script(tmp_path):
    (tmp_path / "prepare.py").write_text("LEN = 2 * 8\nprint(LEN)\n")
    (tmp_path / "broken.py").write_bytes(b"\xff(")
    for line, name in (
        ("from prepare import LEN", "LEN"),
        ("from prepare import LEN as L", "L"),
        ("import prepare", "prepare.LEN"),
        ("import prepare as p", "p.LEN"),
        ("from prepare import *", "LEN"),
    ):
        text = f"{line}\nimport broken\nA = 64\nB = 2\nassert A % (B * {name}) == 0\nprint(A, B)"
        found, known = rules(text, tmp_path)
        assert constraints_of(known, found.slots, {}) == (Constraint(name="A", of="B", factor=16),)
