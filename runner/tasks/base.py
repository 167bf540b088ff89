"""What tasks share: run one trial's subprocess and turn whatever it does into an `Outcome`.

A trial may crash, hang, flood, print no metric, print NaN or print it twice: each is a class of
failure, none is an exception here and none is ever a number. It does not know any trainer.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner import subprocesses
from runner.borders import FAILURES, Outcome
from sandbox.mechanism import Config, Space

ROOT = Path(__file__).resolve().parents[2]
MESSAGE_CHARACTERS = 1500
SUMMARY_LINE = re.compile(r"^([a-z][a-z0-9_]{0,39}):\s+(\S.{0,199})$")
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
OUT_OF_MEMORY = ("MemoryError", "allocate memory", "out of memory", "OutOfMemoryError")
SIGKILL = -9


class TaskError(ValueError):
    """A task that can't be used as asked; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Deadline:
    """Wall time for a trial: `budget_seconds` may be processor time, so the factor is generous."""

    budget_seconds: float
    factor: float = 8.0
    startup_seconds: float = 60.0

    @property
    def seconds(self) -> float:
        """When a trial is taken for hanging."""
        return self.budget_seconds * self.factor + self.startup_seconds


def digest_over(parts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of_files(paths: Sequence[Path]) -> str:
    """SHA-256 (hex) over the names and bytes of files."""
    return digest_over({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths})


def host_facts() -> dict[str, Any]:
    """Facts to print beside a number: what ran it."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def trial_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """A trial's environment: nothing of ours, above all no key and no token."""
    kept = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**kept, "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1", **extra}


def constraint_outcome(space: Space, config: Config) -> Outcome | None:
    """A configuration outside the space costs no trial: the outcome, or None if it is valid."""
    problems = space.problems(config)
    if not problems:
        return None
    return Outcome(metric=None, failure="constraint", message=_short("; ".join(problems)))


def measure(
    args: Sequence[str],
    *,
    metric: str,
    deadline_seconds: float,
    env: Mapping[str, str],
    cwd: Path = ROOT,
    progress: Callable[[str], None] | None = None,
) -> Outcome:
    """Run one trial and classify what it did. The metric counts only if it is printed once, is
    finite, and the process ended with 0 within the deadline."""

    def tell(line: str) -> None:
        if progress is not None and line and not SUMMARY_LINE.match(line):
            progress(line[:200])

    try:
        done = subprocesses.run(
            list(args), deadline_seconds=deadline_seconds, cwd=cwd, env=env, line=tell
        )
    except OSError as error:
        return Outcome(
            metric=None, failure="infrastructure", message=f"the trial cannot be started: {error}"
        )
    return classify(done, metric=metric, deadline_seconds=deadline_seconds)


def classify(done: subprocesses.Finished, *, metric: str, deadline_seconds: float) -> Outcome:
    """What a finished subprocess means. Never raises."""
    details = _summary(done.output, metric)
    tail = _short(done.output)

    def failed(failure: str, message: str) -> Outcome:
        text = _short(f"{message}\n{tail}".strip())
        return Outcome(
            metric=None, failure=failure, message=text, seconds=done.seconds, details=details
        )

    if done.timed_out:
        return failed("timeout", f"killed after {deadline_seconds:.0f} s")
    if done.returncode != 0:
        return failed(_failure_of(done), f"the trial ended with code {done.returncode}")
    printed = _printed(done.output, metric)
    if not printed:
        return failed("no_metric", f"the trial printed no line `{metric}: NUMBER`")
    if len(printed) > 1:
        return failed("no_metric", f"the trial printed {metric} {len(printed)} times: which one?")
    try:
        value = float(printed[0])
    except ValueError:
        return failed("no_metric", f"{metric} is {printed[0][:60]!r}, not a number")
    if not math.isfinite(value):
        return failed("nan", f"{metric} is {value}")
    return Outcome(metric=value, seconds=done.seconds, details=details)


def _printed(output: str, metric: str) -> list[str]:
    pattern = re.compile(rf"^{re.escape(metric)}:[ \t]*(\S*)[ \t]*$", re.MULTILINE)
    return pattern.findall(output.replace("\r", "\n"))


def _failure_of(done: subprocesses.Finished) -> str:
    """The trainer's own word for it (`failure: nan`), else what its end and its output say."""
    named = _printed(done.output, "failure")
    if len(named) == 1 and named[0] in FAILURES:
        return named[0]
    if done.returncode == SIGKILL or any(text in done.output for text in OUT_OF_MEMORY):
        return "oom"  # nobody but the kernel's memory killer sends SIGKILL before the deadline
    return "crash"


def _summary(output: str, metric: str) -> dict[str, Any]:
    """The other `key: value` lines after the last `---`."""
    found: dict[str, Any] = {}
    for line in output.rpartition("\n---\n")[2].splitlines()[:40]:
        if (match := SUMMARY_LINE.match(line)) and match[1] != metric:
            found[match[1]] = match[2].strip()
    return found


def _short(text: str) -> str:
    """The end of a text: where errors are."""
    return text if len(text) <= MESSAGE_CHARACTERS else "..." + text[-MESSAGE_CHARACTERS:]
