"""Images of the Docker engine: saved, loaded, listed, removed. Part of what knows Docker.

Only what carries our own label or lies in our own repositories is ever listed for removal; what to
remove is decided in `sandbox.pruning`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound

from sandbox import archive
from sandbox.backends import engine
from sandbox.backends.engine import Progress, engine_errors
from sandbox.errors import InfrastructureError

CHUNK_BYTES = 4 * 1024 * 1024
MAX_SAVED_BYTES = 4 * 1024 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One image that the engine has. `named` is when it got its tag last."""

    image_id: str
    tags: tuple[str, ...]
    named: datetime
    size_bytes: int
    labels: Mapping[str, str] = field(default_factory=dict)


def base(
    client: docker.APIClient, reference: str, folder: Path, progress: Progress
) -> archive.Base | None:
    """The registry's image to build on, pulled where the engine has none; None: nobody gives it."""
    if engine.find_image(client, reference):
        progress(f"the engine has {reference}")
    else:
        progress(f"asking the registry for {reference} (a few seconds at most)")
        if not engine.pull(client, reference, progress):
            return None
    folder.mkdir()
    return saved(client, reference, folder / "base.tar")


def saved(client: docker.APIClient, reference: str, path: Path) -> archive.Base:
    """An image of the engine's, written to a file and read. Raises InfrastructureError."""
    with engine_errors(f"saving {reference}"), path.open("wb") as file:
        size = 0
        for chunk in client.get_image(reference, chunk_size=CHUNK_BYTES):
            size += len(chunk)
            if size > MAX_SAVED_BYTES:
                raise InfrastructureError(f"{reference} is over {MAX_SAVED_BYTES} bytes.")
            file.write(chunk)
    return archive.read(path, reference)


def load(client: docker.APIClient, path: Path) -> None:
    """Give an archive to the engine."""
    with engine_errors("loading the sandbox image"), path.open("rb") as file:
        answer: Any = client
        for event in answer.load_image(file, quiet=False) or ():
            if "error" in event:
                raise InfrastructureError(f"The engine can't load the image: {event['error']}")


def description(client: docker.APIClient, reference: str) -> dict[str, Any] | None:
    """What the engine knows of an image; None: it has none of that name."""
    with engine_errors(f"looking at {reference}"):
        try:
            return _inspected(client, reference)
        except ImageNotFound:
            return None


def ours(client: docker.APIClient, repositories: tuple[str, ...], label: str) -> list[Kept]:
    """Images of our repositories, and nameless ones that carry our label."""
    with engine_errors("listing images"):
        named = [i for r in repositories for i in client.images(name=r)]
        nameless = client.images(filters={"dangling": True, "label": [f"{label}=1"]})
        ids = sorted({str(i["Id"]) for i in [*named, *nameless]})
        found = []
        for image_id in ids:
            try:
                seen = _inspected(client, image_id)
            except ImageNotFound:
                continue  # somebody else removed it just now
            found.append(
                Kept(
                    image_id=image_id,
                    tags=tuple(sorted(seen.get("RepoTags") or [])),
                    named=_time(str(seen.get("Metadata", {}).get("LastTagTime", ""))),
                    size_bytes=int(seen.get("Size", 0)),
                    labels=dict(seen["Config"].get("Labels") or {}),
                )
            )
        return found


def in_use(client: docker.APIClient) -> set[str]:
    """Ids of the images that any container was made of, running or not."""
    with engine_errors("listing containers"):
        return {str(c["ImageID"]) for c in client.containers(all=True)}


def remove(client: docker.APIClient, reference: str) -> str:
    """Remove a tag, or a nameless image; never by force. Gives why it stayed, or nothing."""
    with engine_errors(f"removing {reference}"):
        try:
            client.remove_image(reference, force=False, noprune=False)
        except ImageNotFound:
            return ""
        except APIError as error:
            if error.status_code == 409:
                return str(error.explanation)
            raise
    return ""


def _inspected(client: Any, reference: str) -> dict[str, Any]:
    found: dict[str, Any] = client.inspect_image(reference)
    return found


def _time(text: str) -> datetime:
    """The engine's time; the beginning of all time where it says none."""
    found = re.match(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)", text)
    if not found or found[1] == "0001":
        return datetime(1970, 1, 1, tzinfo=UTC)
    return datetime.fromisoformat(f"{found[0]}+00:00")
