"""The audit of the image's lock, with the real pip-audit: each way in which it could fail open."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from sandbox import advisories, image, pip_audit
from sandbox.advisories import Advisories
from sandbox.checks import dependencies
from sandbox.osv_endpoint import Source
from sandbox.report import CheckResult, Draft, Outcome, Severity
from sandbox.vulnerabilities import Scan, current

FILE = Path(__file__).parent / "advisories/pypa-2024-10-10-reduced.json"
NOW = datetime(2023, 8, 1, tzinfo=UTC)  # days after the newest advisory of the file
OLD = ("numpy==1.16.0", "pytest==9.2.0", "Pygments==2.7.0")
RECORDS = json.loads(FILE.read_bytes())
JINJA = [r for r in RECORDS if r["affected"][0]["package"]["name"] == "jinja2"]
NUMPY = next(r for r in RECORDS if r["id"] == "PYSEC-2019-108")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    advisories.store(FILE, into=tmp_path / "store", now=NOW)
    return tmp_path / "store"


def ids(scan: Scan) -> dict[str, list[str]]:
    return {name: [one["id"] for one in found] for name, found in scan.vulnerable.items()}


# --- the snapshot ---


def test_snapshot_finds_what_is_known(store: Path) -> None:
    scan = current(OLD, where=store, setting="", now=NOW)
    assert scan.complete
    assert not scan.stale(NOW)
    assert ids(scan) == {
        "numpy": ["PYSEC-2019-108", "PYSEC-2021-856", "PYSEC-2021-857"],
        "pygments": ["PYSEC-2021-140", "PYSEC-2021-141", "PYSEC-2023-117"],
    }
    assert scan.vulnerable["numpy"][0]["fixed_in"] == ["1.16.1"]
    assert scan.dated == "2023-07-19T17:26:16Z"


def test_the_images_own_lock_is_what_is_audited(store: Path) -> None:
    scan = current(where=store, setting="", now=NOW)
    assert scan.lock == tuple(image.pins())
    assert scan.complete
    assert ids(scan) == {}


def test_once_for_each_lock_and_snapshot(store: Path, tmp_path: Path) -> None:
    asked = []

    def audit(lock: Sequence[str], source: Source) -> pip_audit.Audit:
        asked.append(tuple(lock))
        return pip_audit.Audit()

    def look(lock: Sequence[str]) -> Scan:
        return current(lock, where=store, setting="", now=NOW, audit=audit)

    assert look(OLD) == look(OLD)
    assert len(asked) == 1
    look(OLD[:1])
    assert len(asked) == 2
    again = tmp_path / "again.json"
    again.write_text(json.dumps([*RECORDS, {**NUMPY, "id": "NEW-1"}]))
    advisories.store(again, into=store, now=NOW)
    look(OLD)
    assert len(asked) == 3
    for file in (store / "audits").glob("*.json"):
        file.write_text("{")
    look(OLD)
    assert len(asked) == 4


def test_an_incomplete_audit_is_tried_again_later(store: Path) -> None:
    answers = [pip_audit.Audit(not_scanned={"numpy": "x"}), pip_audit.Audit()]

    def audit(lock: Sequence[str], source: Source) -> pip_audit.Audit:
        return answers.pop(0)

    def look(minutes: int) -> bool:
        now = NOW + timedelta(minutes=minutes)
        return current(OLD, where=store, setting="", now=now, audit=audit).complete

    assert [look(0), look(1), look(10), look(100_000)] == [False, False, True, True]
    assert answers == []


def test_no_snapshot_and_a_damaged_one_are_not_scanned(store: Path, tmp_path: Path) -> None:
    none = current(OLD, where=tmp_path / "none", setting="", now=NOW)
    assert not none.complete
    assert "no snapshot" in none.problem
    for file in store.glob("*.json.gz"):
        file.write_bytes(file.read_bytes()[:100])
    damaged = current(OLD, where=store, setting="", now=NOW)
    assert not damaged.complete
    assert "store the snapshot again" in damaged.problem
    assert damaged.to_data(NOW)["state"] == "not scanned"


def test_what_stands_around_pip_audit_does_not_reach_it(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
        "PIP_AUDIT_FORMAT": "columns",
        "PIP_AUDIT_OUTPUT": "/dev/null",
        "PIP_AUDIT_VULNERABILITY_SERVICE": "pypi",
        "PYTHONPATH": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    assert ids(current(OLD, where=store, setting="", now=NOW))["numpy"]


# --- a pip-audit that says too little ---


def lying(tmp_path: Path, body: str) -> tuple[str, ...]:
    """A pip-audit that asks what the real one asks, and then does `body`."""
    script = tmp_path / "lying.py"
    script.write_text(
        "import json, sys, urllib.request\n"
        "args = dict(zip(sys.argv[1:], sys.argv[2:]))\n"
        "pins = [l.strip().split('==') for l in open(args['--requirement'])]\n"
        "def ask(name, version):\n"
        "    q = {'package': {'name': name, 'ecosystem': 'PyPI'}, 'version': version}\n"
        "    r = urllib.request.Request(args['--osv-url'], json.dumps(q).encode())\n"
        "    return json.load(urllib.request.urlopen(r)).get('vulns', [])\n"
        "def entry(n, v):\n"
        "    return {'name': n, 'version': v, 'vulns': ask(n, v)}\n"
        "def say(entries):\n"
        "    open(args['--output'], 'w').write(json.dumps({'dependencies': entries}))\n" + body
    )
    return (sys.executable, str(script))


HONEST = "say([entry(n, v) for n, v in pins])"
LIES = {
    HONEST: "",
    "say([])": "never asked",
    "[ask(n, v) for n, v in pins]; say([])": "missing in pip-audit's report",
    "say([entry(n, v) for n, v in pins if n != 'numpy'])": "never asked",
    "e = [entry(n, v) for n, v in pins]; e[0]['vulns'] = []; say(e)": "left out PYSEC-2019-108",
    "e = [entry(n, v) for n, v in pins]; e[0]['vulns'].pop(); say(e)": "left out PYSEC-2021-857",
    "e = [entry(n, v) for n, v in pins]; e[0] = {'name': 'numpy', 'skip_reason': 'no'}; say(e)": (
        "skipped it: no"
    ),
    "e = [entry(n, v) for n, v in pins]; e[0]['version'] = '9'; say(e)": "another version",
    "print('No known vulnerabilities found')": "no report",
    "[ask(n, v) for n, v in pins]; print('No known vulnerabilities found')": "no report",
    "open(args['--output'], 'w').write('{\"dependencies\": [')": "no report",
    "open(args['--output'], 'w').write('[]')": "no report",
    "raise SystemExit(3)": "exit 3",
    "import time; time.sleep(600)": "no answer",
}


@pytest.mark.parametrize("body", LIES)
def test_silence_of_pip_audit_is_not_scanned(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "sleep" in body:
        monkeypatch.setattr(pip_audit, "SECONDS", 1)
    reduced = [r for r in map(advisories.record, RECORDS) if r is not None]
    audit = pip_audit.audit(OLD[:2], Advisories(reduced), command=lying(tmp_path, body))
    if not LIES[body]:
        assert audit.not_scanned == {}
        assert len(audit.vulnerable["numpy"]) == 3
    else:
        assert LIES[body] in audit.not_scanned["numpy"]
    if "ask" in body or HONEST in body:  # what the endpoint answered is known, whatever was said
        assert "numpy" not in audit.vulnerable or len(audit.vulnerable["numpy"]) == 3


def test_a_missing_pip_audit_is_not_scanned() -> None:
    audit = pip_audit.audit(OLD, Advisories([]), command=("/nowhere/pip-audit",))
    assert set(audit.not_scanned) == {"numpy", "pytest", "pygments"}


# --- a service on the network, or a mirror ---


@pytest.fixture
def service(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Callable[[dict[str, Any]], tuple[int, bytes]]], str]]:
    """A real HTTP service that answers as it is told; gives its address."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[ThreadingHTTPServer] = []

    def start(answer: Callable[[dict[str, Any]], tuple[int, bytes]]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, body = answer(query)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/v1/query"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answer_with(numpy: Any, *, status: int = 200) -> Callable[[dict[str, Any]], tuple[int, bytes]]:
    """Right about the canary, `numpy` about numpy, nothing known of the rest."""

    def answer(query: dict[str, Any]) -> tuple[int, bytes]:
        name = query["package"]["name"]
        if name == "jinja2":
            return 200, json.dumps({"vulns": JINJA}).encode()
        if name != "numpy":
            return 200, b"{}"
        if callable(numpy):
            return 200, json.dumps(numpy(query)).encode()
        return status, numpy if isinstance(numpy, bytes) else json.dumps(numpy).encode()

    return answer


def test_a_service_that_answers(service: Any, tmp_path: Path) -> None:
    pages = {None: {"vulns": [], "next_page_token": "2"}, "2": {"vulns": [NUMPY]}}
    url = service(answer_with(lambda query: pages[query.get("page_token")]))
    scan = current(OLD, where=tmp_path, setting=url, now=NOW)
    assert scan.complete
    assert ids(scan) == {"numpy": ["PYSEC-2019-108"]}  # on the second page
    assert scan.source == url
    assert scan.dated == "2023-08-01T00:00:00Z"


BAD_ANSWERS = [
    ({"vulns": [{**NUMPY, "schema_version": "2.0"}]}, 200, "schema 2.0"),
    ({"vulns": [{"id": "X", "modified": "2023-01-01T00:00:00Z"}]}, 200, "affected"),
    ({"vulns": [7]}, 200, "no OSV record"),
    ({"vulns": {"a": 1}}, 200, "no OSV record"),
    ({"vulns": [], "next_page_token": "again"}, 200, "pages"),
    ({"code": 7, "message": "rate limit"}, 200, "no answer of an OSV"),
    (b"<html>log in to the network</html>", 200, "not JSON"),
    (b"", 200, "not JSON"),
    (b"[]", 200, "no answer of an OSV"),
    (b"{}", 500, "does not answer"),
    (b"{}", 404, "does not answer"),
]


@pytest.mark.parametrize(("numpy", "status", "says"), BAD_ANSWERS)
def test_a_service_that_answers_wrongly_is_not_scanned(
    numpy: Any, status: int, says: str, service: Any, tmp_path: Path
) -> None:
    url = service(answer_with(numpy, status=status))
    scan = current(OLD[:1], where=tmp_path, setting=url, now=NOW)
    assert not scan.complete
    assert says in scan.not_scanned["numpy"]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("http://127.0.0.1:9/v1/query", "does not answer"),
        ("http://mirror.example/v1/query", "no https address"),
        ("file:///etc/passwd", "no https address"),
        ("nonsense", "no https address"),
    ],
)
def test_no_service(setting: str, says: str, tmp_path: Path) -> None:
    scan = current(OLD, where=tmp_path, setting=setting, now=NOW)
    assert not scan.complete
    assert says in scan.problem


def test_a_service_that_knows_nothing_at_all(service: Any, tmp_path: Path) -> None:
    url = service(lambda _: (200, b"{}"))
    scan = current(OLD, where=tmp_path, setting=url, now=NOW)
    assert not scan.complete
    assert "jinja2" in scan.problem


def test_pip_audit_alone_would_have_failed_open(service: Any, tmp_path: Path) -> None:
    """Why all of this: the same answer straight to pip-audit is a clean exit."""
    url = service(answer_with({"vulns": [{**NUMPY, "schema_version": "2.0"}]}))
    lock = tmp_path / "lock.txt"
    lock.write_text("numpy==1.16.0\n")
    command = [*pip_audit.COMMAND, *pip_audit.OPTIONS, "--osv-url", url, "-r", str(lock)]
    command += ["--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0
    assert "No known vulnerabilities found" in done.stderr


# --- the check ---


def check(source: str, scan: Scan, test: str = "") -> CheckResult:
    files = {"mechanisms/a.py": source.encode()}
    if test:
        files["tests/test_a.py"] = test.encode()
    draft = Draft(mechanism_path="mechanisms/a.py", files=files)
    return dependencies.check(draft, lambda: scan)


def rules(result: CheckResult) -> list[tuple[str, Severity]]:
    return [(f.rule, f.severity) for f in result.findings]


def test_only_what_is_imported_is_vulnerable(store: Path) -> None:
    scan = current(OLD, where=store, setting="", now=datetime.now(UTC))
    result = check("import math\nimport numpy as np\n", scan)
    assert result.outcome is Outcome.FAILED
    assert rules(result) == [
        *[("vulnerable-dependency", Severity.ERROR)] * 3,
        ("advisories-stale", Severity.WARNING),
    ]
    assert "line 2" in result.findings[0].message
    assert "CVE-2019-6446" in result.findings[0].message
    assert "1.16.1" in result.findings[0].message
    clean = check("import math\n", scan)
    assert clean.outcome is Outcome.PASSED
    assert rules(clean) == [("advisories-stale", Severity.WARNING)]
    assert set(clean.detail["advisories"]["vulnerable"]) == {"numpy", "pygments"}


def test_missing_forbidden_and_vulnerable_are_three(store: Path) -> None:
    scan = current(OLD, where=store, setting="", now=datetime.now(UTC))
    found = dict(rules(check("import botorch\nimport pygments\nimport pytest\n", scan)))
    assert set(found) == {
        *("dependency-missing", "dependency-forbidden", "vulnerable-dependency"),
        "advisories-stale",
    }


def test_not_scanned_is_a_state_of_its_own() -> None:
    scan = Scan(lock=OLD, dated="2023-07-19T17:26:16Z", not_scanned={"numpy": "no answer"})
    result = check("import numpy\n", scan)
    assert result.detail["advisories"]["state"] == "not scanned"
    assert "numpy: no answer" in result.findings[0].message
    assert [r for r, _ in rules(result)] == ["advisories-not-scanned", "advisories-stale"]
