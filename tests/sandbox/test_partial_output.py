"""What a mechanism had printed before it met a limit is in the report, under the limit's name."""

from __future__ import annotations

import sys

import pytest
from rich.console import Console

from sandbox.backends import get_backend
from sandbox.draft import lay_out
from sandbox.limits import Limits
from sandbox.screen import screen
from sandbox.shown import show

pytestmark = pytest.mark.engine
HEAD = (
    "from sandbox.mechanism import Mechanism\nimport os, time\n"
    "class M(Mechanism):\n    def propose(self, view, count):\n"
    "        print('words before the end', flush=True)\n        "
)


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ("time.sleep(100)", "TIMEOUT"),
        ("x = bytearray(1 << 30); x[::4096] = b'x' * (1 << 18)", "OOM"),
        ("os._exit(3)", "CRASHED"),
        ("raise ValueError('no')", "RAISED"),
        ("os.write(3, b'x'); os.write(1, b'x' * 64)", None),
    ],
)
def test_partial_output_is_kept_and_shown(
    body: str, rule: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = get_backend("bubblewrap", progress=lambda text: sys.stderr.write(f"{text}\n"))
    draft = lay_out({"mechanisms/m.py": f"{HEAD}{body}\n".encode()}, require_test=False)
    limits = Limits(call_seconds=2 if rule == "TIMEOUT" else 20)
    report = screen(draft, backend=backend, static=False, limits=limits)
    errors = [f for f in report.findings if f.severity == "error"]
    assert errors
    assert rule is None or {f.rule for f in errors} == {rule}
    check = report.check("contract")
    assert check is not None
    assert "words before the end" in str(check.detail["output"])
    show(report, Console(soft_wrap=True))
    assert "words before the end" in capsys.readouterr().out
