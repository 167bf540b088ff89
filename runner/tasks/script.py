"""The script task: search over the constants of somebody's `train.py`, which stays as it is.

Each trial runs in a fresh copy of its folder where only the value expressions of the chosen
constants differ, as a subprocess under a deadline; its metric is what it prints (`val_bpb: 0.997`).
The folder itself is only read. This is no sandbox: the script is the person's own code and runs
with the person's rights.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import Field, StrictBool

from runner.interfaces import Outcome
from runner.tasks.assertions import Rule, constants_of, constraints_of, rules_of
from runner.tasks.base import (
    IN_A_COPY,
    TaskError,
    Told,
    constraint_outcome,
    digest_over,
    host_facts,
    measure,
    runs_another,
    trial_environment,
    words_of,
)
from runner.tasks.constants import MAX_SCRIPT_BYTES, Source, edit, read
from runner.tasks.folders import Changed, Folder, Snapshot, look, real, startable, within
from runner.tasks.hints import nothing_to_search
from runner.tasks.inference import LeftAlone, infer, value_of
from runner.tasks.kinds import Places, TaskKind, TaskOptions
from runner.tasks.records import MARK, Record, Records
from runner.tasks.scope import UPPER
from runner.tasks.spacefile import (
    METRIC_NAME,
    SpaceFile,
    check_pattern,
    check_space,
    knob_of,
    metric_of,
    minimized,
)
from runner.tasks.spacefile import constraints_of as named_constraints
from runner.tasks.strictyaml import Lines, load
from sandbox.mechanism import Config, Knob, Space

SPACE_FILE = "space.yaml"
DEFAULT_SECONDS = 900.0
# What a trainer needs to find its device, its caches and its interpreter; no keys, no tokens.
PASSED_ON = (
    *("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VIRTUAL_ENV"),
    *("XDG_CACHE_HOME", "XDG_DATA_HOME", "HF_HOME", "UV_CACHE_DIR", "UV_PYTHON"),
)
TOLD = (
    *IN_A_COPY,
    Told(pattern=r"^FAIL$", failure="nan"),  # what nanochat's family prints where a loss explodes
)


class ScriptFile(SpaceFile):
    """A space.yaml for a script: what it names overrides what is inferred."""

    script: str = "train.py"
    command: str | list[str] | None = None
    only: StrictBool = False  # search the knobs of this file alone
    lock: list[str] = Field(default=[], max_length=200)


class ScriptOptions(TaskOptions):
    """The options of the script task."""

    directory: Path = Field(alias="dir", description="the folder with the script")
    config: Path | None = Field(
        default=None, description="a YAML file in place of the folder's own space.yaml"
    )
    budget_seconds: float | None = Field(
        default=None, ge=1, le=86_400, description="wall time of one trial, 900 s if nobody says"
    )
    script: str | None = Field(default=None, description="the script's name, train.py if not given")
    command: str | None = Field(
        default=None, description="such as 'uv run train.py'; else this Python runs the script"
    )
    metric: Annotated[str, Field(pattern=METRIC_NAME)] | None = Field(
        default=None, description="the metric's name in what is printed, val_bpb if not given"
    )
    maximize: bool = Field(default=False, description="a higher metric is better")
    lock: str = Field(default="", description="constants to leave alone: DEPTH,ASPECT_RATIO")


class ScriptTask:
    """A script's metric (lower is better unless said otherwise) over its constants."""

    name = "script"

    def __init__(self, options: ScriptOptions, *, out: Path | None) -> None:
        self.root = real(options.directory)
        self.file, self.lines = _space_file(options, self.root)
        self.script = within(self.root, options.script or self.file.script)
        self.folder = look(self.root, share=self.file.share, without=(out,) if out else ())
        self._snapshot = Snapshot(self.folder, out / "source") if out is not None else None
        if self._snapshot is not None:
            self._snapshot.check()
        self._environment = {n: v for n in PASSED_ON if (v := os.environ.get(n)) is not None}
        given = options.command or self.file.command
        self.command = _command(given, self.script, self.root)
        # Not where this Python lies: another folder is the same task.
        self._command_told = self.command if given else ["python", platform.python_version()]
        self.source = read(
            _bytes(self.folder, self.script),
            what=self.script,
            environment=trial_environment({**self._environment, **self.file.environment}),
            alone=not runs_another(self.command, self.root, self.script),
        )
        self.metric_part = metric_of(options.metric or self.file.metric, "val_bpb")
        check_pattern(self.metric_part, self.lines)
        self.metric = self.metric_part.name
        wanted = False if options.maximize else self.file.minimize
        say = "Use --maximize, or write `minimize: false` in a space.yaml"
        where = None if options.metric else self.lines
        self.minimize = minimized(self.metric_part, wanted, where, say=say)
        self.deadline_seconds = float(
            options.budget_seconds or self.file.deadline_seconds or DEFAULT_SECONDS
        )
        self.rules = rules_of(self.source, (self.root / self.script).parent)
        if self.file.only and not self.file.knobs:
            raise self.lines.error(("only",), "it leaves nothing: name those to search in `knobs:`")
        locked = {*self.file.lock, *options.lock.replace(",", " ").split()}
        knobs, self.left_alone = _knobs(self.source, self.file, self.lines, locked)
        if not knobs:
            left = self.left_alone
            raise TaskError(
                nothing_to_search(self.source, left, folder=self.root, script=self.script)
            )
        self.space = _space(self.source, knobs, self.file, self.lines, self.rules)
        self.description = (
            f"Change the constants of {self.script} (in {_told(self.root)}); measure {self.metric} "
            f"({'lower' if self.minimize else 'higher'} is better) after at most "
            f"{self.deadline_seconds:g} s a trial."
        )
        if out is not None and Path(self.command[0]).name == "uv":  # one environment for all trials
            self._environment["UV_PROJECT_ENVIRONMENT"] = str(real(out) / "venv")
        self._records = Records(out)
        if self._snapshot is not None:
            self._snapshot.take()

    @cached_property
    def digest(self) -> str:
        """Everything in the folder, the space, the metric, the command and the deadline."""
        return digest_over(
            {
                "task": self.name,
                "folder": self.folder.lines,
                "script": self.script,
                "space": self.file.model_dump(mode="json"),
                "knobs": sorted(self.space),
                "metric": self.metric_part.model_dump(),
                "minimize": self.minimize,
                "command": self._command_told,
                "deadline_seconds": self.deadline_seconds,
            }
        )

    def host(self) -> dict[str, Any]:
        """Facts to print beside a number."""
        return {
            **host_facts(),
            "script": self.script,
            "script_digest": hashlib.sha256(self.source.data).hexdigest(),
            "files": len(self.folder.items),
            "command": shlex.join(self.command),
            "deadline_seconds": self.deadline_seconds,
            "left_alone": dict(self.left_alone),
            "rules": [rule.text for rule in self.rules],
        }

    def edited(self, config: Config) -> bytes:
        """The script with this configuration, which must be within the space."""
        values = {
            name: value_of(self.space[name], self.source.slots[name], value)
            for name, value in config.items()
        }
        return edit(self.source, values)

    def run(
        self, config: Config, *, seed: int, progress: Callable[[str], None] | None = None
    ) -> Outcome:
        """One trial in a copy of its own. What the script would assert costs nothing."""
        refused = constraint_outcome(self.space, config) or self._against_a_rule(config)
        return self._records.kept(
            config, seed, lambda record: refused or self._trial(config, seed, record, progress)
        )

    def _against_a_rule(self, config: Config) -> Outcome | None:
        values = constants_of(
            self.source,
            {n: value_of(self.space[n], self.source.slots[n], v) for n, v in config.items()},
        )
        broken = [problem for rule in self.rules if (problem := rule.problem(values))]
        if not broken:
            return None
        return Outcome(metric=None, failure="constraint", message="; ".join(broken)[:1500])

    def _trial(
        self,
        config: Config,
        seed: int,
        record: Record,
        progress: Callable[[str], None] | None,
    ) -> Outcome:
        edited = self.edited(config)
        kept = record.folder / Path(self.script).name
        kept.write_bytes(edited)
        snapshot = self._snapshot or Snapshot(self.folder, self.root)
        try:
            snapshot.fresh(record.work)
            (record.work / self.script).write_bytes(edited)
            outcome = measure(
                self.command,
                metric=self.metric_part.reader(),
                deadline_seconds=self.deadline_seconds,
                env=self._variables(seed, record),
                cwd=record.work,
                progress=progress,
                log=record.log,
                told=TOLD,
            )
            snapshot.check_shared()
        except (Changed, TaskError) as error:
            return Outcome(metric=None, failure="infrastructure", message=str(error))
        return outcome

    def _variables(self, seed: int, record: Record) -> dict[str, str]:
        own = {"ESCAPEMENT_SEED": str(seed), MARK: record.mark}
        return trial_environment({**self._environment, **self.file.environment, **own})


def _space_file(options: ScriptOptions, root: Path) -> tuple[ScriptFile, Lines]:
    """The file that --config names, else a space.yaml in the folder or beside it, else nothing."""
    if options.config is not None:
        return load(options.config, ScriptFile)
    for place in (root / SPACE_FILE, root.parent / SPACE_FILE):
        if place.is_file():
            return load(place, ScriptFile)
    return ScriptFile(), Lines(SPACE_FILE)


def _bytes(folder: Folder, script: str) -> bytes:
    """The script, which must be part of what each trial has a copy of: the copy is edited."""
    root, path = folder.root, folder.root / script
    if not path.is_file():
        found = sorted(root.glob("*.py")) or sorted(root.glob("*/*.py"))
        files = [path for path in found if path.is_file()]
        there = [path.relative_to(root).as_posix() for path in files[:10]]
        raise TaskError(
            f"{root} has no {script}: name the script with --script; there are: "
            f"{', '.join(there) or 'no Python files'}"
        )
    if not folder.copies(script):
        raise TaskError(
            f"the script {script} is in no trial's copy of {root}: it is in what `share` names, or "
            "in a folder that is left out. Share less, or move it"
        )
    with path.open("rb") as file:
        return file.read(MAX_SCRIPT_BYTES + 1)


def _told(path: Path) -> str:
    """A folder's name as text, whatever bytes it is of."""
    return os.fsencode(path.name).decode(errors="replace")


def _command(given: str | list[str] | None, script: str, root: Path) -> list[str]:
    if given is None:
        return [sys.executable, script]
    try:
        return startable(words_of(given, root), root)
    except ValueError as error:
        raise TaskError(f"the command {given!r}: {error}") from None


def _space(
    source: Source, knobs: Mapping[str, Knob], file: ScriptFile, lines: Lines, rules: list[Rule]
) -> Space:
    """The knobs with their constraints."""
    numbers = [name for name, knob in knobs.items() if knob.kind != "choice"]
    fixed = constants_of(source, {})
    found = (
        *constraints_of(rules, numbers, fixed),
        *named_constraints(file.constraints, knobs, lines),
    )
    space = Space(MappingProxyType(dict(knobs)), tuple(dict.fromkeys(found)))
    check_space(space, lines)
    return space


def _knobs(
    source: Source, file: ScriptFile, lines: Lines, locked: set[str]
) -> tuple[Mapping[str, Knob], Mapping[str, str]]:
    """The knobs, and why other constants are left alone."""
    known = {slot.constant for slot in source.slots.values()} | set(source.slots)
    if wrong := sorted(locked - known - set(source.left_alone)):
        there = _some(source.slots)
        raise TaskError(f"lock: the script has no constant {wrong[0]!r}; there are: {there}")
    knobs: dict[str, Knob] = {}
    left = {name: why for name, why in source.left_alone.items() if UPPER.match(name)}
    for name, slot in source.slots.items():
        part = file.knobs.get(name)
        if {name, slot.constant} & locked:
            if part is not None:
                raise lines.error(("knobs", name), "it is locked as well: which is meant?")
            left[name] = "it is locked"
            continue
        if part is None and (file.only or not UPPER.match(slot.constant)):
            whole = re.split(r"[.\[]", slot.constant, maxsplit=1)[0]
            if whole != slot.constant and UPPER.match(whole):
                left.setdefault(
                    whole, f"it has parts: name them in a {SPACE_FILE}, as `{name}: {{}}`"
                )
            continue
        try:
            guess: Knob | None = infer(slot, source)
        except LeftAlone as error:
            if part is None:
                left[name] = str(error)
                continue
            guess = None
        if part is None:
            assert guess is not None  # noqa: S101 - else it was left alone above
            knobs[name] = guess
        else:
            knobs[name] = _named(name, slot.value, part, guess, lines)
    _known_names(file, source, lines)
    return knobs, left


def _named(name: str, value: Any, part: Any, guess: Knob | None, lines: Lines) -> Knob:
    """A knob that the file names: its default is the script's own."""
    if part.default is not None:
        raise lines.error(("knobs", name, "default"), "the default is the script's own value")
    default = str(value) if isinstance(value, bool) else value
    for number, choice in enumerate(part.choices):
        if isinstance(choice, str) is not isinstance(default, str):
            raise lines.error(
                ("knobs", name, "choices", number), f"{choice!r}, but the script has {value!r}"
            )
    if guess is not None and part.kind not in (None, guess.kind):
        guess = None
    return knob_of(name, part, guess, lines, fixed_default=default)


def _known_names(file: ScriptFile, source: Source, lines: Lines) -> None:
    """Raises TaskError for a knob of the file that the script does not have."""
    for name in file.knobs:
        if name in source.slots:
            continue
        parts = [s.name for n, s in source.slots.items() if s.part is not None and _of(n) == name]
        if parts:
            why = f"it is a tuple: name its parts {', '.join(parts)}"
        elif name in source.left_alone:
            why = f"it can't be changed: {source.left_alone[name]}"
        else:
            why = f"the script has no such constant at its top; there are: {_some(source.slots)}"
        raise lines.error(("knobs", name), why)


def _of(part: str) -> str:
    return part.rpartition("_")[0]


def _some(names: Any) -> str:
    listed = sorted(names)
    return ", ".join(listed[:20]) + (" ..." if len(listed) > 20 else "") if listed else "none"


def _make(options: ScriptOptions, places: Places) -> ScriptTask:
    return ScriptTask(options, out=places.out)


KIND = TaskKind(
    name=ScriptTask.name,
    about="the constants of your train.py are the knobs; it runs unchanged in copies",
    options=ScriptOptions,
    make=_make,
)
