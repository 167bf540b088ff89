"""The gpt task: train our small GPT on the standard library's source, measure bits per byte.

It prepares the text, starts `python -m runner.gpt.train` for each trial, and knows what makes two
metrics comparable. Torch is not imported here: only the trial's own process has it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import Field

from runner.gpt.corpus import Corpus, CorpusError, prepare
from runner.gpt.space import SEQUENCE_LENGTH, SPACE
from runner.interfaces import Outcome
from runner.tasks.base import (
    ROOT,
    Deadline,
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
    ROOT / "runner/gpt" / f"{name}.py" for name in ("train", "fused", "options", "corpus", "space")
)


class GptTask:
    """Bits per byte of a small GPT after `budget_seconds` of processor time (lower is better)."""

    name = "gpt"
    metric = "val_bpb"
    minimize = True
    space = SPACE

    def __init__(
        self,
        *,
        budget_seconds: float,
        cache: Path,
        threads: int = 1,
        memory_mb: int = 4096,
        deadline: Deadline | None = None,
    ) -> None:
        if not 0.1 <= budget_seconds <= 86_400:
            raise TaskError(f"a budget of {budget_seconds} s: give 0.1 s to a day")
        if not 1 <= threads <= 256:
            raise TaskError(f"{threads} threads: give 1 to 256")
        self.budget_seconds = budget_seconds
        self.threads = threads
        self.memory_mb = memory_mb
        self.deadline = deadline or Deadline(budget_seconds=budget_seconds)
        self._cache = cache
        self.description = (
            f"Train a small GPT (bytes, context {SEQUENCE_LENGTH}) on the Python standard "
            f"library's source for {budget_seconds:g} s of processor time on {threads} thread(s); "
            "measure bits per byte on held-out files (lower is better)."
        )

    @cached_property
    def corpus(self) -> Corpus:
        """The text; collected and cached at first use."""
        return prepare(self._cache)

    @cached_property
    def digest(self) -> str:
        """Trainer and evaluator (one file), text, budget, threads and memory."""
        return digest_over(
            {
                "task": self.name,
                "trainer": digest_of_files(TRAINER_FILES),
                "corpus": self.corpus.digest,
                "budget_seconds": f"{self.budget_seconds:g}",
                "threads": self.threads,
                "memory_mb": self.memory_mb,
                "torch": version("torch"),
            }
        )

    def host(self) -> dict[str, Any]:
        """Facts to print beside a number."""
        return {
            **host_facts(),
            "torch": version("torch"),
            "threads": self.threads,
            "budget_seconds": self.budget_seconds,
            "budget_clock": "processor seconds",
            "corpus_digest": self.corpus.digest,
            "corpus_bytes": self.corpus.total_bytes,
            "corpus_files": self.corpus.files,
        }

    def run(
        self, config: Config, *, seed: int, progress: Callable[[str], None] | None = None
    ) -> Outcome:
        """One trial in its own process. A configuration outside the space costs nothing."""
        if (refused := constraint_outcome(self.space, config)) is not None:
            return refused
        try:
            command = self._command(config, seed)
        except CorpusError as error:
            return Outcome(metric=None, failure="infrastructure", message=str(error))
        return measure(
            command,
            metric=self.metric,
            deadline_seconds=self.deadline.seconds,
            env=trial_environment(
                {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
            ),
            progress=progress,
        )

    def _command(self, config: Config, seed: int) -> list[str]:
        corpus = self.corpus
        return [
            sys.executable,
            "-m",
            "runner.gpt.train",
            f"--budget-seconds={self.budget_seconds}",
            f"--threads={self.threads}",
            f"--memory-mb={self.memory_mb}",
            f"--seed={seed}",
            f"--corpus={corpus.path.resolve()}:{corpus.digest}:{corpus.train_bytes}",
            json.dumps(dict(config), sort_keys=True, allow_nan=False),
        ]


class GptOptions(TaskOptions):
    """What a person may choose about it."""

    budget_seconds: float = Field(
        default=3.0, ge=0.1, le=86_400, description="processor seconds of one training"
    )
    threads: int = Field(default=1, ge=1, le=256, description="threads of one training")
    memory_mb: int = Field(
        default=4096, ge=64, le=1_048_576, description="memory of one training in MiB"
    )


def _make(options: GptOptions, places: Places) -> GptTask:
    task = GptTask(
        budget_seconds=options.budget_seconds,
        cache=places.var / "corpus",
        threads=options.threads,
        memory_mb=options.memory_mb,
    )
    try:
        task.digest  # noqa: B018 - it needs all that a training needs
    except PackageNotFoundError:
        raise TaskError("torch is not installed: `pip install -e '.[runner]'`") from None
    except CorpusError as error:
        raise TaskError(str(error)) from None
    return task


KIND = TaskKind(
    name=GptTask.name,
    about="train a small GPT on the standard library's source; val_bpb, lower is better",
    options=GptOptions,
    make=_make,
)
