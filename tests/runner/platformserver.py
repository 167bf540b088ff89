"""A small platform on loopback that speaks `runner.protocol`: stores what it is sent, strictly,
signs what it wants, and can be told to fail. Not the real one (`tests/proposals` has that)."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runner.control.platform_client import Credentials
from runner.protocol import (
    Desired,
    DraftSubmission,
    Observed,
    RunReport,
    TrialBatch,
    TrialReport,
    signing_bytes,
)
from sandbox.report import digest_of

TOKEN = "the-token"
COMMIT = "c" * 40
HEAD = "a" * 40
NULL = b'from sandbox.mechanism import Mechanism\n\n\nclass Null(Mechanism):\n    name = "null"\n'


class FakePlatform:
    """What it was told, and what it wants."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.desired: Desired | None = None
        self.observed: list[Observed] = []
        self.runs: list[RunReport] = []
        self.trials: dict[int, TrialReport] = {}
        self.drafts: dict[str, DraftSubmission] = {}
        self.faults: list[tuple[int, Any]] = []  # (status, body) for the next requests
        self.refuse: dict[str, list[tuple[int, str]]] = {}  # path -> refusals to come
        self.requests: list[str] = []
        self.down = False
        self.broken: list[str] = []
        self.url = ""
        self.lock = threading.RLock()

    def want(
        self,
        source: bytes,
        *,
        name: str = "null",
        version: int = 0,
        forged: Mapping[str, Any] = MappingProxyType({}),
    ) -> Desired:
        """Sign a desired state and serve it from now on; `forged` is changed after signing."""
        version = version or (self.desired.version + 1 if self.desired else 1)
        digest = digest_of(source)
        signed = signing_bytes(target="demo", version=version, commit=COMMIT, digest=digest)
        desired = Desired(
            target="demo",
            version=version,
            mechanism=name,
            commit=COMMIT,
            digest=digest,
            source=source.decode(),
            signature=self.key.sign(signed).hex(),
            stopped=False,
            base_commit=HEAD,
            library=[],
        )
        with self.lock:
            self.desired = desired.model_copy(update=dict(forged))
        return self.desired

    def credentials(self, **changes: str) -> Credentials:
        """As `manage.py register_runner` would write them."""
        fields = {
            "url": self.url,
            "token": TOKEN,
            "public_key": self.key.public_key().public_bytes_raw().hex(),
            "runner": "gpu-1",
            "target": "demo",
        }
        return Credentials.model_validate({**fields, **changes})

    def attested(self, state: str = "live") -> list[tuple[int, str]]:
        """(version, digest) of each different attestation in that state, in order."""
        found: list[tuple[int, str]] = []
        for one in self.observed:
            pair = (one.version, one.digest)
            if one.state == state and (not found or found[-1] != pair):
                found.append(pair)
        return found

    def idle_because(self, reason: str) -> bool:
        """Whether it was told that nothing runs, for that reason."""
        return any(o.state == "idle" and reason in o.reason for o in list(self.observed))

    def answer(self, method: str, path: str, token: str, body: bytes) -> tuple[int, Any]:
        """One request."""
        with self.lock:
            self.requests.append(f"{method} {path}")
            if self.faults:
                return self.faults.pop(0)
            if token != f"Bearer {TOKEN}":
                return 401, {"error": "bad_token", "message": "expired: register again"}
            if refusals := self.refuse.get(path):
                status, code = refusals.pop(0)
                return status, {"error": code, "message": f"{code} because the test says so"}
            return self.do(method, path, body)

    def do(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """The doors."""
        if (method, path) == ("GET", "desired"):
            if self.desired is None:
                return 404, {"error": "not_found", "message": "no mechanism yet"}
            return 200, self.desired.model_dump(mode="json")
        if path == "observed":
            self.observed.append(Observed.model_validate_json(body))
            return 200, {"ok": True}
        if path == "runs":
            self.runs.append(RunReport.model_validate_json(body))
            return 200, {"ok": True}
        if path == "trials":
            batch = TrialBatch.model_validate_json(body)
            for trial in batch.trials:
                assert self.trials.get(trial.number, trial) == trial, "a trial changed"
                if trial.number != len(self.trials) and trial.number not in self.trials:
                    return 409, {"error": "gap", "message": "a trial is missing"}
                self.trials[trial.number] = trial
            return 200, {"ok": True, "last_trial": max(self.trials)}
        if path == "proposals":
            draft = DraftSubmission.model_validate_json(body)
            self.drafts[draft.draft_id] = draft
            return 200, self.submitted(draft.draft_id)
        draft_id = path.removeprefix("proposals/")
        if draft_id in self.drafts:
            return 200, self.submitted(draft_id)
        return 404, {"error": "not_found", "message": "no such draft"}

    def submitted(self, draft_id: str) -> dict[str, Any]:
        """The state of a draft."""
        number = list(self.drafts).index(draft_id) + 1
        return {"draft_id": draft_id, "proposal": number, "state": "submitted", "reason": ""}


@contextmanager
def serve() -> Iterator[FakePlatform]:
    """A fake platform on a free port."""
    fake = FakePlatform()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply("GET")

        def do_POST(self) -> None:
            self.reply("POST")

        def reply(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if fake.down:
                self.close_connection = True
                return
            path = self.path.removeprefix("/api/v1/runner/")
            status, answer = fake.answer(method, path, self.headers.get("Authorization", ""), body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            error = sys.exc_info()[1]
            if not isinstance(error, OSError):  # the runner may hang up; nothing else may happen
                fake.broken.append(repr(error))

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert not fake.broken, fake.broken
