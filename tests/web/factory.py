"""A full story in the database, told by the real verbs: what the pages are looked at with.

Only the reports are made up (the sandbox is tested elsewhere); git, policy, log and states are real.
As a program it fills the database that ESCAPEMENT_VAR names: `python tests/web/factory.py`.
"""

from __future__ import annotations

import os
import random
import sys
import uuid
from datetime import timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "platform")]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    import django

    django.setup()

from audit.actors import SYSTEM  # noqa: E402
from audit.keys import ensure_keys  # noqa: E402
from django.conf import settings  # noqa: E402
from django.contrib.auth.models import Group, User  # noqa: E402
from django.utils import timezone  # noqa: E402
from proposals import branches, lifecycle, screenings, shown  # noqa: E402
from proposals.models import Activation, Proposal, Screening  # noqa: E402
from runs.models import Run, Runner, Target, Trial  # noqa: E402

from runner.protocol import DraftSubmission, Round  # noqa: E402
from sandbox.report import CheckResult, Finding, Outcome, Report, Severity  # noqa: E402

PASSWORD = "correct horse battery staple"
IMAGE = "sha256:" + "5a" * 32
PEOPLE = {
    "ada": "reviewer",
    "grace": "reviewer",
    "katherine": "auditor",
    "linus": "operator",
    "mary": "policy_owner",
    "eve": "",
}
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


def people() -> dict[str, User]:
    """The demo people and an outsider, each with PASSWORD."""
    found = {}
    for name, role in PEOPLE.items():
        person, made = User.objects.get_or_create(username=name)
        if made:
            person.set_password(PASSWORD)
            person.save()
            if role:
                person.groups.add(Group.objects.get_or_create(name=role)[0])
        found[name] = person
    return found


def world() -> tuple[Target, Runner, Run, dict[str, User]]:
    """Keys, policy, repository, people, one target with a live null mechanism, one run."""
    ensure_keys()
    known = people()
    branches.living().init(Path(settings.MECHANISMS_SEED))
    lifecycle.set_policy(text=Path(settings.POLICY_SEED).read_text(), actor=SYSTEM)
    target = Target.objects.create(name="demo", description="The runner on this machine")
    now = timezone.now()
    runner = Runner.objects.create(
        name="demo-runner",
        target=target,
        operator=known["linus"],
        token_digest=shown.digest_of(uuid.uuid4().hex),
        token_expires_at=now + timedelta(days=30),
        posture={"backend": "docker", "network": "none", "uid": 64000, "capabilities": "none"},
    )
    lifecycle.seed(target_id=target.pk, mechanism="null")
    attest(runner, at_trial=0)
    run = Run.objects.create(
        run_id=uuid.uuid4(),
        runner=runner,
        target=target,
        task="gpt",
        task_digest=shown.digest_of(b"task"),
        description="A small GPT on Python's standard library, 5 s a trial",
        metric="val_bpb",
        host={"cpu": "2 cores", "torch": "2.13.0+cpu", "budget_seconds": 5, "corpus": "f3" * 8},
        prior="habit (scripted, not a language model)",
        seed=7,
        planned_trials=60,
        sigma=0.021,
        frozen=["DEPTH"],
        guidance="Do not raise TOTAL_BATCH_SIZE again.",
        started_at=now - timedelta(minutes=14),
    )
    return target, runner, run, known


def attest(runner: Runner, *, at_trial: int) -> None:
    """The runner loads what is desired and says so."""
    target = Target.objects.get(pk=runner.target_id)
    lifecycle.confirm_live(
        runner=runner,
        version=target.desired_version,
        digest=target.desired_digest,
        at_trial=at_trial,
    )
    runner.refresh_from_db()
    runner.seen_at = timezone.now()
    runner.observed_version = target.desired_version
    runner.observed_state = "live"
    runner.observed_mechanism = target.desired_mechanism
    runner.observed_digest = target.desired_digest
    runner.activity = "training trial 34 (3 s of 5 s)"
    runner.save()


def trials(run: Run, count: int, *, seed: int = 1) -> None:
    """Some more trials of whatever is live."""
    target = Target.objects.get(pk=run.target_id)
    chance = random.Random(seed)
    last = run.trials.order_by("-number").first()
    best = last.best_metric if last and last.best_metric is not None else 3.82
    first = last.number + 1 if last else 0
    names = ("MATRIX_LR", "WEIGHT_DECAY", "TOTAL_BATCH_SIZE", "WARMUP_RATIO")
    for number in range(first, first + count):
        failed = number % 11 == 9
        metric = None if failed else round(best + chance.gauss(0.02, 0.05), 4)
        status = "failed" if failed else "discarded"
        if number == 0:
            metric, status = best, "kept"
        elif metric is not None and metric < best:
            best, status = metric, "kept"
        Trial.objects.create(
            run=run,
            number=number,
            config={n: 1 for n in names},
            changes={} if number == 0 else {chance.choice(names): round(chance.uniform(0, 1), 3)},
            reason="baseline" if number == 0 else "the prior raises it once more",
            metric=metric,
            status=status,
            failure="nan" if failed else "",
            message="loss is nan at step 41" if failed else "",
            seconds=5 + chance.random(),
            best_metric=best,
            mechanism="" if number == 0 else target.live_mechanism,
            digest="" if number == 0 else target.live_digest,
            version=target.live_version,
            hooks={"propose_calls": 1, "proposals_changed": number % 2, "accept_calls": 1},
            repeats=[3.82, 3.85, 3.81] if number == 0 else [],
            finished_at=run.started_at + timedelta(seconds=20 * number),
        )
    run.save()


def variation(operator: str, name: str, **constants: object) -> dict[str, str]:
    """An approved operator with other parameters: low risk."""
    library = branches.living().library(branches.living().head())
    source = library[operator].source.decode().replace(f'name = "{operator}"', f'name = "{name}"')
    lines = []
    for line in source.split("\n"):
        key = line.split(" = ")[0]
        lines.append(f"{key} = {constants[key]}" if key in constants else line)
    test = library[operator].test.decode().replace(f"mechanisms.{operator}", f"mechanisms.{name}")
    return {f"mechanisms/{name}.py": "\n".join(lines), f"tests/test_{name}.py": test}


def new_code(name: str) -> dict[str, str]:
    """New code: high risk."""
    source = f'''"""Cool down: accept a slightly worse trial early on, so that the search can leave a habit."""

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


def submit(
    runner: Runner, run: Run, files: dict[str, str], title: str, summary: str, operator: str = ""
) -> Proposal:
    """A draft through the real door."""
    target = Target.objects.get(pk=runner.target_id)
    asked = "You improve the search. Here are the live mechanism, the interface and the trace ..."
    answers = {
        "explore": "## Where it is stuck\n\n- **9 discards in a row**, all on `TOTAL_BATCH_SIZE`\n"
        "- two repeats of the same configuration",
        "critique": "A tabu list would stop the repeats; a bandit needs more trials than remain.",
        "specify": "1. keep the last moves\n2. refuse them\n3. ask again with guidance",
        "generate": "```python\nTENURE = 9\n```\n" + (summary if "PASSED" in summary else ""),
    }
    rounds = [
        Round(name=name, prompt=asked, answer=answer, prompt_tokens=2100, answer_tokens=340,
              seconds=4.2)
        for name, answer in answers.items()
    ]  # fmt: skip
    submission = DraftSubmission(
        draft_id=str(uuid.uuid4()),
        run_id=str(run.run_id),
        title=title,
        summary=summary,
        files=files,
        base_commit=branches.living().head(),
        base_digest=target.live_digest,
        generator="catalog (scripted, not a language model)",
        operator=operator,
        parameters={"TENURE": 9, "MAX_ASKS": 2} if operator else {},
        diagnosis={
            "longest_discard_streak": 9,
            "repeats": 2,
            "knobs_never_tried": ["HEAD_DIM", "SCALAR_LR", "WINDOW_PATTERN"],
            "directions_never_tried": 6,
            "gain_of_last_10_trials": 0.0,
        },
        rounds=rounds,
        after_trial=run.trials.count(),
    )
    return lifecycle.submit(runner=runner, submission=submission)


def replay_detail(seed: int, steps: int = 34) -> dict[str, Any]:
    """What the replay check tells."""
    chance = random.Random(seed)
    traces = []
    for name, source in (("discards", "recorded by the gpt task"), ("failures", "analytic")):
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
                       "repeats_avoided": 3, "outside": 0})  # fmt: skip
    total = sum(t["decisions_changed"] for t in traces)
    accepts = sum(
        r["null"]["accept"] != r["mechanism"]["accept"] for t in traces for r in t["rows"]
    )
    totals = {"steps": 2 * steps, "decisions_changed": total, "proposals_changed": total,
              "acceptances_changed": accepts, "repeats_avoided": 6, "outside": 0,
              "calls": {"propose_calls": 2 * steps}}  # fmt: skip
    return {"traces": traces, "totals": totals}


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
        checks.append(
            CheckResult(name=name, outcome=outcome, findings=own, seconds=0.4, detail=detail)
        )
    return Report(
        mechanism=proposal.name,
        digest=proposal.digest,
        checks=tuple(checks),
        image_id=IMAGE,
        posture={"backend": "docker", "network": "none"},
        versions={"python": "3.11.2"},
        seconds=6.4,
    )


def screen(proposal: Proposal, *findings: Finding) -> Proposal:
    """Finish its screening with these findings."""
    queued = proposal.screenings.get(phase=Screening.Phase.QUEUED)
    if screenings.claim(queued.pk) is None:
        raise RuntimeError("the screening was not to be had")
    screenings.finish(queued.pk, report(proposal, *findings))
    proposal.refresh_from_db()
    return proposal


def approve(proposal: Proposal, person: User, reason: str) -> None:
    """A person's approval with everything opened."""
    lifecycle.approve(
        proposal_id=proposal.pk,
        person=person,
        reason=reason,
        binding_digest=lifecycle.binding_digest(lifecycle.binding_of(proposal)),
        shown=lifecycle.shown_required(proposal),
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
    why="A mechanism needs no network; what it could reach from here is the whole point of the sandbox.",
)


def story() -> dict[str, Proposal]:
    """Everything that the pages can show."""
    _target, runner, run, known = world()
    trials(run, 9)
    told = {}
    live = submit(runner, run, variation("tabu", "tabu_long", TENURE=9), "Tabu with a longer tenure",
                  "Keeps failed moves away for *nine* trials, because the streak is nine long.",
                  operator="tabu")  # fmt: skip
    screen(live)
    approve(live, known["ada"], "Only the tenure changes, and the replay shows the repeats gone.")
    lifecycle.activate(proposal_id=live.pk)
    attest(runner, at_trial=9)
    trials(run, 13, seed=2)
    told["live"] = live

    refused = submit(runner, run, variation("restart", "restart_soon"), "Restart sooner",
                     "Starts again after six.", operator="restart")  # fmt: skip
    screen(refused)
    approve(refused, known["grace"], "Small and clear.")
    asked = lifecycle.activate(proposal_id=refused.pk)
    lifecycle.refuse_load(
        runner=runner,
        version=asked.version,
        digest_running=live.digest,
        reason="contract: state() gave 70 KiB, at most 64 KiB are allowed",
    )
    attest(runner, at_trial=22)
    trials(run, 12, seed=3)
    told["refused"] = refused

    failed = submit(runner, run, {
        "mechanisms/phone_home.py": new_code("phone_home")["mechanisms/phone_home.py"].replace(
            "from sandbox", "import socket\n\nfrom sandbox", 1
        ),
        "tests/test_phone_home.py": new_code("phone_home")["tests/test_phone_home.py"],
    }, "Ask a better server", HOSTILE)  # fmt: skip
    told["failed"] = screen(failed, FORGERY)

    rejected = submit(runner, run, new_code("cool_fast"), "Cool down fast", "Accepts worse trials.")
    screen(rejected)
    lifecycle.reject(
        proposal_id=rejected.pk, person=known["grace"], reason="Eight trials are too few to tell."
    )
    told["rejected"] = rejected

    low = submit(runner, run, variation("tabu", "tabu_wide", TENURE=12, MAX_ASKS=2),
                 "Wider tabu list", "Twelve moves, **two** asks.", operator="tabu")  # fmt: skip
    told["low"] = screen(low, WARNING)
    high = submit(
        runner, run, new_code("cool_down"), "Accept slightly worse trials early on", HOSTILE
    )
    told["high"] = screen(high)
    approve(high, known["grace"], "The slack halves every eight trials; I checked both directions.")
    running = submit(runner, run, new_code("cool_slow"), "Cool down slowly", "Longer half-life.")
    queued = running.screenings.get(phase=Screening.Phase.QUEUED)
    screenings.claim(queued.pk)
    screenings.progress(queued.pk, "contract: 14 of 40 cases")
    told["running"] = running
    told["uploaded"] = lifecycle.upload(
        person=known["ada"],
        target=runner.target,
        files={p: t.encode() for p, t in new_code("cool_by_hand").items()},
        title="Cool down, written by hand",
        summary="As discussed.",
    )
    for proposal in told.values():
        proposal.refresh_from_db()
    return told


def main() -> None:
    """Fill the database, once."""
    if not Target.objects.exists():
        story()
    count, versions = Proposal.objects.count(), Activation.objects.count()
    print(f"{count} proposals, {versions} activations")  # noqa: T201 - a program's output


if __name__ == "__main__":
    main()
