"""What proposals give to verification and to the evidence bundle (see `audit.evidence`).

Reads rows and git; changes nothing. The rows must say what the log says: `audit.verifier` names
the values. What is shown to people and not compared goes into further columns and files.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from audit.canonical import digest, text, utc
from audit.evidence import Unavailable
from audit.models import Entry
from runs.models import Runner, Target, Trial

from proposals import branches, operators
from proposals.acts import MAX_REASON_CHARS
from proposals.models import (
    Activation,
    OperatorEntry,
    PolicyVersion,
    Proposal,
    Review,
    Screening,
    Stop,
)
from sandbox import sarif, sbom
from sandbox.report import digest_of

LOUD_STATES = {
    "failed": "it failed in screening",
    "rejected": "a reviewer rejected it",
    "refused": "the runner refused to load it",
    "rolled_back": "it was live and was taken back",
    "expired": "nobody decided in time",
    "withdrawn": "it was withdrawn",
}


class ProposalEvidence:
    """The provider; `name` is its place in the export's audit entry."""

    name = "proposals"
    kinds = frozenset(
        {"proposal", "screening", "review", "activation", "policy", "target", "operator"}
    )

    def rows(self, using: str) -> Iterator[Mapping[str, Any]]:
        """Every row as the log should tell it."""
        for proposal in _proposals(using):
            yield {**_facts(proposal), "base_commit": proposal.base_commit}
        for screening in Screening.objects.using(using).filter(phase="done").order_by("id"):
            yield {
                "of": f"screening:{screening.pk}",
                "outcome": screening.outcome,
                "evidence_digest": screening.evidence_digest,
                "policy_digest": screening.policy_digest,
                "report": digest_of(_report(screening)) if screening.report else "",
            }
        for review in Review.objects.using(using).order_by("id"):
            yield {
                "of": f"review:{review.pk}",
                "state": review.standing,
                "decision": review.decision,
                "reviewer": review.reviewer_id,
                "by_policy": review.by_policy,
                "proposal": review.proposal_id,
                "binding_digest": review.binding_digest,
                "binding": digest(review.binding),
                "reason": text(review.reason)[:MAX_REASON_CHARS],
            }
        for activation in _activations(using):
            yield {
                "of": f"activation:{activation.pk}",
                "state": activation.state,
                "target": activation.target.name,
                "kind": activation.kind,
                "version": activation.version,
                "digest": activation.digest,
                "commit": activation.commit,
                "proposal": activation.proposal_id,
                "attested": activation.digest_attested,
            }
        for version in PolicyVersion.objects.using(using).order_by("id"):
            loaded = digest_of(version.text.encode())
            yield {"of": f"policy:{version.digest}", "mode": version.mode, "text": loaded}
        for entry in OperatorEntry.objects.using(using).order_by("id"):
            yield {
                "of": f"operator:{entry.pk}",
                "state": entry.standing,
                **{k: getattr(entry, k) for k in ("name", "kind", "commit", "digest")},
                "statement": digest(entry.statement) if entry.statement else "",
                "terms_digest": operators.terms_digest(entry),
            }
        for target in Target.objects.using(using).filter(desired_version__gt=0):
            yield {
                "of": f"target:{target.name}",
                "desired_version": target.desired_version,
                "desired_digest": target.desired_digest,
                "live_version": target.live_version or "",
                "live_digest": target.live_digest,
            }

    def population(self, using: str) -> Iterator[Mapping[str, Any]]:
        """Every proposal there ever was."""
        for proposal in _proposals(using):
            screening = proposal.screenings.first()
            verdict = screening.verdict if screening else {}
            reviews = list(proposal.reviews.all())
            approvals = [r for r in reviews if r.decision == Review.Decision.APPROVE]
            activations = list(proposal.activations.all())
            yield {
                **_facts(proposal),
                "title": proposal.title,
                "generator": proposal.generator,
                "operator": proposal.recognised,
                "runner": proposal.runner.name if proposal.runner else "",
                "created_at": utc(proposal.created_at),
                "screening": screening.outcome if screening else "",
                "verdict": verdict.get("decision", ""),
                "risk": verdict.get("risk", ""),
                "quorum": verdict.get("quorum", ""),
                "approved_by": " ".join(_reviewer(r) for r in approvals),
                "automatic": any(r.by_policy for r in approvals),
                "voided": sum(r.standing == Review.Standing.VOIDED for r in reviews),
                "activations": " ".join(f"v{a.version}:{a.state}" for a in activations),
                "state_reason": proposal.state_reason,
            }

    def files(self, using: str) -> Iterator[tuple[str, bytes]]:
        """`changes/ID/`, `policies/`, `people/runners.csv`."""
        for proposal in _proposals(using):
            for name, data in _change(proposal, using):
                yield f"changes/{proposal.pk}/{name}", data
        versions = list(PolicyVersion.objects.using(using).order_by("id"))
        for version in {v.digest: v for v in versions}.values():
            yield f"policies/{version.digest}.yaml", version.text.encode()
        yield "policies/intervals.csv", _csv(_intervals(versions))
        yield "people/runners.csv", _csv(_runners(using))
        for entry in OperatorEntry.objects.using(using).order_by("id"):
            yield f"operators/{entry.pk}-{entry.name}.json", _json(_operator(entry))
        yield "exceptions/stops.csv", _csv(_stops(using))

    def exceptions(self, using: str) -> Iterator[tuple[str, str]]:
        """What went another way than the straight one, and what no person decided."""
        for proposal in _proposals(using):
            if proposal.state in LOUD_STATES:
                yield f"proposal:{proposal.pk}", LOUD_STATES[proposal.state]
            for review in proposal.reviews.all():
                if review.by_policy:
                    yield f"proposal:{proposal.pk}", "approved by the policy, by no person"
                if review.standing == Review.Standing.VOIDED:
                    yield f"review:{review.pk}", f"voided: {review.void_reason}"
        for activation in _activations(using):
            if activation.kind in {"rollback", "auto_rollback", "revert"}:
                why = f"{activation.kind} of {activation.target.name}: {activation.reason}"
                yield f"activation:{activation.pk}", why
        revoked = OperatorEntry.objects.using(using).filter(standing=OperatorEntry.Standing.REVOKED)
        for operator in revoked.order_by("id"):
            yield f"operator:{operator.pk}", f"{operator.name} was revoked: {operator.end_reason}"
        denied = Entry.objects.using(using).filter(verb__endswith=".denied").order_by("seq")
        for entry in denied:
            yield f"entry {entry.seq}", f"{entry.verb} on {entry.subject}: {entry.actor_name}"

    def anchors(self) -> Iterable[str]:
        """The checkpoint in the mechanisms repository."""
        repository = branches.living()
        try:
            note = repository.anchored() if repository.exists() else None
        except branches.RepositoryError as error:
            raise Unavailable(f"the anchored checkpoint can't be read: {error}") from error
        return [note.decode("utf-8", "replace")] if note else []


def _proposals(using: str) -> Iterable[Proposal]:
    related = ("target", "runner", "requester")
    return Proposal.objects.using(using).select_related(*related).order_by("id")


def _activations(using: str) -> Iterable[Activation]:
    return Activation.objects.using(using).select_related("target").order_by("id")


def _facts(proposal: Proposal) -> dict[str, Any]:
    """What the log, the row and population.csv must agree on."""
    return {
        "of": f"proposal:{proposal.pk}",
        "name": proposal.name,
        "state": proposal.state,
        "target": proposal.target.name,
        "requester": proposal.requester_id,
        "digest": proposal.digest,
        "commit": proposal.commit,
        "tree": proposal.tree,
    }


def _reviewer(review: Review) -> str:
    if review.reviewer is not None:
        return review.reviewer.get_username()
    return f"policy:{review.by_policy[:12]}"


def _change(proposal: Proposal, using: str) -> Iterator[tuple[str, bytes]]:
    """One change: what it was, what was seen, who decided, what came of it."""
    repository = branches.living()
    try:
        changed = repository.changed(proposal.base_commit, proposal.commit)
        yield "diff.patch", repository.diff(proposal.base_commit, proposal.commit).encode()
    except branches.RepositoryError as error:
        raise Unavailable(f"the files of proposal {proposal.pk} can't be read: {error}") from error
    for path, data in changed.items():
        if path == proposal.mechanism_path and data is not None:
            yield "mechanism.py", data
        elif data is not None:
            yield path.rpartition("/")[2], data
    yield (
        "transcript.json",
        _json(
            {
                "generator": proposal.generator,
                "diagnosis": proposal.diagnosis,
                "rounds": proposal.rounds,
                "summary": proposal.summary,
                "parameters": proposal.parameters,
            }
        ),
    )
    for screening in proposal.screenings.order_by("id"):
        yield f"screening-{screening.pk}/report.json", _report(screening)
        yield f"screening-{screening.pk}/findings.sarif", _json(sarif.document(screening.report))
        if (bill := _bill(screening.report)) is not None:
            yield f"screening-{screening.pk}/sbom.cdx.json", bill
        yield f"screening-{screening.pk}/verdict.json", _json(_verdict(screening))
    yield "decision.json", _json([_decision(r) for r in proposal.reviews.order_by("id")])
    steps = proposal.activations.order_by("id")
    yield "activations.json", _json([_activation(a, using) for a in steps])


def _verdict(screening: Screening) -> dict[str, Any]:
    names = ("commit", "outcome", "evidence_digest", "image_id", "policy_digest", "verdict")
    return {name: getattr(screening, name) for name in names}


def _decision(review: Review) -> dict[str, Any]:
    names = ("decision", "reason", "binding", "binding_digest", "shown", "standing", "void_reason")
    return {
        "review": review.pk,
        "by": _reviewer(review),
        "at": utc(review.created_at),
        "expires_at": utc(review.expires_at),
        **{name: getattr(review, name) for name in names},
    }


def _activation(activation: Activation, using: str) -> dict[str, Any]:
    """One activation with its attestation, its effect in production, and how it ended."""
    names = (
        *("version", "kind", "state", "digest", "commit", "reason", "requested_by"),
        *("digest_attested", "attested_by", "at_trial", "restores_id"),
    )
    trials = Trial.objects.using(using).filter(
        run__target=activation.target, version=activation.version
    )
    hooks: dict[str, int] = {}
    for counts in trials.values_list("hooks", flat=True):
        for name, count in counts.items():
            hooks[name] = hooks.get(name, 0) + int(count)
    times = ("created_at", "live_at", "ended_at")
    return {
        "activation": activation.pk,
        "target": activation.target.name,
        **{name: getattr(activation, name) for name in names},
        **{name: utc(at) if (at := getattr(activation, name)) else None for name in times},
        "trials": trials.count(),
        "hooks": hooks,
    }


def _report(screening: Screening) -> bytes:
    """The report as the bytes that its evidence digest is of (`sandbox.report`)."""
    return json.dumps(screening.report, sort_keys=True, separators=(",", ":")).encode()


def _bill(report: Mapping[str, Any]) -> bytes | None:
    """The bill of materials that the report was made with; None: an older report has none."""
    for check in report.get("checks", []):
        if check["name"] == "dependencies" and "sbom" in check.get("detail", {}):
            return sbom.canonical(check["detail"]["sbom"])
    return None


def _operator(entry: OperatorEntry) -> dict[str, Any]:
    """An entry of the library; its signature is over `escapement operator v1`, a line feed and
    the statement."""
    names = (
        *("name", "kind", "standing", "proposal_id", "commit", "path", "digest", "terms"),
        *("statement", "signature", "entered_by", "reason", "ended_by", "end_reason"),
    )
    words = [
        {"by": w.person.get_username(), "at": utc(w.created_at), "reason": w.reason}
        for w in entry.words.select_related("person")
    ]
    return {**{name: getattr(entry, name) for name in names}, "words": words}


def _intervals(versions: list[PolicyVersion]) -> Iterator[dict[str, Any]]:
    """Each policy with the time that it was in force."""
    followers = [*versions[1:], None] if versions else []
    for version, following in zip(versions, followers, strict=True):
        yield {
            "digest": version.digest,
            "mode": version.mode,
            "loaded_by": version.loaded_by,
            "from": utc(version.created_at),
            "until": utc(following.created_at) if following else "",
        }


def _runners(using: str) -> Iterator[dict[str, Any]]:
    for runner in Runner.objects.using(using).select_related("target", "operator").order_by("id"):
        yield {
            "runner": runner.name,
            "target": runner.target.name,
            "operator_id": runner.operator_id,
            "operator": runner.operator.get_username(),
            "token_expires_at": utc(runner.token_expires_at),
            "revoked_at": utc(runner.revoked_at) if runner.revoked_at else "",
        }


def _stops(using: str) -> Iterator[dict[str, Any]]:
    for stop in Stop.objects.using(using).select_related("target").order_by("id"):
        yield {
            "stop": stop.pk,
            "scope": stop.scope,
            "target": stop.target.name if stop.target else "",
            "by": stop.engaged_by,
            "reason": stop.reason,
            "from": utc(stop.created_at),
            "until": utc(stop.released_at) if stop.released_at else "",
        }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    rows = list(rows)
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out.getvalue().encode()
