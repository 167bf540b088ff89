"""Kills engines, workers and clients at random moments of screenings, and says how each one ended.

    sudo .venv/bin/python scripts/chaos [--times 50] [--seed 0] [--only KIND ...] [--out FILE]

Kills: the client, a sandbox worker, the engine, `manage.py work`; each on Docker (an engine of our
own, never the machine's) and, where there is no engine in it, on bubblewrap. Hangs: the engine.
Then once each: a full disk, a vanished image, a worker that is told to stop, two on one queue.
Exit 0 if every one ended in a right state, with nothing left. It needs root and takes a while.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

import looks  # noqa: E402
import work  # noqa: E402
from own_engine import OwnEngine  # noqa: E402

from sandbox import clearance  # noqa: E402
from sandbox.backends import NAMES, get_backend  # noqa: E402
from sandbox.report import Outcome  # noqa: E402
from sandbox.screen import screen  # noqa: E402

DOCKER = ("docker",)
# What is done at random, and on which backends.
RANDOM: dict[str, tuple[looks.Kind, tuple[str, ...]]] = {
    "client": (looks.kill_client, NAMES),
    "worker": (looks.kill_worker, NAMES),
    "engine": (looks.kill_engine, DOCKER),
    "hung": (looks.hang_engine, DOCKER),
    "work": (work.killed, NAMES),
}
ONCE: dict[str, tuple[looks.Kind, tuple[str, ...]]] = {
    "disk": (looks.full_disk, DOCKER),
    "image": (looks.vanished_image, DOCKER),
    "stop": (work.told_to_stop, NAMES),
    "two": (work.two, NAMES),
}


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run it; 1 if something ended in a wrong state or left something."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=50, help="how many random ones")
    parser.add_argument("--seed", type=int, default=0, help="what the random moments come from")
    parser.add_argument("--only", nargs="+", choices=[*RANDOM, *ONCE], default=[*RANDOM, *ONCE])
    parser.add_argument("--out", type=Path, help="where the results go as JSON")
    arguments = parser.parse_args()
    if os.geteuid():
        raise SystemExit("It starts an engine of its own: run it as root.")
    with tempfile.TemporaryDirectory(prefix="escapement-chaos-") as folder:
        own = OwnEngine(Path(folder))
        os.environ["DOCKER_HOST"] = own.address
        try:
            own.start()
            results = _all(own, arguments)
        finally:
            own.stop()
    if arguments.out:
        arguments.out.write_text(_told(arguments, results), encoding="utf-8")
    wrong = [r for r in results if r.wrong]
    say(f"{len(results)} troubles, {len(wrong)} ended wrong")
    return 1 if wrong else 0


def _all(own: OwnEngine, arguments: argparse.Namespace) -> list[looks.Result]:
    whole = {}
    for name in NAMES:
        backend = get_backend(name, progress=say)
        clearance.require(backend, say)
        began = time.monotonic()
        if screen(looks.tabu(), backend=backend).outcome is not Outcome.PASSED:
            raise SystemExit(f"without any trouble it does not pass on {name}")
        whole[name] = time.monotonic() - began
    chosen = [(kind, name) for kind in RANDOM if kind in arguments.only for name in RANDOM[kind][1]]
    cases = [(chosen[n % len(chosen)], RANDOM) for n in range(arguments.times) if chosen]
    cases += [
        ((kind, name), ONCE) for kind in ONCE if kind in arguments.only for name in ONCE[kind][1]
    ]
    results = []
    for number, ((kind, name), table) in enumerate(cases):
        chance = looks.Chance(
            own=own,
            name=name,
            random=random.Random(f"{arguments.seed} {number}"),  # noqa: S311 - no secret
            whole_seconds=whole[name],
        )
        result = table[kind][0](chance)
        results.append(result)
        bad = f"  WRONG: {result.wrong}" if result.wrong else ""
        say(f"{number}: {result.kind}: {result.what}: {result.ended} ({result.seconds} s){bad}")
    return results


def _told(arguments: argparse.Namespace, results: list[looks.Result]) -> str:
    kinds = Counter(r.kind for r in results)
    ends = Counter(f"{r.kind}: {r.ended.split(':')[0]}" for r in results)
    found = {
        "seed": arguments.seed,
        "troubles": len(results),
        "wrong": sum(bool(r.wrong) for r in results),
        "kinds": dict(sorted(kinds.items())),
        "ends": dict(sorted(ends.items())),
        "each": [asdict(r) for r in results],
    }
    return json.dumps(found, indent=1) + "\n"


if __name__ == "__main__":
    sys.exit(main())
