"""How long a mechanism waits for its verdict, next to the naive chain; and what it costs a search.

    .venv/bin/python benchmarks/gate.py [--rounds 15] [--queue 50] [--out FILE]

Everything is measured in one run, in turns, so that the ratios hold where the seconds do not.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import naive  # noqa: E402

from runner.tasks.base import host_facts  # noqa: E402
from sandbox import clearance  # noqa: E402
from sandbox.backends import Backend, get_backend  # noqa: E402
from sandbox.draft import lay_out  # noqa: E402
from sandbox.host import Limits, MechanismHost  # noqa: E402
from sandbox.mechanism import Candidate, View  # noqa: E402
from sandbox.pool import WarmBackend  # noqa: E402
from sandbox.report import Draft, Outcome  # noqa: E402
from sandbox.screen import screen  # noqa: E402
from sandbox.testing import make_trial, make_view  # noqa: E402

WORKERS = 2
READY_SECONDS = 120
QUEUE_SECONDS = 600  # for one verdict
TRIAL_SECONDS = (5, 300)
CALLS = 300
TRACE = 50
Job = tuple[Callable[[], None], Callable[[], object]]  # what is timed; what is waited for before


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


def draft_of(name: str) -> Draft:
    """A seed operator with its test."""
    paths = (f"mechanisms/{name}.py", f"tests/test_{name}.py")
    folder = ROOT / "mechanisms_repo"
    return lay_out({p: (folder / p).read_bytes() for p in paths}, require_test=True)


def summary(seconds: Sequence[float], unit: str = "s") -> dict[str, Any]:
    """Median and 95th percentile (nearest rank) of what was measured, in `s` or `ms`."""
    ordered = sorted(seconds)
    rank, scale = math.ceil(0.95 * len(ordered)) - 1, {"s": 1, "ms": 1000}[unit]
    return {
        "n": len(ordered),
        f"median_{unit}": round(scale * statistics.median(ordered), 3),
        f"p95_{unit}": round(scale * ordered[rank], 3),
    }


def timed(job: Callable[[], None]) -> float:
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def gate(draft: Draft, backend: Backend) -> Callable[[], None]:
    """The whole gate once; anything but a pass is an error of the benchmark."""

    def job() -> None:
        report = screen(draft, backend=backend)
        if report.outcome is not Outcome.PASSED:
            raise SystemExit(f"{draft.name}: {report.outcome}: {report.findings}")

    return job


def one_at_a_time(jobs: dict[str, Job], rounds: int) -> dict[str, Any]:
    """Each in turn, so that noise of the machine meets all alike; a first round does not count.
    All begin with nothing else under way: a pool that was used has been filled again."""
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, (job, ready) in jobs.items():
            ready()
            seconds = timed(job)
            if number:
                taken[name].append(seconds)
        say(
            f"round {number} of {rounds}: "
            + str({n: f"{t[-1]:.2f}" for n, t in taken.items() if t})
        )
    return {name: summary(seconds) for name, seconds in taken.items()}


def queued(way: str, operator: str, count: int, naive_run: tuple[str, str]) -> dict[str, Any]:
    """`count` submitted at once, and two workers, each a process as `manage.py work` is: submit to
    verdict, and verdicts a minute."""
    processes = multiprocessing.get_context("spawn")
    waiting, taken, ready = processes.Queue(), processes.Queue(), processes.Barrier(WORKERS + 1)
    arguments = (way, operator, naive_run, (waiting, taken), ready)
    workers = [processes.Process(target=work, args=arguments) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    ready.wait(READY_SECONDS)
    began = time.monotonic()
    for number in [*range(count), *[None] * WORKERS]:
        waiting.put(number)
    ends = [taken.get(timeout=QUEUE_SECONDS) for _ in range(count)]
    for worker in workers:
        worker.join(QUEUE_SECONDS)
        if worker.exitcode != 0:
            raise SystemExit(f"a worker of the queue ended with {worker.exitcode}")
    whole = max(ends) - began
    waits = summary([end - began for end in ends])
    return {**waits, "whole_s": round(whole, 1), "a_minute": round(60 * count / whole, 1)}


def work(
    way: str, operator: str, naive_run: tuple[str, str], queues: tuple[Any, Any], ready: Any
) -> None:
    """One worker of the queue: its own process, its own pool, until there is nothing left."""
    draft = draft_of(operator)
    waiting, taken = queues
    with contextlib.ExitStack() as stack:
        job: Callable[[], None]
        if way == "naive":
            job = functools.partial(naive.screen, draft, *naive_run)
        else:
            warm = stack.enter_context(WarmBackend(get_backend(way)))
            if not warm.wait_until_ready(READY_SECONDS):
                raise SystemExit("the pool does not fill")
            job = gate(draft, warm)
        ready.wait(READY_SECONDS)
        while waiting.get() is not None:
            job()
            taken.put(time.monotonic())


def runtime(draft: Draft, backend: Backend) -> dict[str, Any]:
    """What a mechanism beside a search costs: calls a second, and its share of a trial."""
    changes = [{"WEIGHT_DECAY": round(0.01 * n, 2)} for n in range(TRACE)]
    trace = [make_trial(0, 1.0, status="kept")]
    trace += [make_trial(n + 1, 1.1, changes=c) for n, c in enumerate(changes)]

    def prior(_: str, count: int) -> list[Candidate]:
        return [Candidate(changes={"WARMUP_STEPS": 20}, reason="")] * count

    view: View = make_view(trace=trace, prior=prior)
    short: View = make_view(trace=trace[:2], prior=prior)
    trial = make_trial(TRACE + 1, 1.2, changes={"WARMUP_STEPS": 20})
    with MechanismHost.start(
        backend, draft.source, name=draft.name, limits=Limits.production(), purpose="benchmark"
    ) as host:

        def whole_trial() -> None:
            host.propose(view, 1, seed=1)
            host.accept(trial, view, seed=1)
            host.observe(trial, view, seed=1)
            host.state()

        calls = summary([timed(lambda: host.propose(short, 1, seed=1)) for _ in range(CALLS)], "ms")
        trials = [timed(whole_trial) for _ in range(CALLS)]
    a_trial = statistics.median(trials)
    return {
        "propose_short_trace": calls,
        "calls_a_second": round(1000 / calls["median_ms"]),
        "whole_trial_long_trace": summary(trials, "ms"),
        "share_of_trial_percent": {
            f"{seconds} s": round(100 * a_trial / seconds, 4) for seconds in TRIAL_SECONDS
        },
    }


def measured_on() -> dict[str, Any]:
    """What the figures were taken on."""
    engine = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        capture_output=True,
        text=True,
        check=True,
    )
    bwrap = subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=True)
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {
        **host_facts(),
        "load_before": [round(x, 2) for x in os.getloadavg()],
        "docker": engine.stdout.strip(),
        "bubblewrap": bwrap.stdout.strip().split()[-1],
        "commit": commit.stdout.strip(),
    }


def ratios(figures: dict[str, Any]) -> dict[str, Any]:
    """Of each way of ours to the chain, with the same statistic on both sides."""
    chain = figures["naive"]
    return {
        name: {k: round(row[k] / chain[k], 3) for k in ("median_s", "p95_s")}
        for name, row in figures.items()
        if name != "naive"
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--queue", type=int, default=50, help="how many are submitted at once")
    parser.add_argument("--operator", default="tabu", help="a seed operator")
    parser.add_argument("--out", type=Path, help="where the JSON goes; else standard output")
    arguments = parser.parse_args()
    facts = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **measured_on()}
    draft, tag = draft_of(arguments.operator), naive.build_image(say)
    cold = {name: get_backend(name, progress=say) for name in ("docker", "bubblewrap")}
    for backend in cold.values():
        clearance.require(backend, say)
    with naive.advisories() as url:

        def chain() -> None:
            naive.screen(draft, tag, url)

        single: dict[str, Any] = {}
        lined: dict[str, Any] = {}
        with (
            WarmBackend(cold["docker"]) as warm_docker,
            WarmBackend(cold["bubblewrap"]) as warm_wrap,
        ):
            pools = {"docker, warm": warm_docker, "bubblewrap, warm": warm_wrap}

            def settle() -> None:
                for pool in pools.values():
                    if not pool.wait_until_ready(60):
                        raise SystemExit("the pool does not fill")

            ways = {**pools, **{f"{name}, cold": backend for name, backend in cold.items()}}
            jobs: dict[str, Job] = {"naive": (chain, settle)}
            jobs |= {name: (gate(draft, backend), settle) for name, backend in ways.items()}
            single = one_at_a_time(jobs, arguments.rounds)
        say(f"a queue of {arguments.queue}, two workers")
        for name in ("naive", *cold):
            key = name if name == "naive" else f"{name}, warm"
            lined[key] = queued(name, arguments.operator, arguments.queue, (tag, url))
            say(str(lined))
    found = {
        "host": facts,
        "operator": draft.name,
        "submit_to_verdict_one_at_a_time": single,
        "ratio_to_naive_one_at_a_time": ratios(single),
        f"submit_to_verdict_queue_of_{arguments.queue}": lined,
        f"ratio_to_naive_queue_of_{arguments.queue}": ratios(lined),
        "runtime": {name: runtime(draft, backend) for name, backend in cold.items()},
    }
    text = json.dumps(found, indent=1) + "\n"
    if arguments.out:
        arguments.out.write_text(text, encoding="ascii")
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
