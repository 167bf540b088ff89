"""The gpt-gpu task: the field's 50M-parameter benchmark, five minutes of training on one card.

It prepares the text (public shards, or bytes of local text where a person chooses that), starts
`python -m runner.gpu.train` for each trial, and knows what makes two metrics comparable. Torch is
not imported here: only the trial's own process has it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from runner.gpt.corpus import Corpus, CorpusError, prepare
from runner.gpu.card_locks import Card, CardError, cards_of
from runner.gpu.manifest import ShardError, write
from runner.gpu.shards import Tokens
from runner.gpu.shards import prepare as prepare_shards
from runner.gpu.space import SETTINGS, windows_as
from runner.interfaces import Outcome
from runner.processes.locks import LockError, one_of
from runner.tasks.base import (
    ROOT,
    TaskError,
    constraint_outcome,
    digest_of_files,
    digest_over,
    host_facts,
    measure,
    trial_environment,
)
from runner.tasks.kinds import Places, TaskKind, TaskOptions
from sandbox.mechanism import Config

TRAINER_FILES = tuple(
    ROOT / "runner" / f"{name}.py"
    for name in (
        *("gpu/train", "gpu/model", "gpu/optimizers", "gpu/text", "gpu/space"),
        *("gpu/shards", "gpu/manifest", "gpt/corpus"),
        *("gpt/train", "gpt/options"),  # the schedule and the failures' classes
    )
)
# Compilation, evaluation and the start come on top of the budget.
EXTRA_SECONDS = 900.0
PROBE_SECONDS = 300.0
WAIT_SECONDS = 6 * 3600.0  # for a card that other trials use
# What a compiler needs to be found and to keep what it made; no keys, no tokens.
PASSED_ON = (
    *("CUDA_DEVICE_ORDER", "CUDA_HOME", "CC", "CXX", "XDG_CACHE_HOME"),
    *("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
)
VISIBLE = "CUDA_VISIBLE_DEVICES"
FALLBACK = "BYTES OF LOCAL TEXT (fallback, not comparable with print)"


class GpuOptions(TaskOptions):
    """The options of the gpt-gpu task."""

    data: Literal["shards", "bytes"] = Field(
        default="shards",
        description="public shards with a vocabulary of 8192, or bytes of local text (a fallback)",
    )
    shards: Path | None = Field(
        default=None, description="the folder of parquet shards, var/shards if not given"
    )
    budget_seconds: float = Field(
        default=300.0, ge=0.1, le=86_400, description="wall time of one training after compilation"
    )
    setting: Literal["50m", "tiny"] = Field(default="50m", description="tiny is for tests")
    device: Literal["cuda", "cpu"] = Field(default="cuda", description="cpu is for tests")
    precision: Literal["bf16", "float32"] = Field(default="bf16", description="of the computation")
    compile: Literal["inductor", "aot_eager", "off"] = Field(
        default="inductor", description="torch.compile's backend"
    )
    attention: Literal["flex", "mask"] | None = Field(
        default=None,
        description="windows as blocks of compiled attention (if not given: on cuda with inductor) "
        "or as masks, which is slower",
    )
    threads: int = Field(default=1, ge=1, le=256, description="threads of one training on a CPU")


class GpuTask:
    """Bits per byte after `budget_seconds` of wall time on one card (lower is better)."""

    name = "gpt-gpu"
    metric = "val_bpb"
    minimize = True

    def __init__(self, options: GpuOptions, places: Places) -> None:
        self.options = options
        self.setting = SETTINGS[options.setting]
        self.space = self.setting.space
        try:
            self.windows = windows_as(
                options.attention, device=options.device, compiler=options.compile
            )
            visible = os.environ.get(VISIBLE)
            self._compiled = places.var / "compiled" if options.compile == "inductor" else None
            self._cards = cards_of(_probe(options, visible, self._compiled), visible)
        except (ValueError, CardError) as error:
            raise TaskError(str(error)) from None
        self.device = self._cards[0].name
        self._cache = places.var / "corpus"
        self._shards = options.shards or places.var / "shards"
        self._list = self._cache / "tokens.json"
        try:
            self.text: Tokens | Corpus = self._prepared()
        except (ShardError, CorpusError, OSError) as error:
            raise TaskError(str(error)) from None
        self.description = (
            f"Train a GPT ({self.setting.name}, context {self.setting.sequence_length}) for "
            f"{options.budget_seconds:g} s on {self.device}; text: {self.text_label}; measure bits "
            "per byte on held-out text (lower is better)."
        )

    @property
    def text_label(self) -> str:
        """What is trained on, as people must see it."""
        if isinstance(self.text, Corpus):
            return FALLBACK
        return f"{len(self.text.train)} public shards, vocabulary {self.setting.vocabulary}"

    def _prepared(self) -> Tokens | Corpus:
        if self.options.data == "bytes":
            return prepare(self._cache)
        tokens = prepare_shards(self._shards, vocabulary=self.setting.vocabulary)
        told = {
            "train": [str(path.resolve()) for path in tokens.train],
            "validation": str(tokens.validation.resolve()),
            "token_bytes": tokens.token_bytes,
            "begin": tokens.begin,
        }
        self._list = self._cache / f"tokens-{tokens.digest[:16]}.json"
        write(self._list, json.dumps(told).encode())
        return tokens

    @cached_property
    def digest(self) -> str:
        """Trainer and evaluator, text (which kind, and its digest), setting, budget, precision,
        compilation and the card."""
        return digest_over(
            {
                "task": self.name,
                "trainer": digest_of_files(TRAINER_FILES),
                "text": [self.options.data, self.text.digest],
                "setting": self.setting.name,
                "budget_seconds": f"{self.options.budget_seconds:g}",
                "precision": self.options.precision,
                "compile": self.options.compile,
                "attention": self.windows,
                "device": self.device,
                "threads": self.options.threads,
                "torch": version("torch"),
            }
        )

    def host(self) -> dict[str, Any]:
        """Facts to print beside a number."""
        return {
            **host_facts(),
            "device": self.device,
            "torch": version("torch"),
            "setting": self.setting.name,
            "text": self.text_label,
            "text_digest": self.text.digest,
            "precision": self.options.precision,
            "compile": self.options.compile,
            "attention": self.windows,
            "cards": len(self._cards),
            "budget_seconds": self.options.budget_seconds,
            "budget_clock": "wall seconds after compilation",
        }

    def run(
        self, config: Config, *, seed: int, progress: Callable[[str], None] | None = None
    ) -> Outcome:
        """One trial in its own process, alone on its card: with more trials at once than cards,
        it waits. A configuration outside the space costs nothing."""
        if (refused := constraint_outcome(self.space, config)) is not None:
            return refused
        if self.options.device == "cpu":
            return self._measured(config, seed, None, progress)
        locks = [card.lock for card in self._cards]

        def waiting() -> None:
            if progress is not None:
                progress(f"waiting for one of {len(locks)} cards")

        try:
            with one_of(locks, wait_seconds=WAIT_SECONDS, waiting=waiting) as number:
                return self._measured(config, seed, self._cards[number], progress)
        except LockError as error:
            return Outcome(metric=None, failure="infrastructure", message=str(error))

    def _measured(
        self,
        config: Config,
        seed: int,
        card: Card | None,
        progress: Callable[[str], None] | None,
    ) -> Outcome:
        own = {
            "OMP_NUM_THREADS": str(self.options.threads),
            "PYTORCH_ALLOC_CONF": "expandable_segments:True",
            **({VISIBLE: card.device} if card else {}),
        }
        return measure(
            self._command(config, seed),
            metric=self.metric,
            deadline_seconds=self.options.budget_seconds * 1.5 + EXTRA_SECONDS,
            env=trial_environment({**_compilers(self._compiled), **own}),
            progress=progress,
        )

    def _command(self, config: Config, seed: int) -> list[str]:
        if isinstance(self.text, Tokens):
            text = f"--tokens={self._list.resolve()}"
        else:
            at = self.text.path.resolve()
            text = f"--corpus={at}:{self.text.digest}:{self.text.train_bytes}"
        return [
            sys.executable,
            "-m",
            "runner.gpu.train",
            f"--setting={self.setting.name}",
            f"--device={self.options.device}",
            f"--precision={self.options.precision}",
            f"--compile={self.options.compile}",
            f"--budget-seconds={self.options.budget_seconds}",
            f"--attention={self.windows}",
            f"--threads={self.options.threads}",
            f"--seed={seed}",
            text,
            json.dumps(dict(config), sort_keys=True, allow_nan=False),
        ]


def _compilers(folder: Path | None) -> dict[str, str]:
    kept = {"TORCHINDUCTOR_CACHE_DIR": str(folder.resolve())} if folder else {}
    return {**kept, **{name: os.environ[name] for name in PASSED_ON if name in os.environ}}


def _probe(
    options: GpuOptions, visible: str | None, compiled: Path | None
) -> tuple[dict[str, str], ...]:
    """The cards that can be seen. Raises TaskError where there is none, or where what a training
    needs does not work on them: nothing falls back."""
    words = (
        f"--device={options.device}",
        f"--precision={options.precision}",
        f"--compile={options.compile}",
        *([f"--attention={options.attention}"] if options.attention else []),
    )
    return _probed(words, visible, compiled)


@cache
def _probed(
    words: tuple[str, ...], visible: str | None, compiled: Path | None
) -> tuple[dict[str, str], ...]:
    seen = {} if visible is None else {VISIBLE: visible}
    try:
        done = subprocess.run(  # noqa: S603 - our own trainer
            [sys.executable, "-m", "runner.gpu.train", "--probe", *words],
            cwd=ROOT,
            env=trial_environment({**_compilers(compiled), **seen}),
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TaskError(
            f"torch did not answer within {PROBE_SECONDS:g} s: is the card, or this machine, busy? "
            "Start it again"
        ) from None
    found = [line for line in done.stdout.splitlines() if line.startswith("probe: ")]
    if done.returncode != 0 or len(found) != 1:
        why = done.stderr.strip()[-1200:] or f"the probe ended with code {done.returncode}"
        raise TaskError(f"the task can't be run: {why}")
    return tuple(json.loads(found[0].removeprefix("probe: "))["cards"])


def _make(options: GpuOptions, places: Places) -> GpuTask:
    return GpuTask(options, places)


KIND = TaskKind(
    name=GpuTask.name,
    about="the 50M-parameter GPT benchmark on one CUDA card; val_bpb, lower is better",
    options=GpuOptions,
    make=_make,
)
