"""The command task: what a file may say, and what commands do."""

from __future__ import annotations

import contextlib
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.tasks import Places, TaskError, get_task
from runner.tasks.strictyaml import MAX_BYTES

PYTHON = json.dumps(sys.executable)
KNOBS = "knobs:\n  A: {low: 0.0, high: 1.0}\n"
SCORE = f"command: [{PYTHON}, -c, 'print(\"score:\", {{A}})']\nmetric: score\n"


def made(folder, text, *, out=None, name="task.yaml", **options):
    place = folder / name
    place.write_bytes(text if isinstance(text, bytes) else text.encode())
    return get_task("command", {"config": place, **options}, places=Places(out=out))


def tried(task, **changes):
    return task.run({**task.space.defaults(), **changes}, seed=7)


def test_a_command_with_its_knobs_in_its_arguments(tmp_path):
    task = made(tmp_path, SCORE + KNOBS + "minimize: false\n", out=tmp_path / "out")
    assert (task.metric, task.minimize) == ("score", False)
    assert tried(task, A=0.25).metric == 0.25
    (trial,) = (tmp_path / "out" / "trials").iterdir()
    assert json.loads((trial / "knobs.json").read_text()) == {"A": 0.25}
    assert (trial / "log.txt").read_text() == "score: 0.25\n"


def test_knobs_in_the_environment_and_in_a_file(tmp_path):
    (tmp_path / "tool.py").write_text(
        "import json, os, sys\n"
        "knobs = json.load(open(sys.argv[1])) if sys.argv[1:] else dict(os.environ)\n"
        "assert os.environ['MODE'] == 'fast'\n"
        "print('score:', float(knobs['A']) + int(knobs['N']) + len(knobs['WORD']))\n"
    )
    knobs = KNOBS + "  N: {kind: int, low: 1, high: 9}\n  WORD: {choices: [a, bb]}\n"
    for how, extra in (("environment", ""), ("json", " {KNOBS_FILE}")):
        text = f"command: '{sys.executable} tool.py{extra}'\nknobs_as: {how}\nmetric: score\n"
        task = made(tmp_path, text + "environment: {MODE: fast}\n" + knobs)
        assert tried(task, A=0.5, N=2, WORD="bb").metric == 4.5


def test_a_copy_or_in_place(tmp_path):
    (tmp_path / "tool.py").write_text(
        "import pathlib\np = pathlib.Path('count')\nn = len(p.read_text()) if p.exists() else 0\n"
        "p.write_text('x' * (n + 1)); print('score:', n)\n"
    )
    text = f"command: [{PYTHON}, tool.py, '{{A}}']\nmetric: score\n" + KNOBS
    copied = made(tmp_path, text)
    assert [tried(copied).metric, tried(copied).metric] == [0, 0]
    assert not (tmp_path / "count").exists()
    placed = made(tmp_path, text + "where: in_place\n")
    assert [tried(placed).metric, tried(placed).metric] == [0, 1]


def test_no_shell_and_no_second_reading(tmp_path):
    text = (
        f"command: [{PYTHON}, -c, 'import sys; print(\"score:\", len(sys.argv[1]))', '{{W}}']\n"
        "metric: score\nknobs:\n  W: {choices: ['{SEED}', '$(id)', 'a b; rm -rf x']}\n"
    )
    task = made(tmp_path, text)
    for word in task.space["W"].choices:
        assert tried(task, W=word).metric == len(word)


def test_a_pattern_that_would_take_for_ever_in_another_engine(tmp_path):
    text = (
        f'command: [{PYTHON}, -c, \'print("x" * 1900); print("acc=", {{A}})\']\n'
        "metric: {name: acc, pattern: '(?:x+x+)+y|acc= ([0-9.]+)'}\nminimize: false\n" + KNOBS
    )
    assert tried(made(tmp_path, text), A=0.5).metric == 0.5


@pytest.mark.parametrize(
    ("code", "failure"),
    [
        ("pass", "no_metric"),
        ('print("score: 1"); print("score: 1")', "no_metric"),
        ('print("score: nan")', "nan"),
        ("raise SystemExit(3)", "crash"),
        ("assert False", "constraint"),
        ("import time; time.sleep(60)", "timeout"),
    ],
)
def test_a_bad_command_is_classified(tmp_path, code, failure):
    text = f"command: [{PYTHON}, -c, '{code}', '{{A}}']\nmetric: score\n" + KNOBS
    assert tried(
        made(tmp_path, text, budget_seconds=1 if failure == "timeout" else 60)
    ).failure == (failure)


HEAD = "metric: score\ncommand: 'true {A}'\n"
BARE = "metric: score\ncommand: 'true'\n"
WRONG = [
    ("", "empty"),
    ("- a\n", "line 1.*list"),
    ("metric: score\n", "line 1.*command: it must be given"),
    ("command: 'true {A}'\nmetric: val_acc\n" + KNOBS, "line 2.*higher val_acc better.*false"),
    ("command: 'true {A}'\n" + KNOBS, "name the metric"),
    (HEAD, "there is no knob"),
    (HEAD + KNOBS + "no_such_key: 1\n", "line 5.*no_such_key"),
    (HEAD + KNOBS + "knobs: {}\n", "line 5.*twice.*line 3"),
    (HEAD + KNOBS + "  A: {low: 0.1, high: 0.2}\n", "line 5.*'A' is there twice.*line 4"),
    (HEAD + "knobs:\n  A:\n    low: 3\n    high: 1\n", "line 5.*above high"),
    (HEAD + "knobs:\n  A: {low: 3, high: 3}\n", "line 4.*nothing to search"),
    (HEAD + "knobs:\n  A:\n    low: 3\n", "line 4.*high.*needs low and high"),
    (HEAD + "knobs:\n  A: {low: .nan, high: 1}\n", "line 4"),
    (HEAD + "knobs:\n  A: {low: 1e999, high: 1}\n", "line 4"),
    (HEAD + "knobs:\n  A: {low: 0, high: 1, log: true}\n", "line 4.*log scale"),
    (HEAD + "knobs:\n  A: {low: 0, high: 1, default: 2}\n", "line 4.*above 1"),
    (HEAD + "knobs:\n  A: {kind: int, low: 0.5, high: 2}\n", "line 4.*whole"),
    (HEAD + "knobs:\n  A: {kind: power_of_two, low: 5, high: 7}\n", "line 4.*power of two"),
    (HEAD + "knobs:\n  A: {kind: power_of_two, low: 0, high: 7}\n", "line 4.*above 0"),
    (HEAD + "knobs:\n  A: {kind: funny, low: 0, high: 7}\n", "line 4.*kind"),
    (HEAD + "knobs:\n  A: {choices: [a]}\n", "line 4.*at least two"),
    (HEAD + "knobs:\n  A: {choices: [a, a]}\n", "line 4.*twice"),
    (HEAD + "knobs:\n  A: {choices: [a, b], low: 1}\n", "line 4.*no bounds"),
    (HEAD + "knobs:\n  A: {choices: [a, b], default: c}\n", "line 4.*none of"),
    (HEAD + "knobs:\n  'A B': {low: 1, high: 2}\n", "line 4.*letters"),
    (HEAD + "knobs: [A]\n", "line 3: knobs: write it as"),
    (HEAD + "knobs:\n  A: [0, 1]\n", "line 4.*with keys of kind, low, high, log"),
    (HEAD + "knobs:\n  A: {min: 0}\n", "line 4.*min: there is no such key here; there are kind,"),
    (HEAD + "knobs:\n  A: {low: 5%, high: 1}\n", "line 4: knobs.A.low: write a plain number$"),
    ("metric: {pattern: x}\ncommand: 'true {A}'\n" + KNOBS, "metric.name: it must be given$"),
    (HEAD + KNOBS + "  B: {low: 0, high: 1}\n", r"line 5.*does not name \{B\}"),
    ("metric: score\ncommand: 'true {A} {C}'\n" + KNOBS, r"line 2.*\{C\} is no knob"),
    ("metric: score\ncommand: 'no-such-program {A}'\n" + KNOBS, "line 2.*no program"),
    ('metric: score\ncommand: "true \'{A}"\n' + KNOBS, "line 2.*split"),
    ("metric: score\ncommand: true {A} | tee x\n" + KNOBS, r"line 2.*\| is for a shell"),
    ("metric: score\ncommand: 'true {A}; rm x'\n" + KNOBS, "line 2.*; is for a shell"),
    ("metric: score\ncommand: true {A} '|' 2>&1\n" + KNOBS, "line 2.*>& is for a shell"),
    ("metric: score\ncommand: []\n" + KNOBS, "line 2.*empty"),
    ("metric: {name: s, pattern: 'x'}\ncommand: 'true {A}'\n" + KNOBS, "line 1.*0 groups"),
    ("metric: {name: s, pattern: '(x'}\ncommand: 'true {A}'\n" + KNOBS, "line 1.*RE2"),
    ("metric: {name: s, pattern: '(x)\\1'}\ncommand: 'true {A}'\n" + KNOBS, "line 1.*RE2"),
    (HEAD + KNOBS + "constraints: [{name: A, multiple_of: B}]\n", "line 5.*'B' is no knob"),
    (HEAD + KNOBS + "constraints: [{name: A, multiple_of: A, factor: 0}]\n", "line 5.*factor"),
    (HEAD + KNOBS + "constraints: [{name: A, multiple_of: A, factor: 3}]\n", "line 5.*multiple"),
    (HEAD + KNOBS + "deadline_seconds: 0\n", "line 5"),
    (HEAD + KNOBS + "deadline_seconds: soon\n", "line 5"),
    (HEAD + KNOBS + "directory: nowhere\n", "line 5.*not a folder"),
    (HEAD + KNOBS + "where: in_place\nshare: [x]\n", "line 6.*leave it out"),
    (HEAD + KNOBS + "minimize: maybe\n", "line 5"),
    ("x: &a [1]\ny: *a\n", "line 1.*anchors"),
    ("x: !!python/object:os.system {}\n", "line 1.*tags"),
    ("x: [1\n", "line"),
    ('x: "\\q"\n', "line 1"),
    ("x: 1\n\ty: 2\n", "line 2"),
    ("? [a]\n: b\n", "line 1.*key"),
    ("a: 1\n---\nb: 2\n", "line"),
    ("x: " + "[" * 100_000 + "\n", "line 1.*deeply"),
    ("\n".join("  " * i + "a:" for i in range(200)), "line .*deeply"),
    (b"x: \xff\n", "line 1.*UTF-8"),
    (b"a: 1\nx: \x00\n", "line 2"),
    (b"x" * (10 * 1024 * 1024), f"line 1.*over {MAX_BYTES} bytes"),
    ("x: " + "9" * 10000 + "\n", "number|x"),
    (HEAD + "knobs:\n  A: {low: zero, high: 1}\n", r"line 4: knobs\.A\.low: write a plain number"),
    (HEAD + KNOBS + 'environment: {X: "a\\0b"}\n', r"line 5: environment\.X: a null byte"),
    (HEAD + KNOBS + 'environment: {X: "\\ud800"}\n', r"line 5: environment\.X: .*half"),
    (HEAD + KNOBS + "environment: {'X=Y': a}\n", "line 5: environment.X=Y"),
    (HEAD + KNOBS + "environment: {X: 3}\n", "line 5: .*put it in quotes"),
    (HEAD + 'knobs:\n  A: {choices: [a, "b\\0"]}\n', "line 4.*null byte"),
    (BARE + KNOBS.replace("A:", "PATH:") + "knobs_as: environment\n", "line 4.*rename the knob"),
    (
        BARE + KNOBS.replace("A:", "ESCAPEMENT_TRIAL:") + "knobs_as: environment\n",
        "line 4.*rename the knob",
    ),
]


@pytest.mark.parametrize(("text", "why"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_file_is_refused_with_its_line(tmp_path, text, why):
    with pytest.raises(TaskError, match=why):
        made(tmp_path, text)


@pytest.mark.parametrize(
    "command",
    [
        *("true {A} '|'", 'true --x="a|b" {A}', "true '{A}>b' #c", "[echo, '{A}', '|', '>']"),
        "[sh, -c, 'true {A} | cat; true']",
    ],
)
def test_signs_of_shells_in_quotes_and_lists_are_words(tmp_path, command):
    quoted = command if command.startswith("[") else json.dumps(command)
    assert list(made(tmp_path, f"metric: score\ncommand: {quoted}\n" + KNOBS).space) == ["A"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(TaskError, match="not a file"):
        get_task("command", {"config": tmp_path / "nowhere.yaml"})
    with pytest.raises(TaskError, match="not a file"):
        get_task("command", {"config": tmp_path})


def test_words_stay_words_and_numbers_numbers(tmp_path):
    text = SCORE.replace("{A}", "1, {A}, {B}, {C}".replace("1, ", "")) + (
        "knobs:\n  A: {low: 1e-3, high: 1e2, log: true}\n  B: {choices: [no, on, 1:30]}\n"
        "  C: {choices: [true, false]}\n"
    )
    space = made(tmp_path, text).space
    assert (space["A"].low, space["A"].high) == (0.001, 100)
    assert space["B"].choices == ("no", "on", "1:30")
    assert space["C"].choices == ("True", "False")


def test_the_digest_covers_the_file_and_the_folder(tmp_path):
    first = made(tmp_path, SCORE + KNOBS).digest
    assert made(tmp_path, SCORE + KNOBS).digest == first
    assert made(tmp_path, SCORE + KNOBS + "minimize: false\n").digest != first
    assert made(tmp_path, SCORE + KNOBS, budget_seconds=5).digest != first
    (tmp_path / "beside").write_text("x")
    assert made(tmp_path, SCORE + KNOBS).digest != first


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("abc:{}[]-?&*!|>'\"#%@` \n\t0.1,~<"), max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    folder = tmp_path_factory.getbasetemp()
    with contextlib.suppress(TaskError):  # and nothing else
        made(folder, text, name="any.yaml")
