"""The command line itself: what is empty is refused, a signal gives the code that shells give."""

from __future__ import annotations

import signal

import pytest
import typer
from typer.testing import CliRunner

from runner import __main__ as command_line
from runner import commands
from runner.subprocesses import StopRequested
from tests.runner.scriptfolder import HONEST


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
    done = CliRunner().invoke(command_line.app, words)
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
