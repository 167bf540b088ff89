"""Bounds guessed from a script's constants: kind, low, high and scale of each, by documented rules.

The rules look at a constant's name, its default and how it is written (docs/tasks.md lists them).
Whatever measures instead of being measured (budgets, seeds, evaluation, data, paths, context
length) is left alone, and so is what has no scale to guess from: each with a reason, and each can
be named in a space.yaml. Nothing is read from files here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from runner.gpt.space import WINDOW_PATTERNS
from runner.tasks.constants import Scalar, Slot, Source
from runner.tasks.scope import assignments
from sandbox.mechanism import Knob, KnobValue

MAX_CHOICES = 12
LARGEST = 2**53
SMALLEST = 1e-100
ON_OFF = ("False", "True")

_YARDSTICK = {
    "it is the budget": "TIME BUDGET SECONDS MINUTES HOURS TIMEOUT DEADLINE DURATION PATIENCE "
    "EARLY",
    "it belongs to the evaluation": "EVAL EVALUATION VAL VALID VALIDATION TEST HOLDOUT HELDOUT "
    "FOLD CV REPEAT",
    "it names data or places": "PATH DIR DIRECTORY FILE FILENAME URL URI DATA DATASET CORPUS SHARD "
    "SAMPLE EXAMPLE SPLIT VOCAB VOCABULARY TOKENIZER CACHE PORT HOST NAME PROJECT ID IDX INDEX "
    "CLASSES MEAN",
    "it is a fact about the machine": "FLOPS PEAK WORKER THREAD NPROC GPU CPU CUDA DTYPE BACKEND "
    "WORLD LOCAL COMPILE AMP JOB PREFETCH",
    "it is a constant of mathematics or a unit": "PI LN2 KB MB GB KIB MIB GIB",
    "it is randomness": "SEED RNG",
    "it is about what is printed or kept": "LOG LOGGING PRINT VERBOSE DEBUG WANDB SAVE CHECKPOINT "
    "CKPT INTERVAL EVERY VERSION",
}
_WHY = {
    token: why
    for why, tokens in _YARDSTICK.items()
    for word in tokens.split()
    for token in (word, f"{word}S")
}
_CONTEXT = ("SEQ", "SEQUENCE", "SEQLEN", "CONTEXT", "CTX", "BLOCK")
_LENGTHS = (
    *("STEPS", "STEP", "ITERS", "ITER", "ITERATIONS", "EPOCHS", "EPOCH", "UPDATES"),
    *("EPISODES", "TIMESTEPS", "GENERATIONS"),
)
_OF_SCHEDULE = ("WARMUP", "WARMDOWN", "COOLDOWN", "DECAY", "ACCUM", "ACCUMULATION", "BURNIN")
_SHARES = (
    *("RATIO", "FRAC", "FRACTION", "SHARE", "PROB", "PROBABILITY", "DROPOUT", "DROP"),
    *("SMOOTHING", "SMOOTH", "P"),
)
_PARTS = ("SUBSAMPLE", "COLSAMPLE", "BAGGING", "KEEP", "QUANTILE")  # shares that can't be 0
_AVERAGES = ("BETA", "BETAS", "BETA1", "BETA2", "MOMENTUM", "EMA")
_HORIZONS = ("GAMMA", "LAMBDA", "LAM", "DISCOUNT", "RHO", "POLYAK", "TAU")  # from 0.9 up
_PENALTIES = ("DECAY", "WD", "L2", "L1", "REG")
_NAMED = {*_SHARES, *_AVERAGES, *_PENALTIES}
# Whole numbers of these names are quantities that happen to be whole.
_REAL = ("LR", "CLIP", "NORM", "COEF", "COEFF", "WEIGHT", "TEMPERATURE", "TEMP", "ALPHA")
_RATES = ("LR", "RATE", "LEARNING")
# Pairs that say what one word alone does not.
_PAIRS = (
    ("it is randomness", {"RANDOM"}, {"STATE"}),
    ("it belongs to the evaluation", {"TARGET"}, {"LOSS", "BPB", "ACC", "ACCURACY", "SCORE"}),
    (
        "it is the shape of the data",
        {"INPUT", "IN", "OUTPUT", "OUT", "IMG", "IMAGE", "OBS", "ACTION"},
        {"DIM", "DIMS", "SIZE", "FEATURES", "CHANNELS", "SHAPE", "WIDTH", "HEIGHT"},
    ),
    ("it is the shape of the data", {"N", "NUM"}, {"FEATURES", "CHANNELS"}),
)
_FLAGS = ("USE", "ENABLE", "DISABLE", "IS", "HAS", "WITH", "NO")
_SIZES = (
    "BATCH",
    "SIZE",
    "DIM",
    "LEN",
    "EMBD",
    "EMBED",
    "HIDDEN",
    "WIDTH",
    "CHANNELS",
    "HEAD",
    "FF",
    "FFN",
    "MLP",
    "UNITS",
    "TOKENS",
    "RANK",
)


class LeftAlone(ValueError):
    """No bounds can be guessed; the message says why."""


def infer(slot: Slot, source: Source) -> Knob:
    """The knob of one slot. Raises LeftAlone."""
    tokens = slot.word.upper().split("_")
    if why := _yardstick(slot, tokens):
        raise LeftAlone(why)
    value = slot.value
    if isinstance(value, bool):
        return Knob(kind="choice", default=str(value), choices=ON_OFF)
    if isinstance(value, str):
        return _text(slot, source, tokens)
    if abs(value) > LARGEST:
        raise LeftAlone("it is too large to be searched exactly")
    if 0 < abs(value) < SMALLEST:
        raise LeftAlone("it is too small to be a quantity with a scale")
    if isinstance(value, float) or any(t in _NAMED for t in tokens):
        found = _by_name(float(value), tokens)
        if found is not None:
            return found
    if tokens[0] in _FLAGS and isinstance(value, int) and value in (0, 1):
        return Knob(kind="int", default=value, low=0, high=1)
    if value == 0:
        raise LeftAlone("0 has no scale to guess bounds from")
    real = tokens[-1] in _REAL and 0 < value <= 10
    if isinstance(value, int) and not real:
        return _whole(value, slot.text, tokens)
    return _number(value, tokens)


def _yardstick(slot: Slot, tokens: list[str]) -> str:
    """Why it measures, or is a fact, instead of being searched; or ""."""
    named = set(tokens)
    for token in tokens:
        if token in _WHY:
            return _WHY[token]
    if named.intersection(_LENGTHS) and not named.intersection(_OF_SCHEDULE):
        return "it is the budget"
    if "BATCH" not in named and ("TRAIN" in named or {"TOTAL", "TOKENS"} <= named):
        return "it is how much there is to train on"
    longest = "MAX" in named and named.intersection(("LEN", "LENGTH"))
    if tokens == ["T"] or longest or named.intersection(_CONTEXT):
        return "it is the context length, which the evaluation may depend on"
    for why, first, second in _PAIRS:
        if first & named and second & named:
            return why
    if "STD" in named and slot.part is not None:  # of a tuple: of the data's channels
        return _WHY["MEAN"]
    return ""


def value_of(knob: Knob, slot: Slot, value: KnobValue) -> Scalar:
    """A knob's value as the script's own type."""
    if isinstance(slot.value, bool) and value in ON_OFF:
        return value == "True"
    if knob.kind == "choice" or isinstance(value, str):
        return value
    return float(value) if knob.kind == "float" else int(value)


def _by_name(value: float, tokens: list[str]) -> Knob | None:
    """Bounds that a name implies, for values that fit the name."""
    if 0 < value <= 1 and any(t in _PARTS for t in tokens):
        return Knob(kind="float", default=value, low=min(0.05, value), high=1.0)
    if 0 <= value <= 1 and any(t in _SHARES for t in tokens):
        takes_away = any(t.startswith(("DROP", "SMOOTH")) for t in tokens)
        high = 0.9 if value <= 0.9 and takes_away else 1.0
        return Knob(kind="float", default=value, low=0.0, high=high)
    if 0 <= value < 1 and any(t in _AVERAGES for t in tokens):
        return Knob(kind="float", default=value, low=min(0.5, value), high=max(0.999, value))
    penalty = any(t in _PENALTIES for t in tokens) and "LR" not in tokens
    if 0.9 <= value < 1 and (penalty or any(t in _HORIZONS for t in tokens)):
        return Knob(kind="float", default=value, low=0.5, high=max(0.9999, value))  # of averages
    if 0 < value < 0.01 and penalty:
        return _around(value, 30, 30)
    if 0 <= value < 100 and penalty:
        return Knob(kind="float", default=value, low=0.0, high=max(0.3, 5 * value))
    return None


def _number(value: float, tokens: list[str]) -> Knob:
    if value < 0:
        return Knob(kind="float", default=value, low=4 * value, high=value / 4)
    if value < 0.001 and any(t.startswith("EPS") for t in tokens):
        return _around(value, 1000, 1000)
    if any(t in _RATES for t in tokens) or value < 0.1:
        return _around(value, 20, 10)
    return _around(value, 8, 8)


def _around(value: float, down: float, up: float) -> Knob:
    """From `value` divided by `down` to `value` times `up`, by factors."""
    return Knob(
        kind="float", default=value, low=_short(value / down), high=_short(value * up), log=True
    )


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def _whole(value: int, text: str, tokens: list[str]) -> Knob:
    if value < 0:
        raise LeftAlone("a negative whole number is often a mark and no quantity")
    is_power = value & (value - 1) == 0
    written_so = "**" in text or "<<" in text
    if is_power and (written_so or (value >= 8 and any(t in _SIZES for t in tokens))):
        down, up = (32, 4) if "BATCH" in tokens or value >= 2**12 else (4, 4)
        return Knob(
            kind="power_of_two", default=value, low=max(1, value // down), high=value * up, log=True
        )
    if value <= 16:
        return Knob(kind="int", default=value, low=max(1, value // 2), high=max(2, value * 2))
    return Knob(kind="int", default=value, low=max(1, value // 8), high=value * 4, log=True)


def _text(slot: Slot, source: Source, tokens: list[str]) -> Knob:
    """A string's alternatives: window patterns, or what the script itself compares it with."""
    assert isinstance(slot.value, str)  # noqa: S101 - for the type checker
    patterns = any(t in ("WINDOW", "PATTERN", "ATTN", "ATTENTION") for t in tokens)
    if patterns and slot.value and set(slot.value) <= {"S", "L"}:
        choices = list(WINDOW_PATTERNS)
    else:
        if "DEVICE" in tokens:
            raise LeftAlone("it is a fact about the machine")
        choices = list(dict.fromkeys(_compared(source.tree, slot.constant)))[:MAX_CHOICES]
    if slot.value not in choices:
        choices.insert(0, slot.value)
    if len(choices) < 2:
        raise LeftAlone("text, and the script compares it with no other")
    return Knob(kind="choice", default=slot.value, choices=tuple(choices))


def _compared(tree: ast.Module, name: str) -> Iterator[str]:
    """The strings that a script compares a name with, or looks up by it."""
    tables = {n: node.keys for n, node in assignments(tree) if isinstance(node, ast.Dict)}
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=ast.Name(id=left), comparators=[other]) if left == name:
                yield from _strings(other)
            case (
                ast.Subscript(value=table, slice=ast.Name(id=key))
                | ast.Call(func=ast.Attribute(value=table, attr="get"), args=[ast.Name(id=key), *_])
            ) if key == name:
                keys = table.keys if isinstance(table, ast.Dict) else tables.get(_id(table), [])
                yield from (t for k in keys if k is not None for t in _strings(k))
            case ast.Match(subject=ast.Name(id=subject), cases=cases) if subject == name:
                for case in cases:
                    for part in ast.walk(case.pattern):
                        if isinstance(part, ast.MatchValue):
                            yield from _strings(part.value)


def _id(node: ast.expr) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _strings(node: ast.expr) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            for element in elements:
                yield from _strings(element)
        case ast.Dict(keys=keys):
            for key in keys:
                if key is not None:
                    yield from _strings(key)
