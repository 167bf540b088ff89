"""The script task's folders: refused, linked, changed meanwhile, shared, with a space.yaml."""

from __future__ import annotations

import os
import sys
from contextlib import closing
from pathlib import Path

import pytest

from runner.storage.journal import Journal
from runner.tasks import TaskError, get_task
from runner.tasks.folders import MAX_BYTES, PARTIAL
from tests.runner.scriptfolder import HONEST, made, seen, tried


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "given"
    place.mkdir()
    return place


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
    refused("write `env A=1 ...`", command="A=1 python train.py")
    refused("no shell reads ~", command="~/venv/bin/python train.py")
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
    refused(r'most is in huge.bin.*`share: \["huge.bin"\]`')
    (folder / "space.yaml").write_text('share: ["huge.bin"]\n')
    assert made(folder, None).folder.shared.keys() == {"huge.bin"}


def test_a_script_is_called_as_people_call_it(folder):
    (folder / "src").mkdir()
    (folder / "code").symlink_to("src")
    (folder / "src/t.py").write_text(HONEST)
    for name in ("./src//t.py", folder / "src/t.py", "code/t.py", "src/../src/t.py"):
        task = made(folder, None, script=str(name))
        assert (task.script, tried(task, LR=0.3).metric) == ("src/t.py", 1.3)
        assert len(task.host()["script_digest"]) == 64


@pytest.mark.parametrize("place", ["data/t.py", "train.py", ".venv/t.py"])
def test_a_script_that_no_copy_holds_would_be_edited_itself(folder, place):
    for name in ("data", ".venv"):
        (folder / name).mkdir()
        (folder / name / "t.py").write_text(HONEST)
    (folder / "train.py").symlink_to("data/t.py")
    (folder / "space.yaml").write_text("share: [data]\n")
    with pytest.raises(TaskError, match="in no trial's copy"):
        made(folder, None, script=place)


def test_a_virtual_environment_of_the_folder_runs_the_script(folder):
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/python").symlink_to(sys.executable)
    assert tried(made(folder, command=".venv/bin/python train.py")).metric == 1.1


def test_a_folder_whose_name_is_no_text(tmp_path):
    folder = tmp_path / os.fsdecode(b"b\xe9d")
    folder.mkdir()
    task = made(folder)
    assert "(in b\ufffdd)" in task.description
    assert tried(task).metric == 1.1


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


def test_what_is_shared_may_be_a_file_and_may_be_called_anything(folder, monkeypatch):
    monkeypatch.setattr("runner.tasks.folders.MAX_SHARED_FILES", 2)
    (folder / "data/sub").mkdir(parents=True)
    (folder / "data" / os.fsdecode(b"\xff.png")).touch()
    (folder / "data/sub/loop").symlink_to("..")
    (folder / "data/nowhere").symlink_to("no-such-file")
    (folder / "one.bin").touch()
    (folder / "space.yaml").write_text("share: [data/../data/, ./one.bin, data/sub]\n")
    task = made(folder)
    assert (tried(task).metric, [*task.folder.shared]) == (1.1, ["data", "one.bin"])
    for name in ("a", "b"):
        (folder / "data/sub" / name).touch()
    with pytest.raises(TaskError, match="over 2 files: share its parts"):
        made(folder, None)


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
        "deadline_seconds: 77\nenvironment: {WHO: me}\n"
    )
    with pytest.raises(TaskError, match=r"space.yaml, line 6.*not a multiple"):
        made(folder, script)
    text = (folder / "space.yaml").read_text().replace("lower, factor", "SEED, factor")
    (folder / "space.yaml").write_text(text)
    task = made(folder, script + "import os\nassert os.environ['WHO'] == 'me'\n")
    assert set(task.space) == {"LR", "BATCH", "lower", "SEED"}
    assert (task.space["LR"].low, task.space["LR"].high, task.space["LR"].log) == (0.01, 0.5, True)
    assert (task.minimize, task.deadline_seconds) == (False, 77)
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
        ("only: true", "it leaves nothing"),
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


def test_uv_makes_one_environment_for_all_trials(folder, tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    uv = tmp_path / "bin" / "uv"
    uv.write_text('#!/bin/sh\necho "val_bpb: ${#UV_PROJECT_ENVIRONMENT}"\n')
    uv.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    task = made(folder, command="uv run train.py", out=tmp_path / "out")
    assert tried(task).metric == len(str(tmp_path / "out" / "venv"))


def test_a_copy_that_can_not_be_made_or_read_again_is_said(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TaskError, match="can't be copied"):
        made(folder, out=tmp_path / "file" / "out")
    made(folder, out=tmp_path / "out")
    (tmp_path / "out" / "source.json").write_text("[1")
    with pytest.raises(TaskError, match="another --out"):
        made(folder, out=tmp_path / "out")


@pytest.mark.parametrize("place", ["source", ".", "given"])
def test_nothing_that_no_run_made_is_removed(folder, tmp_path, place):
    """A person may name a folder for --out that holds theirs, under our names even."""
    (tmp_path / "source").mkdir()
    for one in (tmp_path, tmp_path / "source", folder):
        (one / "train.py").write_text(HONEST)
    before = seen(tmp_path)
    for _ in range(2):
        with pytest.raises(TaskError, match=r"no run made it|stays as it is"):
            made(tmp_path / place, None, out=tmp_path)
    assert seen(tmp_path) == before


def test_a_copy_that_was_cut_off_is_made_again(folder, tmp_path):
    out = tmp_path / "out"
    (out / PARTIAL / "half").mkdir(parents=True)
    made(folder, out=out)
    assert [p.name for p in (out / "source").iterdir()] == ["train.py"]
    (out / "source").rename(out / PARTIAL)  # as if it ended just before
    assert tried(made(folder, None, out=out)).metric == pytest.approx(1.1)


def test_runs_within_the_folder_are_no_part_of_it(folder, tmp_path):
    """`--out D/runs/a`, resumed, with another run beside it: the same task each time."""
    first = made(folder, out=folder / "runs" / "a")
    with closing(Journal(folder / "runs" / "a")):
        pass
    assert tried(first).metric == pytest.approx(1.1)
    (folder / "notes").mkdir()
    beside = made(folder, None, out=folder / "runs" / "b")
    (folder / "notes").rmdir()
    with closing(Journal(folder / "runs" / "b")):
        pass
    again = made(folder, None, out=folder / "runs" / "a")
    assert list(again.folder.items) == ["train.py"]
    assert again.digest == first.digest != beside.digest
    (folder / "runs" / "mine.txt").write_text("")
    with pytest.raises(TaskError, match=r"runs/mine\.txt changed"):
        made(folder, None, out=folder / "runs" / "a")


def test_links_in_a_circle_lead_nowhere(folder, tmp_path):
    for name, target in {"self": "self", "one": "two", "two": "one", "up": ".."}.items():
        (folder / name).symlink_to(target)
    task = made(folder, out=tmp_path / "out")
    assert tried(task).metric == pytest.approx(1.1)
    assert (tmp_path / "out" / "source" / "self").readlink() == Path("self")
    with pytest.raises(TaskError, match="no self"):
        made(folder, None, script="self")
