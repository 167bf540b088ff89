"""The search, measured: the arms on the recorded surface or on live trainings.

    .venv/bin/python benchmarks/arms.py table --repeats 50 --work /tmp/arms --out benchmarks/results
    .venv/bin/python benchmarks/arms.py live --repeats 10 --work /tmp/arms --out benchmarks/results

On the surface all of it runs twice and is compared byte by byte; what is to be committed goes to
--out. It goes on where it stopped: give it the same --work.
"""

from __future__ import annotations

import argparse
import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

COMPARED = ("arms.md", "arms.json", "curves.svg", "curves.png")
ROOT = Path(__file__).resolve().parents[1]
KINDS = {
    "table": "--task table --arms A,B,C,D,R,P,T,G,E,S,U --trials 30 --level2-every 10",
    "live": "--task gpt --budget-seconds 0.7 --arms A,P,R,D,C,T,G,E,S,U --trials 30"
    " --level2-every 10",
}


def run(kind: str, repeats: int, folder: Path) -> None:
    """One ablation, to its end."""
    words = [*KINDS[kind].split(), "--level2-first", "--repeats", str(repeats)]
    command = [sys.executable, "-m", "runner", "arms", *words, "--out", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)


def main() -> int:
    """Run, compare, copy; 1 where two runs on the surface differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--work", type=Path, required=True, help="where the arms work; kept")
    parser.add_argument("--out", type=Path, required=True, help="the folder of results")
    parser.add_argument("--once", action="store_true", help="do not run the surface twice")
    options = parser.parse_args()
    first = options.work / f"{options.kind}-1"
    run(options.kind, options.repeats, first)
    if options.kind == "table" and not options.once:
        second = options.work / f"{options.kind}-2"
        run(options.kind, options.repeats, second)
        _, different, missing = filecmp.cmpfiles(first, second, COMPARED, shallow=False)
        if different or missing:
            sys.stderr.write(f"two runs differ in {[*different, *missing]}\n")
            return 1
        sys.stdout.write("two runs with the same seeds: the same bytes\n")
    target = options.out / f"arms-{options.kind}"
    target.mkdir(parents=True, exist_ok=True)
    for name in (*COMPARED, "host.json", "settings.json", "library.json", "gate.jsonl"):
        if (first / name).exists():
            shutil.copyfile(first / name, target / name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
