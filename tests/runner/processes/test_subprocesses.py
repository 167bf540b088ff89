"""Subprocesses of the runner: deadlines, output limits, and that none outlives the runner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runner.processes import subprocesses
from tests.runner.waiting import wait_for_end


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_output_lines_and_return_code() -> None:
    seen: list[str] = []
    code = "import sys; print('one'); print('two', file=sys.stderr); print('end', end=''); exit(3)"
    done = subprocesses.run(python(code), deadline_seconds=30, line=seen.append)
    assert done.returncode == 3
    assert not done.timed_out
    assert sorted(seen) == ["end", "one", "two"]
    assert sorted(done.output.splitlines()) == sorted(seen)


def test_an_empty_standard_input_and_an_environment() -> None:
    code = "import os, sys; print(repr(sys.stdin.read()) + os.environ['X'])"
    done = subprocesses.run(python(code), deadline_seconds=30, env={"X": "you"})
    assert done.output == "''you\n"


def test_a_deadline_kills_the_whole_group(monkeypatch: pytest.MonkeyPatch) -> None:
    now, passed = time.monotonic, [0.0]
    monkeypatch.setattr(subprocesses.time, "monotonic", lambda: now() + passed[0])
    children: list[int] = []

    def told(text: str) -> None:
        children.append(int(text))
        passed[0] = 1000.0  # the deadline comes once it has a child, and not before

    script = "sleep 600 & echo $!; sleep 600"
    done = subprocesses.run(["/bin/sh", "-c", script], deadline_seconds=900, line=told)
    assert done.timed_out
    (child,) = children
    wait_for_end(child)


def test_what_ended_while_the_runner_was_frozen_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    late = time.monotonic() + 1000

    def freeze(text: str) -> None:
        if text.isdigit():
            wait_for_end(int(text))
            monkeypatch.setattr(subprocesses.time, "monotonic", lambda: late)

    code = "import os; print(os.getpid(), flush=True); print('loss: 1')"
    process, kept = subprocesses.start(python(code)), subprocesses.Tail(1000)
    assert subprocesses._read(process, kept, late - 700, freeze)
    assert kept.text().endswith("loss: 1\n")
    subprocesses.end(process)


def test_a_flood_of_output_is_cut() -> None:
    code = "print('first'); print('x' * 3_000_000); print('last')"
    done = subprocesses.run(python(code), deadline_seconds=60, output_bytes=1000)
    assert done.output.startswith("first")
    assert done.output.endswith("last\n")
    assert "\n... 2999012 bytes cut ...\n" in done.output  # of 3,000,012
    assert len(done.output) < 1100


def test_a_child_that_leaves_the_pipe_to_its_own_child_is_finished() -> None:
    code = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    )
    done = subprocesses.run(python(code), deadline_seconds=60)
    assert done.returncode == 0
    assert not done.timed_out


def test_missing_program_is_a_failed_process() -> None:
    done = subprocesses.run(["/does/not/exist"], deadline_seconds=30)
    assert done.returncode != 0
    assert "No such file" in done.output


def test_stopping_raises_and_kills(monkeypatch: pytest.MonkeyPatch) -> None:
    pids: list[int] = []

    def stop(text: str) -> None:
        pids.append(int(text))
        subprocesses.STOPPING.set()

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    try:
        with pytest.raises(subprocesses.StopRequested):
            subprocesses.run(python(code), deadline_seconds=60, line=stop)
    finally:
        subprocesses.STOPPING.clear()
    wait_for_end(pids[0])


def test_a_child_dies_with_a_killed_runner() -> None:
    code = (
        "import sys; from runner.processes import subprocesses\n"
        "sleep = 'import os, time; print(os.getpid(), flush=True); time.sleep(600)'\n"
        "child = [sys.executable, '-c', sleep]\n"
        "subprocesses.run(child, deadline_seconds=600, line=lambda t: print(t, flush=True))"
    )
    root = Path(subprocesses.__file__).parents[2]
    runner = subprocess.Popen(
        python(code), stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert runner.stdout is not None
    child = int(runner.stdout.readline())
    runner.send_signal(signal.SIGKILL)
    runner.wait()
    runner.stdout.close()
    wait_for_end(child)


ORPHANS = r"""
import os, time
def orphan():
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.chdir('/')
            os.write(1, b'%d\n' % os.getpid())
            null = os.open('/dev/null', os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
            os.execve('/bin/sleep', ['sleep', '600'], {})
        os._exit(0)
    os.wait()
    os.close(writing)
    os.read(reading, 1)  # nothing, once it said its number and became `sleep`
orphan()
orphan()
"""


@pytest.mark.parametrize("end", ["", "time.sleep(600)", "os.kill(os.getpid(), 11)"])
def test_what_leaves_session_environment_and_folder_is_ended_as_well(end: str) -> None:
    pids: list[int] = []

    def stop_at_two(text: str) -> None:
        pids.append(int(text))
        if len(pids) == 2 and "sleep" in end:
            subprocesses.STOPPING.set()

    try:
        subprocesses.run(python(ORPHANS + end), deadline_seconds=60, line=stop_at_two)
    except subprocesses.StopRequested:
        assert "sleep" in end
    finally:
        subprocesses.STOPPING.clear()
    assert len(pids) == 2
    for pid in pids:
        wait_for_end(pid)


def test_orphans_end_with_a_killed_runner() -> None:
    code = (
        "import sys; from runner.processes import subprocesses\n"
        f"child = [sys.executable, '-c', {ORPHANS + 'time.sleep(600)'!r}]\n"
        "subprocesses.run(child, deadline_seconds=600, line=lambda t: print(t, flush=True))"
    )
    root = Path(subprocesses.__file__).parents[2]
    runner = subprocess.Popen(
        python(code), stdout=subprocess.PIPE, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}
    )
    assert runner.stdout is not None
    pids = [int(runner.stdout.readline()) for _ in range(2)]
    runner.kill()
    runner.wait()
    runner.stdout.close()
    for pid in pids:
        wait_for_end(pid)


@pytest.mark.parametrize(
    ("script", "code", "output"),
    [
        ("exit 3", 3, ""),
        ("kill -11 $$", -11, ""),
        ("kill -9 $$", -9, ""),
        ("kill -15 $PPID; sleep 600", -15, ""),
        ("kill -9 $PPID; sleep 600", -9, ""),
        ("yes | head -1", 0, "y\n"),  # no word of a broken pipe
        ("kill -15 0; sleep 600", -15, ""),
    ],
)
def test_a_supervised_program_ends_as_it_does_alone(script: str, code: int, output: str) -> None:
    done = subprocesses.run(["/bin/sh", "-c", script], deadline_seconds=60)
    assert (done.returncode, done.output, done.timed_out) == (code, output, False)
