"""Loading a policy: the verb behind `manage.py load_policy`. Each version is kept, the newest one
is in force; approvals under an earlier one bind to nothing any more."""

from __future__ import annotations

from audit.actors import Actor, ActorKind
from django.contrib.auth.models import User

from proposals.acts import Denied, act, policy_in_force
from proposals.models import PolicyVersion
from proposals.people import actor_of, may_own_policy
from proposals.policy import PolicyError, digest_of_text, parse


def set_policy(*, text: str, actor: Actor, editor: User | None = None) -> PolicyVersion:
    """Put a policy in force. Only its owners may; the very first one is the platform's own."""
    digest = digest_of_text(text)
    with act(actor=actor, tried="set_policy", subject=f"policy:{digest[:12]}") as ledger:
        try:
            policy = parse(text)
        except PolicyError as error:
            raise Denied("bad_policy", str(error)) from error
        first = not PolicyVersion.objects.exists()
        if editor is None and not (first and actor.kind is ActorKind.SYSTEM):
            raise Denied("not_entitled", "a policy is loaded by a person who owns it")
        if editor is not None:
            owners = policy if first else policy_in_force()[1]
            if actor != actor_of(editor) or not may_own_policy(editor, owners):
                role = owners.people.roles.own_policy
                raise Denied("not_entitled", f"only the group {role} may load a policy")
        version = PolicyVersion.objects.create(
            digest=digest, text=text, mode=policy.mode, loaded_by=str(actor), editor=editor
        )
        named = {"id": str(editor.pk), "name": editor.get_username()} if editor else None
        ledger.write(
            "policy.loaded",
            subject=f"policy:{digest[:12]}",
            data={"digest": digest, "mode": policy.mode, "editor": named, "title": policy.title},
        )
    return version
