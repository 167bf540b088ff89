"""A full story in the database, told by the real verbs: what the pages are looked at with.

Only the reports are made up (the sandbox is tested elsewhere); git, policy, log, states are real.
As a program it fills the database that ESCAPEMENT_VAR names: `python tests/web/factory.py`.
"""

from __future__ import annotations

import os
import random
import sys
import uuid
from datetime import timedelta
from pathlib import Path

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
from web_drafts import (  # noqa: E402
    FORGERY,
    HOSTILE,
    WARNING,
    new_code,
    report,
    variation,
)

from runner.protocol import DraftSubmission, Round  # noqa: E402
from sandbox.report import Finding  # noqa: E402

PASSWORD = "correct horse battery staple"
PEOPLE = {
    "ada": "reviewer",
    "grace": "reviewer",
    "katherine": "auditor",
    "linus": "operator",
    "mary": "policy_owner",
    "eve": "",
}


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
    lifecycle.enter_seed()
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
            config=dict.fromkeys(names, 1),
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


def submit(
    run: Run, files: dict[str, str], title: str, summary: str, operator: str = ""
) -> Proposal:
    """A draft through the real door."""
    runner, target = run.runner, Target.objects.get(pk=run.target_id)
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


def story() -> dict[str, Proposal]:
    """Everything that the pages can show."""
    _target, runner, run, known = world()
    trials(run, 9)
    told = {}
    longer = variation("tabu", "tabu_long", TENURE=9)
    live = submit(run, longer, "Tabu with a longer tenure",
                  "Keeps failed moves away for *nine* trials, because the streak is nine long.",
                  operator="tabu")  # fmt: skip
    screen(live)
    approve(live, known["ada"], "Only the tenure changes, and the replay shows the repeats gone.")
    lifecycle.activate(proposal_id=live.pk)
    attest(runner, at_trial=9)
    trials(run, 13, seed=2)
    told["live"] = live

    refused = submit(run, variation("restart", "restart_soon"), "Restart sooner",
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

    failed = submit(run, {
        "mechanisms/phone_home.py": new_code("phone_home")["mechanisms/phone_home.py"].replace(
            "from sandbox", "import socket\n\nfrom sandbox", 1
        ),
        "tests/test_phone_home.py": new_code("phone_home")["tests/test_phone_home.py"],
    }, "Ask a better server", HOSTILE)  # fmt: skip
    told["failed"] = screen(failed, FORGERY)

    rejected = submit(run, new_code("cool_fast"), "Cool down fast", "Accepts worse trials.")
    screen(rejected)
    lifecycle.reject(
        proposal_id=rejected.pk, person=known["grace"], reason="Eight trials are too few to tell."
    )
    told["rejected"] = rejected

    low = submit(run, variation("tabu", "tabu_wide", TENURE=12, MAX_ASKS=2),
                 "Wider tabu list", "Twelve moves, **two** asks.", operator="tabu")  # fmt: skip
    told["low"] = screen(low, WARNING)
    high = submit(run, new_code("cool_down"), "Accept slightly worse trials early on", HOSTILE)
    told["high"] = screen(high)
    approve(high, known["grace"], "The slack halves every eight trials; I checked both directions.")
    running = submit(run, new_code("cool_slow"), "Cool down slowly", "Longer half-life.")
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
