"""A platform of its own with a queue of drafts, for the chaos around `manage.py work`.

    ESCAPEMENT_VAR=FOLDER platform_site.py make N     a site, and N proposals that wait for a look
    ESCAPEMENT_VAR=FOLDER platform_site.py tell       how each stands, and the log's own word

Prints JSON. A program of its own, because a site is a process's whole environment.
"""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "platform")]

import os  # noqa: E402

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

import django  # noqa: E402

django.setup()

from audit import keys, source  # noqa: E402
from audit.actors import SYSTEM  # noqa: E402
from audit.evidence import providers  # noqa: E402
from audit.models import Entry  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.utils import timezone  # noqa: E402
from proposals import branches, lifecycle  # noqa: E402
from proposals.models import Proposal  # noqa: E402
from runs import tokens  # noqa: E402
from runs.models import Run, Target  # noqa: E402

from runner.protocol import DraftSubmission, Round  # noqa: E402


def make(count: int) -> dict[str, Any]:
    """A fresh site, and `count` drafts in its queue."""
    for command in ("migrate", "init", "create_people"):
        call_command(command, verbosity=0, stdout=sys.stderr)
    target = Target.objects.create(name="chaos")
    operator = User.objects.get(username="linus")
    runner, _ = tokens.register(name="chaos-1", target=target, operator=operator, actor=SYSTEM)
    lifecycle.seed(target_id=target.pk, mechanism="null")
    for number in range(count):
        run = Run.objects.create(
            run_id=uuid.uuid4(),
            runner=runner,
            target=target,
            task="gpt",
            task_digest="ab" * 32,
            metric="val_bpb",
            prior="habit (scripted, not a language model)",
            planned_trials=30,
            sigma=0.01,
            started_at=timezone.now(),
        )
        lifecycle.submit(runner=runner, submission=_draft(run, target, number))
    return {"proposals": Proposal.objects.count()}


def _draft(run: Run, target: Target, number: int) -> DraftSubmission:
    """An approved operator with another parameter: honest, so that only trouble keeps it back."""
    repository, name = branches.living(), f"tabu_{number}"
    operator = repository.library(repository.head())["tabu"]
    text = operator.source.decode().replace("TENURE = 6", f"TENURE = {7 + number}")
    text = text.replace('name = "tabu"', f'name = "{name}"')
    test = operator.test.decode().replace("mechanisms.tabu", f"mechanisms.{name}")
    return DraftSubmission.model_validate(
        {
            "draft_id": str(uuid.uuid4()),
            "run_id": str(run.run_id),
            "title": "A draft",
            "files": {f"mechanisms/{name}.py": text, f"tests/test_{name}.py": test},
            "base_commit": repository.head(),
            "base_digest": Target.objects.get(pk=target.pk).desired_digest,
            "generator": "catalog (scripted, not a language model)",
            "rounds": [Round(name="explore", prompt="p", answer="a").model_dump()],
            "diagnosis": {"longest_discard_streak": 7},
        }
    )


def tell() -> dict[str, Any]:
    """Each proposal with its looks; how many verdicts the log has of each; what the log says of
    itself."""
    finished: dict[int, list[str]] = {}
    for entry in Entry.objects.filter(verb="screening.finished").order_by("seq"):
        data = json.loads(entry.body)["data"]
        finished.setdefault(data["proposal"], []).append(data["outcome"])
    anchors = [a for provider in providers() for a in provider.anchors()]
    result = source.examine("default", key=keys.public_key_hex(), anchors=anchors)
    return {
        "proposals": [
            {
                "state": proposal.state,
                "reason": proposal.state_reason,
                "looks": list(proposal.screenings.order_by("pk").values_list("phase", "outcome")),
                "verdicts": finished.get(proposal.pk, []),
            }
            for proposal in Proposal.objects.order_by("pk")
        ],
        "log": [str(problem) for problem in result.problems],
    }


if __name__ == "__main__":
    made = make(int(sys.argv[2])) if sys.argv[1] == "make" else tell()
    sys.stdout.write(json.dumps(made) + "\n")
