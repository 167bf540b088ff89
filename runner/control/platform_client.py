"""The platform's doors, as a runner uses them: five requests, and what can go wrong with each.

Everything has a deadline and a limit of bytes; what fails on the way is tried again a few times.
Three things can go wrong, and they are told apart: `Refused` (the platform understood and said no,
in its own words: final; a proxy's 404 is not), `Unreachable` (nobody could know: keep it and try
later), `TokenInvalid` (this runner is not, or no longer, welcome: stop). What to send and when is
`runner.control.platform_link`'s business.
"""

from __future__ import annotations

import ipaddress
import os
import stat
import time
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from runner.background import in_background
from runner.protocol import (
    HEX64,
    Ack,
    Desired,
    DraftSubmission,
    Memory,
    Observed,
    Refusal,
    RunReport,
    Submitted,
    TrialBatch,
    Wire,
)

API = "/api/v1/runner"
ATTEMPTS = 3
CONNECT_SECONDS = 3.0
READ_SECONDS = 15.0
WHOLE_SECONDS = 30.0
KEEP_ALIVE_SECONDS = 4.0  # below what servers usually keep: none is used that was just closed
MAX_ANSWER_BYTES = 32 * 1024 * 1024  # a library of 200 operators of the largest size
MESSAGE_CHARS = 2000
AGAIN = frozenset({408, 425, 502, 503, 504})

M = TypeVar("M", bound=Wire)


class PlatformError(Exception):
    """Something went wrong between this runner and the platform."""


class Refused(PlatformError):
    """The platform says no, for good: `code` and the message say why and what to do."""

    def __init__(self, code: str, message: str, status: int) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


class Unreachable(PlatformError):
    """No answer, or no answer that says anything: try again later."""


class TokenInvalid(PlatformError):
    """The token is wrong, expired or revoked."""


class CredentialsError(ValueError):
    """The file of `manage.py register_runner` can't be used; the message says what to do."""


class Credentials(BaseModel):
    """The content of the file that `manage.py register_runner` writes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=500)
    token: SecretStr
    public_key: str = Field(pattern=HEX64)
    runner: str = Field(max_length=60)
    target: str = Field(max_length=60)

    @classmethod
    def read(cls, path: Path) -> Credentials:
        """Read and check the file. Raises CredentialsError."""
        fix = "write a new one with `manage.py register_runner`"
        try:
            if path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP) and os.name == "posix":
                raise CredentialsError(f"{path} can be read by others: chmod 600 {path}")
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise CredentialsError(f"{path} can't be read ({error.strerror}): {fix}") from error
        try:
            found = cls.model_validate_json(text)
        except ValidationError as error:
            problems = "; ".join(f"{e['loc']}: {e['msg']}" for e in error.errors())
            raise CredentialsError(f"{path} is not such a file ({problems}): {fix}") from None
        parts = urlsplit(found.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise CredentialsError(f"{path}: {found.url!r} is no http(s) address")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise CredentialsError(
                f"{path}: {found.url} would send the token unencrypted: use https"
            )
        return found


def is_loopback(host: str) -> bool:
    """Whether the address stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class PlatformClient:
    """One runner's connection. Safe to use from several threads."""

    def __init__(
        self, credentials: Credentials, *, attempts: int = ATTEMPTS, longest_pause: float = 2.0
    ) -> None:
        self.credentials = credentials
        self._attempts = attempts
        self._longest_pause = longest_pause
        host = urlsplit(credentials.url).hostname or ""
        self._known: tuple[str, Desired] | None = None  # the last desired state, and its tag
        self._http = httpx.Client(
            base_url=credentials.url.rstrip("/") + API,
            headers={"Authorization": f"Bearer {credentials.token.get_secret_value()}"},
            timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=False,
            limits=httpx.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS),
            trust_env=not is_loopback(host),
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def desired(self, *, once: bool = False) -> Desired:
        """What this runner should run; sent whole only where it changed since it last came.
        Nothing in it is verified yet (`runner.control.hotload`). `once`: not worth a second try."""
        return self._ask("GET", "/desired", None, Desired, attempts=1 if once else None)

    def observed(self, observed: Observed, *, once: bool = False) -> Ack:
        """Attest, or beat; `once`: a heartbeat is not worth a second try."""
        return self._ask("POST", "/observed", observed, Ack, attempts=1 if once else None)

    def run(self, report: RunReport) -> Ack:
        """Report the run itself."""
        return self._ask("POST", "/runs", report, Ack)

    def trials(self, batch: TrialBatch) -> Ack:
        """Report finished trials."""
        return self._ask("POST", "/trials", batch, Ack)

    def submit(self, draft: DraftSubmission) -> Submitted:
        """Submit a draft."""
        return self._ask("POST", "/proposals", draft, Submitted)

    def draft(self, draft_id: str) -> Submitted:
        """What became of a draft."""
        return self._ask("GET", f"/proposals/{draft_id}", None, Submitted)

    def memory(self, *, task_digest: str, run_id: str) -> Memory:
        """Other runs of a task on this runner's target."""
        return self._ask("GET", f"/memory?task_digest={task_digest}&run_id={run_id}", None, Memory)

    def _ask(
        self,
        method: str,
        path: str,
        body: Wire | None,
        answer: type[M],
        *,
        attempts: int | None = None,
    ) -> M:
        """One request, tried again while the platform can't be reached.

        Raises Refused, Unreachable, TokenInvalid.
        """
        again = Retrying(
            stop=stop_after_attempt(attempts or self._attempts),
            wait=wait_exponential_jitter(
                multiplier=min(0.2, self._longest_pause), max=self._longest_pause
            ),
            retry=retry_if_exception_type(Unreachable),
            reraise=True,
        )
        content = None if body is None else body.model_dump_json().encode()
        found: M = again(self._once, method, path, content, answer)
        return found

    def _once(self, method: str, path: str, content: bytes | None, answer: type[M]) -> M:
        headers = {} if content is None else {"Content-Type": "application/json"}
        known = self._known if answer is Desired else None
        if known is not None:
            headers["If-None-Match"] = known[0]
        # Beside, because a server that sends a byte of its head now and then reaches no timeout.
        asked = in_background(
            partial(self._exchange, method, path, content, headers), name="request"
        )
        try:
            status, tag, data = asked.result(WHOLE_SECONDS)
        except TimeoutError as error:
            raise Unreachable(
                f"{self.credentials.url} can't be reached: no answer in {WHOLE_SECONDS:g} s"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            why = str(error) or type(error).__name__
            raise Unreachable(f"{self.credentials.url} can't be reached: {why}") from error
        if status == 304 and known is not None and isinstance(known[1], answer):
            return known[1]
        if 200 <= status < 300:
            try:
                found = answer.model_validate_json(data)
            except ValidationError as error:
                raise Unreachable(
                    f"{method} {path}: the answer is not what this runner understands: "
                    f"{str(error)[:500]}"
                ) from error
            if isinstance(found, Desired):
                self._known = (tag, found) if tag else None
            return found
        raise self._problem(f"{method} {path}", status, data)

    def _exchange(
        self, method: str, path: str, content: bytes | None, headers: dict[str, str]
    ) -> tuple[int, str, bytes]:
        """Status, tag and body."""
        with self._http.stream(method, path, content=content, headers=headers) as response:
            data = self._read(response)
            return response.status_code, response.headers.get("ETag", ""), data

    @staticmethod
    def _read(response: httpx.Response) -> bytes:
        """The body, within the limits of bytes and of time in all."""
        data = bytearray()
        deadline = time.monotonic() + WHOLE_SECONDS
        for part in response.iter_bytes():
            data += part
            if len(data) > MAX_ANSWER_BYTES:
                raise OSError(f"the answer has over {MAX_ANSWER_BYTES} bytes")
            if time.monotonic() > deadline:
                raise OSError(f"the answer took over {WHOLE_SECONDS:.0f} s")
        return bytes(data)

    @staticmethod
    def _problem(what: str, status: int, data: bytes) -> PlatformError:
        try:
            refusal = Refusal.model_validate_json(data)
        except ValidationError:  # whatever it is, it is not the platform that speaks
            text = data[:200].decode(errors="replace")
            return Unreachable(f"{what} answered {status}, not as the platform does: {text}")
        message = refusal.message[:MESSAGE_CHARS]
        if status == 401:
            return TokenInvalid(f"the platform does not accept this runner's token: {message}")
        limited = status == 429 and refusal.error != "too_many_open"
        if status in AGAIN or status >= 500 or limited or not 400 <= status < 500:
            return Unreachable(f"{what} answered {status} ({refusal.error}): {message}")
        return Refused(refusal.error, message, status)
