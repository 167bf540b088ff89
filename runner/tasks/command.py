"""The command task: any command that prints a number, over a space that a YAML file describes.

The knobs reach the command as `{KNOB}` in its arguments, as environment variables, or as a JSON
file; it runs in a copy of its folder, or in place where the file says so. No shell, no sandbox:
the command is the person's own and runs with the person's rights.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from pydantic import Field

from runner.interfaces import Outcome
from runner.tasks.base import (
    IN_A_COPY,
    PASSED_ON,
    TaskError,
    constraint_outcome,
    digest_over,
    host_facts,
    measure,
    trial_environment,
    words_of,
)
from runner.tasks.folders import Changed, Snapshot, look, real, startable
from runner.tasks.kinds import Places, TaskKind, TaskOptions
from runner.tasks.records import MARK, Record, Records
from runner.tasks.spacefile import (
    SpaceFile,
    check_pattern,
    check_space,
    constraints_of,
    knob_of,
    metric_of,
    minimized,
)
from runner.tasks.strictyaml import Lines, load
from sandbox.mechanism import Config, KnobValue, Space

DEFAULT_SECONDS = 900.0
PLACEHOLDER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
KNOBS_FILE = "KNOBS_FILE"
SEED = "SEED"
OURS = ("ESCAPEMENT_", "PYTHON")  # beginnings of variables that a trial is given by us


class CommandFile(SpaceFile):
    """The YAML file of a command task."""

    command: str | list[str]
    directory: str = "."
    where: Literal["copy", "in_place"] = "copy"
    knobs_as: Literal["arguments", "environment", "json"] = "arguments"


class CommandOptions(TaskOptions):
    """The options of the command task."""

    config: Path = Field(description="the YAML file with the command, its metric and its knobs")
    budget_seconds: float | None = Field(
        default=None, ge=1, le=86_400, description="wall time of one trial, in place of the file's"
    )


class CommandTask:
    """A command's metric over the knobs of a file."""

    name = "command"

    def __init__(self, options: CommandOptions, *, out: Path | None) -> None:
        self.file, lines = load(options.config, CommandFile)
        self._config_digest = hashlib.sha256(options.config.read_bytes()).hexdigest()
        self.root = real(options.config.parent / self.file.directory)
        if not self.root.is_dir():
            raise lines.error(("directory",), f"{self.root} is not a folder")
        knobs = {name: knob_of(name, part, None, lines) for name, part in self.file.knobs.items()}
        self.space = Space(
            MappingProxyType(knobs), constraints_of(self.file.constraints, knobs, lines)
        )
        check_space(self.space, lines)
        self.metric_part = metric_of(self.file.metric, "metric")
        if self.file.metric is None:
            raise lines.error((), "name the metric: `metric: score` reads a line `score: 0.5`")
        check_pattern(self.metric_part, lines)
        self.metric = self.metric_part.name
        self.minimize = minimized(
            self.metric_part, self.file.minimize, lines, say="Write `minimize: false` in this file"
        )
        try:
            self.command = startable(words_of(self.file.command, self.root), self.root)
        except ValueError as error:
            raise lines.error(("command",), str(error)) from None
        _check_placeholders(self.command, self.file, lines)
        self.deadline_seconds = float(
            options.budget_seconds or self.file.deadline_seconds or DEFAULT_SECONDS
        )
        self.description = (
            f"Run `{shlex.join(self.command)[:300]}`; measure {self.metric} "
            f"({'lower' if self.minimize else 'higher'} is better) after at most "
            f"{self.deadline_seconds:g} s a trial."
        )
        self._records = Records(out)
        self._snapshot: Snapshot | None = None
        self.lines: dict[str, str] = {}
        if self.file.where == "copy":
            folder = look(self.root, share=self.file.share, without=(out,) if out else ())
            self.lines = folder.lines
            self._snapshot = Snapshot(folder, out / "source" if out else self.root)
            if out is not None:
                self._snapshot.take()
        elif self.file.share:
            raise lines.error(("share",), "in place, everything is shared: leave it out")

    @cached_property
    def digest(self) -> str:
        """The file, the deadline, and (unless it runs in place) everything in the folder."""
        return digest_over(
            {
                "task": self.name,
                "file": self._config_digest,
                "folder": self.lines,
                "deadline_seconds": self.deadline_seconds,
            }
        )

    def host(self) -> dict[str, Any]:
        """Facts to print beside a number."""
        return {
            **host_facts(),
            "command": shlex.join(self.command),
            "where": self.file.where,
            "files": len(self.lines),
            "deadline_seconds": self.deadline_seconds,
        }

    def run(
        self, config: Config, *, seed: int, progress: Callable[[str], None] | None = None
    ) -> Outcome:
        """One trial. A configuration outside the space costs nothing."""
        refused = constraint_outcome(self.space, config)
        return self._records.kept(
            config, seed, lambda record: refused or self._trial(config, seed, record, progress)
        )

    def _trial(
        self,
        config: Config,
        seed: int,
        record: Record,
        progress: Callable[[str], None] | None,
    ) -> Outcome:
        values = {name: _value(self.space[name].kind, value) for name, value in config.items()}
        record.write("knobs.json", values)
        texts = {
            name: value if isinstance(value, str) else repr(value) for name, value in values.items()
        }
        own = {KNOBS_FILE: str((record.folder / "knobs.json").resolve()), SEED: str(seed)}
        own = {k: v for k, v in own.items() if k not in texts}
        command = [_filled(word, {**texts, **own}) for word in self.command]
        environment = {**self.file.environment, MARK: record.mark}
        environment |= {f"ESCAPEMENT_{name}": value for name, value in own.items()}
        if self.file.knobs_as == "environment":
            environment |= texts
        try:
            if self._snapshot is not None:
                self._snapshot.fresh(record.work)
            outcome = measure(
                command,
                metric=self.metric_part.reader(),
                deadline_seconds=self.deadline_seconds,
                env=trial_environment(environment),
                cwd=self.root if self._snapshot is None else record.work,
                progress=progress,
                log=record.log,
                told=IN_A_COPY,
            )
            if self._snapshot is not None:
                self._snapshot.check_shared()
        except (Changed, TaskError) as error:
            return Outcome(metric=None, failure="infrastructure", message=str(error))
        return outcome


def _value(kind: str, value: KnobValue) -> KnobValue:
    if isinstance(value, str) or kind == "choice":
        return value
    return float(value) if kind == "float" else int(value)


def _filled(word: str, texts: dict[str, str]) -> str:
    """A word with its placeholders replaced, once: a value is never read for placeholders."""
    return PLACEHOLDER.sub(lambda match: texts.get(match[1], match[0]), word)


def _check_placeholders(command: list[str], file: CommandFile, lines: Lines) -> None:
    """Raises TaskError for a placeholder that nobody fills, and for a knob that reaches nobody."""
    named = {name for word in command for name in PLACEHOLDER.findall(word)}
    if unknown := sorted(named - set(file.knobs) - {KNOBS_FILE, SEED}):
        raise lines.error(("command",), f"{{{unknown[0]}}} is no knob of this file")
    if file.knobs_as == "environment":
        for name in file.knobs:
            if name in PASSED_ON or name.startswith(OURS):
                raise lines.error(("knobs", name), "a trial needs this variable: rename the knob")
    if file.knobs_as != "arguments":
        return
    if missing := sorted(set(file.knobs) - named):
        raise lines.error(
            ("knobs", missing[0]),
            f"the command does not name {{{missing[0]}}}: put it there, or write "
            "`knobs_as: environment` or `knobs_as: json`",
        )


def _make(options: CommandOptions, places: Places) -> CommandTask:
    return CommandTask(options, out=places.out)


KIND = TaskKind(
    name=CommandTask.name,
    about="any command that prints a number; its knobs and its metric are in a YAML file",
    options=CommandOptions,
    make=_make,
)
