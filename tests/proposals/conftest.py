"""A small world for the lifecycle's tests: named people, real git, real audit log.

Only the sandbox's reports are made up (the sandbox is tested elsewhere). After each test that
used the world, the whole audit log is verified, rules and rows included.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from audit import keys, source
from audit.actors import SYSTEM
from audit.evidence import providers
from audit.models import Entry
from django.conf import settings as django_settings
from django.contrib.auth.models import Group, User
from django.test import Client
from django.utils import timezone
from proposals import branches, lifecycle, screenings
from proposals.acts import Denied
from proposals.models import Activation, Proposal, Screening
from runs import tokens
from runs.models import Run, Target, Trial

from runner.protocol import DraftSubmission, Round
from sandbox.report import CheckResult, Draft, Finding, Outcome, Report, Severity

IMAGE = "sha256:" + "5a" * 32
CHECKS = (
    *("draft", "characters", "imports", "bandit", "dependencies", "secrets", "complexity"),
    *("import", "contract", "unit_tests", "replay"),
)
PEOPLE = {
    "ada": ["reviewer"],  # reviewer
    "grace": ["reviewer"],  # second reviewer
    "rosa": ["reviewer"],  # a reviewer who requests
    "katherine": ["auditor"],
    "linus": ["operator", "policy_owner"],  # operates the author runner
    "mary": ["reviewer", "policy_owner"],  # a reviewer who edits the policy
    "eve": [],  # outsider
}
NEW_CODE = """\
\"\"\"{title}\"\"\"

from sandbox.mechanism import Candidate, Mechanism, View

STEP = {step}


class {cls}(Mechanism):
    \"\"\"Asks with guidance.\"\"\"

    name = "{name}"

    def propose(self, view: View, count: int) -> list[Candidate]:
        \"\"\"What the prior says when it is told to take small steps.\"\"\"
        return view.ask(f"steps of {{STEP}}", count)
"""
NEW_TEST = """\
from mechanisms.{name} import STEP


def test_step():
    assert STEP == {step}
"""


class World:
    """One target with a live null mechanism, its runner, people, and verbs in short."""

    def __init__(self) -> None:
        self.people: dict[str, User] = {}
        for name, groups in PEOPLE.items():
            person = User.objects.create(username=name)
            person.groups.set([Group.objects.get_or_create(name=g)[0] for g in groups])
            self.people[name] = person
        self.repository = branches.living()
        self.repository.init(Path(django_settings.MECHANISMS_SEED))
        seed = Path(django_settings.POLICY_SEED).read_text()
        self.policy_text = re.sub(r"(?m)^expires: .*", "expires: 2999-12-31", seed)  # not today
        lifecycle.set_policy(text=self.policy_text, actor=SYSTEM)
        lifecycle.enter_seed()
        self.target = Target.objects.create(name="demo")
        self.runner, self.token = tokens.register(
            name="gpu-1", target=self.target, operator=self.people["linus"], actor=SYSTEM
        )
        lifecycle.seed(target_id=self.target.pk, mechanism="null")
        self.attest()
        self.run = self.new_run()

    def __getitem__(self, name: str) -> User:
        return self.people[name]

    # --- facts ---

    @property
    def desired(self) -> Target:
        self.target.refresh_from_db()
        return self.target

    def entries(self, verb: str) -> list[dict[str, Any]]:
        rows = Entry.objects.filter(verb=verb).order_by("seq")
        return [json.loads(row.body) for row in rows]

    def verify(self) -> list[str]:
        anchors = [a for provider in providers() for a in provider.anchors()]
        result = source.examine("default", key=keys.public_key_hex(), anchors=anchors)
        return [str(problem) for problem in result.problems]

    # --- runners ---

    def new_run(self, **more: Any) -> Run:
        values: dict[str, Any] = {
            "run_id": uuid.uuid4(),
            "runner": self.runner,
            "target": self.target,
            "task": "gpt",
            "task_digest": "ab" * 32,
            "metric": "val_bpb",
            "prior": "habit (scripted, not a language model)",
            "planned_trials": 30,
            "sigma": 0.01,
            "started_at": timezone.now(),
        }
        return Run.objects.create(**(values | more))

    def attest(self, digest: str = "", version: int = 0) -> Activation | None:
        target = self.desired
        return lifecycle.confirm_live(
            runner=self.runner,
            version=version or target.desired_version,
            digest=digest or target.desired_digest,
            at_trial=3,
        )

    def trials(self, metrics: list[float | None], *, best: float = 1.0, **hooks: int) -> None:
        """Trials of whatever is live, as the runner would have reported them."""
        target = self.desired
        number = self.run.trials.count()
        for i, metric in enumerate(metrics):
            Trial.objects.create(
                run=self.run,
                number=number + i,
                config={"LR": 0.1},
                changes={"LR": 0.1},
                metric=metric,
                status="failed" if metric is None else "discarded",
                seconds=1.0,
                best_metric=best,
                mechanism=target.live_mechanism,
                digest=target.live_digest,
                version=target.live_version,
                hooks=hooks,
                finished_at=timezone.now(),
            )

    # --- drafts ---

    def files(self, name: str, *, step: float = 0.5, cls: str = "Gentle") -> dict[str, str]:
        title = f"Small steps, {name}."
        return {
            f"mechanisms/{name}.py": NEW_CODE.format(name=name, step=step, cls=cls, title=title),
            f"tests/test_{name}.py": NEW_TEST.format(name=name, step=step),
        }

    def tabu(self, name: str, *, tenure: int = 9) -> dict[str, str]:
        """A re-parameterised operator of the seed: low risk."""
        operator = self.repository.library(self.repository.head())["tabu"]
        text = operator.source.decode().replace("TENURE = 6", f"TENURE = {tenure}")
        text = text.replace('name = "tabu"', f'name = "{name}"')
        test = operator.test.decode().replace("mechanisms.tabu", f"mechanisms.{name}")
        return {f"mechanisms/{name}.py": text, f"tests/test_{name}.py": test}

    def submission(self, files: dict[str, str], **more: Any) -> DraftSubmission:
        target = self.desired
        values: dict[str, Any] = {
            "draft_id": str(uuid.uuid4()),
            "run_id": str(self.run.run_id),
            "title": "A draft",
            "files": files,
            "base_commit": self.repository.head(),
            "base_digest": target.desired_digest,
            "generator": "catalog (scripted, not a language model)",
            "rounds": [Round(name="explore", prompt="p", answer="a").model_dump()],
            "diagnosis": {"longest_discard_streak": 7},
        }
        return DraftSubmission.model_validate(values | more)

    def submit(self, name: str = "gentle", **more: Any) -> Proposal:
        files = more.pop("files", None) or self.files(name)
        submission = self.submission(files, **more)
        return lifecycle.submit(runner=self.runner, submission=submission)

    # --- screening ---

    def report(self, proposal: Proposal, **more: Any) -> Report:
        outcome = more.pop("outcome", Outcome.PASSED)
        failing = more.pop("check", "imports")
        findings = more.pop("findings", ())
        source = self.repository.read(proposal.commit, proposal.mechanism_path)
        totals = {"steps": 30, "calls": {}, "decisions_changed": more.pop("changed", 7)}
        if outcome is not Outcome.PASSED:
            findings = findings or (finding("import-not-allowed", Severity.ERROR),)
        checks = tuple(
            CheckResult(
                name=name,
                outcome=outcome if name == failing else Outcome.PASSED,
                findings=tuple(findings) if name == failing else (),
                detail={"traces": [], "totals": totals} if name == "replay" else {},
            )
            for name in CHECKS
        )
        values: dict[str, Any] = {
            "mechanism": proposal.name,
            "digest": Draft(
                mechanism_path=proposal.mechanism_path, files={proposal.mechanism_path: source}
            ).digest,
            "checks": checks,
            "image_id": IMAGE,
            "posture": {"backend": "docker"},
            "versions": {"python": "3.11"},
        }
        return Report(**(values | more))

    def screen(self, proposal: Proposal, **more: Any) -> Screening:
        """Claim and finish the open screening with a made-up report."""
        open_one = proposal.screenings.get(phase="queued")
        Screening.objects.filter(pk=open_one.pk).update(not_before=None)
        claimed = screenings.claim(open_one.pk)
        assert claimed is not None
        proposal.refresh_from_db()
        done = screenings.finish(open_one.pk, self.report(proposal, **more))
        proposal.refresh_from_db()
        return done

    def passed(self, name: str = "gentle", **more: Any) -> Proposal:
        proposal = self.submit(name, **more)
        self.screen(proposal)
        assert proposal.state == "passed", proposal.state_reason
        return proposal

    # --- decisions ---

    def approve(self, proposal: Proposal, name: str, **more: Any) -> Any:
        proposal.refresh_from_db()
        values: dict[str, Any] = {
            "proposal_id": proposal.pk,
            "person": self[name],
            "reason": "I read it",
            "binding_digest": "",
            "shown": {},
        }
        if proposal.screenings.filter(outcome="passed").exists():
            binding = lifecycle.binding_of(proposal)
            values["binding_digest"] = lifecycle.binding_digest(binding)
            values["shown"] = lifecycle.shown_required(proposal)
        done = lifecycle.approve(**(values | more))
        proposal.refresh_from_db()
        return done

    def approved(self, name: str = "gentle", **more: Any) -> Proposal:
        proposal = self.passed(name, **more)
        self.approve(proposal, "ada")
        if proposal.state != "approved":
            self.approve(proposal, "grace")
        return proposal

    def live(self, name: str = "gentle", **more: Any) -> Proposal:
        proposal = self.approved(name, **more)
        lifecycle.activate(proposal_id=proposal.pk)
        self.attest()
        proposal.refresh_from_db()
        assert proposal.state == "live"
        return proposal

    def load_policy(self, by: str = "linus", **changes: Any) -> None:
        """Put the seed's policy in force with changes, `section__key=value`."""
        data = yaml.safe_load(self.policy_text)
        for key, value in changes.items():
            section, _, name = key.rpartition("__")
            (data[section] if section else data)[name] = value
        text = yaml.safe_dump(data, sort_keys=False)
        actor = lifecycle.actor_of(self[by])
        lifecycle.set_policy(text=text, actor=actor, editor=self[by])

    def roll_back(self, to: Activation, by: str = "linus") -> Activation:
        return lifecycle.roll_back(
            target_id=self.target.pk,
            activation_id=to.pk,
            actor=lifecycle.actor_of(self[by]),
            reason="worse",
        )

    def door(self) -> Client:
        return Client(headers={"authorization": f"Bearer {self.token}"})


def finding(rule: str, severity: Severity = Severity.WARNING) -> Finding:
    return Finding(check="imports", rule=rule, severity=severity, message=f"saw {rule}", why="...")


class Refusals:
    """`with refused("code"):` a verb is denied with that code, and the log says so."""

    def __call__(self, code: str) -> Any:
        return _Refusal(code)


class _Refusal:
    def __init__(self, code: str) -> None:
        self.code = code

    def __enter__(self) -> None:
        self.before = Entry.objects.count()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        assert error is not None, f"it was allowed, not refused as {self.code}"
        if not isinstance(error, Denied):
            return False
        assert error.code == self.code, f"{error.code}: {error.message}"
        last = Entry.objects.order_by("-seq").first()
        assert last is not None
        assert Entry.objects.count() > self.before, "the refusal is not on the log"
        data = json.loads(last.body)["data"]
        assert data["code"] == self.code
        return True


@pytest.fixture
def refused() -> Refusals:
    return Refusals()


@pytest.fixture
def place(settings: Any, tmp_path: Path, seed_repository: Path) -> Path:
    """Keys and repository of this test alone."""
    settings.KEYS = tmp_path / "keys"
    settings.MECHANISMS_REPOSITORY = tmp_path / "mechanisms.git"
    shutil.copytree(seed_repository, settings.MECHANISMS_REPOSITORY)
    keys.ensure_keys()
    return tmp_path


@pytest.fixture
def world(db: None, place: Path) -> Iterator[World]:
    made = World()
    yield made
    assert made.verify() == []


@pytest.fixture
def make_world() -> type[World]:
    return World
