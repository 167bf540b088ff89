"""The loops that `loop.py` compares: a bare one, the runner alone, the runner with a platform; a
`train.py` that costs next to nothing; and the clocks.

Wall time says what somebody waits for and depends on what else the machine does; processor seconds
do so far less. Nothing is judged here.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runner.control.hotload import Loader
from runner.control.local import Local
from runner.control.platform_client import Credentials, PlatformClient
from runner.control.platform_link import Link
from runner.interfaces import Outcome
from runner.levels.strategy import HabitPrior
from runner.loop.measurements import Measurements, Rules
from runner.loop.search import Plan, Search
from runner.storage.journal import Journal
from sandbox.backends import get_backend
from sandbox.mechanism import Config, Knob, Space
from scripts.chaos_loop_crew import Crew, children

TRAIN = """
import math, sys, time
rate, depth = float(sys.argv[1]), int(sys.argv[2])
time.sleep(float(sys.argv[3]))
print("val_bpb:", 3 + math.log10(rate / 0.02) ** 2 + 0.05 * (depth - 6) ** 2)
"""
RULES = Rules(keep_sigma=0.0, confirmations=0)  # the same trainings in every loop: one a trial
TICK = os.sysconf("SC_CLK_TCK")
WARM_UP = 4  # trainings that are left out: the mechanism is loaded there
Gaps = list[float]
At = Callable[[int], None]


def nothing(_number: int) -> None:
    """What happens at a training, where nothing does."""


class Trainer:
    """A `train.py` in a subprocess of its own; keeps when each training began and ended.

    `seconds`: how long training N sleeps. `at` is called as it begins, `late` just before it ends.
    """

    name = "bench"
    metric = "val_bpb"
    minimize = True
    description = "A script that costs next to nothing, to see what is around it."
    digest = "b" * 64
    space = Space(
        {
            "RATE": Knob(kind="float", default=1.0, low=0.001, high=10.0, log=True),
            "DEPTH": Knob(kind="int", default=4, low=1, high=12),
            # Without effect; so few knobs that all of them are tabu would be no search.
            **{f"K{i}": Knob(kind="float", default=0.5, low=0.0, high=1.0) for i in range(10)},
        }
    )

    def __init__(
        self, seconds: Callable[[int], float], *, at: At = nothing, late: At = nothing
    ) -> None:
        self.seconds, self.at, self.late = seconds, at, late
        self.began: list[float] = []
        self.ended: list[float] = []
        self.configs: list[Config] = []
        self.own_cpu = 0.0  # of starting trainings, which every loop has to do

    def host(self) -> dict[str, Any]:
        """Nothing to print beside a number."""
        return {"cpu": platform.machine()}

    def run(self, config: Config, *, seed: int, progress: Any = None) -> Outcome:
        """One training."""
        self.began.append(time.perf_counter())
        self.configs.append(dict(config))
        number, began = len(self.began), time.thread_time()
        self.at(number)
        words = [str(config["RATE"]), str(config["DEPTH"]), str(self.seconds(number))]
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", TRAIN, *words],
            capture_output=True,
            text=True,
            check=True,
        )
        self.late(number)
        self.own_cpu += time.thread_time() - began
        self.ended.append(time.perf_counter())
        return Outcome(metric=float(done.stdout.split()[1]))

    def gaps(self) -> Gaps:
        """Seconds between the end of each training and the beginning of the next, in order."""
        return [b - e for e, b in zip(self.ended, self.began[1:], strict=False)]


def family(pid: int) -> float:
    """Processor seconds of the living descendants of a process and of what they waited for."""
    return sum(of_process(child, waited=True) + family(child) for child in children(pid))


def of_process(pid: int, *, waited: bool = False) -> float:
    """Processor seconds of one process; with `waited`, of its dead children too."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return 0.0
    return sum(int(f) for f in fields[11 : 15 if waited else 13]) / TICK


class Clock:
    """Processor seconds of one loop's parts, from training WARM_UP to training `last`."""

    def __init__(self, trainer: Trainer, last: int, web: int = 0) -> None:
        self.trainer, self.last, self.web = trainer, last, web
        self.marks: list[dict[str, float]] = []

    def at(self, number: int) -> None:
        """Look, where it is time."""
        if number in {WARM_UP, self.last}:
            self.marks.append(self._look())

    def _look(self) -> dict[str, float]:
        seen = {"runner": time.process_time() - self.trainer.own_cpu}
        if self.web:
            seen["platform"] = of_process(self.web) + family(self.web)
            if os.environ["ESCAPEMENT_SANDBOX"] == "bubblewrap":  # Docker's are no children of ours
                seen["worker"] = family(os.getpid()) - of_process(self.web) - family(self.web)
        return seen

    def milliseconds_a_trial(self) -> dict[str, float]:
        """By part."""
        first, last = self.marks
        trials = self.last - WARM_UP
        return {name: round(1000 * (last[name] - first[name]) / trials, 2) for name in first}


def bare(configs: Sequence[Config], seconds: float) -> tuple[Trainer, Clock]:
    """The same trainings, one after the other, and nothing else."""
    trainer = Trainer(lambda _: seconds)
    clock = Clock(trainer, len(configs))
    trainer.at = clock.at
    for config in configs:
        trainer.run(config, seed=0)
    return trainer, clock


def searched(journal: Journal, trainer: Trainer, control: Any, trials: int) -> None:
    """One run."""
    Search(
        journal=journal,
        task=trainer,
        prior=HabitPrior(),
        control=control,
        plan=Plan(trials=trials, baseline_repeats=2, final_repeats=0),
        say=lambda _: None,
    ).run()


def opened(folder: Path) -> Journal:
    """A new run's journal."""
    journal = Journal(folder)
    journal.identify(task=Trainer.name, task_digest=Trainer.digest, seed=1)
    Measurements(journal).settle(defaults=RULES, wanted={})
    return journal


def alone(folder: Path, trainer: Trainer, trials: int) -> None:
    """The loop without a platform; the null mechanism in this process."""
    journal = opened(folder)
    searched(journal, trainer, Local(journal), trials)
    journal.close()


def linked(folder: Path, crew: Crew, trainer: Trainer, trials: int) -> list[str]:
    """The loop with the platform, its mechanism in a sandbox worker; what it said."""
    credentials = Credentials.read(crew.key)
    client = PlatformClient(credentials)
    said: list[str] = []
    loader = Loader(get_backend, public_key=credentials.public_key, target=credentials.target)
    journal = opened(folder)
    link = Link(client=client, journal=journal, loader=loader, say=said.append)
    link.start()
    try:
        searched(journal, trainer, link, trials)
    finally:
        link.finish("finished")
        journal.close()
        client.close()
    return said
