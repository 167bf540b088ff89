"""What tasks share: run one trial's subprocess and turn whatever it does into an `Outcome`.

A trial may crash, hang, flood, print no metric, print NaN or print it twice: each is a class of
failure, none is an exception here and none is ever a number. It does not know any trainer.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import platform
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.interfaces import FAILURES, Outcome
from runner.processes import subprocesses
from runner.tasks.reading import SUMMARY_LINE, MetricReader, shown
from sandbox.mechanism import Config, Space

ROOT = Path(__file__).resolve().parents[2]
MESSAGE_CHARACTERS = 1500
OUTPUT_BYTES = 256 * 1024
LOG_BYTES = 2 * 1024 * 1024
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH")
OUT_OF_MEMORY = ("MemoryError", "allocate memory", "out of memory", "OutOfMemoryError")
SIGKILL = -9
SHELL_SIGNS = "<>|&;"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
PYTHON_FILE = re.compile(r"[^\s'\"=;|&<>()]+\.py\b")


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
    """SHA-256 (hex) over the names, with their folders', and bytes of files."""
    return digest_over(
        {"/".join(p.parts[-2:]): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
    )


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


def words_of(command: str | list[str], root: Path) -> list[str]:
    """The words of a command that runs in the folder `root` or a copy of it. Raises ValueError
    where it has none, asks for a shell, or names a program that is not there."""
    try:
        words = shlex.split(command) if isinstance(command, str) else list(command)
    except ValueError as error:
        raise ValueError(f"it can't be split into words: {error}") from None
    if isinstance(command, str) and (sign := _shell_sign(command)):
        raise ValueError(
            f"{sign} is for a shell, and none reads it: write `command: [sh, -c, '...']`, or a "
            "list of words, if you mean the sign itself"
        )
    if not words or not words[0]:
        raise ValueError("it is empty")
    if any("\0" in word for word in words):
        raise ValueError("it has a null byte")
    if VARIABLE.match(words[0]):
        raise ValueError(f"it sets a variable, as shells do: write `env {words[0]} ...`")
    if "/" not in words[0] and shutil.which(words[0]) is None:
        raise ValueError(f"there is no program {words[0]!r} here: install it, or write its path")
    if "/" in words[0] and "{" not in words[0] and not (root / words[0]).exists():
        raise ValueError(
            f"there is no {words[0]!r}: a command begins in {root}, and no shell reads ~ or $; "
            "write the whole path of what is elsewhere"
        )
    return words


def runs_another(command: list[str], root: Path, script: str) -> bool:
    """Whether a command runs something else of the folder `root` than the script, which that may
    import: a file, a package (`python -m package`), or what a shell's script says."""
    named = {name for word in command for name in PYTHON_FILE.findall(word)}
    for flag, module in itertools.pairwise(command):
        if flag == "-m":
            place = module.replace(".", "/")
            named |= {f"{place}.py", f"{place}/__main__.py"}
    return (root / script).resolve() not in {(root / name).resolve() for name in named}


def _shell_sign(command: str) -> str:
    """A sign like | or && that stands alone and out of quotes, or ""."""
    found: set[str] | None = None
    for posix in (True, False):  # each of them sees signs in some quotes, never in the same
        lexer = shlex.shlex(command, posix=posix, punctuation_chars=SHELL_SIGNS)
        lexer.commenters = ""
        try:
            signs = {word for word in lexer if word and not set(word) - set(SHELL_SIGNS)}
        except ValueError:
            return ""
        found = signs if found is None else found & signs
    return min(found or {""})


def disk_outcome(error: OSError) -> Outcome:
    """A trial's folder could not be used."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "free some space" if full else "the trial's folder can't be used"
    return Outcome(metric=None, failure="infrastructure", message=_short(f"{what}: {error}"))


@dataclass(frozen=True, kw_only=True)
class Told:
    """A line of output that names a failure's class, where a trial ends with an error, and what a
    person may do."""

    pattern: str
    failure: str
    advice: str = ""


# What tasks that run in a copy of a folder have in common.
IN_A_COPY = (
    Told(pattern=r"^AssertionError(?::|$)", failure="constraint"),
    Told(
        pattern=r"^FileNotFoundError: .*",
        failure="crash",
        advice="a trial runs at the top of the folder (of a copy, unless in place): a path that "
        "leads out of a copy (`../data`) has to be written from the root, and one that begins at "
        "a folder within needs that folder as the task's",
    ),
    Told(
        pattern=r"^ImportError: attempted relative import with no known parent package",
        failure="crash",
        advice="it is part of a package: run it as one, with a command such as "
        "`python -m package.train` (--command)",
    ),
    Told(
        pattern=r"^ModuleNotFoundError: No module named",
        failure="crash",
        advice="the Python that ran it has no such module. Without a command that is Escapement's "
        "own: name yours, such as `/path/to/venv/bin/python train.py` (--command). PYTHONPATH is "
        "not passed on: `environment:` in the YAML file sets it",
    ),
    Told(
        pattern=r"\bos(?:\.py|>)\", line [0-9]+, in __getitem__\n(?:    .*\n)?KeyError: ",
        failure="crash",
        advice="a trial has few variables of your environment: name that one under `environment:` "
        "in the YAML file",
    ),
    Told(
        pattern=r"^fatal: not a git repository",
        failure="crash",
        advice="a copy has no .git: let the script do without, where there is none",
    ),
    Told(
        pattern=r"^EOFError: EOF when reading a line",
        failure="crash",
        advice="it asks for input, and there is nothing on a trial's standard input: let it do "
        "without",
    ),
)


def measure(
    args: Sequence[str],
    *,
    metric: str | MetricReader,
    deadline_seconds: float,
    env: Mapping[str, str],
    cwd: Path = ROOT,
    progress: Callable[[str], None] | None = None,
    log: Path | None = None,
    told: Sequence[Told] = (),
) -> Outcome:
    """Run one trial and classify what it did. The metric counts only if it is printed once, is
    finite, and the process ended with 0 within the deadline. `log` keeps what it printed."""
    reader = MetricReader(name=metric) if isinstance(metric, str) else metric

    def tell(line: str) -> None:
        reader.feed(line)
        if progress is not None and line and not SUMMARY_LINE.match(line):
            progress(shown(line)[:200])

    try:
        done = subprocesses.run(
            list(args),
            deadline_seconds=deadline_seconds,
            cwd=cwd,
            env=env,
            line=tell,
            output_bytes=LOG_BYTES if log else OUTPUT_BYTES,
        )
    except (OSError, ValueError) as error:  # ValueError: arguments that no program can be given
        return Outcome(
            metric=None, failure="infrastructure", message=f"no trial can be run: {error}"
        )
    if log is not None:
        log.write_text(done.output, encoding="utf-8", errors="replace")
    return classify(done, metric=reader, deadline_seconds=deadline_seconds, told=told)


def classify(
    done: subprocesses.Finished,
    *,
    metric: MetricReader,
    deadline_seconds: float,
    told: Sequence[Told] = (),
) -> Outcome:
    """What a finished subprocess means, whose every line `metric` has seen. Never raises."""
    details = {k: v for k, v in metric.summary.items() if k != "failure"}
    printed = shown(done.output)

    def failed(failure: str, message: str) -> Outcome:
        why = message[:MESSAGE_CHARACTERS]  # it comes first, whatever the trial printed
        text = f"{why}\n{_short(printed, MESSAGE_CHARACTERS - len(why))}".strip()
        return Outcome(
            metric=None, failure=failure, message=text, seconds=done.seconds, details=details
        )

    if done.timed_out:
        return failed(
            "timeout",
            f"killed after {deadline_seconds:.0f} s, a trial's deadline (see --budget-seconds)",
        )
    if done.returncode != 0:
        failure, advice = _failure_of(done, told)
        return failed(failure, f"the trial ended with code {done.returncode}{advice}")
    value, failure, why = metric.result()
    if value is None:
        return failed(failure, why)
    return Outcome(metric=value, seconds=done.seconds, details=details)


def _failure_of(done: subprocesses.Finished, told: Sequence[Told]) -> tuple[str, str]:
    """The trainer's own word for it (`failure: nan`), else what its end and its output say; and
    what to do, if that is known."""
    output = done.output.replace("\r", "\n")
    named = re.findall(r"^failure:[ \t]*(\S*)[ \t]*$", output, re.MULTILINE)
    if len(named) == 1 and named[0] in FAILURES:
        return str(named[0]), ""
    if done.returncode == SIGKILL or any(text in output for text in OUT_OF_MEMORY):
        return "oom", ""  # nobody but the kernel's memory killer sends SIGKILL before the deadline
    for one in told:
        if re.search(one.pattern, output, re.MULTILINE):
            return one.failure, f": {one.advice}" if one.advice else ""
    return "crash", ""


def _short(text: str, characters: int = MESSAGE_CHARACTERS) -> str:
    """The end of a text: where errors are."""
    return text if len(text) <= characters else "..." + text[len(text) - characters :]
