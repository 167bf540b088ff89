"""Scripts whose numbers are elsewhere: what to write is said, and works. What a trial leaves
running ends with it."""

from __future__ import annotations

import re
import shlex
import sys

import pytest

from runner.tasks import TaskError, get_task
from tests.runner.scriptfolder import made, tried
from tests.runner.waiting import wait_for_end

NANO = """out_dir = 'out'
eval_interval = 2000
batch_size = 12
block_size = 1024
dropout = 0.0
learning_rate = 6e-4
beta1 = 0.9
device = 'cuda'
config = {k: v for k, v in globals().items() if isinstance(v, (int, float))}
print(f"val_bpb: {learning_rate * 1000 + batch_size / 100 + dropout + beta1}")
"""
ARGUMENTS = """import argparse
parser = argparse.ArgumentParser()
parser.add_argument('--lr', type=float, default=1e-3)
print('val_bpb:', parser.parse_args().lr)
"""
FIELDS = """from dataclasses import dataclass, field
SET = {'momentum': 0.9, 'out': 'x', 'betas': (1, 2)}
@dataclass
class Config:
    lr: float = 1e-3
    depth = 4
    name: str = 'x'
    late: int = field(default=3)
assert Config.depth % 2 == 0 and SET['momentum'] < 1
print('val_bpb:', Config().lr * 1000 + SET['momentum'])
"""


def test_the_line_for_lower_case_names_can_be_pasted(tmp_path):
    with pytest.raises(TaskError, match=r"space\.yaml") as refused:
        made(tmp_path, NANO)
    line = re.search(r"`(knobs: .*)`", str(refused.value))[1]
    (tmp_path / "space.yaml").write_text(line + "\n")
    task = made(tmp_path, NANO)
    assert sorted(task.space) == ["batch_size", "beta1", "dropout", "learning_rate"]
    assert task.space["beta1"].high == 0.999
    assert tried(task, batch_size=20).metric == pytest.approx(0.6 + 0.2 + 0.9)


def test_arguments_are_for_the_command_task(tmp_path):
    code = ARGUMENTS.replace(
        "print",
        "parser.add_argument('--batch-size', '-b', type=int, default=2**5)\n"
        "parser.add_argument('--n_layer', type=int, default=4)\n"
        "parser.add_argument('--seed', default=1)\n"
        "parser.add_argument('--name', default='x')\n"
        "parser.add_argument('--wd', type=float, default=unknown if 0 else None)\nprint",
    )
    with pytest.raises(TaskError, match="command task, with a YAML") as refused:
        made(tmp_path, code)
    lines = re.findall(r"`([a-z]+: .*?)`", str(refused.value))
    file = tmp_path / "task.yaml"
    file.write_text("\n".join(lines).replace("[python,", f"[{sys.executable},") + "\n")
    task = get_task("command", {"config": file})
    assert {n: (k.kind, k.default) for n, k in task.space.items()} == {
        "lr": ("float", 1e-3),
        "batch_size": ("power_of_two", 32),
        "n_layer": ("int", 4),
    }
    outcome = task.run({**task.space.defaults(), "lr": 0.002, "batch_size": 64}, seed=0)
    assert outcome.metric == 0.002


def test_numbers_in_functions_are_named(tmp_path):
    code = (
        "def main(lr=1e-3, name='x', *, depth=4, **rest):\n    BATCH = 32\n    n = name\n"
        "    print('val_bpb:', lr)\nmain()\n"
    )
    with pytest.raises(TaskError, match=r"\(main: lr, main: depth, main: BATCH\)"):
        made(tmp_path, code)


def test_a_script_in_a_folder_below_is_named(tmp_path):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "size.py").write_text("SIZE = 4\nprint(SIZE)\n")
    (tmp_path / "src" / "main.py").write_text(
        "from size import SIZE\nLR = 0.1\nassert LR * SIZE < 2\nprint('val_bpb:', LR)\n"
    )
    with pytest.raises(TaskError, match=r"there are: src/main\.py"):
        made(tmp_path, None)
    task = made(tmp_path, None, script="src/main.py")
    assert tried(task, LR=0.2).metric == 0.2
    assert [rule.text for rule in task.rules] == ["LR * SIZE < 2"]


def test_numbers_in_dicts_and_classes_can_be_named(tmp_path):
    with pytest.raises(TaskError, match=r"space\.yaml") as refused:
        made(tmp_path, FIELDS)
    line = re.search(r"`(knobs: .*?)`", str(refused.value))[1]
    assert line == (
        "knobs: {SET_momentum: {}, SET_betas_0: {}, SET_betas_1: {}, Config_lr: {}, "
        "Config_depth: {}, Config_late: {}}"
    )
    (tmp_path / "space.yaml").write_text(line + "\n")
    task = made(tmp_path, FIELDS)
    assert task.space["SET_momentum"].high == 0.999
    assert tried(task, Config_lr=0.002).metric == pytest.approx(2.9)
    assert tried(task, Config_depth=3).failure == "constraint"
    edited = task.edited({**task.space.defaults(), "SET_momentum": 0.5})
    assert edited == FIELDS.replace("'momentum': 0.9", "'momentum': 0.5").encode()


CONFIG = "LR = 0.01\nDEPTH = 4\nSEED = 3\nassert DEPTH % 2 == 0\n"
IMPORTS = "import os\nimport {0} as c\nprint('val_bpb:', c.LR + c.DEPTH)\n"


@pytest.mark.parametrize("module", ["config", "conf.base"])
def test_constants_of_an_imported_file_are_searched_as_the_hint_says(tmp_path, module):
    config = tmp_path / f"{module.replace('.', '/')}.py"
    config.parent.mkdir(exist_ok=True)
    config.write_text(CONFIG)
    code = IMPORTS.format(module)
    with pytest.raises(TaskError, match="It imports") as refused:
        made(tmp_path, code)
    options = shlex.split(re.search(r"`(--script .*)`", str(refused.value))[1])
    named = {"script": options[1], "command": options[3]}
    task = made(tmp_path, code, **named)
    assert sorted(task.space) == ["DEPTH", "LR"]
    assert tried(task, LR=0.02).metric == pytest.approx(4.02)
    assert tried(task, DEPTH=3).failure == "constraint"
    assert config.read_text() == CONFIG


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("python train.py", ["UNREAD"]),
        ("python -m train", ["UNREAD"]),
        ("sh -c 'exec python ./train.py'", ["UNREAD"]),
        ("python other.py", []),
        ("python -m other", []),
        ("python -m package", []),
        ("sh run.sh", []),
        ("sh -c 'python train.py | tee log'", ["UNREAD"]),
        ("python train.py --config other.py", ["UNREAD"]),
    ],
)
def test_what_nothing_reads_is_a_knob_only_where_another_file_is_run(tmp_path, command, left):
    (tmp_path / "other.py").write_text("import train\n")
    task = made(tmp_path, "LR = 0.1\nUNREAD = 2\nprint(LR)\n", command=command)
    assert sorted(task.left_alone) == left


def test_what_clears_its_environment_is_ended_with_the_trial(tmp_path):
    told = tmp_path / "pid"
    code = (
        "import subprocess\nLR = 0.1\n"
        "left = subprocess.Popen(['sleep', '600'], start_new_session=True, env={})\n"
        f"open({str(told)!r}, 'w').write(str(left.pid))\nprint('val_bpb:', LR)\n"
    )
    folder = tmp_path / "given"
    folder.mkdir()
    assert tried(made(folder, code, out=tmp_path / "out")).metric == 0.1
    wait_for_end(int(told.read_text()))
