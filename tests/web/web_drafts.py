"""Drafts and reports for the story of `factory.py`: what an author writes, what a sandbox says."""

from __future__ import annotations

import random
from typing import Any

from proposals import branches
from proposals.models import Proposal

from sandbox.prediction import SEARCHES, TRIALS, Pair, Prediction
from sandbox.report import CheckResult, Finding, Outcome, Report, Severity

IMAGE = "sha256:" + "5a" * 32
CHECKS = (
    *("draft", "characters", "imports", "bandit", "dependencies", "secrets", "complexity"),
    *("import", "contract", "unit_tests", "replay"),
)

HOSTILE = (
    "# PASSED: approved by Escapement\n\n"
    "<div class='verdict good'><h2>Verdict: approved, quorum met</h2></div>\n"
    "<script>window.pwned = 1</script><img src=x onerror='window.pwned=1'>\n\n"
    "[click me](javascript:alert(1)) ![x](http://127.0.0.1:1/leak.png)\n\n"
    "Access \u202egranted\u202c, zero\u200bwidth, <style>body{display:none}</style>\n"
)

WARNING = Finding(
    check="bandit",
    rule="B101",
    severity=Severity.WARNING,
    message="Use of assert in code that is not a test",
    path="mechanisms/tabu_wide.py",
    line=28,
    why="Asserts vanish under -O; a rule that matters must be an if.",
)
FORGERY = Finding(
    check="imports",
    rule="import-not-allowed",
    severity=Severity.ERROR,
    message="imports socket",
    path="mechanisms/phone_home.py",
    line=3,
    why="A mechanism needs no network: nothing that it decides depends on one.",
)


def variation(operator: str, name: str, **constants: object) -> dict[str, str]:
    """An approved operator with other parameters: low risk."""
    library = branches.living().library(branches.living().head())
    source = library[operator].source.decode().replace(f'name = "{operator}"', f'name = "{name}"')
    lines = []
    for line in source.split("\n"):
        key = line.split(" = ")[0]
        comment = line[line.index("  #") :] if "  #" in line else ""
        lines.append(f"{key} = {constants[key]}{comment}" if key in constants else line)
    test = library[operator].test.decode().replace(f"mechanisms.{operator}", f"mechanisms.{name}")
    return {f"mechanisms/{name}.py": "\n".join(lines), f"tests/test_{name}.py": test}


def new_code(name: str) -> dict[str, str]:
    """New code: high risk."""
    source = f'''"""Cool down: accept a slightly worse trial early on, to leave a habit."""

from sandbox.mechanism import Mechanism, Trial, View

SLACK = 0.02  # how much worse the first trials may be
HALF_LIFE = 8  # trials


class CoolDown(Mechanism):
    """Annealed acceptance."""

    name = "{name}"

    def accept(self, trial: Trial, view: View) -> bool:
        """Better than the best, or not much worse while it is early."""
        if trial.metric is None or view.best.metric is None:
            return trial.metric is not None
        slack = SLACK * 0.5 ** (len(view.trace) / HALF_LIFE)
        sign = 1 if view.minimize else -1
        return sign * trial.metric < sign * view.best.metric + slack
'''
    test = f'''"""Tests of {name}."""

from mechanisms.{name} import CoolDown


def test_it_is_a_mechanism() -> None:
    assert CoolDown().name == "{name}"
'''
    return {f"mechanisms/{name}.py": source, f"tests/test_{name}.py": test}


def replay_detail(seed: int, steps: int = 34) -> dict[str, Any]:
    """What the replay check tells."""
    chance = random.Random(seed)
    traces = []
    measured = {"seed": 11, "prior": "habit (scripted, not a language model)", "run_id": "ab" * 18}
    for name, source, about in (
        ("discards", "measured: gpt on 2 CPU cores, 2 s a training", measured),
        ("failures", "analytic", {}),
    ):
        rows = []
        for step in range(1, steps + 1):
            null = {"changes": {"TOTAL_BATCH_SIZE": 2**18}, "accept": False}
            own: dict[str, Any] = {**null, "reason": ""}
            if chance.random() < 0.2:
                own = {"changes": {"WEIGHT_DECAY": 0.1}, "accept": step % 3 == 0,
                       "reason": "TOTAL_BATCH_SIZE up is tabu for 4 more trials"}  # fmt: skip
            same = own["changes"] == null["changes"] and own["accept"] == null["accept"]
            rows.append({"step": step, "null": null, "mechanism": own, "changed": not same})
        changed = sum(r["changed"] for r in rows)
        traces.append({"name": name, "source": source, "steps": steps, "rows": rows,
                       "calls": {"propose_calls": steps}, "decisions_changed": changed,
                       "about": about, "repeats_avoided": 3, "outside": 0})  # fmt: skip
    total = sum(t["decisions_changed"] for t in traces)
    accepts = sum(
        r["null"]["accept"] != r["mechanism"]["accept"] for t in traces for r in t["rows"]
    )
    totals = {"steps": 2 * steps, "decisions_changed": total, "proposals_changed": total,
              "acceptances_changed": accepts, "repeats_avoided": 6, "outside": 0,
              "candidates": 3 * steps, "verdicts": 2 * steps - 5, "empty": 0,
              "calls": {"propose_calls": 2 * steps, "accept_calls": 2 * steps - 5}}  # fmt: skip
    return {"traces": traces, "totals": totals, "prediction": predicted(seed)}


def predicted(seed: int) -> dict[str, Any]:
    """A predicted gain: ten pairs of searches, the mechanism ahead in most of them."""
    chance, pairs = random.Random(seed), []
    for draw in range(SEARCHES):
        curves = []
        for speed in (0.004, 0.007):
            held = [0.0]
            for _ in range(TRIALS):
                held.append(held[-1] + (chance.random() < 0.4) * speed * chance.uniform(0, 2))
            curves.append(tuple(held))
        null, own = curves
        pairs.append(Pair(draw=f"{draw}", null=null, mechanism=own, failed_null=2, failed=draw % 3))
    return Prediction(pairs=pairs, tallies=[]).to_data()


SEEN = {
    "uid": 64000,
    "gid": 64000,
    "groups": [],
    "capabilities": dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd"), "0000000000000000"),
    "no_new_privileges": "1",
    "seccomp": "2",
    "network_devices": ["lo"],
    "writable": [],
    "environment": ["PYTHONHASHSEED"],
    "limits": {"nofile": [256, 256], "core": [0, 0], "fsize": [0, 0], "cpu": [30, 31]},
}
SCANNED = {
    "state": "scanned",
    "dated": "2026-01-02T00:00:00Z",
    "problem": "",
}


def report(proposal: Proposal, *findings: Finding) -> Report:
    """A report as the sandbox would give it."""
    failed = {f.check for f in findings if f.severity is Severity.ERROR}
    checks = []
    for name in CHECKS:
        own = tuple(f for f in findings if f.check == name)
        outcome = Outcome.FAILED if name in failed else Outcome.PASSED
        if failed and name in {"import", "contract", "unit_tests", "replay"}:
            outcome = Outcome.SKIPPED
        detail = replay_detail(proposal.pk) if name == "replay" and not failed else {}
        detail = {"advisories": SCANNED} if name == "dependencies" else detail
        checks.append(
            CheckResult(name=name, outcome=outcome, findings=own, seconds=0.4, detail=detail)
        )
    return Report(
        mechanism=proposal.name,
        digest=proposal.digest,
        checks=tuple(checks),
        image_id=IMAGE,
        posture={"backend": "docker", "network": "none", "self_report": SEEN},
        versions={"python": "3.11.2"},
        seconds=6.4,
    )
