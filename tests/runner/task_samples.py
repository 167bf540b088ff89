"""One small working sample of each kind of task, for the contract test: options by its name.

A new kind of task needs one line here, else the contract test fails. A sample's trial with the
default configuration must give a metric within seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.runner.shardfolder import write_shard

Options = dict[str, Any]


def _gpt(_folder: Path) -> Options:
    return {"budget_seconds": 0.3}


def _table(_folder: Path) -> Options:
    return {"surface": Path(__file__).parent / "surfaces" / "small.json.gz"}


def _script(_folder: Path) -> Options:
    return {"dir": Path(__file__).parent / "scripts" / "autoresearch"}


def _command(folder: Path) -> Options:
    (folder / "task.yaml").write_text(
        f"command: ['{sys.executable}', -c, 'print(\"score:\", {{A}})']\n"
        "metric: score\nknobs: {A: {low: 0.0, high: 1.0}}\n"
    )
    return {"config": folder / "task.yaml"}


def _gpu(folder: Path) -> Options:
    for number in range(2):
        write_shard(folder / f"shard_{number}.parquet", number)
    tiny = {"setting": "tiny", "device": "cpu", "compile": "off"}
    return {**tiny, "shards": folder, "budget_seconds": 0.2}


SAMPLES: dict[str, Callable[[Path], Options]] = {
    "command": _command,
    "gpt": _gpt,
    "gpt-gpu": _gpu,
    "script": _script,
    "table": _table,
}
