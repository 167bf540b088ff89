"""The story of the headless demo, act by act: what people and runners do, and what must follow.

Every act goes through an HTTP door. What followed is read from the database, because that is what
the summary reports on. Each wait has a deadline and says what it waited for.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from audit.models import Entry
from runs.models import Run, Target

from proposals import branches, lifecycle
from proposals.demo import facts, hostile, stage
from proposals.demo.children import Family
from proposals.demo.console import Console
from proposals.demo.person import Person, Refused
from proposals.models import Activation, Proposal, Review
from proposals.states import FINAL, State

T = TypeVar("T")
LOOK_SECONDS = 0.4
# What each wait may take at most: for a machine that is slow, or busy with something else.
RUN_SECONDS = 300
DRAFT_SECONDS = 400
SCREENING_SECONDS = 300
LIVE_SECONDS = 300
TRIALS_SECONDS = 300
DOOR_SECONDS = 60
DECISIONS = 5


class StoryFailed(RuntimeError):
    """Something that must follow did not; the message says what, and what was there instead."""


@dataclass
class Story:
    """What the acts share, and what they found."""

    url: str
    credentials: Path
    passwords: dict[str, str]
    family: Family
    console: Console
    cast: dict[str, int] = field(default_factory=dict)  # role in the summary -> proposal
    shown: dict[int, list[dict[str, str]]] = field(
        default_factory=dict
    )  # what a page asked to open
    refusals: list[dict[str, Any]] = field(default_factory=list)
    swaps: list[dict[str, Any]] = field(default_factory=list)

    def person(self, name: str) -> Person:
        """A person who logs in."""
        return Person(self.url, name, self.passwords[name])

    def wait(self, what: str, seconds: float, look: Callable[[], T | None]) -> T:
        """What `look` finds, within the deadline; children that crash end the wait."""
        self.console.say(f"waiting for {what} (at most {seconds:.0f} s)")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := look():
                return found
            self.family.look()
            time.sleep(LOOK_SECONDS)
        raise StoryFailed(f"waited {seconds:.0f} s in vain for {what}; {situation()}")


def situation() -> str:
    """Where everything stands, for a failure message."""
    target = Target.objects.get(name=stage.TARGET)
    rows = [f"{p.pk} {p.name} {p.state} {p.state_reason[:80]}".strip() for p in _proposals()]
    runner = target.runners.get(name=stage.RUNNER)
    return (
        f"desired v{target.desired_version} {target.desired_mechanism}, live v{target.live_version}"
        f" {target.live_mechanism}, runner {runner.observed_state} ({runner.observed_reason[:200]})"
        f" {runner.activity}; proposals: {'; '.join(rows) or 'none'}"
    )


def _proposals() -> list[Proposal]:
    return list(Proposal.objects.filter(target__name=stage.TARGET).order_by("id"))


def run_is_visible(story: Story) -> None:
    """The runner's first trials arrive, and the page shows them."""
    run = story.wait("a run with a trial", RUN_SECONDS, lambda: Run.objects.filter(
        trials__isnull=False
    ).first())  # fmt: skip
    with story.person("linus") as linus:
        if run.task not in linus.read(f"/runs/{run.pk}/"):
            raise StoryFailed(f"the page of run {run.pk} does not show its task")
    story.console.say(f"run {run.pk} of {run.task}: {run.prior}")


def reviewed(story: Story, role: str) -> int:
    """A draft of Level 2 passes its screening, is approved by as many as it takes, and goes live.

    Every reviewer opens everything first; the runner's operator, who tries it too, is refused.
    """

    def approved(proposal: Proposal) -> None:
        with story.person("ada") as ada:
            story.shown[proposal.pk] = ada.to_open(proposal.pk)
        if not story.refusals:
            refused(story, "linus", proposal, codes={"not_entitled", "is_operator", "is_requester"})
        for name in ("ada", "grace")[: quorum(proposal)]:
            with story.person(name) as person:
                person.approve(proposal.pk, f"read it, tried it in replay: fine ({role})")
            story.console.say(f"{name} approved proposal {proposal.pk} ({proposal.name})")

    proposal = decided(story, role, approved)
    goes_live(story, proposal.pk)
    return proposal.pk


def decided(
    story: Story, role: str, decide: Callable[[Proposal], None], *, fresh: bool = True
) -> Proposal:
    """A waiting proposal on which the people of the story decide.

    What waited a moment ago may be in screening again by then, because the base or the policy
    moved: its page says so, and people take the next one, as they would.
    """
    for _ in range(DECISIONS):
        proposal = next_passed(story, fresh=fresh)
        looked = proposal.screenings.count()
        try:
            decide(proposal)
        except Refused as refusal:
            if not moved_on(proposal, looked):
                raise
            story.console.say(f"proposal {proposal.pk} moved on ({refusal}): the next one")
            continue
        story.cast[role] = proposal.pk
        return proposal
    raise StoryFailed(f"{DECISIONS} proposals moved on before anybody could decide; {situation()}")


def moved_on(proposal: Proposal, looked: int) -> bool:
    """Whether it is no longer what waited for people after so many screenings, or will be
    screened again: only then a page may refuse what people came for."""
    proposal.refresh_from_db()
    if proposal.state not in {State.PASSED, State.APPROVED}:
        return True
    version, policy = lifecycle.policy_in_force()
    drift = lifecycle.drift(proposal, policy, version.digest)
    return bool(drift) or proposal.screenings.count() != looked


def quorum(proposal: Proposal) -> int:
    """How many people it takes, by the last screening that was finished."""
    screening = lifecycle.screening_of(proposal)
    if screening is None:
        raise StoryFailed(f"proposal {proposal.pk} waits for people, and nobody screened it")
    return int(screening.verdict["quorum"])


def next_passed(story: Story, *, fresh: bool = True) -> Proposal:
    """A proposal of the runner's own Level 2 that waits for people; `fresh`: on today's base."""

    def look() -> Proposal | None:
        head = branches.living().head()
        for proposal in _proposals():
            waits = proposal.run is not None and proposal.state == State.PASSED
            usable = proposal.base_commit == head or not fresh
            if waits and usable and proposal.pk not in story.cast.values():
                return proposal
        return None

    return story.wait("a screened draft of Level 2", DRAFT_SECONDS, look)


def refused(story: Story, name: str, proposal: Proposal, *, codes: set[str]) -> None:
    """Somebody sends an approval that must not count: refused, and on the log for that reason."""
    review = proposal.reviews.exclude(binding_digest="").first()
    digest = review.binding_digest if review else "0" * 64
    with story.person(name) as person:
        try:
            person.forge_approval(proposal.pk, digest, story.shown[proposal.pk])
        except Refused as refusal:
            status, answer = refusal.status, str(refusal)[:300]
        else:
            raise StoryFailed(f"{name} could approve proposal {proposal.pk}, and must not")
    denial = Entry.objects.filter(
        verb="review.denied", actor_name=name, subject=f"proposal:{proposal.pk}"
    ).first()
    code = json.loads(denial.body)["data"]["code"] if denial else ""
    if denial is None or code not in codes:  # perhaps because it moved on first: see `decided`
        raise Refused(
            status, f"{name} was refused ({answer}), but the log says {code or 'nothing'}"
        )
    story.console.say(f"{name} was refused: {code}; entry {denial.seq}")
    story.refusals.append(
        {"who": name, "proposal": proposal.pk, "code": code, "answer": answer, "audit": denial.seq}
    )


def goes_live(story: Story, proposal_id: int) -> None:
    """The activation is attested, and a trial carries the new digest."""

    def attested() -> Activation | None:
        proposal = Proposal.objects.get(pk=proposal_id)
        if proposal.state in FINAL or proposal.state == State.ROLLED_BACK:
            raise StoryFailed(
                f"proposal {proposal_id} is {proposal.state}: {proposal.state_reason}"
            )
        return proposal.activations.filter(state=Activation.State.LIVE).first()

    activation = story.wait(f"the attestation of proposal {proposal_id}", LIVE_SECONDS, attested)
    story.console.say(f"{activation.mechanism} is live: {activation.attested_by} attests it")
    carried(story, activation)


def carried(story: Story, activation: Activation) -> None:
    """A trial after the swap carries the activation's version and digest, and no other digest."""

    def look() -> list[dict[str, Any]]:
        return facts.trials_since(activation.version)

    what = f"a trial under version {activation.version}"
    trials = story.wait(what, TRIALS_SECONDS, look)
    others = sorted({t["digest"] for t in trials} - {activation.digest})
    story.swaps.append(
        {
            "version": activation.version,
            "kind": activation.kind,
            "mechanism": activation.mechanism,
            "digest": activation.digest,
            "at_trial": activation.at_trial,
            "first_trial": trials[0]["number"],
            "ok": not others,
        }
    )
    if others:
        raise StoryFailed(f"trials under version {activation.version} carry {others}")


def one_is_rejected(story: Story) -> None:
    """A reviewer says no."""

    def rejected(proposal: Proposal) -> None:
        with story.person("grace") as grace:
            grace.reject(proposal.pk, "one change at a time: the last one is not judged yet")

    proposal = decided(story, "rejected", rejected, fresh=False)
    story.console.say(f"grace rejected proposal {proposal.pk} ({proposal.name})")


def one_is_hostile(story: Story) -> None:
    """A draft that passes every static check and does harm when it runs: the sandbox sees it."""
    data = json.loads(story.credentials.read_text())
    run = Run.objects.order_by("-id").first()
    draft_id = str(uuid.uuid4())
    with httpx.Client(
        base_url=f"{story.url}/api/v1/",
        headers={"Authorization": f"Bearer {data['token']}"},
        timeout=DOOR_SECONDS,
        trust_env=False,
    ) as door:
        desired = _ok(door.get("runner/desired"))
        body = {
            "draft_id": draft_id,
            "run_id": str(run.run_id) if run else "",
            "title": "Remember every configuration",
            "summary": "Never tries the same configuration twice.",
            "files": {
                f"mechanisms/{hostile.NAME}.py": hostile.SOURCE,
                f"tests/test_{hostile.NAME}.py": hostile.TEST,
            },
            "base_commit": desired["base_commit"],
            "base_digest": desired["digest"],
            "generator": "hostile (a script of the demonstration)",
        }
        answer = _ok(door.post("runner/proposals", json=body))
    story.cast["failed"] = int(answer["proposal"])
    story.console.say(f"a hostile draft was submitted: proposal {answer['proposal']}")


def hostile_has_failed(story: Story) -> None:
    """Its screening ends: failed, by a check that ran it."""
    number = story.cast["failed"]

    def look() -> Proposal | None:
        proposal = Proposal.objects.get(pk=number)
        if proposal.state in {State.SUBMITTED, State.SCREENING}:
            return None
        return proposal

    proposal = story.wait("the screening of the hostile draft", SCREENING_SECONDS, look)
    if proposal.state != State.FAILED:
        raise StoryFailed(f"the hostile draft is {proposal.state}, not failed")
    story.console.say(f"it failed: {proposal.state_reason[:160]}")


def rolled_back(story: Story, proposal_id: int, to: int) -> None:
    """The operator takes the live one back; the runner attests the earlier one and uses it."""
    earlier = Proposal.objects.get(pk=to).activations.exclude(digest_attested="").first()
    if earlier is None:
        raise StoryFailed(f"proposal {to} was never live: there is nothing to go back to")
    with story.person("linus") as linus:
        linus.roll_back(stage.TARGET, earlier.pk, "the story wants to see it go back")
    story.console.say(f"linus rolled back to version {earlier.version} ({earlier.mechanism})")

    def back() -> Activation | None:
        return Activation.objects.filter(
            kind=Activation.Kind.ROLLBACK, state=Activation.State.LIVE, digest=earlier.digest
        ).first()

    activation = story.wait("the attestation of the rollback", LIVE_SECONDS, back)
    carried(story, activation)
    if (state := Proposal.objects.get(pk=proposal_id).state) != State.ROLLED_BACK:
        raise StoryFailed(f"proposal {proposal_id} is {state} after its rollback")


def one_is_autonomous(story: Story) -> None:
    """In guarded mode the policy approves one by itself, and it goes live."""

    def look() -> Proposal | None:
        review = Review.objects.exclude(by_policy="").order_by("id").first()
        return review.proposal if review else None

    proposal = story.wait("an approval by the policy", DRAFT_SECONDS, look)
    story.cast["autonomous"] = proposal.pk
    story.console.say(f"the policy approved proposal {proposal.pk} ({proposal.name})")
    goes_live(story, proposal.pk)


def second_use_is_refused(story: Story, proposal_id: int) -> None:
    """One approval, one activation: sending it again is refused."""
    refused(story, "ada", Proposal.objects.get(pk=proposal_id), codes={"already_used"})


def _ok(answer: httpx.Response) -> dict[str, Any]:
    if answer.status_code != 200:
        raise StoryFailed(f"{answer.request.url.path}: {answer.status_code} {answer.text[:300]}")
    data: dict[str, Any] = answer.json()
    return data
