"""The connection to the Docker engine: with `docker.py`, all that knows Docker.

Every failure of the engine becomes an `InfrastructureError` that names the fix. What goes into
the sandbox image is decided in `sandbox.image`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from sandbox.errors import InfrastructureError

ENGINE_SECONDS = 60
WORKER_SECONDS = 30  # each answer about a worker; a build may be silent for longer
REGISTRY_ANSWER_SECONDS = 5
PULL_IDLE_SECONDS = 60

Progress = Callable[[str], None]


def address() -> str:
    """Where the engine is expected."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn every error of the engine or of the way to it into InfrastructureError."""
    try:
        yield
    except ImageNotFound as error:
        raise InfrastructureError(
            f"The sandbox image vanished from the engine ({doing}). Run: python -m sandbox image"
        ) from error
    except APIError as error:
        raise InfrastructureError(
            f"The Docker engine refused while {doing}: {error.explanation or error}"
        ) from error
    except (DockerException, requests.RequestException, OSError) as error:
        raise InfrastructureError(
            f"The Docker engine at {address()} does not answer ({doing}: {_short(error)}). "
            "Start it (`systemctl start docker`, or `dockerd`), or set DOCKER_HOST."
        ) from error


class _Client(docker.APIClient):
    """The library's client, with a deadline for each request: where it attaches it sets none."""

    def request(self, *words: Any, **options: Any) -> requests.Response:
        """As `requests` does it, but never waiting for ever."""
        options.setdefault("timeout", self.timeout)
        return super().request(*words, **options)


def connect(*, timeout_seconds: int = ENGINE_SECONDS) -> docker.APIClient:
    """A client of the engine that DOCKER_HOST names, or of the local one."""
    if os.environ.get("DOCKER_TLS_VERIFY"):
        raise InfrastructureError(
            "An engine behind TLS is not supported: workers talk over the raw stream. Forward its "
            "socket instead (`ssh -L /tmp/docker.sock:/var/run/docker.sock HOST`) and set "
            "DOCKER_HOST=unix:///tmp/docker.sock."
        )
    with engine_errors("connecting"):
        client = _Client(
            base_url=address(), version="auto", timeout=timeout_seconds, use_ssh_client=False
        )
        client.ping()
        return client


def identity(client: docker.APIClient) -> dict[str, str]:
    """Which engine this is, on which kernel, and how it isolates: another one may do otherwise."""
    with engine_errors("asking the engine who it is"):
        known = client.info()
    names = ("ID", "ServerVersion", "KernelVersion", "DefaultRuntime", "SecurityOptions")
    limits = ("CgroupVersion", "CgroupDriver", "MemoryLimit", "SwapLimit", "PidsLimit")
    return {name: str(known.get(name, "")) for name in (*names, *limits, "CpuCfsQuota", "Warnings")}


def require_runtime(client: docker.APIClient, runtime: str) -> None:
    """Raise InfrastructureError if the engine has no runtime of that name ("" is its default).

    Newer engines find what is named like a containerd shim without being told of it."""
    if not runtime or runtime.startswith("io.containerd."):
        return
    with engine_errors("asking the engine for its runtimes"):
        known = sorted(client.info().get("Runtimes") or {})
    if runtime not in known:
        raise InfrastructureError(
            f"The Docker engine has no runtime {runtime!r} (it has {', '.join(known)}). Install "
            "and register it (gVisor: `runsc install && systemctl restart docker`), or unset "
            "ESCAPEMENT_SANDBOX_RUNTIME."
        )


def find_image(client: docker.APIClient, tag: str) -> str | None:
    """The id of the image with that tag, or None."""
    with engine_errors("looking for the sandbox image"):
        try:
            return str(_inspect(client, tag)["Id"])
        except ImageNotFound:
            return None


def image_environment(client: docker.APIClient, image_id: str) -> list[str]:
    """Names of the environment variables that the image would bring along."""
    with engine_errors("reading the sandbox image"):
        config = _inspect(client, image_id)["Config"]
        return [entry.split("=", 1)[0] for entry in config.get("Env") or []]


def pull(client: docker.APIClient, reference: str, progress: Progress) -> bool:
    """Have `reference` from its registry; False, and said why, where none answers soon."""
    try:
        quick: Any = docker.APIClient(
            base_url=address(), version="auto", timeout=REGISTRY_ANSWER_SECONDS
        )
        quick.inspect_distribution(reference)
        patient: Any = docker.APIClient(
            base_url=address(), version="auto", timeout=PULL_IDLE_SECONDS
        )
        progress(f"pulling {reference}")
        repository, tag = reference.split(":")
        for event in patient.pull(repository, tag=tag, stream=True, decode=True):
            if "error" in event:
                raise DockerException(event["error"])
    except (DockerException, requests.RequestException) as error:
        progress(f"no registry gave {reference} ({_short(error)})")
        return False
    return find_image(client, reference) is not None


def _inspect(client: Any, image: str) -> dict[str, Any]:
    found: dict[str, Any] = client.inspect_image(image)
    return found


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
