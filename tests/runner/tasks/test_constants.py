"""The constant editor: whatever a script looks like, only the chosen value expressions change."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.tasks.base import TaskError
from runner.tasks.constants import MAX_SCRIPT_BYTES, edit, prove, read
from runner.tasks.inference import LeftAlone, infer, value_of
from runner.tasks.literals import Unknown, evaluate

SAMPLES = Path(__file__).parents[1] / "scripts"


def source(text):
    return read(text if isinstance(text, bytes) else text.encode(), what="train.py")


# --- finding ---

FOUND = [
    ("LR = 0.1\nprint(LR)", {"LR": 0.1}),
    ("A = 2**17 # many\nprint(A)", {"A": 131072}),
    ("A = 1 << 4\nprint(A)", {"A": 16}),
    ("A = -3 * (4 + 1)\nprint(A)", {"A": -15}),
    ("B = (0.8, 0.95)\nprint(B)", {"B_0": 0.8, "B_1": 0.95}),
    ("B = [\n 0.8, # x\n 0.95,\n]\nprint(B)", {"B_0": 0.8, "B_1": 0.95}),
    ('W = "SSSL"\nprint(W)', {"W": "SSSL"}),
    ("U = True\nprint(U)", {"U": True}),
    ("A: int = 3\nprint(A)", {"A": 3}),
    ("A, B = 1, 2\nprint(A, B)", {"A": 1, "B": 2}),
    ("A = 1; B = 2\nprint(A, B)", {"A": 1, "B": 2}),
    ("A = (\n  2\n  ** 3\n)\nprint(A)", {"A": 8}),
    ("if __name__ == '__main__':\n    A = 1\n    print(A)", {"A": 1}),
    ("def f():\n    A = 2\n    return A\nA = 1\nprint(A)", {"A": 1}),
    ("A = 1\nprint(globals())", {"A": 1}),
    ("A = 0 or 0.5\nB = 3 and 5\nprint(A, B)", {"A": 0.5, "B": 5}),
    ("A = 1_000\nB = 0x10\nprint(A, B)", {"A": 1000, "B": 16}),
    ("\ufeffA = 1\nprint(A)", {"A": 1}),
    ("A = 1\r\nB = 2\rC = 3\nprint(A, B, C)", {"A": 1, "B": 2, "C": 3}),
    ("# \u00e4\u4e2d\nS = '\u00e4\u4e2d'; A = 5\nprint(S, A)", {"S": "\u00e4\u4e2d", "A": 5}),
]


@pytest.mark.parametrize(("text", "values"), FOUND)
def test_constants_are_found(text, values):
    found = source(text)
    assert {name: slot.value for name, slot in found.slots.items()} == values
    for slot in found.slots.values():
        assert eval(f"({slot.text}\n)") == slot.value


LEFT = [
    ("if X:\n    A = 1\nelse:\n    A = 2\nprint(A)", "within a block"),
    ("[A, B] = [1, 2]\nprint(A)", "with others"),
    ("if (A := 3) > 1:\n    print(A)", "within a block"),
    ("A = 1\nA = 2\nprint(A)", "more than once"),
    ("A = 1\nif A:\n    A = 2\nprint(A)", "more than once"),
    ("A = 1\nA += 1\nprint(A)", "more than once"),
    ("A = 1\nfor A in range(3):\n    print(A)", "more than once"),
    ("A = 1\nimport os as A\nprint(A)", "more than once"),
    ("A = 1\ndef A():\n    pass\nprint(A)", "more than once"),
    ("A = 1\ndef f():\n    global A\n    A = 2\nprint(A)", "a function binds it"),
    ("A = 1", "nothing reads it"),
    ("A = B = 1\nprint(A, B)", "shares its value"),
    ("A = None\nprint(A)", "not a literal"),
    ("A = {}\nprint(A)", "not a literal"),
    ("A = open('x')\nprint(A)", "not a literal"),
    ("A = (1, (2, 3))\nprint(A)", "not a literal"),
    ("A = ('x', 'y')\nprint(A)", "not a literal"),
    ("A = ()\nprint(A)", "not a literal"),
    ("A = 2**99999999\nprint(A)", "not a literal"),
    ("A = 9**9**9**9\nprint(A)", "not a literal"),
    ("A = 1 / 0\nprint(A)", "not a literal"),
    ("A = 'x' * 10**9\nprint(A)", "not a literal"),
    ("A = '%999999999d' % 1\nprint(A)", "not a literal"),
    ("A = (1, 2)\nA_0 = 3\nprint(A, A_0)", "A_0 of its own"),
    ("A = f'{1}'\nprint(A)", "not a literal"),
    ("B = 2\nA = B * 2\nprint(A)", "it depends on B"),
    ("A = open('x')\nprint(A)", "it calls open"),
    ("A = 1j\nprint(A)", "not a literal"),
    ("A = float('nan')\nprint(A)", "nan equals nothing"),
]


@pytest.mark.parametrize(("text", "why"), LEFT)
def test_what_can_not_be_a_knob_is_left_alone_with_a_reason(text, why):
    found = source(text)
    assert "A" not in found.slots
    assert why in found.left_alone["A"]


REFUSED = [
    (b"A = 1\n\xff", "not UTF-8"),
    ("# -*- coding: latin-1 -*-\nA = '\u00e4'".encode(), "says that it is"),
    (b"# -*- coding: no-such -*-\nA = 1", "not UTF-8"),
    (b"def f(:\n", "line 1"),
    (b"A = 1\n\nB = = 2\n", "line 3"),
    (b"A = 1\0", "null bytes"),
    (b"A = " + b"(" * 5000 + b")" * 5000, "can't be read|line 1"),
    (b"#" * (MAX_SCRIPT_BYTES + 1), "at most"),
    ("\n".join(f"A{i} = 1" for i in range(1000)).encode(), "over 400"),
]


@pytest.mark.parametrize(("data", "why"), REFUSED, ids=range(len(REFUSED)))
def test_a_script_that_can_not_be_read_is_refused_with_what_to_do(data, why):
    with pytest.raises(TaskError, match=why):
        source(data)


# --- editing ---


def test_only_the_expressions_change():
    text = '\ufeffA = 2**19 # x\r\nB = (0.8, # first\n  0.95) # y\nW = "SS"; C = (4 # in\n * 5)\n'
    text += "print(A, B, W, C)\n\n\n\t# \u4e2d"
    edited = edit(source(text), {"A": 2**17, "B_1": 0.5, "W": "L'", "C": -7}).decode()
    assert edited == (
        '\ufeffA = 131072 # x\r\nB = (0.8, # first\n  0.5) # y\nW = "L\'"; C = (-7)\n'
        "print(A, B, W, C)\n\n\n\t# \u4e2d"
    )


def test_an_unchanged_value_keeps_its_own_spelling():
    text = b"A = 2**19\nB = 1_000\nC = 3.\nprint(A, B, C)"
    assert edit(source(text), {"A": 2**19, "B": 1000, "C": 3.0}) == text


def test_what_equals_nothing_is_no_reason_to_fail():
    text = "A = 1\nlast = float('nan')\nprint(A)"
    assert edit(source(text), {"A": 2}).decode() == text.replace("A = 1", "A = 2")


def test_an_unknown_constant_is_refused():
    with pytest.raises(TaskError, match="no constant"):
        edit(source("A = 1\nprint(A)"), {"B": 2})


def test_the_proof_would_notice():
    before = source("A = 1\nB = 2\nprint(A, B)")
    for changed in (
        b"A = 3\nB = 2\nprint(A,B)",
        b"A = 3\nB = 4\nprint(A, B)",
        b"A = 3\nprint(A, B)",
        b"A = 3\nB = 2\nC = 5\nprint(A, B, C)",
        b"A = 3\nB = 2\nprint(A, B) ",
    ):
        with pytest.raises(ValueError, match="editing"):
            prove(before, changed, {"A": 3})
    prove(before, b"A = 3\nB = 2\nprint(A, B)", {"A": 3})


NUMBERS = st.one_of(
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
)
LITERALS = st.one_of(
    NUMBERS.map(repr),
    st.booleans().map(repr),
    st.text(max_size=8).map(repr),
    st.tuples(NUMBERS, NUMBERS).map(repr),
    st.integers(0, 30).map(lambda n: f"2**{n}"),
    st.tuples(st.integers(1, 99), st.integers(1, 99)).map(lambda p: f"({p[0]}\n  * {p[1]})"),
    st.integers(0, 99).map(lambda n: f"int(os.environ.get('V{n}', '{n}'))"),
    st.integers(0, 99).map(lambda n: f"{{'a': {n}, 'b' : {n}.5, 'c': None}}"),
)
JUNK = st.sampled_from(
    [
        "",
        "# c \u00e4 = 1",
        "x = 1",
        "def f(A=1): return A",
        "print('C0 = 3')",
        '"""\nC1 = 2\n"""',
        "class C:\n    C2 = 1",
        "\f",
        "if True:\n    pass",
    ]
)
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "<<", "|"]
ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(LITERALS, JUNK, ENDS), min_size=1, max_size=6), st.data())
def test_editing_changes_the_values_and_nothing_else(parts, data):
    lines = []
    for i, (literal, junk, end) in enumerate(parts):
        lines += [junk.replace("\n", end), f"C{i} = {literal}  # comment {i}".replace("\n", end)]
    end = parts[0][2]
    lines.append("print(" + ", ".join(f"C{i}" for i in range(len(parts))) + ")")
    text = end.join(lines).encode("utf-8", "surrogatepass")
    try:
        before = source(text)
    except TaskError:
        return  # lone surrogates and the like: refused, never half read
    new = {}
    for name, slot in before.slots.items():
        if data.draw(st.booleans()):
            kinds = {bool: st.booleans(), str: st.sampled_from(["", "L'\"\\", "\u4e2d\n"])}
            new[name] = data.draw(kinds.get(type(slot.value), NUMBERS))
    edited = edit(before, new)
    after = source(edited)
    assert {n: s.value for n, s in after.slots.items()} == {
        n: new.get(n, s.value) for n, s in before.slots.items()
    }
    assert _without(after) == _without(before)
    assert edit(after, {n: s.value for n, s in before.slots.items()}) is not None


def _without(found):
    """The script with every slot cut out."""
    parts, done = [], 0
    for slot in sorted(found.slots.values(), key=lambda s: s.start):
        parts.append(found.data[done : slot.start])
        done = slot.end
    return [*parts, found.data[done:]]


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda t: t.encode("utf-8", "ignore")))
def test_any_bytes_are_read_or_refused(data):
    try:
        found = source(data)
    except TaskError:
        return
    assert edit(found, {name: slot.value for name, slot in found.slots.items()}) == data


@settings(max_examples=80, deadline=None)
@given(
    st.recursive(
        st.integers(-9, 9).map(str) | st.just("1.5"),
        lambda e: st.tuples(e, st.sampled_from(OPERATORS), e).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        max_leaves=6,
    )
)
def test_the_evaluator_agrees_with_python_or_does_not_know(text):
    node = ast.parse(text, mode="eval").body
    try:
        value = evaluate(node)
    except Unknown:
        return
    assert value == eval(text)


# --- bounds ---

INFERRED = [
    ("MATRIX_LR = 0.04", ("float", 0.002, 0.4, True)),
    ("TOTAL_BATCH_SIZE = 2**19", ("power_of_two", 2**14, 2**21, True)),
    ("DEVICE_BATCH_SIZE = 128", ("power_of_two", 4, 512, True)),
    ("DEPTH = 8", ("int", 4, 16, False)),
    ("WARMUP_STEPS = 200", ("int", 25, 800, True)),
    ("WARMUP_RATIO = 0.0", ("float", 0, 1, False)),
    ("WARMUP_RATIO = 0", ("float", 0, 1, False)),
    ("DROPOUT = 0.1", ("float", 0, 0.9, False)),
    ("WEIGHT_DECAY = 0.2", ("float", 0, 1, False)),
    ("EMA_DECAY = 0.999", ("float", 0.5, 0.999, False)),
    ("ADAM_BETA = 0.95", ("float", 0.5, 0.999, False)),
    ("ADAM_EPS = 1e-8", ("float", 1e-11, 1e-5, True)),
    ("SOFT_CAP = 15.0", ("float", 1.875, 120, True)),
    ("BIAS = -2.0", ("float", -8, -0.5, False)),
    ("WEIGHT_DECAY = 5e-4", ("float", 1.66667e-5, 0.015, True)),
    ("L2_REG = 0.0", ("float", 0, 0.3, False)),
    ("CLIP_EPS = 0.2", ("float", 0.025, 1.6, True)),
    ("HFLIP_P = 0.5", ("float", 0, 1, False)),
    ("GRAD_CLIP = 1", ("float", 0.125, 8, True)),
    ("MUON_LR = 1", ("float", 0.05, 10, True)),
    ("LR_GROUPS = 8", ("int", 4, 16, False)),
    ("LEARNING_STARTS = 1000", ("int", 125, 4000, True)),
    ("USE_BIAS = 1", ("int", 0, 1, False)),
    ("USE_BIAS = 0", ("int", 0, 1, False)),
    ("SUBSAMPLE = 0.8", ("float", 0.05, 1, False)),
    ("KEEP_PROB = 0.9", ("float", 0.05, 1, False)),
    ("KEEP = 4", ("int", 2, 8, False)),
    ("LABEL_SMOOTHING = 0", ("float", 0, 0.9, False)),
    ("GAMMA = 0.99", ("float", 0.5, 0.9999, False)),
    ("FOCAL_GAMMA = 2.0", ("float", 0.25, 16, True)),
    ("MOMENTUM = 0.0", ("float", 0, 0.999, False)),
    ("INIT_STD = 0.02", ("float", 0.001, 0.2, True)),
    ("HIDDEN_DIM = 64", ("power_of_two", 16, 256, True)),
]


@pytest.mark.parametrize(("line", "wanted"), INFERRED)
def test_bounds_follow_the_documented_rules(line, wanted):
    found = source(f"{line}\nprint({line.split()[0]})")
    (slot,) = found.slots.values()
    knob = infer(slot, found)
    kind, low, high, log = wanted
    assert (knob.kind, knob.log) == (kind, log)
    assert (knob.low, knob.high) == pytest.approx((low, high))
    assert knob.problem(knob.default) is None


@pytest.mark.parametrize(
    "line",
    [
        *("SEED = 1", "TIME_BUDGET = 300", "MAX_STEPS = 100", "NUM_EPOCHS = 3", "OFFSET = 0"),
        *("VOCAB_SIZE = 8192", "DATA_DIR = 'x'", "GPU_PEAK_FLOPS = 9e14", "MAX_SEQ_LEN = 2048"),
        *("LOG_EVERY = 10", "NUM_WORKERS = 4", "DEVICE = 'cuda'", "DTYPE = 'x'", "IGNORE = -1"),
        *("TRAIN_FRAC = 0.9", "SPLITS = 0.5", "N_SAMPLES = 9", "TOTAL_TOKENS = 99", "USE_CUDA = 1"),
        *("T = 1024", "MAX_LENGTH = 512", "PATIENCE = 3"),
        *("RANDOM_STATE = 42", "N_FOLDS = 5", "NUM_CLASSES = 10", "N_JOBS = 4", "PAD_ID = 3"),
        *("INPUT_DIM = 784", "IMG_SIZE = 32", "N_FEATURES = 8", "TARGET_LOSS = 3.28", "PI = 3.14"),
        *("NUM_EPISODES = 500", "TOTAL_TIMESTEPS = 1000", "EARLY_STOPPING_ROUNDS = 20"),
        *("BIG = 2**60", "MODEL = 'gpt2'", "BLOCK_SIZE = 256", "EVAL_BATCH_SIZE = 8"),
        *("BEST = float('inf')", "EPS = 5e-324", "TINY = -1e-320"),
    ],
)
def test_the_yardstick_and_what_has_no_scale_are_left_alone(line):
    found = source(f"{line}\nprint({line.split()[0]})")
    (slot,) = found.slots.values()
    with pytest.raises(LeftAlone):
        infer(slot, found)


def test_what_was_measured_of_the_data_is_left_alone():
    found = source(
        "CIFAR_MEAN = (0.49, 0.48)\nCIFAR_STD = (0.24, 0.26)\nprint(CIFAR_MEAN, CIFAR_STD)"
    )
    assert sorted(found.slots) == ["CIFAR_MEAN_0", "CIFAR_MEAN_1", "CIFAR_STD_0", "CIFAR_STD_1"]
    for slot in found.slots.values():
        with pytest.raises(LeftAlone, match="data"):
            infer(slot, found)


def test_words_are_looked_up_in_tables_that_have_a_name():
    found = source(
        'ACT = "relu"\nOPT = "sgd"\nACTS = {"relu": 1, "gelu": 2, **ACTS_2}\n'
        'OPTS = {"sgd": 1, "adam": 2}\nprint(ACTS[ACT], OPTS.get(OPT, 3), open(ACT)[ACT])\n'
    )
    assert infer(found.slots["ACT"], found).choices == ("relu", "gelu")
    assert infer(found.slots["OPT"], found).choices == ("sgd", "adam")


def test_words_get_the_alternatives_that_the_script_knows():
    text = 'ACT = "relu"\nif ACT == "gelu":\n    pass\nx = {"silu": 1, "relu": 2}[ACT]\n'
    found = source(text + 'assert ACT in ("relu", "tanh")\n')
    knob = infer(found.slots["ACT"], found)
    assert set(knob.choices) == {"relu", "gelu", "silu", "tanh"}
    assert knob.default == "relu"


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(["LR", "BATCH_SIZE", "DECAY", "X", "RATIO", "BETA", "EPS", "DIM", "USE"]),
    st.one_of(st.integers(-(2**54), 2**54), st.floats(allow_nan=False, allow_infinity=False)),
    st.floats(0, 1),
)
def test_whatever_is_inferred_is_a_sound_knob(name, value, position):
    found = source(f"{name} = {value!r}\nprint({name})")
    slot = found.slots[name]
    try:
        knob = infer(slot, found)
    except LeftAlone:
        return
    assert knob.problem(knob.default) is None
    assert knob.low < knob.high
    new = knob.at(position)
    assert knob.problem(new) is None
    assert source(edit(found, {name: value_of(knob, slot, new)})).slots[name].value == new


def test_the_samples_are_as_they_were_written():
    """The formatter must not make the samples tidy: untidy is the point."""
    text = (SAMPLES / "autoresearch" / "train.py").read_text()
    assert re.search(r"^ASPECT_RATIO = 64 {7}#", text, re.MULTILINE)
