"""The command line itself: what is empty is refused, a signal gives the code that shells give."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from runner import __main__ as command_line
from runner import commands
from runner.processes.subprocesses import StopRequested
from tests.runner.scriptfolder import HONEST

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--task", "script", "--dir", ".", "--trials", "1", "--out", ""],
        ["run", "--task", "script", "--dir", ".", "--trials", "1", "--out", "o", "--memory", " "],
        ["run", "--task", "script", "--dir", "", "--trials", "1", "--out", "o"],
        ["run", "--task", "script", "--dir", ".", "--script=", "--trials", "1", "--out", "o"],
        ["arms", "--task", "table", "--out", ""],
        ["record", "--out", ""],
        ["tasks", "script", "--dir", ""],
    ],
)
def test_an_empty_place_is_not_the_folder_one_is_in(words, tmp_path, monkeypatch):
    (tmp_path / "train.py").write_text(HONEST)
    monkeypatch.chdir(tmp_path)
    done = CliRunner(env={"COLUMNS": "200"}).invoke(command_line.app, words)
    assert done.exit_code == 2
    assert "is empty" in done.output
    assert [p.name for p in tmp_path.iterdir()] == ["train.py"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_arms_that_are_stopped_end_as_shells_expect(number, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(command_line, "_signalled", [number])
    with pytest.raises(typer.Exit) as ended, commands._told(said.append, command_line._stopped):
        raise StopRequested
    assert ended.value.exit_code == 128 + number
    assert said == ["stopped; the same command goes on from here"]


def test_a_run_ends_with_where_to_look_and_its_trials_are_listed(tmp_path):
    given, out = tmp_path / "D", tmp_path / "a run"
    given.mkdir()
    (given / "train.py").write_text(HONEST)
    words = ["--dir", given, "--out", out, "--trials", "4", "--repeats", "1", "--level2-every", "0"]
    run = [sys.executable, "-m", "runner", "run", "--task", "script", *map(str, words)]
    said = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"`python -m runner trials '{out}'` lists them" in said
    listed = CliRunner().invoke(command_line.app, ["trials", str(out)]).output
    best, changes = re.search(r"trial (\d) is the baseline with (LR 0.1 -> \S+)", said).groups()
    assert f"trial {best} is the baseline with {changes}" in listed
    place = Path(re.search(rf"what trial {best} ran and printed is in (.*)", listed)[1])
    new = changes.rpartition(" ")[2]
    assert (place / "train.py").read_text() == HONEST.replace("0.1", new, 1)
    assert f"in {place}" in next(
        li for li in listed.splitlines() if li.startswith(f"trial {best}:")
    )
    assert [f"trial {n}:" in listed for n in range(6)] == [True] * 5 + [False]


def test_a_folder_without_a_run_is_told(tmp_path):
    done = CliRunner().invoke(command_line.app, ["trials", str(tmp_path)])
    assert (done.exit_code, "holds no run" in done.output) == (2, True)
