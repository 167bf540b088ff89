"""`python -m runner arms`: run an ablation to its end, or go on with it, and write what came out.

In the folder: `arms.md`, `arms.json`, `curves.svg`, `curves.png`, the same bytes for the same seeds
on a recorded surface; and beside them what may differ: `gate.jsonl` (every decision of the gate),
`host.json` (machine, versions, times), `runs/` (journals and trainings), `key` (signs here alone).
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ConfigDict, Field

from runner.arms import approval, report
from runner.arms.control import Signer
from runner.arms.forked import ForkedGpt
from runner.arms.gate import Gate
from runner.arms.plot import write_curves
from runner.arms.record_schema import check_shared
from runner.arms.runs import Record, Workshop, path_of, run_arm
from runner.arms.score import Yardstick, score
from runner.arms.spec import Arm, ArmsError, Mechanisms, arms_named
from runner.foreign import Foreign
from runner.interfaces import Task
from runner.levels.diagnosis import movable
from runner.levels.level2 import Base, seed_library
from runner.loop.memory import host_of
from runner.settings import RunSettings, parts_of
from runner.tasks import Places, get_task
from runner.tasks.base import ROOT, host_facts
from runner.tasks.gpt import GptTask
from runner.tasks.table import TableTask
from sandbox.backends import get_backend
from sandbox.files import put

LIBRARY = ROOT / "mechanisms_repo"
VERSIONS = ("numpy", "scipy", "scikit-learn", "optuna", "cmaes", "matplotlib", "torch")
REMEASURE = 3  # where no truth is known
Say = Callable[[str], None]


class ArmsSettings(BaseModel):
    """The options of `arms`. Those under `run` are the options of `runner run`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run: RunSettings
    arms: str = "A,B,C,D,R,P,T,G,E,S,U"
    repeats: int = Field(default=10, ge=1, le=1000)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    level2_first: bool = False
    keep_sigma: float = Field(default=2.0, ge=0, le=10)
    confirmations: int = Field(default=1, ge=0, le=10)
    target: float | None = Field(default=None, allow_inf_nan=False)
    sandbox: Literal["bubblewrap", "docker"] = "bubblewrap"


def run_arms(settings: ArmsSettings, *, beside: tuple[Foreign, ...], say: Say) -> None:
    """All of it. Raises ArmsError, TaskError, JournalError, InfrastructureError, PriorError,
    BudgetExceeded: in each case the same command goes on where it stopped."""
    out = settings.run.out
    chosen = arms_named(settings.arms)
    say(f"preparing task {settings.run.task}")
    task = _task(settings)
    try:
        with _held(out):
            _check_space(task, chosen)
            _check_level2(settings, chosen, say)
            facts = _settle(out, settings, task)
            shop = _workshop(settings, task, say)
            began = time.monotonic()
            records = _run_all(shop, chosen, settings.repeats, say)
            _write(out, facts, task, records, settings=settings, beside=beside)
            _write_host(out, task, time.monotonic() - began)
    finally:
        if isinstance(task, ForkedGpt):
            task.close()
    say(f"written: {out / 'arms.md'}, arms.json, curves.svg, curves.png")


def _task(settings: ArmsSettings) -> Task:
    run = settings.run
    task = get_task(run.task, run.task_options, places=Places(out=run.out))
    return ForkedGpt(task) if isinstance(task, GptTask) else task


def _check_space(task: Task, chosen: tuple[Arm, ...]) -> None:
    """Raise ArmsError where an arm has nothing to search on."""
    knobs = movable(task.space)
    if not knobs:
        raise ArmsError(f"task {task.name} has no knob that can move: there is nothing to search")
    if len(knobs) < 2 and any(arm.letter == "E" for arm in chosen):
        raise ArmsError(f"arm E needs two knobs that can move; task {task.name} has {knobs[0]}")


def _check_level2(settings: ArmsSettings, chosen: tuple[Arm, ...], say: Say) -> None:
    """Say it where the arms with Level 2 can't differ from those without. Raises ArmsError where
    they have no Level 2."""
    letters = [arm.letter for arm in chosen if arm.mechanisms is Mechanisms.LEVEL2]
    run = settings.run
    if letters and not run.level2_every:
        raise ArmsError(f"arm {letters[0]} needs Level 2: give --level2-every 1 or more")
    if letters and run.level2_every >= run.trials and not settings.level2_first:
        say(
            f"NOTE: Level 2 looks after every {run.level2_every} trials, and there are "
            f"{run.trials}: no mechanism can choose one in arm {' or '.join(letters)}. Give "
            "--level2-first, or --level2-every below --trials"
        )


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """Only one command works in a folder. The kernel lets go however it ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ArmsError(f"{out} can't be written ({error}): choose another --out") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ArmsError(f"another command works in {out}: stop it first") from None
        yield
    finally:
        os.close(descriptor)


def _settle(out: Path, settings: ArmsSettings, task: Task) -> dict[str, Any]:
    """What makes runs comparable: settled by the first command in the folder."""
    run = settings.run
    facts = {
        "task": run.task,
        "task_digest": task.digest,
        "metric": task.metric,
        "minimize": task.minimize,
        "trials": run.trials,
        "seed": settings.seed,
        "level2_every": run.level2_every,
        "level2_first": settings.level2_first,
        "keep_sigma": settings.keep_sigma,
        "confirmations": settings.confirmations,
        "prior": run.prior,
        "level2": run.generator,
        "model": run.model,
        "policy": approval.LABEL,
    }
    _same(out / "settings.json", facts)
    if not isinstance(task, TableTask):  # what was recorded is the same everywhere
        host = host_of(task.host(), parallel=1)
        _same(out / "host-of-trainings.json", {"host": host.label, "key": host.key})
    if any(arm.mechanisms is Mechanisms.LEVEL2 for arm in arms_named(settings.arms)):
        _same(out / "library.json", {e.name: e.digest for e in seed_library(LIBRARY)})
    return facts


def _same(path: Path, facts: dict[str, Any]) -> None:
    """Write facts, or make sure that they are what was written. Raises ArmsError."""
    if not path.exists():
        put(path, (json.dumps(facts, sort_keys=True, indent=1) + "\n").encode())
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        other = sorted(k for k in {*known, *facts} if known.get(k) != facts.get(k))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ArmsError(f"{path} is broken ({error}): choose another --out") from None
    if other:
        raise ArmsError(
            f"{path.parent} holds an ablation with other {', '.join(other)}: its numbers can't "
            "stand beside these. Choose another --out"
        )


def _workshop(settings: ArmsSettings, task: Task, say: Say) -> Workshop:
    run, out = settings.run, settings.run.out
    library = seed_library(LIBRARY)

    def backend() -> Any:
        return get_backend(settings.sandbox, progress=say)

    return Workshop(
        task=task,
        out=out,
        trials=run.trials,
        seed=settings.seed,
        level2_every=run.level2_every,
        level2_first=settings.level2_first,
        remeasure=0 if isinstance(task, TableTask) else REMEASURE,
        keep_sigma=settings.keep_sigma,
        confirmations=settings.confirmations,
        parts=lambda: parts_of(run, task, say),
        base=Base(commit="", library=library),
        gate=Gate(
            out / "gate.jsonl",
            backend=backend,
            library={e.name: e.source.encode() for e in library},
            say=say,
        ),
        signer=Signer(key=_key(out / "key")),
        backend=backend,
        say=say,
    )


def _key(path: Path) -> Ed25519PrivateKey:
    """The key of this folder; made once, readable by its owner alone."""
    if not path.exists():
        put(path, Ed25519PrivateKey.generate().private_bytes_raw())
    try:
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArmsError(
            f"{path} is no key ({error}): remove it, and those folders below {path.parent}/runs "
            "that have no .json of their name yet"
        ) from None


def _run_all(
    shop: Workshop, chosen: tuple[Arm, ...], repeats: int, say: Say
) -> dict[str, list[Record]]:
    """Repeat by repeat, every arm of it: what the host does over time, it does to all of them."""
    records: dict[str, list[Record]] = {arm.letter: [] for arm in chosen}
    told = 0.0
    for repeat in range(repeats):
        for arm in chosen:
            new = not path_of(shop.out, arm, repeat).exists()
            records[arm.letter].append(run_arm(shop, arm, repeat))
            baselines = {x: rows[repeat].baseline for x, rows in records.items() if rows[repeat:]}
            check_shared(baselines, repeat)
            if new and time.monotonic() - told > 2.0:
                told = time.monotonic()
                say(f"repeat {repeat + 1} of {repeats}: arm {arm.letter} is done")
    return records


def _write(
    out: Path,
    facts: dict[str, Any],
    task: Task,
    records: dict[str, list[Record]],
    *,
    settings: ArmsSettings,
    beside: tuple[Foreign, ...],
) -> None:
    rows = [row for runs in records.values() for row in runs]
    stick = Yardstick.of(task, settings.target, rows)
    scores = score(records, stick, settings.run.trials)
    shown = {
        **facts,
        "arms": list(records),
        "repeats": settings.repeats,
        "prior": next((r.prior for r in rows if r.prior), "none"),
        "level2": next((r.level2 for r in rows if r.level2), "none"),
    }
    markdown = report.as_markdown(shown, scores, records, stick, beside)
    (out / "arms.md").write_text(markdown, encoding="utf-8")
    text = report.as_json(shown, scores, records, stick, beside)
    (out / "arms.json").write_text(text, encoding="utf-8")
    write_curves(out, scores, stick, metric=task.metric, beside=beside)


def _write_host(out: Path, task: Task, seconds: float) -> None:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except ImportError:
            found[name] = "not installed"
    facts = {
        "host": task.host(),
        "this_host": host_facts(),
        "python": sys.version,
        "machine": platform.machine(),
        "versions": found,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds_of_last_command": round(seconds, 1),
    }
    (out / "host.json").write_text(json.dumps(facts, sort_keys=True, indent=1) + "\n")
