"""What the loop and the platform cost a trial, and what a hot swap costs beside a restart.

    .venv/bin/python benchmarks/loop.py [--trials 60] [--swaps 100] [--late 20] [--restarts 8]
        [--sandbox bubblewrap|docker] [--out FILE]

A real installation is started in a temporary folder: web server, database, mechanisms repository,
audit log, and a runner with its mechanism in a sandbox worker. Timed is the *gap*: from the moment
at which a training has given its metric to the moment at which the next one begins. A bare loop has
a gap too (it starts the next `train.py`); the difference is what the loop costs. Processor time is
counted beside it: of the runner (without the start of trainings), of the web server, and on
bubblewrap of the sandbox worker.

An order to swap comes either as a training begins, so that there is time to make the next mechanism
ready, or in the last moment of one, so that there is none.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

from loops import WARM_UP, Clock, Trainer, alone, bare, linked, nothing  # noqa: E402

from runner.tasks.base import host_facts  # noqa: E402
from scripts.chaos_loop_crew import Crew, rows  # noqa: E402
from scripts.chaos_loop_trouble import order_seed  # noqa: E402

SHORT_SECONDS = 0.05  # a training that nothing happens in
RESTART_SECONDS = 300.0

# --- overhead ---


def overhead(
    crew: Crew, folder: Path, *, trials: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Gaps and processor time of the three loops, in turns, without the first trainings."""
    gaps: dict[str, list[float]] = {}
    cpu: dict[str, list[dict[str, float]]] = {}
    for number in range(rounds):
        say(f"overhead, round {number + 1} of {rounds}")
        local, remote = Trainer(lambda _: seconds), Trainer(lambda _: seconds)
        # Two trainings of the baseline, then the trials.
        clocks = [Clock(local, trials + 2), Clock(remote, trials + 2, crew.processes["web"].pid)]
        local.at, remote.at = clocks[0].at, clocks[1].at
        alone(folder / f"alone-{number}", local, trials)
        linked(folder / f"linked-{number}", crew, remote, trials)
        plain, clock = bare(local.configs, seconds)
        loops = {
            "bare": (plain, clock),
            "loop": (local, clocks[0]),
            "loop_and_platform": (remote, clocks[1]),
        }
        for name, (trainer, clock) in loops.items():
            gaps.setdefault(name, []).extend(trainer.gaps()[WARM_UP:])
            cpu.setdefault(name, []).append(clock.milliseconds_a_trial())
    shown = {name: summary(found) for name, found in gaps.items()}
    base = shown["bare"]["median_ms"]
    return {
        "trials_a_loop": trials * rounds,
        "seconds_a_training": seconds,
        "gaps": shown,
        "loop_over_bare_ms": round(shown["loop"]["median_ms"] - base, 2),
        "loop_and_platform_over_bare_ms": round(shown["loop_and_platform"]["median_ms"] - base, 2),
        "cpu_ms_a_trial": {
            name: {part: round(statistics.fmean(f[part] for f in found), 2) for part in found[0]}
            for name, found in cpu.items()
        },
        "load_after": os.getloadavg()[0],
    }


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median and the upper end, in milliseconds; of nothing, nothing."""
    ordered = sorted(seconds)
    if not ordered:
        return {"n": 0}
    return {
        "n": len(ordered),
        "median_ms": round(1000 * statistics.median(ordered), 2),
        "p95_ms": round(1000 * ordered[round(0.95 * (len(ordered) - 1))], 2),
        "worst_ms": round(1000 * ordered[-1], 2),
    }


# --- hot swap ---


def swapping(
    crew: Crew, folder: Path, swaps: int, *, ahead_seconds: float, name: str
) -> dict[str, Any]:
    """A swap at every second boundary, between two versions that were live. `ahead_seconds`: how
    long the training still takes after the order (0: the order comes as it ends)."""
    from proposals.models import Activation  # noqa: PLC0415 - after django.setup()

    ordered = {WARM_UP + 2 * n for n in range(swaps)}
    trials = 2 * swaps + WARM_UP

    def order(training: int) -> None:
        if training in ordered:
            other_version()

    trainer = Trainer(
        lambda n: ahead_seconds if n in ordered and ahead_seconds else SHORT_SECONDS,
        at=order if ahead_seconds else nothing,
        late=nothing if ahead_seconds else order,
    )
    said = linked(folder / name, crew, trainer, trials)
    loaded = [line for line in said if line.startswith("LIVE ")]
    database = folder / name / "journal.sqlite3"
    query = "SELECT number, digest, version, report FROM trials ORDER BY number"
    journal = rows(database, query)
    identity = json.loads(rows(database, "SELECT value FROM meta WHERE key = 'identity'")[0][0])
    digests = dict(Activation.objects.values_list("version", "digest"))
    gaps = trainer.gaps()
    return {
        "swaps": len(loaded) - 1,
        "versions_seen": len({row[2] for row in journal}) - 1,
        "training_after_the_order_seconds": ahead_seconds,
        "pause": summary([gap for n, gap in enumerate(gaps, 1) if n in ordered]),
        "pause_without_swap": summary(
            [gap for n, gap in enumerate(gaps, 1) if n not in ordered and n > WARM_UP]
        ),
        "trials": trials,
        "trials_in_the_journal_once": [r[0] for r in journal] == list(range(trials + 1)),
        "platform_has_the_same": [r[:3] for r in journal] == theirs(crew, identity["run_id"]),
        "every_trial_names_the_bytes_of_its_version": all(
            digests[version] == digest for _, digest, version, _ in journal if version
        ),
        "load_after": os.getloadavg()[0],
    }


def theirs(crew: Crew, run_id: str) -> list[tuple[Any, ...]]:
    """What the platform has of a run."""
    found = rows(
        crew.folder / "var" / "db.sqlite3",
        "SELECT t.number, t.digest, t.version, r.run_id FROM runs_trial t "
        "JOIN runs_run r ON r.id = t.run_id ORDER BY t.number",
    )
    return [row[:3] for row in found if row[3].replace("-", "") == run_id.replace("-", "")]


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
    from runs.models import Target  # noqa: PLC0415 - after django.setup()

    linked(folder / "null", crew, Trainer(lambda _: 0.0), 2)
    order_seed(Target.objects.get(name="lab"), "tabu", reason="benchmark")
    linked(folder / "tabu", crew, Trainer(lambda _: 0.0), 2)


# --- restart ---


def restarting(crew: Crew, times: int) -> dict[str, Any]:
    """From SIGTERM to a real runner until the next training begins in a new one."""
    log, pauses = crew.folder / "trainings.log", []

    def begun() -> int:
        return log.read_text().count("begin") if log.exists() else 0

    def reach(trainings: int) -> None:
        deadline = time.monotonic() + RESTART_SECONDS
        while begun() < trainings:
            if time.monotonic() > deadline:
                raise SystemExit(f"no training began in time: see {crew.folder}/*.log")
            time.sleep(0.005)

    crew.start("runner")
    for number in range(times):
        reach(begun() + 3)
        say(f"restart {number + 1} of {times}")
        began = time.perf_counter()
        crew.runner.terminate()
        crew.runner.wait(60)
        crew.start("runner")
        reach(begun() + 1)
        pauses.append(time.perf_counter() - began)
    crew.runner.terminate()
    crew.runner.wait(60)
    return {"restarts": times, "pause": summary(pauses)}


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def host() -> dict[str, Any]:
    """What measured it."""
    sandbox = os.environ["ESCAPEMENT_SANDBOX"]
    return {**host_facts(), "load": os.getloadavg()[0], "sandbox": sandbox}


def measured(crew: Crew, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All of it, one after the other."""
    crew.serve()
    found: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": host(),
        "overhead": overhead(
            crew,
            folder,
            trials=options.trials,
            rounds=options.rounds,
            seconds=options.train_seconds,
        ),
    }
    two_versions(crew, folder)
    say(f"{options.swaps} swaps, ordered {options.ahead_seconds} s before a boundary")
    found["swap"] = swapping(
        crew, folder, options.swaps, ahead_seconds=options.ahead_seconds, name="swaps"
    )
    say(f"{options.late} swaps, ordered as a training ends")
    found["late_swap"] = swapping(crew, folder, options.late, ahead_seconds=0.0, name="late")
    found["restart"] = restarting(crew, options.restarts)
    restart = found["restart"]["pause"]["median_ms"]
    for kind in ("swap", "late_swap"):
        pause = found[kind]["pause"]["median_ms"]
        found[f"restart_over_{kind}"] = round(restart / pause, 2)
    return found


def main() -> int:
    """Measure, print, and say whether a trial was lost."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-seconds", type=float, default=0.25, help="of one training")
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--ahead-seconds", type=float, default=4.0)
    parser.add_argument("--late", type=int, default=20, help="swaps ordered in the last moment")
    parser.add_argument("--restarts", type=int, default=8)
    parser.add_argument("--sandbox", default="bubblewrap", choices=("bubblewrap", "docker"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    os.environ["ESCAPEMENT_SANDBOX"] = options.sandbox
    with tempfile.TemporaryDirectory(prefix="escapement-bench-") as temporary:
        folder = Path(temporary)
        crew = Crew(folder=folder, trials=100_000, parallel=1)
        crew.set_up()
        os.environ.update(crew.environment())
        import django  # noqa: PLC0415 - its settings are those of the folder

        django.setup()
        try:
            found = measured(crew, folder, options)
        finally:
            crew.stop()
    text = json.dumps(found, indent=1)
    sys.stdout.write(text + "\n")
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    kept = ("trials_in_the_journal_once", "platform_has_the_same")
    return 0 if all(found[kind][name] for name in kept for kind in ("swap", "late_swap")) else 1


if __name__ == "__main__":
    raise SystemExit(main())
