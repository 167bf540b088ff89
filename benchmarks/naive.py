"""The chain that the gate is measured against: one cold `docker run` for each of four tools.

Import, pytest, bandit and pip-audit over one mechanism, each in a container of its own, as a plain
script would do it: default flags, the files mounted, exit codes believed; pip-audit over what is
installed, which is what it does when it is told nothing else. It judges less than the
gate (no contract, no replay, no posture), and its tools see what a hostile draft lets them see.
"""

from __future__ import annotations

import http.server
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandbox import image, layout
from sandbox.backends import engine
from sandbox.report import Draft

TOOLS = ("bandit", "pip-audit")
TAG = "escapement-benchmark:naive"
NO_CACHE = ("-p", "no:cacheprovider")


def build_image(progress: image.Progress) -> str:
    """The sandbox image with bandit and pip-audit added, so that both sides run the same Python."""
    client = engine.connect()
    base = image.current_image(client)
    with tempfile.TemporaryDirectory(prefix="escapement-benchmark-") as folder:
        site = Path(folder, "site")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(site)]
        subprocess.run(
            [*pip, "--constraint", str(image.ROOT / "constraints.txt"), *TOOLS],
            check=True,
        )
        layout.compile_folder(site)
        Path(folder, "Dockerfile").write_text(
            f"FROM {base}\nCOPY site/ /opt/tools/\n"
            "ENV PYTHONPATH=/opt/sandbox:/opt/tools PATH=/usr/local/bin HOME=/tmp\nUSER 0\n",
            encoding="ascii",
        )
        progress("building the image of the naive chain")
        subprocess.run(
            ["docker", "build", "--quiet", "--network", "none", "--tag", TAG, folder],
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return TAG


@contextmanager
def advisories() -> Iterator[str]:
    """An advisory service on this machine that answers at once that nothing is known: the best
    case for the chain, which a real service's answer time is not."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
    finally:
        server.shutdown()
        server.server_close()


def commands(name: str, advisories_url: str) -> dict[str, list[str]]:
    """The four runs: extra flags of `docker run`, and what is run."""
    audit = ["-m", "pip_audit", "--strict", "-s", "osv", "--osv-url", advisories_url]
    audit += ["--progress-spinner", "off"]
    return {
        "import": ["--network", "none", "--", "-c", f"import mechanisms.{name}"],
        "pytest": ["--network", "none", "--", "-m", "pytest", "-q", *NO_CACHE, "tests"],
        "bandit": ["--network", "none", "--", "-m", "bandit", "-q", "-ll", "-r", "mechanisms"],
        "pip-audit": ["--network", "host", "--", *audit],
    }


def screen(draft: Draft, tag: str, advisories_url: str) -> None:
    """Run all four, one after the other. Raises CalledProcessError unless each passes."""
    with tempfile.TemporaryDirectory(prefix="escapement-naive-") as folder:
        for path, data in draft.files.items():
            target = Path(folder, path)
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(data)
        for words in commands(draft.name, advisories_url).values():
            split = words.index("--")
            flags, arguments = words[:split], words[split + 1 :]
            run = ["docker", "run", "--rm", "-v", f"{folder}:/draft", "-w", "/draft", *flags]
            run += ["--entrypoint", "/usr/local/bin/python3", tag, *arguments]
            subprocess.run(run, check=True, capture_output=True, timeout=300)
