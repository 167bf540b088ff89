"""Rules 6 to 8: approved operators, and packages of the sandbox image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.verifier.ledger import Ledger
from audit.verifier.signing import canonical, sha256


class Operators(Ledger):
    """What happens to the library of approved operators."""

    def _operator(self, data: Mapping[str, Any]) -> None:
        names = ("name", "kind", "commit", "digest", "statement", "terms_digest")
        people = [one["id"] for one in data.get("approved_by", [])]
        known = {name: data[name] for name in names}
        self._fact(f"operator:{data['operator']}", approved_by=people, **known)

    def _on_operator_nominated(self, data: Mapping[str, Any]) -> None:
        draft = self._submitted[data["proposal"]]
        same = (data["commit"], data["digest"]) == (draft["commit"], draft["digest"])
        self._must(same, "what was nominated is not what was proposed")
        self._operator(data)

    def _on_operator_entered(self, data: Mapping[str, Any]) -> None:
        seed = data["kind"] == "seed" and self._body["actor"]["kind"] == "system"
        self._must(seed, "only the platform enters operators alone, and those of the seed alone")
        self._operator(data)

    def _on_operator_agreed(self, data: Mapping[str, Any]) -> None:
        """Rule 6: each word is of an independent person."""
        actor, draft = self._body["actor"], self._submitted[data["proposal"]]
        others = (draft["requester"], draft["operator"], self._policy.get("editor"))
        own = actor["id"] in {other["id"] for other in others if other}
        held = actor["kind"] == "person" and not own
        self._must(held, f"four eyes: {actor['name']} agreed to an operator that is their own")
        self._words.setdefault(data["operator"], {})[actor["id"]] = data["terms_digest"]

    def _on_operator_approved(self, data: Mapping[str, Any]) -> None:
        words = self._words.get(data["operator"], {})
        agreed = [who for who, terms in words.items() if terms == data["terms_digest"]]
        named = {one["id"] for one in data["approved_by"]}
        self._must(named <= set(agreed), "it names people who did not agree to these terms")
        self._must(len(named) >= max(1, data["quorum"]), f"{len(named)} people agreed: too few")
        self._operator(data)


class Packages(Ledger):
    """What happens to requests for packages, and to the lock of the sandbox image."""

    def _on_dependency_asked(self, data: Mapping[str, Any]) -> None:
        number = data["dependency"]
        self._packages[number] = {**data, "author": self._body["actor"]["id"]}
        known = {name: data[name] for name in ("package", "version")}
        self._fact(f"dependency:{number}", requester=data["requester"]["id"], **known)

    def _on_dependency_recorded(self, data: Mapping[str, Any]) -> None:
        names = ("record_digest", "lock_before", "lock_after")
        known = {name: data[name] for name in names}
        self._packages[data["dependency"]].update(known)
        known.pop("lock_before")
        self._fact(f"dependency:{data['dependency']}", **known)

    def _on_dependency_approved(self, data: Mapping[str, Any]) -> None:
        """Rule 7: by an independent person, of exactly what was recorded."""
        number, actor, binding = data["dependency"], self._body["actor"], data["binding"]
        asked = self._packages[number]
        self._must(actor["kind"] == "person", f"a {actor['kind']} approved, and is no person")
        editor = (self._policy.get("editor") or {}).get("id")
        own = actor["id"] in {asked["requester"]["id"], asked["author"], editor}
        self._must(not own, f"four eyes: {actor['name']} approved a package of their own")
        computed = sha256(canonical(binding))
        self._must(data["binding_digest"] == computed, "the binding's digest is not its own")
        names = ("dependency", "package", "version", "record_digest", "lock_before", "lock_after")
        for name in names:
            self._must(binding[name] == asked[name], f"the approval binds to another {name}")
        in_force = binding["policy_digest"] == self._policy.get("digest")
        self._must(in_force, "the approval binds to a policy that is not in force")
        self._assent(data, "approve")

    def _on_dependency_rejected(self, data: Mapping[str, Any]) -> None:
        self._must(self._body["actor"]["kind"] == "person", "only a person rejects")
        self._assent(data, "reject")

    def _assent(self, data: Mapping[str, Any], decision: str) -> None:
        number, actor = data["review"], self._body["actor"]
        self._must(number not in self._assents, f"dependency-review:{number} is there twice")
        self._assents[number] = {**data, "person": actor["id"]}
        digest = data["binding_digest"]
        known = {"decision": decision, "reviewer": actor["id"], "reason": self._body["reason"]}
        of = f"dependency-review:{number}"
        self._fact(of, dependency=data["dependency"], binding_digest=digest, binding=digest)
        self._fact(of, **known)

    def _on_dependency_adopted(self, data: Mapping[str, Any]) -> None:
        """Rule 8: the approved lock, on the lock that it was judged against, with the quorum."""
        asked, at = self._packages[data["dependency"]], self._body["at"]
        newest = self._locks.get(max(self._locks, default=0))
        self._must(newest == asked["lock_before"], "it was judged against another lock")
        self._must(data["lock"] == asked["lock_after"], "the lock is not the approved one")
        approvals = [self._assents[n] for n in data["approvals"]]
        for one in approvals:
            of = f"dependency-review:{one['review']}"
            stands = self.facts[of].get("state") == "valid" and one.get("expires_at", "") > at
            self._must(stands, f"{of} does not stand any more")
            same = one["binding_digest"] == data["binding_digest"]
            self._must(same and one["dependency"] == data["dependency"], f"{of} is of another")
        quorum = max([1, *(one["binding"]["quorum"] for one in approvals)])
        people = len({one["person"] for one in approvals})
        self._must(people >= quorum, f"{people} people approved, {quorum} were needed")
        self._locked(data)

    def _on_lock_rolled_back(self, data: Mapping[str, Any]) -> None:
        self._must(self._body["actor"]["kind"] == "person", "only a person rolls a lock back")
        self._must(self._locks.get(data["restores"]) == data["lock"], "that lock never was")
        self._locked(data)

    def _locked(self, data: Mapping[str, Any]) -> None:
        number = data["generation"]
        self._must(number == max(self._locks, default=0) + 1, f"lock {number} does not follow")
        self._locks[number] = data["lock"]
        self._fact(f"lock:{number}", lock=data["lock"], image_id=data["image_id"])

    _on_lock_seeded = _locked
