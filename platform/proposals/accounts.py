"""Logging in: Django's own view, with each attempt on the audit log."""

from __future__ import annotations

from audit.actors import SYSTEM
from audit.log import append
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.models import User
from django.contrib.auth.views import LoginView
from django.db import transaction
from django.http import HttpResponse

from proposals.modeltext import reveal
from proposals.people import actor_of


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
