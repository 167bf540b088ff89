"""The demo's family of processes: restarted a few times, stopped together, never orphaned."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from proposals.demo import children
from proposals.demo.children import Child, ChildFailed, Family
from proposals.demo.console import Console

SECONDS = 120


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


def child(out: io.StringIO, code: str, *, may_finish: bool = False, grace: float = 10) -> Child:
    return Child(
        name="worker",
        command=(sys.executable, "-u", "-c", code),
        env=dict(os.environ),
        cwd=Path.cwd(),
        console=Console(out),
        grace_seconds=grace,
        may_finish=may_finish,
    )


def until(condition: object) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_output_gets_a_prefix_and_loses_control_characters(out: io.StringIO) -> None:
    one = child(out, "print('\\x1b[31mred\\x1b[0m\\x07'); print('x' * 9000)", may_finish=True)
    one.start()
    until(lambda: not one.running)
    one.look()
    one.stop()
    assert one.finished
    lines = out.getvalue().splitlines()
    assert lines[0] == "worker | red"
    assert len(lines[1]) < 2100


def look_until_it_fails(one: Child) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        one.look()
        time.sleep(0.02)


def test_a_crash_is_restarted_loudly_and_not_for_ever(
    out: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children, "MAX_RESTARTS", 1)
    one = child(out, "raise SystemExit(7)")
    one.start()
    with pytest.raises(ChildFailed, match="crashed 2 times"):
        look_until_it_fails(one)
    assert "exit code 7" in out.getvalue()
    assert "starting worker again" in out.getvalue()


def test_an_end_without_an_error_is_a_crash_too_where_none_may_finish(out: io.StringIO) -> None:
    one = child(out, "pass")
    one.start()
    until(lambda: not one.running)
    one.look()
    assert not one.finished
    assert one.crashes


def test_stopping_lets_each_say_its_last_words(out: io.StringIO) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye'), sys.exit(0)))\n"
        "print('here')\n"
        "time.sleep(600)\n"
    )
    one = child(out, code)
    one.start()
    until(lambda: "here" in out.getvalue())
    Family([one], Console(out)).stop()
    assert "worker | bye" in out.getvalue()


def test_who_does_not_stop_is_killed_with_all_that_it_started(out: io.StringIO) -> None:
    code = (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('pid', p.pid)\n"
        "time.sleep(600)\n"
    )
    one = child(out, code, grace=0.5)
    one.start()
    until(lambda: "pid" in out.getvalue())
    grandchild = int(out.getvalue().split()[-1])
    Family([one], Console(out)).stop()
    assert "killed" in out.getvalue()
    until(lambda: not alive(grandchild))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_children_die_with_a_parent_that_is_killed() -> None:
    code = (
        "import os, sys, time\n"
        f"sys.path[:0] = {[os.getcwd(), os.path.join(os.getcwd(), 'platform')]!r}\n"
        "from pathlib import Path\n"
        "from proposals.demo.children import Child\n"
        "from proposals.demo.console import Console\n"
        "one = Child(name='web', command=(sys.executable, '-c', 'import time; time.sleep(600)'),\n"
        "            env=dict(os.environ), cwd=Path.cwd(), console=Console(sys.stderr))\n"
        "one.start()\n"
        "time.sleep(0.5)\n"
        "print(one.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait(SECONDS)
    until(lambda: not alive(pid))
