"""Rules 1 to 5: proposals, their screenings and reviews, and what becomes live on a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from audit.verifier.ledger import Ledger
from audit.verifier.signing import canonical, sha256


class Changes(Ledger):
    """What happens to a proposal, and to a target."""

    def _on_proposal_submitted(self, data: Mapping[str, Any]) -> None:
        number = data["proposal"]
        self._must(number not in self._submitted, f"proposal {number} is submitted twice")
        self._submitted[number] = dict(data)
        self._author[number] = dict(self._body["actor"])
        self._fact(
            f"proposal:{number}",
            target=self._body["target"],
            requester=data["requester"]["id"],
            **{k: data[k] for k in ("name", "digest", "commit", "tree", "base_commit")},
        )

    def _on_proposal_rebased(self, data: Mapping[str, Any]) -> None:
        number = data["proposal"]
        draft = self._submitted[number]
        self._must(data["digest"] == draft["digest"], "other bytes came with the new base")
        valid = [
            n
            for n, review in self._reviews.items()
            if review["proposal"] == number and self.facts[f"review:{n}"].get("state") == "valid"
        ]
        self._must(not valid, f"reviews {valid} were not voided before the commit moved")
        moved = {k: data[k] for k in ("commit", "tree", "base_commit")}
        draft.update(moved)
        self._fact(f"proposal:{number}", **moved)

    def _on_screening_finished(self, data: Mapping[str, Any]) -> None:
        number, outcome = data["proposal"], data["outcome"]
        self._must(self._body["actor"]["kind"] == "system", "a screening is the system's work")
        self._must(
            data["commit"] == self._submitted[number]["commit"], "another commit was screened"
        )
        ends = {m["to"] for m in data.get("moves", []) if m["of"] == f"proposal:{number}"}
        self._must("passed" not in ends or outcome == "passed", f"it passed, being {outcome}")
        self._screened[number] = dict(data)
        self._fact(
            f"screening:{data['screening']}",
            outcome=outcome,
            evidence_digest=data["evidence_digest"],
            policy_digest=data["policy_digest"],
            report=data["evidence_digest"],
            proposal=number,
        )

    def _on_review_approved(self, data: Mapping[str, Any]) -> None:
        self._review(data, "approve")
        self._four_eyes(data)
        self._binding(data)

    def _on_review_rejected(self, data: Mapping[str, Any]) -> None:
        self._must(self._body["actor"]["kind"] == "person", "only a person rejects")
        self._review(data, "reject")

    def _review(self, data: Mapping[str, Any], decision: str) -> None:
        number, actor = data["review"], self._body["actor"]
        self._must(number not in self._reviews, f"review {number} is there twice")
        self._reviews[number] = {**data, "decision": decision, "actor": actor}
        self._fact(
            f"review:{number}",
            decision=decision,
            reviewer=actor["id"] if actor["kind"] == "person" else "",
            by_policy=actor["id"] if actor["kind"] == "policy" else "",
            proposal=data["proposal"],
            binding_digest=data["binding_digest"],
            binding=data["binding_digest"],
            reason=self._body["reason"],
        )

    def _four_eyes(self, data: Mapping[str, Any]) -> None:
        """Rule 2. An account is compared by its id; a token or the system approves nothing."""
        number, actor = data["proposal"], self._body["actor"]
        if actor["kind"] == "policy":
            verdict = self._screened[number]["verdict"]
            self._must(actor["id"] == self._policy.get("digest"), "that policy is not in force")
            self._must(self._policy.get("mode") == "guarded", "the policy is not in guarded mode")
            self._must(verdict["decision"] == "allow", "the verdict does not allow it by itself")
            self._must(not self._stops, "autonomy is stopped")
            return
        self._must(actor["kind"] == "person", f"a {actor['kind']} approved, and is no person")
        draft, author = self._submitted[number], self._author[number]
        excluded = {
            "requester": draft["requester"]["id"],
            "operator of the runner": (draft["operator"] or {}).get("id"),
            "author": author["id"] if author["kind"] == "person" else None,
            "editor of the policy in force": (self._policy.get("editor") or {}).get("id"),
        }
        for role, person in excluded.items():
            self._must(person != actor["id"], f"four eyes: {actor['name']} approved, being {role}")
        same = [
            r
            for n, r in self._reviews.items()
            if n != data["review"] and r["proposal"] == number and r["decision"] == "approve"
            if r["actor"] == actor and self.facts[f"review:{n}"].get("state") == "valid"
        ]
        self._must(not same, f"{actor['name']} approved twice")

    def _binding(self, data: Mapping[str, Any]) -> None:
        """Rule 3."""
        number, binding = data["proposal"], data["binding"]
        draft, screened = self._submitted[number], self._screened[number]
        computed = sha256(canonical(binding))
        self._must(data["binding_digest"] == computed, "the binding's digest is not its own")
        said: dict[str, Any] = {
            "proposal": number,
            "target": self.facts[f"proposal:{number}"]["target"],
            "policy_digest": self._policy.get("digest"),
            **{k: draft[k] for k in ("commit", "tree", "digest", "base_commit")},
            **{k: screened[k] for k in ("evidence_digest", "image_id")},
        }
        for name, value in said.items():
            self._must(binding[name] == value, f"the approval binds to another {name}")
        self._must(
            screened["policy_digest"] == binding["policy_digest"], "screened by another policy"
        )
        self._must(screened["outcome"] == "passed", "its screening did not pass")
        self._must(screened["verdict"]["decision"] != "deny", "the verdict denies it")

    # --- what happens to a target ---

    def _on_activation_requested(self, data: Mapping[str, Any]) -> None:
        """Rule 4."""
        number, target = data["activation"], self._body["target"]
        earlier = [a for a in self._activations.values() if a["target"] == target]
        version = max((a["version"] for a in earlier), default=0) + 1
        self._must(number not in self._activations, f"activation {number} is there twice")
        self._must(data["version"] == version, f"version {data['version']} is not {version}")
        kind = data["kind"]
        if kind in {"approval", "policy"}:
            self._approved(data)
        elif kind == "seed":
            self._must(not earlier, "a seed is the first of its target")
        elif kind in {"rollback", "auto_rollback", "revert"}:
            restored = self._activations.get(data["restores"], {})
            same = (restored.get("target"), restored.get("digest")) == (target, data["digest"])
            self._must(
                same and data["restores"] in self._was_live,
                f"a {kind} restores what was live on this target, and this was not",
            )
        else:
            self._say(f"'{kind}' is no kind of activation")
        self._activations[number] = {**data, "target": target}
        self._fact(
            f"activation:{number}",
            target=target,
            attested="",
            **{k: data[k] for k in ("kind", "version", "digest", "commit", "proposal")},
        )
        self._fact(f"target:{target}", desired_version=version, desired_digest=data["digest"])

    def _approved(self, data: Mapping[str, Any]) -> None:
        number, at = data["proposal"], self._body["at"]
        draft, verdict = self._submitted[number], self._screened[number]["verdict"]
        self._must(number not in self._activated, "this proposal was activated by approval before")
        self._activated.add(number)
        for name in ("digest", "commit"):
            self._must(data[name] == draft[name], f"the {name} is not the approved one")
        approvals = [self._reviews[n] for n in data["approvals"]]
        used = {m["of"] for m in data.get("moves", []) if m["to"] == "consumed"}
        for review in approvals:
            of = f"review:{review['review']}"
            valid = self.facts[of].get("state") == "valid"
            self._must(valid, f"{of} is {self.facts[of].get('state')}, not valid")
            self._must(review["decision"] == "approve", f"{of} is no approval")
            self._must(review["proposal"] == number, f"{of} is about another proposal")
            self._must(review.get("expires_at", "") > at, f"{of} had expired")
            self._must(of in used, f"{of} is not consumed by it")
            same = review["binding_digest"] == data["binding_digest"]
            self._must(same, f"{of} binds to something else")
            bound = review.get("binding", {})
            self._must(bound.get("target") == self._body["target"], f"{of} is for another target")
            in_force = bound.get("policy_digest") == self._policy.get("digest")
            self._must(in_force, f"{of} was given under a policy that is not in force")
        who = {(r["actor"]["kind"], r["actor"]["id"]) for r in approvals}
        if data["kind"] == "policy":
            by_policy = ("policy", self._policy.get("digest")) in who
            self._must(by_policy and not self._stops, "not by the policy, or autonomy is stopped")
            return
        people = len([kind for kind, _ in who if kind == "person"])
        quorum = max(1, verdict["quorum"])
        self._must(people >= quorum, f"{people} people approved, {quorum} were needed")

    def _on_activation_live(self, data: Mapping[str, Any]) -> None:
        """Rule 5."""
        asked, target = self._activations[data["activation"]], self._body["target"]
        self._must(self._body["actor"]["kind"] == "runner", "only a runner attests")
        same = data["digest_attested"] == data["digest"] == asked["digest"]
        self._must(same, "the attested digest is not the one that was requested")
        self._must(asked["target"] == target, "it was requested for another target")
        self._must(data["version"] == asked["version"], "it was requested as another version")
        leaving = {m["of"] for m in data.get("moves", []) if m["from"] == "live"}
        others = [
            n
            for n, a in self._activations.items()
            if a["target"] == target and n != data["activation"]
            if self.facts[f"activation:{n}"].get("state") == "live"
            if f"activation:{n}" not in leaving
        ]
        self._must(not others, f"activation {others} of this target is live too")
        self._fact(f"activation:{data['activation']}", attested=data["digest_attested"])
        self._fact(f"target:{target}", live_version=data["version"], live_digest=data["digest"])

    def _on_target_rolled_back(self, data: Mapping[str, Any]) -> None:
        self._must(self._body["actor"]["kind"] != "runner", "a runner rolls nothing back")
        of = f"activation:{data['activation']}"
        ended = any(m["of"] == of and m["to"] == "rolled_back" for m in data.get("moves", []))
        self._must(ended, f"{of} is not moved to rolled_back")
