"""What docs/tasks.md shows can be pasted: both YAML files, as they stand there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from runner.tasks import get_task
from tests.runner.scriptfolder import made, tried

DOCS = Path(__file__).resolve().parents[3] / "docs" / "tasks.md"
SCRIPT, COMMAND = re.findall(r"```yaml\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
TRAINER = """import os
MATRIX_LR = 0.04
HEAD_DIM = 128
TOTAL_BATCH_SIZE = 2**19
DEVICE_BATCH_SIZE = 128
DEPTH = 8
learning_rate = 1e-3
assert os.environ["MODE"] == "fast" and os.path.exists("data/text")
print(f"Validation bpb: {MATRIX_LR + HEAD_DIM + TOTAL_BATCH_SIZE + DEVICE_BATCH_SIZE}")
print(f"Validation bpb: {learning_rate + DEPTH}")
"""


def test_the_space_file_of_a_script(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text").write_text("x")
    (tmp_path / "space.yaml").write_text(SCRIPT)
    task = made(tmp_path, TRAINER, command=f"{shlex.quote(sys.executable)} train.py")
    assert len(task.space) == 5
    assert task.space["DEVICE_BATCH_SIZE"].high == 256
    assert tried(task, learning_rate=0.002).metric == pytest.approx(8.002)


def test_the_file_of_a_command(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    (tmp_path / "task.yaml").write_text(COMMAND)
    (tmp_path / "score.py").write_text("import sys\nprint('f1:', len(sys.argv) / 10)\n")
    assert tried(get_task("command", {"config": tmp_path / "task.yaml"})).metric == 0.4
