"""A Docker engine of our own, to be killed, stopped and filled: never the machine's.

It has its own socket, folders and containerd. Its data lie on a small file system in memory, so
that it can be made full.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from sandbox.backends import engine
from sandbox.errors import InfrastructureError

START_SECONDS = 60
DATA_BYTES = 3 << 30
PIECE_BYTES = 1 << 20


class OwnEngine:
    """A dockerd below one folder. It needs root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._filler = folder / "data/filler"
        self.address = f"unix://{folder}/docker.sock"
        (folder / "data").mkdir()
        tmpfs = ["mount", "-t", "tmpfs", "-o", f"size={DATA_BYTES}", "tmpfs", str(folder / "data")]
        subprocess.run(tmpfs, check=True)  # noqa: S603 - our own folder

    def start(self) -> None:
        """Start it and wait until it answers."""
        (self._folder / "docker.pid").unlink(missing_ok=True)
        folder = self._folder
        command = ["dockerd", "--host", self.address, "--data-root", str(folder / "data")]
        command += ["--exec-root", str(folder / "exec"), "--pidfile", str(folder / "docker.pid")]
        command += ["--bridge", "none", "--iptables=false", "--ip-forward=false"]
        with (folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                engine.connect().close()
                return
            except InfrastructureError as error:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    tail = (folder / "dockerd.log").read_text(errors="replace")[-800:]
                    raise SystemExit(f"the engine does not start: {error}\n{tail}") from error
                time.sleep(0.2)

    def kill(self) -> None:
        """As a crash would: no word, no cleaning up. Its containerd dies with it, and the file
        that names it would make the next engine wait for it."""
        if self._process:
            self._process.kill()
            self._process.wait()
        named = self._folder / "exec/containerd/containerd.pid"
        if named.exists():
            with suppress(ProcessLookupError):
                os.kill(int(named.read_text(encoding="ascii")), signal.SIGKILL)
            named.unlink()

    def hang(self) -> None:
        """It is there, takes connections, and answers nothing."""
        if self._process:
            self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It answers again, also what was asked meanwhile."""
        if self._process:
            self._process.send_signal(signal.SIGCONT)

    def fill(self) -> None:
        """Leave no byte on its disk."""
        with suppress(OSError), self._filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * PIECE_BYTES)

    def free(self) -> None:
        """Give the room back."""
        self._filler.unlink(missing_ok=True)

    def left(self, owner: str = "") -> list[str]:
        """Workers that are there, running or not; those of one owner if it is given."""
        labels = ["escapement.sandbox=1", *([f"escapement.owner={owner}"] if owner else [])]
        client = engine.connect()
        try:
            return [c["Id"] for c in client.containers(all=True, filters={"label": labels})]
        finally:
            client.close()

    def stop(self) -> None:
        """In peace; then end the helpers that a killed engine left, known by its folder."""
        self.go_on()
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(START_SECONDS)
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                if f"{self._folder}/".encode() in process.read_bytes():
                    os.kill(int(process.parent.name), signal.SIGKILL)
        rows = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        places = [row.split()[1] for row in rows]
        for place in sorted((p for p in places if p.startswith(f"{self._folder}/")), reverse=True):
            subprocess.run(["umount", "--lazy", place], check=True)  # noqa: S603, S607
