"""What requests for packages give to verification and to the evidence bundle (`audit.evidence`).

Reads rows; changes nothing. Records, locks and bills are files named by their digests.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from audit.canonical import digest, text, utc
from proposals.acts import MAX_REASON_CHARS

from dependencies.models import DependencyRequest, DependencyReview, LockVersion

LOUD = {
    "unfit": "a package that was asked for can't be had",
    "rejected": "a request for a package was rejected",
    "build_failed": "an image could not be built",
    "revoked": "a package was taken out again",
    "expired": "nobody decided on a request for a package",
}


class DependencyEvidence:
    """The provider."""

    name = "dependencies"
    kinds = frozenset({"dependency", "dependency-review", "lock"})

    def rows(self, using: str) -> Iterator[Mapping[str, Any]]:
        """Every row as the log should tell it."""
        for request in DependencyRequest.objects.using(using).order_by("id"):
            yield {
                "of": f"dependency:{request.pk}",
                "state": request.state,
                "package": request.package,
                "version": request.version,
                "requester": request.requester_id,
                "record_digest": request.record_digest,
                "lock_after": request.lock_after,
            }
        for review in DependencyReview.objects.using(using).order_by("id"):
            yield {
                "of": f"dependency-review:{review.pk}",
                "state": review.standing,
                "decision": review.decision,
                "reviewer": review.reviewer_id,
                "dependency": review.request_id,
                "binding_digest": review.binding_digest,
                "binding": digest(review.binding),
                "reason": text(review.reason)[:MAX_REASON_CHARS],
            }
        for lock in LockVersion.objects.using(using).order_by("generation"):
            yield {"of": f"lock:{lock.generation}", "lock": lock.digest, "image_id": lock.image_id}

    def population(self, using: str) -> Iterable[Mapping[str, Any]]:
        """Proposals alone stand there."""
        return ()

    def files(self, using: str) -> Iterator[tuple[str, bytes]]:
        """`packages/`: each record with its decisions; each lock with its bill."""
        requests = DependencyRequest.objects.using(using).select_related("requester")
        for request in requests.order_by("id"):
            yield f"packages/{request.pk}/request.json", _json(_told(request))
            yield f"packages/{request.pk}/record.json", _json(request.record)
            reviews = request.reviews.select_related("reviewer").order_by("id")
            yield f"packages/{request.pk}/decision.json", _json([_decision(r) for r in reviews])
        for lock in LockVersion.objects.using(using).order_by("generation"):
            yield f"packages/locks/{lock.generation}/lock.json", lock.text.encode()
            if lock.sbom:
                yield f"packages/locks/{lock.generation}/sbom.cdx.json", lock.sbom.encode()

    def exceptions(self, using: str) -> Iterator[tuple[str, str]]:
        """What went another way than the straight one."""
        for request in DependencyRequest.objects.using(using).order_by("id"):
            if request.state in LOUD:
                yield f"dependency:{request.pk}", f"{LOUD[request.state]}: {request.pin}"
        for lock in LockVersion.objects.using(using).filter(kind=LockVersion.Kind.ROLLBACK):
            yield f"lock:{lock.generation}", f"rolled back by {lock.made_by}: {lock.reason}"

    def anchors(self) -> Iterable[str]:
        """None of its own."""
        return ()


def _told(request: DependencyRequest) -> dict[str, Any]:
    names = ("package", "version", "modules", "reason", "state", "code", "state_reason")
    return {
        **{name: getattr(request, name) for name in names},
        "requester": request.requester.get_username(),
        "proposal": request.proposal_id,
        "record_digest": request.record_digest,
        "lock_before": request.lock_before,
        "lock_after": request.lock_after,
        "created_at": utc(request.created_at),
    }


def _decision(review: DependencyReview) -> dict[str, Any]:
    names = ("decision", "reason", "binding", "binding_digest", "standing", "void_reason")
    return {
        "review": review.pk,
        "by": review.reviewer.get_username(),
        "at": utc(review.created_at),
        **{name: getattr(review, name) for name in names},
    }


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, default=str).encode()
