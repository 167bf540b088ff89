"""Constants in dicts, in classes, and with a value from the environment."""

from __future__ import annotations

import pytest

from runner.tasks.constants import edit, read


def source(text):
    return read(text.encode(), what="train.py")


def test_parts_of_dicts_and_classes_are_found_and_edited():
    text = "D = {'lr' : 1e-3, 'on': True, 'x-y': 1, 'no': None}\nclass C(X):\n    a: int = 2  # a\n"
    text += "    a_b = -1\n    twice = 1\n    twice = 2\n    def f(self): return 1\nprint(D, C)\n"
    found = source(text)
    assert {name: (slot.constant, slot.word, slot.value) for name, slot in found.slots.items()} == {
        "D_lr": ("D['lr']", "lr", 0.001),
        "D_on": ("D['on']", "on", True),
        "C_a": ("C.a", "a", 2),
        "C_a_b": ("C.a_b", "a_b", -1),
    }
    edited = edit(found, {"D_lr": 0.5, "C_a_b": 7}).decode()
    assert edited == text.replace("1e-3", "0.5").replace("-1", "7")


def test_parts_of_parts_and_of_calls_with_keywords_are_found_and_edited():
    text = (
        "from x import y\nD = {'opt': {'lr': 1e-3, 'betas': (.9, .95)}, 'f': y(1)}\n"
        "cfg = y.Name(depth=4, inner=dict(width = 8), fn=y)\n"
        "class C:\n    betas: tuple = (0.8, 0.9)\n    late: int = field(default=3)\n"
        "    first: int = Field(5, ge=1)\n    none: list = field(default_factory=list)\n"
        "print(D, cfg)\n"
    )
    found = source(text)
    assert {name: (slot.constant, slot.part) for name, slot in found.slots.items()} == {
        "D_opt_lr": ("D['opt']['lr']", None),
        "D_opt_betas_0": ("D['opt']['betas']", 0),
        "D_opt_betas_1": ("D['opt']['betas']", 1),
        "cfg_depth": ("cfg.depth", None),
        "cfg_inner_width": ("cfg.inner['width']", None),
        "C_betas_0": ("C.betas", 0),
        "C_betas_1": ("C.betas", 1),
        "C_late": ("C.late", None),
        "C_first": ("C.first", None),
    }
    assert found.slots["D_opt_lr"].word == "lr"
    values = {"D_opt_betas_1": 0.5, "cfg_inner_width": 16, "C_late": 7, "C_first": 6}
    edited = edit(found, values).decode()
    wanted = text.replace(".95", "0.5").replace("= 8", "= 16").replace("=3", "=7")
    assert edited == wanted.replace("Field(5", "Field(6")


@pytest.mark.parametrize(
    "text",
    [
        "A = {'x': {'y': 1}}\nA['x']['y'] = 2",
        "A = N(x=1)\nA.x = 2",
        "A = N(x=1)\nsetattr(A, 'x', 2)",
        "A = N(b=N(x=1))\nA.b.update(x=2)",
        "A = N(x=1, **B)",
        "A = N(B, x=1)",
        "A = N(x_y=1, x=N(y=2))",
        "A = {'x': 1, 'x': 2}",
        "A = {'x': 1, **B}",
        "A = {1: 2}",
        "A = {'x': 1}\nA['x'] = 2",
        "A = {'x': 1}\nA.update(x=2)",
        "A = {'x': 1}\nA_x = 2",
        "A = [1, 2]\nA.append(3)",
        "class A:\n    x = 1\nA.x = 3",
        "class A:\n    x = 1\nA_x = [None]",
        "A = {" + ", ".join(f"'k{i}': {i}" for i in range(99)) + "}",
    ],
)
def test_parts_that_may_change_or_clash_are_left_alone(text):
    parts = [s.name for s in source(f"{text}\nprint(A)").slots.values() if s.name != s.constant]
    assert not parts


READS = "A = int(os.environ.get('BATCH', '32'))\nprint(A)"


@pytest.mark.parametrize(
    ("text", "environment", "value"),
    [
        (READS, {}, 32),
        (READS, {"BATCH": "64"}, 64),
        ("A = float(os.getenv('LR', 3e-4))\nprint(A)", {}, 3e-4),
        ("A = getenv('W', 'SL')\nprint(A)", {}, "SL"),
        ("A = environ.get('ON', '1') == '1'\nprint(A)", {}, True),
        ("A = os.environ.get('W', '') or 'L'\nprint(A)", {}, "L"),
        ("B = os.environ.get('Y', '2')\nA = int(os.environ.get('X', '4'))\nprint(A)", {}, 4),
    ],
)
def test_a_variable_is_what_a_trial_sees_of_it(text, environment, value):
    found = read(text.encode(), what="train.py", environment=environment)
    assert found.slots["A"].value == value
    assert edit(found, {"A": value}) == text.encode()
    edited = edit(found, {"A": 5}).decode()
    assert "A = 5\n" in edited
    assert read(edited.encode(), what="", environment=environment).slots["A"].value == 5


@pytest.mark.parametrize(
    "text",
    [
        READS + "\nos.environ['BATCH'] = '3'",
        "from dotenv import load_dotenv\n" + READS,
        READS.replace("BATCH", "ESCAPEMENT_SEED"),
        READS.replace(", '32'", ""),
        READS.replace("'32'", "'x'"),
        READS.replace("'32'", "B"),
        "A = int(os.environ['BATCH'])\nprint(A)",
    ],
)
def test_a_variable_that_can_not_be_known_is_left_alone(text):
    assert "not a literal" in source(text).left_alone["A"]
