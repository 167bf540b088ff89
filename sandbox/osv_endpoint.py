"""A small OSV service on loopback, which remembers what it was asked and what it answered.

pip-audit reads an answer that it can't use as "no known vulnerabilities", so it is never let near
a source directly: it asks here, every answer given is complete and in its form, and what was
answered is compared with what it then says. Behind it stands a snapshot or a service on the
network. Only loopback, only for the length of one audit.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from packaging.version import InvalidVersion, Version

from sandbox import advisories
from sandbox.advisory_files import SnapshotError

MAX_QUERY_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_PAGES = 20
NETWORK_SECONDS = 10
# Known to every source of advisories: one that says nothing about it knows nothing.
CANARY = ("jinja2", "2.10")
Record = Mapping[str, Any]


class NoAnswerError(Exception):
    """The source gave no answer that can be used; the message says why."""


class Source(Protocol):
    """Where advisories come from."""

    def of(self, package: str, version: str) -> list[Record]:
        """All advisories of a version; NoAnswerError where that can't be known."""


class Service:
    """An OSV service or a mirror of one (`.../v1/query`)."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        local = parts.hostname in {"127.0.0.1", "::1", "localhost"}
        if not parts.hostname or parts.scheme not in ({"https", "http"} if local else {"https"}):
            raise NoAnswerError(f"{url!r} is no https address of an OSV service (.../v1/query)")
        self._url = url

    def of(self, package: str, version: str) -> list[Record]:
        """Ask, page by page."""
        query: dict[str, Any] = {
            "package": {"name": package, "ecosystem": "PyPI"},
            "version": version,
        }
        found: list[Record] = []
        for _ in range(MAX_PAGES):
            answer = self._ask(query)
            try:
                records = [advisories.record(one) for one in answer.get("vulns") or []]
            except (SnapshotError, TypeError) as error:
                raise NoAnswerError(f"the service's answer is unknown: {error}") from error
            found += [r for r in records if r is not None]
            token = answer.get("next_page_token")
            if not token:
                return found
            query["page_token"] = token
        raise NoAnswerError(f"the service has over {MAX_PAGES} pages about {package}")

    def probe(self) -> None:
        """NoAnswerError unless it knows of a vulnerability that every such service knows of."""
        if not self.of(*CANARY):
            raise NoAnswerError(
                f"the service knows nothing of {CANARY[0]} {CANARY[1]}, which is publicly known to "
                "be vulnerable: it is no source of advisories"
            )

    def _ask(self, query: Mapping[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - https, or loopback: see __init__
            self._url,
            data=json.dumps(query).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=NETWORK_SECONDS) as opened:  # noqa: S310
                data = opened.read(MAX_ANSWER_BYTES + 1)
        except (OSError, ValueError, urllib.error.URLError) as error:
            raise NoAnswerError(f"the service does not answer: {error}"[:300]) from error
        if len(data) > MAX_ANSWER_BYTES:
            raise NoAnswerError(f"the service's answer is over {MAX_ANSWER_BYTES} bytes")
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise NoAnswerError("the service's answer is not JSON") from error
        if type(answer) is not dict or not set(answer) <= {"vulns", "next_page_token"}:
            raise NoAnswerError("the service's answer is no answer of an OSV service")
        return answer


@dataclass
class Witness:
    """What was asked and answered: (package, version) -> advisories, or why there was none."""

    url: str
    answered: dict[tuple[str, str], list[Record]] = field(default_factory=dict)
    unanswered: dict[tuple[str, str], str] = field(default_factory=dict)


@contextmanager
def serve(source: Source) -> Iterator[Witness]:
    """The endpoint, for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    witness = Witness(url=f"http://127.0.0.1:{server.server_port}/v1/query")
    server.source, server.witness = source, witness  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield witness
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    timeout = 30

    def do_POST(self) -> None:
        """Answer one query."""
        source: Source = self.server.source  # type: ignore[attr-defined]
        witness: Witness = self.server.witness  # type: ignore[attr-defined]
        try:
            length = int(self.headers["Content-Length"])
            if not 0 < length <= MAX_QUERY_BYTES:
                raise ValueError("too long")
            query = json.loads(self.rfile.read(length))
            key = (advisories.normal(query["package"]["name"]), str(query["version"]))
        except (KeyError, TypeError, ValueError):
            self.send_error(400)
            return
        try:
            found = source.of(*key)
        except NoAnswerError as error:
            witness.unanswered[key] = str(error)
            self.send_error(502)
            return
        witness.answered[key] = found
        body = json.dumps({"vulns": [_served(r, key[0]) for r in found]} if found else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the witness knows."""


def _served(one: Record, package: str) -> dict[str, Any]:
    """A record in the form that pip-audit can read to its end."""
    fixes = [{"fixed": at} for at in fixed_in(one, package)]
    return {
        "id": one["id"],
        "aliases": one["aliases"],
        "summary": one["summary"] or "no summary",
        "published": one["published"],
        "affected": [
            {
                "package": {"name": package, "ecosystem": "PyPI"},
                "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, *fixes]}],
            }
        ],
    }


def fixed_in(one: Record, package: str) -> list[str]:
    """The versions that mend it, as far as they are versions."""
    found = []
    for affected in one["affected"]:
        for events in affected["ranges"] if affected["name"] == package else []:
            found += [at for kind, at in events if kind == "fixed" and _is_version(at)]
    return sorted(set(found), key=Version)


def _is_version(text: str) -> bool:
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True
