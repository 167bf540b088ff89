"""Accounts: made and closed by the site's commands, and logging in, each of it on the audit log."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from audit.actors import SYSTEM
from audit.log import append
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import Group, User
from django.contrib.auth.views import LoginView
from django.db import transaction
from django.http import HttpResponse

from proposals.acts import Denied, policy_in_force
from proposals.modeltext import reveal
from proposals.people import actor_of

ROLES = ("review", "operate", "audit", "own_policy")


def create(name: str, *, roles: Sequence[str], first: str = "", last: str = "") -> str:
    """Make an account with those roles of the policy in force; its password, which is kept nowhere.

    Raises Denied if the name is taken or no policy is loaded, ValidationError on a bad name.
    """
    known = policy_in_force()[1].people.roles
    with transaction.atomic():
        if User.objects.filter(username__iexact=name).exists():
            raise Denied("name_exists", f"there is an account {name} already")
        person = User(username=name, first_name=first, last_name=last)
        password = secrets.token_urlsafe(9)
        person.set_password(password)
        person.full_clean()
        person.save()
        groups = [Group.objects.get_or_create(name=getattr(known, role))[0] for role in roles]
        person.groups.set(groups)
        _tell("user.created", person)
    return password


def close(name: str) -> None:
    """Nobody logs in with it any more, and who is logged in is out. Raises Denied."""
    with transaction.atomic():
        person = User.objects.select_for_update().filter(username=name, is_active=True).first()
        if person is None:
            raise Denied("unknown", f"there is no open account {name}")
        person.is_active = False
        person.save(update_fields=["is_active"])
        _tell("user.changed", person)


def _tell(verb: str, person: User) -> None:
    data = {
        "id": str(person.pk),
        "groups": sorted(person.groups.values_list("name", flat=True)),
        "active": person.is_active,
    }
    append(actor=SYSTEM, verb=verb, subject=f"user:{person.username}", data=data)


class LogIn(LoginView):
    """The log-in page."""

    template_name = "login.html"
    redirect_authenticated_user = True

    def form_valid(self, form: AuthenticationForm) -> HttpResponse:
        """Log in, and say so on the log; both or neither."""
        person = form.get_user()
        if not isinstance(person, User):
            return self.form_invalid(form)
        with transaction.atomic():
            append(
                actor=actor_of(person), verb="auth.login", subject=f"user:{person.get_username()}"
            )
            return super().form_valid(form)

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        """Say on the log that somebody tried; the name is what was typed, so it is only data."""
        name = reveal(str(form.data.get("username", "")))[:150]
        with transaction.atomic():
            append(
                actor=SYSTEM, verb="auth.login_failed", subject="user:unknown", data={"name": name}
            )
        return super().form_invalid(form)
