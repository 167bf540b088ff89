"""The script task on whole folders: honest ones, broken ones, and scripts that misbehave."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.tasks import Places, TaskError, get_task
from runner.tasks.constants import read
from runner.tasks.folders import MAX_BYTES

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = Path(__file__).parent / "scripts"
HONEST = "LR = 0.1\nprint('---')\nprint(f'val_bpb: {1 + LR}')\nprint('depth: 3')\n"


def seen(folder):
    """Every path below a folder with its type, mode and content."""
    found = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = (info.st_mode, info.st_mtime_ns, content)
    return found


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "given"
    place.mkdir()
    return place


def made(folder, text=HONEST, *, out=None, **options):
    if text is not None:
        data = text if isinstance(text, bytes) else text.encode()
        (folder / "train.py").write_bytes(data)
    return get_task("script", {"dir": folder, **options}, places=Places(out=out))


def tried(task, **changes):
    return task.run({**task.space.defaults(), **changes}, seed=1)


def trials(out):
    return sorted((out / "trials").iterdir())


# --- honest folders ---


@pytest.mark.parametrize("name", ["autoresearch", "functions", "bigram"])
def test_a_run_on_an_unmodified_folder(name, tmp_path):
    """The command itself: every trial is kept, and only constants ever differ."""
    given = tmp_path / "given"
    shutil.copytree(SAMPLES / name, given)
    before = seen(given)
    out = tmp_path / "out"
    command = ["-m", "runner", "run", "--task", "script", "--dir", str(given), "--out", str(out)]
    done = subprocess.run(
        [sys.executable, *command, "--trials", "4"],
        cwd=ROOT,
        env={**os.environ, "ESCAPEMENT_VAR": str(tmp_path / "var")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert seen(given) == before
    original = read((given / "train.py").read_bytes(), what="train.py")
    kept = trials(out)
    assert len(kept) >= 3 + 4
    for trial in kept:
        told = json.loads((trial / "outcome.json").read_text())
        config = json.loads((trial / "trial.json").read_text())["config"]
        assert not (trial / "work").exists()
        if told["failure"] == "constraint" and told["seconds"] == 0:
            continue
        assert f"{told['metric']}"[:5] in (trial / "log.txt").read_text()
        after = read((trial / "train.py").read_bytes(), what="train.py")
        parts = [_around(original), _around(after)]
        assert parts[0] == parts[1]
        for knob, value in config.items():
            assert after.slots[knob].value in (value, {"True": True, "False": False}.get(value))


def _around(source):
    parts, done = [], 0
    for slot in sorted(source.slots.values(), key=lambda s: s.start):
        parts.append(source.data[done : slot.start])
        done = slot.end
    return [*parts, source.data[done:]]


def test_a_changed_constant_changes_the_result(folder):
    task = made(folder)
    assert tried(task).metric == 1.1
    assert tried(task, LR=0.5).metric == 1.5
    assert tried(task).details == {"depth": "3"}


def test_metric_direction_and_lock(folder):
    task = made(
        folder,
        HONEST.replace("val_bpb", "score") + "A = 2\nprint(A)\n",
        metric="score",
        maximize=True,
        lock="A",
    )
    assert (task.metric, task.minimize, list(task.space)) == ("score", False, ["LR"])
    assert "locked" in task.left_alone["A"]
    with pytest.raises(TaskError, match="no constant 'B'"):
        made(folder, lock="B")


def test_the_batch_rule_costs_no_trial(folder, monkeypatch):
    shutil.copytree(SAMPLES / "autoresearch", folder, dirs_exist_ok=True)
    task = made(folder, None)
    monkeypatch.setattr("runner.tasks.script.measure", lambda *a, **k: pytest.fail("it ran"))
    outcome = tried(task, TOTAL_BATCH_SIZE=2**14)
    assert (outcome.failure, outcome.seconds) == ("constraint", 0.0)
    assert "DEVICE_BATCH_SIZE" in outcome.message


def test_a_rule_that_is_no_constraint_costs_no_trial(folder, monkeypatch):
    task = made(folder, HONEST + "B = 0.2\nassert LR + B < 0.5, 'too much'\n")
    assert task.space.constraints == ()
    monkeypatch.setattr("runner.tasks.script.measure", lambda *a, **k: pytest.fail("it ran"))
    outcome = tried(task, LR=0.4)
    assert (outcome.failure, outcome.seconds) == ("constraint", 0.0)
    assert "LR + B < 0.5" in outcome.message


def test_an_assertion_that_could_not_be_read_is_learnt_from_the_trial(folder):
    task = made(folder, HONEST.replace("---", "x") + "import os\nassert LR < len(os.sep) / 2\n")
    assert tried(task).failure == ""
    outcome = tried(task, LR=0.9)
    assert outcome.failure == "constraint"
    assert outcome.seconds > 0


def test_a_failure_that_the_family_prints_is_nan(folder):
    task = made(folder, HONEST + "if LR > 0.5:\n    print('FAIL')\n    raise SystemExit(1)\n")
    assert tried(task, LR=0.9).failure == "nan"


# --- scripts that misbehave: a class each, never a number, and never the folder ---

BAD = [
    ("print(LR)", "no_metric"),
    ("print(f'val_bpb: {LR}', LR)", "no_metric"),
    ("print('val_bpb: 1.0')\nprint(f'val_bpb: {LR}')", "no_metric"),
    ("print('val_bpb: 1.0\\rval_bpb: 2.0')\nLR", "no_metric"),
    ("print('val_bpb: 1,5')\nLR", "no_metric"),
    ("print('val_bpb: 1_5')\nLR", "no_metric"),
    ("print('val_bpb: \\u0661')\nLR", "no_metric"),
    ("print('val_bpb: -1')\nLR", "no_metric"),
    ("print('val_bpb = 1.5')\nLR", "no_metric"),
    ("print('val_bpb: nan')\nLR", "nan"),
    ("print('val_bpb: Infinity')\nLR", "nan"),
    ("print('val_bpb: 1.0')\nraise RuntimeError(LR)", "crash"),
    ("import prepare_that_is_not_there\nLR", "crash"),
    ("open('data-that-is-not-there')\nLR", "crash"),
    ("raise MemoryError(LR)", "oom"),
    ("import os\nos.kill(os.getpid(), 9)\nLR", "oom"),
    ("for i in range(30):\n    print('x' * 100_000)\nprint('val_bpb: 1', LR)", "no_metric"),
    (
        "print('val_bpb: 1')\nfor i in range(30):\n    print('x' * 100_000)\nprint('val_bpb: 2')"
        "\nfor i in range(30):\n    print('x' * 100_000)\nLR",
        "no_metric",
    ),
]


@pytest.mark.parametrize(("code", "failure"), BAD, ids=range(len(BAD)))
def test_a_bad_script_is_classified(folder, code, failure):
    task = made(folder, f"LR = 0.1\n{code}\n")
    before = seen(folder)
    outcome = tried(task)
    assert (outcome.metric, outcome.failure) == (None, failure)
    assert outcome.message
    assert len(outcome.message) < 3000
    assert seen(folder) == before


def test_a_flood_is_bounded_and_hides_nothing(folder, tmp_path):
    code = "for i in range(60):\n    print('x' * 100_000)\nprint(f'val_bpb: {LR}')\n"
    out = tmp_path / "out"
    assert tried(made(folder, f"LR = 0.1\n{code}", out=out)).metric == 0.1
    log = (trials(out)[0] / "log.txt").read_text()
    assert len(log) < 3_000_000
    assert "bytes cut" in log


def test_a_script_that_needs_an_hour_ends_at_its_deadline(folder):
    task = made(folder, HONEST + "import time\ntime.sleep(3600)\n", budget_seconds=1)
    outcome = tried(task)
    assert outcome.failure == "timeout"
    assert "val_bpb" in outcome.message


def test_what_a_script_writes_reaches_neither_the_folder_nor_the_next_trial(folder, tmp_path):
    code = (
        HONEST + "import os, pathlib\nhere = pathlib.Path(__file__).resolve().parent\n"
        "assert not (here / 'left').exists()\n(here / 'left').mkdir(mode=0o500)\n"
        "(here / 'train.py').write_text('gone')\n(here / 'beside.txt').write_text('gone')\n"
        "(here / 'linked.txt').write_text('gone')\n(here / 'outside.txt').write_text('gone')\n"
        "(here / 'sub' / 'up.txt').write_text('gone')\n"
    )
    (folder / "beside.txt").write_text("mine")
    (folder / "linked.txt").symlink_to(folder / "beside.txt")  # absolute, into the folder
    (tmp_path / "outside.txt").write_text("mine")
    (folder / "outside.txt").symlink_to("../outside.txt")
    (folder / "sub").mkdir()
    (folder / "sub" / "up.txt").symlink_to("../../given/beside.txt")  # out and in again
    out = folder / "runs" / "one"  # our own folder lies within: it is not copied
    task = made(folder, code, out=out)
    before = {k: v for k, v in seen(folder).items() if not k.startswith("runs")}
    for _ in range(2):
        assert tried(task).failure == ""
    after = {k: v for k, v in seen(folder).items() if not k.startswith("runs")}
    assert after == before
    assert (tmp_path / "outside.txt").read_text() == "mine"
    assert not list(out.rglob("left"))


def test_children_do_not_outlive_their_trial(folder, tmp_path):
    marker = tmp_path / "pid"
    code = (
        HONEST + "import subprocess, sys\n"
        "code = 'import time; time.sleep(60)'\n"
        "child = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)\n"
        f"open({str(marker)!r}, 'w').write(str(child.pid))\n"
    )
    assert tried(made(folder, code)).metric == 1.1
    _gone(int(marker.read_text()))


def test_what_a_killed_runner_left_running_is_ended_by_the_next_start(folder, tmp_path):
    marker, out = tmp_path / "pid", tmp_path / "out"
    code = (
        "LR = 0.1\nimport os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],"
        " start_new_session=True)\n"
        f"open({str(marker)!r}, 'w').write(str(child.pid))\ntime.sleep(LR * 600)\n"
    )
    made(folder, code)
    options = f"{{'dir': {str(folder)!r}}}"
    start = (
        "from runner.tasks import get_task, Places; from pathlib import Path; "
        f"t = get_task('script', {options}, places=Places(out=Path({str(out)!r})));"
        "t.run(t.space.defaults(), seed=0)"
    )
    runner = subprocess.Popen([sys.executable, "-c", start], cwd=ROOT)
    _until(lambda: marker.exists() and marker.read_text())
    runner.send_signal(signal.SIGKILL)
    runner.wait(10)
    pid = int(marker.read_text())
    task = made(folder, None, out=out, budget_seconds=1)
    assert tried(task).failure == "timeout"
    _gone(pid)
    assert not (trials(out)[0] / "outcome.json").exists()  # kept as what it was: cut off
    assert not (trials(out)[0] / "work").exists()


def _until(condition):
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen within 20 s")


def _gone(pid):
    def gone():
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return state == "Z"

    _until(gone)


def test_a_script_sees_no_secret(folder, monkeypatch):
    monkeypatch.setenv("ESCAPEMENT_LLM_KEY", "k-secret")
    code = HONEST + "import os\nassert 'secret' not in repr(os.environ)\n"
    assert tried(made(folder, code)).failure == ""


# --- folders that can't be used ---


def test_what_is_refused_at_once(folder, tmp_path):
    def refused(match, text=HONEST, **options):
        with pytest.raises(TaskError, match=match):
            made(folder, text, **options)

    refused("has no train.py", None)
    refused("no constant to search", "lr = 0.1\nprint(lr)\n")
    refused("no constant to search.*SEED: it is randomness", "SEED = 1\nprint(SEED)\n")
    refused("line 2", "LR = 1\ndef f(:\n")
    refused("UTF-8", b"LR = 1 # \xff\n")
    refused("not within", script="../train.py")
    refused("no program 'no-such-program'", command="no-such-program train.py")
    refused("can't be split", command="python 'train.py")
    refused("another folder", out=folder)
    refused("wall time|greater", budget_seconds=0.1)
    refused("metric", metric="two words")
    with pytest.raises(TaskError, match="not a folder"):
        get_task("script", {"dir": tmp_path / "nowhere"})
    os.mkfifo(folder / "pipe")
    refused("neither a file nor a folder")
    (folder / "pipe").unlink()
    with (folder / "huge.bin").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    refused("share:")


def test_a_script_behind_a_link(folder, tmp_path):
    (tmp_path / "elsewhere.py").write_text(HONEST)
    (folder / "train.py").symlink_to(tmp_path / "elsewhere.py")
    assert tried(made(folder, None), LR=0.3).metric == 1.3
    assert (tmp_path / "elsewhere.py").read_text() == HONEST
    (folder / "train.py").unlink()
    (folder / "src").mkdir()
    (folder / "src" / "real.py").write_text(HONEST)
    (folder / "train.py").symlink_to("src/real.py")
    assert tried(made(folder, None), LR=0.3).metric == 1.3
    assert (folder / "src" / "real.py").read_text() == HONEST


# --- the folder changes while a run is on ---


def test_a_run_goes_on_with_what_it_began_with(folder, tmp_path):
    out = tmp_path / "out"
    task = made(folder, out=out)
    (folder / "train.py").write_text("LR = 0.1\nprint('val_bpb: 0')\n")
    assert tried(task).metric == 1.1
    with pytest.raises(TaskError, match=r"not what this run began with: train\.py"):
        made(folder, None, out=out)
    (folder / "train.py").write_text(HONEST)
    assert made(folder, None, out=out).digest == task.digest


def test_a_spoiled_copy_is_our_trouble(folder, tmp_path):
    task = made(folder, out=tmp_path / "out")
    (tmp_path / "out" / "source" / "train.py").write_text("spoiled")
    outcome = tried(task)
    assert (outcome.metric, outcome.failure) == (None, "infrastructure")
    assert "changed since" in outcome.message


def test_shared_data_is_not_copied_and_a_change_is_noticed(folder, tmp_path):
    (folder / "data").mkdir()
    (folder / "data" / "text").write_text("x")
    (folder / "space.yaml").write_text("share: [data]\n")
    read_it = HONEST + "import pathlib\npathlib.Path('data/text').read_text()\n"
    task = made(folder, read_it, out=tmp_path / "out")
    assert tried(task).metric == 1.1
    assert (
        not (tmp_path / "out" / "source" / "data" / "text")
        .resolve()
        .is_relative_to(tmp_path / "out")
    )
    spoil = made(folder, HONEST + "open('data/text', 'a').write('y')\n")
    outcome = tried(spoil)
    assert (outcome.metric, outcome.failure) == (None, "infrastructure")
    assert "shared data changed" in outcome.message


def test_the_digest_covers_what_makes_metrics_comparable(folder):
    first = made(folder).digest
    assert made(folder).digest == first
    assert made(folder, HONEST + "#").digest != first
    assert made(folder, HONEST, budget_seconds=5).digest != first
    (folder / "prepare.py").write_text("x = 1")
    assert made(folder, HONEST).digest != first


# --- a space.yaml beside or in the folder ---


def test_a_file_overrides_what_was_inferred(folder, tmp_path):
    script = HONEST + "BATCH = 2**6\nlower = 3\nprint(BATCH, lower)\nSEED = 1\nprint(SEED)\n"
    (folder / "space.yaml").write_text(
        "knobs:\n  LR: {low: 1e-2, high: 0.5}\n  lower: {kind: int, low: 1, high: 9}\n"
        "  SEED: {choices: [1, 2]}\n"
        "constraints:\n  - {name: BATCH, multiple_of: lower, factor: 1}\nminimize: false\n"
        "deadline_seconds: 7\nenvironment: {WHO: me}\n"
    )
    with pytest.raises(TaskError, match=r"space.yaml, line 6.*not a multiple"):
        made(folder, script)
    text = (folder / "space.yaml").read_text().replace("lower, factor", "SEED, factor")
    (folder / "space.yaml").write_text(text)
    task = made(folder, script + "import os\nassert os.environ['WHO'] == 'me'\n")
    assert set(task.space) == {"LR", "BATCH", "lower", "SEED"}
    assert (task.space["LR"].low, task.space["LR"].high, task.space["LR"].log) == (0.01, 0.5, True)
    assert (task.minimize, task.deadline_seconds) == (False, 7)
    assert tried(task, lower=5).metric == 1.1
    (folder / "space.yaml").replace(tmp_path / "space.yaml")
    assert "lower" in made(folder, None).space
    other = tmp_path / "other.yaml"
    other.write_text("only: true\nknobs: {BATCH: {}}\n")
    assert list(made(folder, None, config=other).space) == ["BATCH"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("knobs: {NO: {low: 1, high: 2}}", "line 1.*no such constant.*LR"),
        ("knobs:\n  LR:\n    low: 5\n    high: 9", "line 3.*default 0.1 is below 5"),
        ("knobs:\n  LR: {default: 3}", "line 2.*the script's own"),
        ("knobs:\n  LR: {choices: [a, b]}", "line 2.*'a', but the script has 0.1"),
        ("knobs:\n  B: {low: 0, high: 1}", "line 2.*a tuple: name its parts B_0, B_1"),
        ("knobs:\n  F: {low: 0, high: 1}", "line 2.*can't be changed.*not a literal"),
        ("only: true", "no constant to search"),
        ("only: yes", "line 1.*bool"),
        ("lock: [LR]\nknobs:\n  LR: {low: 0.01}", "line 3.*locked as well"),
        ("share: [../x]", "share"),
        ("share: [nothing-here]", "share"),
        ("metric: {name: x, pattern: '('}", "line 1.*RE2"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(folder, text, why):
    (folder / "space.yaml").write_text(text + "\n")
    with pytest.raises(TaskError, match=why):
        made(folder, "B = (1, 2)\nF = B\nprint(F)\n" + HONEST)


def test_a_pattern_finds_another_format(folder):
    (folder / "space.yaml").write_text(
        "metric: {name: bpb, pattern: 'Validation bpb: ([0-9.]+)', take: last}\n"
    )
    code = (
        "LR = 0.1\nprint('Step 0 | Validation bpb: 3.2')\nprint(f'Step 1 | Validation bpb: {LR}')\n"
    )
    task = made(folder, code)
    assert tried(task).metric == 0.1
    assert task.metric == "bpb"
