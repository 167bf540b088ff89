"""A draft's own tests in a real worker: they can fail it, and forging buys nothing but a pass."""

from __future__ import annotations

import pytest

from sandbox import wire
from sandbox.backends import Backend
from sandbox.host import Limits, TestRun, run_unit_tests
from sandbox.report import Draft

pytestmark = pytest.mark.engine

MECHANISM = b"from sandbox.mechanism import Mechanism\nclass M(Mechanism): pass\n"


def run(engine: Backend, tests: str, *, seconds: float = 180) -> TestRun:
    files = {"mechanisms/m.py": MECHANISM, "tests/test_m.py": tests.encode()}
    draft = Draft(mechanism_path="mechanisms/m.py", files=files)
    return run_unit_tests(engine, draft, limits=Limits(job_seconds=seconds))


def test_honest_tests_pass(engine: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "DRAIN_SECONDS", 0.3)  # what was printed may come after the answer
    result = run(
        engine,
        "import numpy as np\n"
        "from mechanisms.m import M\n"
        "from sandbox.testing import make_view, scripted_prior\n"
        "def test_it(tmp_path, capsys):\n"
        "    (tmp_path / 'x').write_text('x')\n"
        "    assert len(M().propose(make_view(prior=scripted_prior([{'A': 1}])), 2)) == 2\n"
        "def test_numpy():\n    assert np.eye(3).sum() == 3\n",
    )
    assert result.passed, result
    assert (result.collected, result.rule, result.failures) == (2, "", ())
    assert result.posture["self_report"]["writable"] == ["/tmp"]
    assert "2 passed" in result.output


@pytest.mark.parametrize(
    ("tests", "rule", "says"),
    [
        ("def test_x():\n    assert 1 == 2\n", "TESTS_FAILED", "assert 1 == 2"),
        ("def (", "TESTS_FAILED", "tests/test_m.py"),
        ("import nothing_like_it\n", "TESTS_FAILED", "tests/test_m.py"),
        ("x = 1\n", "NO_TESTS", "no test ran"),
        ("import pytest\ndef test_x(): pytest.skip('no')\n", "NO_TESTS", "1 skipped"),
        ("import os\ndef test_x(): os._exit(0)\n", "CRASHED", "exit code 0"),
        ("import pytest\ndef test_x(): pytest.exit('bye', 0)\n", "NO_TESTS", "no test ran"),
        (
            "import _pytest.runner as r\nr.TestReport.from_item_and_call = None\n"
            "def test_x(): assert 0\n",
            "TESTS_FAILED",
            "exit code 3",
        ),
        (
            "def test_x(tmp_path):\n    with open(tmp_path / 'x', 'wb') as f:\n"
            "        for _ in range(20): f.write(b'x' * 2**20)\n",
            "TESTS_FAILED",
            "Error",
        ),
        ("x = b'x' * 2**30\n", "OOM", "512 MiB"),
        ("import os\ndef test_x():\n    while 1: os.write(2, b'x' * 9999)\n", "OUTPUT_LIMIT", ""),
    ],
)
def test_what_speaks_against_a_draft(engine: Backend, tests: str, rule: str, says: str) -> None:
    result = run(engine, tests)
    assert not result.passed
    assert result.rule == rule
    assert says in result.message


def test_tests_that_never_end(engine: Backend) -> None:
    result = run(engine, "def test_x():\n    while True: pass\n", seconds=2)
    assert (result.passed, result.rule) == (False, "TIMEOUT")


def test_nothing_that_a_test_writes_can_be_executed(engine: Backend) -> None:
    result = run(
        engine,
        "import os, shutil\ndef test_x(tmp_path):\n"
        "    shutil.copy('/usr/local/bin/python3', tmp_path / 'a')\n"
        "    os.chmod(tmp_path / 'a', 0o755)\n    os.execv(tmp_path / 'a', ['a'])\n",
    )
    assert "Permission" in result.message or "Operation not permitted" in result.message
