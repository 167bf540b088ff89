"""What the loop and the platform cost a trial, and what a hot swap costs beside a restart.

    .venv/bin/python benchmarks/loop.py [--trials 60] [--swaps 100] [--restarts 8] [--out FILE]

A real installation is started in a temporary folder: web server, database, mechanisms repository,
audit log, and a runner with its mechanism in a sandbox worker. Timed is the *gap*: from the moment
at which a training has given its metric to the moment at which the next one begins. A bare loop has
a gap too (it starts the next `train.py`); the difference is what the loop costs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

from runner.borders import Outcome  # noqa: E402
from runner.hotload import Loader  # noqa: E402
from runner.journal import Journal  # noqa: E402
from runner.link import Link  # noqa: E402
from runner.local import Local  # noqa: E402
from runner.measurements import Measurements, Rules  # noqa: E402
from runner.platform_client import Credentials, PlatformClient  # noqa: E402
from runner.search import Plan, Search  # noqa: E402
from runner.strategy import HabitPrior  # noqa: E402
from sandbox.backends import Backend, get_backend  # noqa: E402
from sandbox.mechanism import Config, Knob, Space  # noqa: E402
from scripts.chaos_loop import Crew, answers, rows  # noqa: E402

TRAIN = """
import math, sys
rate, depth = float(sys.argv[1]), int(sys.argv[2])
print("val_bpb:", 3 + math.log10(rate / 0.02) ** 2 + 0.05 * (depth - 6) ** 2)
"""
RULES = Rules(keep_sigma=0.0, confirmations=0)  # the same trainings in every loop: one a trial
Gaps = list[float]


class Trainer:
    """A `train.py` in a subprocess of its own; keeps when each training began and ended."""

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

    def __init__(self, *, at: Callable[[int], None] = lambda _: None) -> None:
        self.at = at
        self.began: list[float] = []
        self.ended: list[float] = []
        self.configs: list[Config] = []

    def host(self) -> dict[str, Any]:
        """Nothing to print beside a number."""
        return {"cpu": platform.machine()}

    def run(self, config: Config, *, seed: int, progress: Any = None) -> Outcome:
        """One training."""
        self.began.append(time.perf_counter())
        self.configs.append(dict(config))
        self.at(len(self.began))
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", TRAIN, str(config["RATE"]), str(config["DEPTH"])],
            capture_output=True,
            text=True,
            check=True,
        )
        self.ended.append(time.perf_counter())
        return Outcome(metric=float(done.stdout.split()[1]))

    def gaps(self) -> Gaps:
        """Seconds between the end of each training and the beginning of the next, in order."""
        return [b - e for e, b in zip(self.ended, self.began[1:], strict=False)]


def bare(configs: Sequence[Config]) -> Gaps:
    """The same trainings, one after the other, and nothing else."""
    trainer = Trainer()
    for config in configs:
        trainer.run(config, seed=0)
    return trainer.gaps()


def searched(journal: Journal, trainer: Trainer, control: Any, trials: int) -> None:
    Search(
        journal=journal,
        task=trainer,
        prior=HabitPrior(),
        control=control,
        plan=Plan(trials=trials, baseline_repeats=2, final_repeats=0),
        say=lambda _: None,
    ).run()


def sandbox() -> Backend:
    """The engine that `--sandbox` names."""
    return get_backend(os.environ["BENCH_SANDBOX"])


def opened(folder: Path) -> Journal:
    journal = Journal(folder)
    journal.identify(task=Trainer.name, task_digest=Trainer.digest, seed=1)
    Measurements(journal).settle(defaults=RULES, wanted={})
    return journal


def alone(folder: Path, trials: int) -> Trainer:
    """The loop without a platform; the null mechanism in this process."""
    trainer, journal = Trainer(), opened(folder)
    searched(journal, trainer, Local(journal), trials)
    journal.close()
    return trainer


def linked(
    folder: Path, crew: Crew, trials: int, at: Callable[[int], None] = lambda _: None
) -> tuple[Trainer, list[str]]:
    """The loop with the platform, its mechanism in a sandbox worker; what it said."""
    credentials = Credentials.read(crew.key)
    client = PlatformClient(credentials)
    said: list[str] = []
    loader = Loader(sandbox, public_key=credentials.public_key, target=credentials.target)
    trainer, journal = Trainer(at=at), opened(folder)
    link = Link(client=client, journal=journal, loader=loader, say=said.append)
    link.start()
    try:
        searched(journal, trainer, link, trials)
    finally:
        link.finish("finished")
        journal.close()
        client.close()
    return trainer, said


# --- overhead ---


def overhead(crew: Crew, folder: Path, trials: int, rounds: int) -> dict[str, Any]:
    """Gaps of the three loops, in turns. The first trials are left out: they load the mechanism."""
    found: dict[str, Gaps] = {"bare": [], "loop": [], "loop_and_platform": []}
    for number in range(rounds):
        say(f"overhead, round {number + 1} of {rounds}")
        local = alone(folder / f"alone-{number}", trials)
        remote, _ = linked(folder / f"linked-{number}", crew, trials)
        found["bare"] += bare(local.configs)[3:]
        found["loop"] += local.gaps()[3:]
        found["loop_and_platform"] += remote.gaps()[3:]
    shown = {name: summary(gaps) for name, gaps in found.items()}
    base = shown["bare"]["median_ms"]
    return {
        "gaps": shown,
        "loop_over_bare_ms": round(shown["loop"]["median_ms"] - base, 2),
        "loop_and_platform_over_bare_ms": round(shown["loop_and_platform"]["median_ms"] - base, 2),
        "trials_a_loop": trials * rounds,
    }


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median and the upper end, in milliseconds."""
    ordered = sorted(seconds)
    return {
        "n": len(ordered),
        "median_ms": round(1000 * statistics.median(ordered), 2),
        "p95_ms": round(1000 * ordered[int(0.95 * (len(ordered) - 1))], 2),
    }


# --- hot swap ---


def swapping(crew: Crew, folder: Path, swaps: int) -> dict[str, Any]:
    """A swap at every second trial, between two versions that were live."""
    from proposals.models import Activation  # noqa: PLC0415 - after django.setup()

    wanted = iter(range(swaps))

    def at(training: int) -> None:
        if training % 2 == 1 and training > 3 and next(wanted, None) is not None:
            other_version()

    trials = 2 * swaps + 4
    trainer, said = linked(folder / "swaps", crew, trials, at)
    loaded = [float(m[1]) for line in said if (m := re.search(r"^LIVE .* in ([\d.]+) s", line))]
    gaps = trainer.gaps()
    journal = rows(
        folder / "swaps" / "journal.sqlite3",
        "SELECT number, digest, version, report FROM trials ORDER BY number",
    )
    run = json.loads(
        rows(folder / "swaps" / "journal.sqlite3", "SELECT value FROM meta WHERE key = 'identity'")[
            0
        ][0]
    )["run_id"].replace("-", "")
    database = crew.folder / "var" / "db.sqlite3"
    theirs = rows(
        database,
        "SELECT t.number, t.digest, t.version, r.run_id FROM runs_trial t "
        "JOIN runs_run r ON r.id = t.run_id ORDER BY t.number",
    )
    theirs = [row[:3] for row in theirs if row[3].replace("-", "") == run]
    digests = dict(Activation.objects.values_list("version", "digest"))
    pauses = sorted(gaps, reverse=True)[: len(loaded) - 1]
    quiet = sorted(gaps)[: len(gaps) - len(loaded)]
    return {
        "swaps": len(loaded) - 1,
        "versions_seen": len({row[2] for row in journal}) - 1,
        "pause": summary(pauses),
        "pause_without_swap": summary(quiet),
        "trials": trials,
        "trials_in_the_journal_once": [r[0] for r in journal] == list(range(trials + 1)),
        "platform_has_the_same": [r[:3] for r in journal] == theirs,
        "every_trial_names_the_bytes_of_its_version": all(
            digests[version] == digest for _, digest, version, _ in journal if version
        ),
    }  # fmt: skip


def other_version() -> None:
    """Ask for the version before this one, as a rollback does."""
    from audit.actors import SYSTEM  # noqa: PLC0415
    from proposals.lifecycle import roll_back  # noqa: PLC0415
    from runs.models import Target  # noqa: PLC0415

    target = Target.objects.get(name="lab")
    lived = target.activations.filter(live_at__isnull=False)
    earlier = lived.exclude(digest=target.desired_digest).order_by("-version").first()
    if earlier is None:
        raise SystemExit("only one version was ever live")
    roll_back(target_id=target.pk, activation_id=earlier.pk, actor=SYSTEM, reason="benchmark")


def two_versions(crew: Crew, folder: Path) -> None:
    """Have `tabu`, beside the null mechanism, live once, so that there is something to go back to.

    It is an operator of the seed library: approved by being there.
    """
    from audit.actors import SYSTEM  # noqa: PLC0415
    from proposals import branches  # noqa: PLC0415
    from proposals.activations import request  # noqa: PLC0415
    from proposals.acts import act, locked_target  # noqa: PLC0415
    from proposals.models import Activation  # noqa: PLC0415
    from runs.models import Target  # noqa: PLC0415

    from sandbox.report import digest_of  # noqa: PLC0415

    linked(folder / "null", crew, 2)
    repository = branches.living()
    commit = repository.head()
    operator = repository.library(commit)["tabu"]
    target = Target.objects.get(name="lab")
    with act(actor=SYSTEM, tried="seed", subject="target:lab", target="lab") as ledger:
        request(
            ledger,
            target=locked_target(target.pk),
            kind=Activation.Kind.SEED,
            mechanism="tabu",
            path=operator.path,
            commit=commit,
            digest=digest_of(operator.source),
            actor=SYSTEM,
            reason="benchmark",
        )
    linked(folder / "tabu", crew, 2)


# --- restart ---


def restarting(crew: Crew, times: int) -> dict[str, Any]:
    """From SIGTERM to a real runner until the next training begins in a new one."""
    log, pauses = crew.folder / "trainings.log", []

    def begun() -> int:
        return log.read_text().count("begin") if log.exists() else 0

    crew.start("runner")
    for number in range(times):
        before = begun()
        while begun() < before + 3:
            time.sleep(0.005)
        say(f"restart {number + 1} of {times}")
        process, seen, began = crew.processes["runner"], begun(), time.perf_counter()
        process.terminate()
        process.wait(60)
        crew.start("runner")
        seen = max(seen, begun())
        while begun() == seen:
            time.sleep(0.005)
        pauses.append(time.perf_counter() - began)
    crew.processes["runner"].terminate()
    crew.processes["runner"].wait(60)
    return {"restarts": times, "pause": summary(pauses)}


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def host() -> dict[str, Any]:
    """What measured it."""
    info = Path("/proc/cpuinfo").read_text()
    cpu = re.search(r"model name\s*: (.*)", info)
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": platform.platform(),
        "sandbox": sandbox().name,
    }


def main() -> int:
    """Measure, print, and say whether the aims were met."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--restarts", type=int, default=8)
    parser.add_argument("--sandbox", default="docker", choices=("docker", "bubblewrap"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["BENCH_SANDBOX"] = options.sandbox
    with tempfile.TemporaryDirectory(prefix="escapement-bench-") as temporary:
        folder = Path(temporary)
        crew = Crew(folder=folder, trials=100_000, parallel=1)
        crew.set_up()
        os.environ.update(crew.environment())
        import django  # noqa: PLC0415 - its settings are those of the folder

        django.setup()
        try:
            crew.start("web")
            while not answers(crew.url):
                time.sleep(0.1)
            found: dict[str, Any] = {
                "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
                "host": host(),
                "overhead": overhead(crew, folder, options.trials, options.rounds),
            }
            two_versions(crew, folder)
            say(f"{options.swaps} swaps")
            found["swap"] = swapping(crew, folder, options.swaps)
            found["restart"] = restarting(crew, options.restarts)
        finally:
            crew.stop()
    swap, restart = found["swap"], found["restart"]
    found["restart_over_swap"] = round(
        restart["pause"]["median_ms"] / swap["pause"]["median_ms"], 2
    )
    text = json.dumps(found, indent=1)
    sys.stdout.write(text + "\n")
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    kept = ("trials_in_the_journal_once", "platform_has_the_same")
    return 0 if all(swap[name] for name in kept) else 1


if __name__ == "__main__":
    raise SystemExit(main())
