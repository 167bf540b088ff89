"""`manage.py demo --headless`: the whole story on real parts, without a person and a browser.

Progress goes to stderr; the last output on stdout is one JSON object. Exit 0 only if everything
held: an act that fails ends the story, and the summary is checked once more as a whole.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import traceback
import zipfile
from pathlib import Path
from typing import Any

import httpx
import yaml
from audit.models import Entry
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
from runs.models import Run

from proposals.demo import facts, stage, story
from proposals.demo.children import ChildFailed, Family
from proposals.demo.console import Console
from proposals.demo.parent import Stop
from proposals.demo.person import Person, Refused
from sandbox.screen import STATIC

ROLES = ("approved", "rejected", "failed", "rolled_back", "autonomous")
COMMAND_SECONDS = 300
RUNNER = ("--trials", "2000", "--budget-seconds", "1.5", "--level2-every", "1", "--seed", "1")
# For the length of the story a rollback is a person's act: the canary never judges that early.
QUIET_CANARY = {
    "trials": 1000,
    "max_failures": 1000,
    "regression_sigma": 1000.0,
    "no_effect_trials": 1000,
}


def run() -> int:
    """Play it, print the summary, give the exit code."""
    began = time.monotonic()
    console = Console(sys.stderr)
    Stop(console)
    summary: dict[str, Any] = {"ok": False, "var": str(settings.VAR)}
    try:
        _play(console, summary)
        summary["problems"] = problems(summary)
        summary["ok"] = not summary["problems"]
    except (
        *(story.StoryFailed, stage.StageError, ChildFailed, Refused),
        *(httpx.HTTPError, subprocess.SubprocessError),
    ) as error:
        summary["problems"] = [f"{type(error).__name__}: {error}"]
    except Exception as error:  # a fault of ours: still a summary, and the trace on stderr
        for line in traceback.format_exc().splitlines():
            console.error(line)
        summary["problems"] = [f"{type(error).__name__}: {error}"]
    for problem in summary["problems"]:
        console.error(problem)
    summary["seconds"] = round(time.monotonic() - began, 1)
    console.say("everything held" if summary["ok"] else "NOT everything held, see above")
    sys.stdout.write(json.dumps(summary, indent=2) + "\n")
    return 0 if summary["ok"] else 1


def _play(console: Console, summary: dict[str, Any]) -> None:
    port = stage.free_port()
    url = f"http://{stage.HOST}:{port}"
    with stage.take_lock():
        credentials, passwords = stage.set_up(console, url)
        _load_policy(console, mode="manual")
        web, worker = stage.web(console, port), stage.worker(console)
        runner = stage.runner(console, credentials, settings.VAR / "runs" / "headless", RUNNER)
        family = Family([runner, worker, web], console)
        try:
            web.start()
            stage.wait_for_web(web, url)
            worker.start()
            runner.start()
            told = story.Story(url, credentials, passwords, family, console)
            _acts(told)
            _report(told, summary)
            runner.ask_to_stop()
            runner.stop()
            runner.finished = True
            _audit(told, summary)
        finally:
            family.stop()
            stage.reap(console)
        summary["crashes"] = {c.name: len(c.crashes) for c in family.children}


def _acts(told: story.Story) -> None:
    """The acts, in their order."""
    story.run_is_visible(told)
    story.one_is_hostile(told)
    first = story.reviewed(told, "approved")
    story.hostile_has_failed(told)
    story.one_is_rejected(told)
    second = story.reviewed(told, "rolled_back")
    story.rolled_back(told, second, to=first)
    story.second_use_is_refused(told, first)
    _load_policy(told.console, mode="guarded")
    story.one_is_autonomous(told)


def _load_policy(console: Console, *, mode: str) -> None:
    """The seed's policy in another mode, loaded by the command and by the person who may."""
    policy = yaml.safe_load(settings.POLICY_SEED.read_text())
    policy["mode"] = mode
    policy["canary"].update(QUIET_CANARY)
    path = settings.VAR / f"policy-{mode}.yaml"
    path.write_text(yaml.safe_dump(policy, sort_keys=False))
    owner = User.objects.filter(groups__name="policy_owner").exclude(groups__name="reviewer")
    if (person := owner.order_by("id").first()) is None:
        raise stage.StageError("nobody owns the policy: `manage.py create_people` makes one")
    console.say(f"{person.username} loads the policy in the mode {mode}")
    command = [sys.executable, "manage.py", "load_policy", str(path), "--by", person.username]
    _command(command, f"load_policy ({mode})")


def _command(command: list[str], what: str, cwd: Path | None = None) -> str:
    connections.close_all()
    done = subprocess.run(  # noqa: S603 - our own commands
        command,
        cwd=cwd or settings.ROOT,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    if done.returncode:
        said = (done.stdout + done.stderr).strip()[-800:]
        raise story.StoryFailed(f"{what} failed (exit code {done.returncode}): {said}")
    return done.stdout


def _report(told: story.Story, summary: dict[str, Any]) -> None:
    """What happened to each proposal, and on which run."""
    summary["proposals"] = {role: facts.of_proposal(pk) for role, pk in told.cast.items()}
    summary["refusals"] = told.refusals
    summary["swaps"] = told.swaps
    run = Run.objects.order_by("-id").first()
    if run is None:
        raise story.StoryFailed("the run is gone")
    best = [t for t in run.trials.all() if t.metric is not None]
    summary["run"] = {
        "task": run.task,
        "task_digest": run.task_digest,
        "prior": run.prior,
        "host": run.host,
        "metric": run.metric,
        "trials": run.trials.count(),
        "first": best[0].metric if best else None,
        "best": min((t.metric for t in best if t.metric is not None), default=None),
    }


def _audit(told: story.Story, summary: dict[str, Any]) -> None:
    """The log is verified; the auditor exports it; the bundle verifies itself, offline."""
    told.console.say("verifying the audit log")
    said = _command([sys.executable, "manage.py", "verify_audit"], "verify_audit")
    with Person(told.url, "katherine", told.passwords["katherine"]) as katherine:
        bundle = katherine.export("the headless demonstration")
    path = settings.VAR / "evidence.zip"
    path.write_bytes(bundle)
    folder = settings.VAR / "evidence"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    (script,) = folder.rglob("verify.py")
    key = settings.KEYS / "platform.pub"
    told.console.say("verifying the exported bundle with its own verify.py")
    _command(
        [sys.executable, "-I", str(script), "--public-key", str(key)], "verify.py", script.parent
    )
    summary["audit"] = {
        "verified": said.strip().splitlines()[-1],
        "entries": Entry.objects.count(),
        "export": str(path),
        "bundle_verified": True,
    }


def problems(summary: dict[str, Any]) -> list[str]:
    """Everything that the summary shows not to hold; empty means that all held."""
    cast = summary["proposals"]
    found = [f"no proposal was {role}" for role in ROLES if role not in cast]
    if found:
        return found
    if len({fact["proposal"] for fact in cast.values()}) < len(ROLES):
        found.append("one proposal played two parts")
    for role in ("approved", "rolled_back", "autonomous"):
        found += [f"{role}: {problem}" for problem in _went_live(cast[role])]
        by_policy = [by.startswith("policy:") for by in cast[role]["approved_by"]]
        if any(by_policy) != (role == "autonomous") or len(set(by_policy)) > 1:
            found.append(f"{role}: approved by {cast[role]['approved_by']}")
    for role in ("rejected", "failed"):
        found += [f"{role}: {problem}" for problem in _never_ran(cast[role])]
    found += [
        f"{role}: its state is {cast[role]['state']}"
        for role in ("rejected", "failed", "rolled_back")
        if cast[role]["state"] != role
    ]
    if not set(cast["failed"]["failed_checks"]) - set(STATIC):
        found.append(f"failed: not in the sandbox, but in {cast['failed']['failed_checks']}")
    found += [f"{role}: no audit entry" for role in ROLES if not cast[role]["audit"]]
    return found + _around(summary)


def _around(summary: dict[str, Any]) -> list[str]:
    """What is wrong beside the proposals."""
    found = []
    if not any(fact["decisions_changed"] for fact in summary["proposals"].values()):
        found.append("no decision was changed: what ran was the null mechanism by another name")
    if len(summary["refusals"]) < 2:
        found.append("an approval that must not count was not tried, or not refused")
    kinds = {swap["kind"] for swap in summary["swaps"] if swap["ok"]}
    if not {"approval", "policy", "rollback"} <= kinds:
        found.append(f"trials after the swap carried their digest only for {sorted(kinds)}")
    crashed = [name for name, count in summary["crashes"].items() if count]
    return found + [f"{name} crashed on the way" for name in crashed]


def _never_ran(fact: dict[str, Any]) -> list[str]:
    """What is wrong with a proposal that nobody approved."""
    found = []
    if fact["digest_approved"] or fact["approved_by"]:
        found.append("it was approved")
    if fact["digest_attested"] or fact["trials"]:
        found.append("it ran")
    return found


def _went_live(fact: dict[str, Any]) -> list[str]:
    """What is wrong with a proposal that should have been approved, loaded and used."""
    found = []
    approved, attested = fact["digest_approved"], fact["digest_attested"]
    if not approved or approved != attested:
        found.append(f"approved {approved}, but attested {attested}")
    if not fact["trials"]:
        found.append("no trial was chosen by it")
    if not any(fact["hook_calls"].values()):
        found.append("none of its hooks was called")
    if not fact["approved_by"]:
        found.append("nobody approved it")
    return found
