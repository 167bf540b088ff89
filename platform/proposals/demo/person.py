"""A person at the web pages, over HTTP alone: log in, open what must be read, press a button.

It sends what a browser would send, from the forms that the page really shows: what a page does
not offer can't be done here. No database, no shortcut.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import httpx

PAGE_SECONDS = 120


class Refused(RuntimeError):
    """The page said no; `status` is HTTP's, the message what the page says."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


@dataclass
class Form:
    """One form of a page, with the values that it was sent with."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    options: dict[str, list[str]] = field(default_factory=dict)


class _Page(HTMLParser):
    """Forms, and the texts of alerts. Forms inside <noscript> count: no script runs here."""

    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.alerts: list[str] = []
        self._form: Form | None = None
        self._select = ""
        self._alert_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if self._alert_depth and tag not in {"br", "img", "input"}:
            self._alert_depth += 1
        elif values.get("role") == "alert":
            self._alert_depth = 1
            self.alerts.append("")
        if tag == "form":
            self._form = Form(values.get("action", ""), values.get("method", "get").lower())
            self.forms.append(self._form)
        elif self._form is not None and tag == "input" and "name" in values:
            self._form.fields[values["name"]] = values.get("value", "")
        elif self._form is not None and tag == "select":
            self._select = values.get("name", "")
        elif self._form is not None and tag == "option" and self._select:
            self._form.options.setdefault(self._select, []).append(values.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        if self._alert_depth:
            self._alert_depth -= 1
        if tag == "form":
            self._form = None
        elif tag == "select":
            self._select = ""

    def handle_data(self, data: str) -> None:
        if self._alert_depth:
            self.alerts[-1] += data


class Person:
    """One logged-in person, with a session of their own."""

    def __init__(self, url: str, name: str, password: str) -> None:
        self.name = name
        self._password = password
        self._http = httpx.Client(base_url=url, timeout=PAGE_SECONDS, trust_env=False)

    def __enter__(self) -> Self:
        form = self._form("/login/", "")
        answer = self._post(
            "/login/", {**form.fields, "username": self.name, "password": self._password}
        )
        if answer.status_code != 302 or "sessionid" not in self._http.cookies:
            raise Refused(answer.status_code, f"{self.name} could not log in{_said(answer)}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def approve(self, proposal: int, reason: str) -> None:
        """Open every changed file and finding, then approve what the page binds to."""
        path = f"/proposals/{proposal}/"
        items = self.to_open(proposal)
        if not items:
            raise Refused(200, f"{path} shows nothing to open: no informed review is possible")
        self._open(proposal, items)
        form = self._form(path, f"{path}approve")
        fields = {**form.fields, "reason": reason, "password": self._password}
        self._done(self._post(form.action, fields))

    def to_open(self, proposal: int) -> list[dict[str, str]]:
        """What the page asks to open: the changed files and the findings."""
        path = f"/proposals/{proposal}/"
        return [form.fields for form in self._forms(path) if form.action == f"{path}opened"]

    def forge_approval(
        self, proposal: int, binding_digest: str, items: list[dict[str, str]]
    ) -> None:
        """Send an approval that no page offers this person, made from what another page showed."""
        self._open(proposal, items)
        path = f"/proposals/{proposal}/"
        fields = {"binding_digest": binding_digest, "reason": "again", "password": self._password}
        self._done(
            self._post(f"{path}approve", {**fields, "csrfmiddlewaretoken": self._token(path)})
        )

    def _open(self, proposal: int, items: list[dict[str, str]]) -> None:
        path = f"/proposals/{proposal}/"
        token = self._token(path)
        for item in items:
            self._done(self._post(f"{path}opened", {**item, "csrfmiddlewaretoken": token}))

    def reject(self, proposal: int, reason: str) -> None:
        """Reject a proposal."""
        form = self._form(f"/proposals/{proposal}/", f"/proposals/{proposal}/reject")
        self._done(self._post(form.action, {**form.fields, "reason": reason}))

    def roll_back(self, target: str, activation: int, reason: str) -> None:
        """Bring an earlier version back, if the page offers it."""
        form = self._form(f"/targets/{target}/", f"/targets/{target}/rollback")
        offered = form.options.get("activation", [])
        if str(activation) not in offered:
            raise Refused(200, f"version {activation} is not among those offered: {offered}")
        fields = {**form.fields, "activation": str(activation), "reason": reason}
        self._done(self._post(form.action, fields))

    def export(self, reason: str) -> bytes:
        """Download the evidence bundle."""
        form = self._form("/audit/", "/audit/export")
        answer = self._post(form.action, {**form.fields, "reason": reason})
        if answer.status_code != 200 or "attachment" not in answer.headers["content-disposition"]:
            raise Refused(answer.status_code, f"no evidence bundle came{_said(answer)}")
        return answer.content

    def read(self, path: str) -> str:
        """A page's HTML."""
        answer = self._http.get(path)
        if answer.status_code != 200:
            raise Refused(answer.status_code, f"GET {path}{_said(answer)}")
        return answer.text

    def _forms(self, path: str) -> list[Form]:
        page = _Page()
        page.feed(self.read(path))
        return [form for form in page.forms if form.method == "post"]

    def _form(self, path: str, action: str) -> Form:
        for form in self._forms(path):
            if form.action == action:
                return form
        raise Refused(200, f"{path} offers {self.name} no form for {action or 'log-in'}")

    def _token(self, path: str) -> str:
        for form in self._forms(path):
            if token := form.fields.get("csrfmiddlewaretoken"):
                return token
        raise Refused(200, f"{path} has no form with a CSRF token")

    def _post(self, path: str, fields: dict[str, str]) -> httpx.Response:
        return self._http.post(urlsplit(path).path, data=fields, follow_redirects=False)

    def _done(self, answer: httpx.Response) -> None:
        """A verb that worked redirects; anything else is a refusal with its reason."""
        if answer.status_code != 302:
            raise Refused(answer.status_code, _said(answer).lstrip(": ") or "no reason given")


def _said(answer: httpx.Response) -> str:
    """The alerts of a page, as one line."""
    page = _Page()
    page.feed(answer.text[:400_000])
    words = " ".join(" ".join(page.alerts).split())
    return f": {words[:400]}" if words else ""
