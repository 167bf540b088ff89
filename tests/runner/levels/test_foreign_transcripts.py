"""Transcripts of models that wrote for another interface: refused with the reason, never active.

A local server replays them. What the generator itself refuses is never submitted; what gets past it
(the structure is right, the behaviour is not) fails in the gate, and never as "could not look".
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from runner.interfaces import DraftRefused, PriorError
from sandbox.backends import Backend
from sandbox.draft import draft_from_files
from sandbox.report import Outcome
from sandbox.screen import screen
from tests.runner.levels.test_research import CRITICISED, EXPLORED, SPECIFIED, research
from tests.runner.llmserver import serving

ROOT = Path(__file__).resolve().parents[3]
FOREIGN = sorted((ROOT / "tests/sandbox/specimens/foreign").glob("*.py"))
TEST = "import mechanisms.second\n\n\ndef test_nothing():\n    assert 1 + 1 == 2\n"


def transcript(path: Path) -> tuple[str, ...]:
    texts = {"source": path.read_text(encoding="utf-8"), "test": TEST}
    generated = json.dumps({"title": path.stem, "summary": "As asked.", **texts})
    return EXPLORED, CRITICISED, SPECIFIED, generated


def test_there_are_at_least_twelve():
    assert len(FOREIGN) >= 12


@pytest.mark.engine
@pytest.mark.parametrize("path", FOREIGN, ids=lambda p: p.stem)
def test_a_foreign_draft_is_refused_with_the_reason(path: Path, engine: Backend) -> None:
    refused: PriorError | None = None
    try:
        draft, _, _ = research(*transcript(path))
    except PriorError as error:
        refused = error
    if refused is not None:
        assert isinstance(refused, DraftRefused)
        assert re.match(rf"{refused.rule}: \S.{{20}}", str(refused))
        assert [r.name for r in refused.rounds][-2:] == ["generate", "generate"]
        return
    assert draft is not None
    files = {name: text.encode() for name, text in draft.files.items()}
    report = screen(draft_from_files(files), backend=engine)
    assert report.outcome is Outcome.FAILED
    assert report.findings


TASK = """\
command: ["{python}", "-c", "print('loss:', 1 + ({x} - 0.3) ** 2 + 0 * {y})"]
metric: loss
knobs:
  X: {{kind: float, low: 0.0, high: 1.0, default: 0.9}}
  Y: {{kind: float, low: 0.0, high: 1.0, default: 0.5}}
"""


def runner(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runner", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False
    )


def test_a_whole_run_says_what_became_of_each(tmp_path: Path) -> None:
    task = tmp_path / "task.yaml"
    task.write_text(TASK.format(python=sys.executable, x="{X}", y="{Y}"))
    foreign = next(p for p in FOREIGN if p.stem == "functions_only")
    answers = [*transcript(foreign), transcript(foreign)[-1], "Prose, as models write it."]
    with serving(*answers) as server:
        done = runner(
            *("run", "--task", "command", "--config", task, "--trials", 3, "--out", tmp_path / "o"),
            *("--generator", "openai", "--base-url", server.url, "--model", "foreign"),
            *("--level2-every", 1),
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "LEVEL 2 after trial 1: REFUSED the draft 'functions_only': no_mec" in done.stdout
    assert "LEVEL 2 FAILED after trial 2: language model, not_json" in done.stdout
    told = runner("drafts", tmp_path / "o").stdout
    assert "after trial 1: refused: functions_only: no_mechanism: mechanisms/second.py" in told
    assert "after trial 2: failed: no draft: language model, not_json" in told
    for line in ("drafts: 1 failed (1 not_json), 1 refused (1 no_mechanism)", "not_json 3"):
        assert line in told
        assert line in done.stdout  # the end of the run says it too
    assert re.search(r"trials: (\d kept, )?3 discarded|trials: \d kept", done.stdout)
    later = server.prompts()[5].partition("## Earlier drafts")[2]  # it should not do so again
    assert '"state": "refused", "reason": "no_mechanism: mechanisms/second.py defines' in later
    kept = json.loads((tmp_path / "o/drafts/after_0001/rounds.json").read_text())
    assert [r["name"] for r in kept["rounds"]][-1] == "generate"
    assert "no_mechanism" in kept["refused"]
