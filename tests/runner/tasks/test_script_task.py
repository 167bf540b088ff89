"""The script task on whole folders: honest ones, broken ones, and scripts that misbehave."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.tasks import TaskError
from runner.tasks.constants import read
from tests.runner.scriptfolder import HONEST, made, seen, trials, tried
from tests.runner.waiting import until, wait_for_end

ROOT = Path(__file__).resolve().parents[3]
SAMPLES = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "given"
    place.mkdir()
    return place


# --- honest folders ---


def test_a_metric_that_can_only_be_meant_to_be_high_is_asked_about(tmp_path):
    code = "LR = 0.5\nprint('test/F1:', LR)\n"
    with pytest.raises(TaskError, match=r"^is a higher test/F1 better.*--maximize"):
        made(tmp_path, code, metric="test/F1")
    assert made(tmp_path, code, metric="test/F1", maximize=True).minimize is False
    (tmp_path / "space.yaml").write_text("metric: test/F1\nminimize: true\n")
    assert made(tmp_path, code).minimize is True
    (tmp_path / "space.yaml").unlink()
    assert made(tmp_path, code, metric="accuracy_loss").minimize is True


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
        timeout=240,
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
        lock="A, ",
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


def test_trials_side_by_side_do_not_meet(folder, tmp_path):
    code = HONEST + "import pathlib\npathlib.Path('mine').open('x').write(str(LR))\n"
    code += "assert pathlib.Path('mine').read_text() == str(LR)\n"
    task = made(folder, code, out=tmp_path / "out")
    rates = [0.1 + i / 100 for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(lambda rate: tried(task, LR=rate), rates))
    assert [o.metric for o in outcomes] == [1 + rate for rate in rates]
    assert [t.name for t in trials(tmp_path / "out")] == [f"{i:06d}" for i in range(6)]


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


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("import no_such_module", "name yours, such as"),
        ("import os; os.environ['NO_SUCH_VARIABLE']", "under `environment:`"),
        ("from .model import M", "`python -m package.train`"),
        ("input()", "asks for input"),
    ],
)
def test_what_differs_from_the_persons_own_shell_is_told(folder, code, advice):
    outcome = tried(made(folder, f"LR = 0.1\nprint(LR)\n{code}\n"))
    assert outcome.failure == "crash"
    assert advice in outcome.message


def test_a_flood_is_bounded_and_hides_nothing(folder, tmp_path):
    code = "for i in range(60):\n    print('x' * 100_000)\nprint(f'val_bpb: {LR}')\n"
    out = tmp_path / "out"
    assert tried(made(folder, f"LR = 0.1\n{code}", out=out)).metric == 0.1
    log = (trials(out)[0] / "log.txt").read_text()
    assert len(log) < 3_000_000
    assert "bytes cut" in log


def test_a_script_that_needs_an_hour_ends_at_its_deadline(folder):
    task = made(folder, HONEST + "import time\ntime.sleep(3600)\n", budget_seconds=1)
    assert tried(task).failure == "timeout"


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
        "code = 'import time; time.sleep(600)'\n"
        "child = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)\n"
        f"open({str(marker)!r}, 'w').write(str(child.pid))\n"
    )
    assert tried(made(folder, code)).metric == 1.1
    wait_for_end(int(marker.read_text()))


def test_what_a_killed_runner_left_running_is_ended_by_the_next_start(folder, tmp_path):
    marker, out = tmp_path / "pid", tmp_path / "out"
    code = (
        "LR = 0.1\nimport os, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
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
    until(lambda: marker.exists() and marker.read_text())
    runner.send_signal(signal.SIGKILL)
    runner.wait(10)
    pid = int(marker.read_text())
    task = made(folder, None, out=out, budget_seconds=1)
    assert tried(task).failure == "timeout"
    wait_for_end(pid)
    assert not (trials(out)[0] / "outcome.json").exists()  # kept as what it was: cut off
    assert not (trials(out)[0] / "work").exists()


def test_a_script_sees_no_secret(folder, monkeypatch):
    monkeypatch.setenv("ESCAPEMENT_LLM_KEY", "k-secret")
    code = HONEST + "import os\nassert 'secret' not in repr(os.environ)\n"
    assert tried(made(folder, code)).failure == ""
