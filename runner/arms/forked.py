"""The gpt task with forked trainings: the same trainer, text and budget, without loading torch for
each training. For ablations, which need thousands of short ones.

One server process (`runner.gpt.forking`) trains one after the other. If it dies it is started anew;
twice in a row is an infrastructure failure of the training.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import IO, Any, cast

from runner.gpt.corpus import CorpusError
from runner.gpt.forking import WALL_EXTRA_SECONDS, WALL_FACTOR
from runner.interfaces import Outcome
from runner.tasks.base import ROOT, constraint_outcome, digest_over, trial_environment
from runner.tasks.gpt import GptTask
from sandbox.mechanism import Config

START_SECONDS = 300.0
SLACK_SECONDS = 30.0
LINE_BYTES = 64 * 1024


class ForkedGpt:
    """`interfaces.Task`: a GptTask, trained by a server that forks. `close` ends the server."""

    name = GptTask.name

    def __init__(self, task: GptTask) -> None:
        self.metric, self.minimize, self.space = task.metric, task.minimize, task.space
        self.description = task.description
        self._task = task
        self._server: subprocess.Popen[str] | None = None

    @property
    def digest(self) -> str:
        """The task's, and that its trainings are forked."""
        return digest_over({"task": self._task.digest, "forked": True})

    def host(self) -> dict[str, Any]:
        """Facts to print beside a number."""
        return {**self._task.host(), "trainings": "forked from one process"}

    def run(
        self, config: Config, *, seed: int, progress: Callable[[str], None] | None = None
    ) -> Outcome:
        """One training. Never raises for what it did."""
        if (refused := constraint_outcome(self.space, config)) is not None:
            return refused
        request = json.dumps({"config": dict(config), "seed": seed})
        why = ""
        for _ in range(2):
            try:
                answer = self._ask(request)
            except (OSError, ValueError, CorpusError) as error:
                why = f"the training server failed: {error}"
                self.close()
                continue
            return Outcome(
                metric=answer["metric"],
                failure=answer["failure"],
                message=answer["message"],
                seconds=answer["seconds"],
                details={"num_steps": answer["steps"]},
            )
        return Outcome(metric=None, failure="infrastructure", message=why)

    def close(self) -> None:
        """End the server; it ends by itself with this process, whose pipe it reads."""
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
            self._server = None

    def _ask(self, request: str) -> dict[str, Any]:
        if self._server is None:
            self._server = self._start()
        writing = cast("IO[str]", self._server.stdin)
        writing.write(request + "\n")
        writing.flush()
        budget = self._task.budget_seconds
        return self._line(budget * WALL_FACTOR + WALL_EXTRA_SECONDS + SLACK_SECONDS)

    def _start(self) -> subprocess.Popen[str]:
        task, corpus = self._task, self._task.corpus
        self._server = subprocess.Popen(  # noqa: S603 - our own trainer
            [
                sys.executable,
                "-m",
                "runner.gpt.forking",
                f"--budget-seconds={task.budget_seconds}",
                f"--memory-mb={task.memory_mb}",
                f"--threads={task.threads}",
                f"--corpus={corpus.path.resolve()}:{corpus.digest}:{corpus.train_bytes}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=trial_environment(
                {"OMP_NUM_THREADS": str(task.threads), "MKL_NUM_THREADS": str(task.threads)}
            ),
        )
        self._line(START_SECONDS)
        return self._server

    def _line(self, seconds: float) -> dict[str, Any]:
        """The server's next line. Raises OSError or ValueError where there is none in time."""
        server = self._server
        assert server is not None  # noqa: S101 - started
        reading = cast("IO[str]", server.stdout)
        end = time.monotonic() + seconds
        ready, _, _ = select.select([reading], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise OSError(f"no answer in {seconds:.0f} s")
        line = reading.readline(LINE_BYTES)
        if not line:
            raise OSError("it ended")
        return dict(json.loads(line))
