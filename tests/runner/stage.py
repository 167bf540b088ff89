"""A runner on a stage: the real search, link and loader before a fake platform over real HTTP."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from runner.control.hotload import Loader
from runner.control.platform_client import PlatformClient
from runner.control.platform_link import Link
from runner.loop.search import Plan, Search
from runner.storage.journal import Journal
from sandbox.backends.base import Backend
from sandbox.limits import Limits
from tests.runner.platformserver import FakePlatform
from tests.runner.surface import SurfaceTask, WalkPrior
from tests.runner.waiting import until

LIMITS = Limits(job_seconds=None, load_seconds=60, call_seconds=60)

TEMPLATE = """
from dataclasses import dataclass
from sandbox.mechanism import Candidate, Mechanism

{top}

class Made(Mechanism):
    name = "made"

    def __init__(self):
        self.calls = 0

    def propose(self, view, count):
        {propose}
        self.calls += 1
        return [Candidate(changes={{"DEPTH": 1 + self.calls % 11}}, reason=f"call {{self.calls}}")]

    def accept(self, trial, view):
        {accept}
        return super().accept(trial, view)

    def state(self):
        return {{"calls": self.calls}}

    def restore(self, state):
        self.calls = state["calls"]
"""


def made(top: str = "", propose: str = "pass", accept: str = "pass") -> bytes:
    return TEMPLATE.format(top=top, propose=propose, accept=accept).encode()


HONEST = made()
OTHER = made(top="OTHER = 1")
DATACLASS = made(top="@dataclass\nclass Row:\n    value: int = 0\n")
BAD = {
    "import": (made(top="import no_such_module"), "IMPORT_FAILED"),
    "hangs": (made(top="while True: pass"), "TIMEOUT"),
    "hangs when asked": (made(propose="while True: pass"), "TIMEOUT"),
    "raises when asked": (made(propose="raise ValueError('no')"), "RAISED"),
    "nothing inside the space": (
        made(propose='return [Candidate(changes={"DEPTH": 99})]'),
        "could be trained",
    ),
}
FAILS_LATER = "if len(view.trace) > 2: raise ValueError('later')"


class Stage:
    """A run on a small platform; `at` says what the platform does when a trial is trained."""

    def __init__(self, fake: FakePlatform, folder: Path, backend: Callable[[], Backend]) -> None:
        self.fake = fake
        self.folder = folder
        self.backend = backend
        self.said: list[str] = []
        self.at: dict[int, Callable[[], Any]] = {}
        self.journal: Journal | None = None
        self.link: Link | None = None

    def run(self, trials: int) -> None:
        """Run to the end, with everything torn down afterwards."""
        stage = self

        class Task(SurfaceTask):
            def run(self, config: Any, *, seed: int, progress: Any = None) -> Any:
                assert stage.journal is not None
                stage.at.pop(stage.journal.count(), lambda: None)()
                return super().run(config, seed=seed, progress=progress)

        credentials = self.fake.credentials()
        task = Task()
        self.journal = Journal(self.folder)
        self.journal.identify(task=task.name, task_digest=task.digest, seed=5)
        client = PlatformClient(credentials, longest_pause=0.01)
        loader = Loader(
            self.backend, public_key=credentials.public_key, target="demo", limits=LIMITS
        )
        self.link = Link(
            client=client, journal=self.journal, loader=loader, say=self.told, beat_seconds=0.05
        )
        self.link.start()
        try:
            Search(
                journal=self.journal,
                task=task,
                prior=WalkPrior(),
                control=self.link,
                plan=Plan(trials=trials),
                say=self.told,
            ).run()
        finally:
            self.link.finish("finished")
            self.journal.close()
            client.close()

    def told(self, text: str) -> None:
        self.said.append(text)

    def chosen_by(self) -> dict[int, str]:
        """Trial -> digest, as the platform was told."""
        return {n: t.digest for n, t in sorted(self.fake.trials.items()) if n}


def none_left() -> bool:
    """Whether no sandbox container of this process is left. The last ones may be closed in the
    background, and the runner does not wait for them for long: this does."""
    until(lambda: not leftovers())
    return True


def leftovers() -> list[str]:
    """Sandbox containers of this process, now."""
    from sandbox.reaper import LABEL_OWNER, me

    shown = subprocess.run(
        ["docker", "ps", "-aq", "--filter", f"label={LABEL_OWNER}={me()}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return shown.stdout.split()
