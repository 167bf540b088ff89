"""The bill of materials of the sandbox image, as CycloneDX JSON, from what it is built from.

The packages of its lock, the Python it was built with and our own files with their hashes; the
same inputs give the same bytes. What the base image brings besides Python is not in it. Licences
are what the packages of the same version say that are installed here.
"""

from __future__ import annotations

import importlib.metadata
import json
import uuid
from collections.abc import Iterable
from functools import cache
from typing import Any

from sandbox import image
from sandbox import lock as locks
from sandbox.errors import InfrastructureError
from sandbox.report import digest_of

NAMESPACE = uuid.UUID("6f0d1a3e-5a0b-5d0c-9c55-3b1f4a6d2e71")


def document(lock: Iterable[str] | None = None) -> dict[str, Any]:
    """The bill as plain JSON data."""
    data: dict[str, Any] = json.loads(text(lock))
    return data


def digest(lock: Iterable[str] | None = None) -> str:
    """SHA-256 of the bill's canonical JSON (`canonical`)."""
    return digest_of(canonical(document(lock)))


def canonical(bill: Any) -> bytes:
    """The bytes that the digest is of."""
    return json.dumps(bill, sort_keys=True, separators=(",", ":")).encode()


def text(lock: Iterable[str] | None = None) -> str:
    """The bill as a file to hand out."""
    name, _, version = image.tag().partition(":")
    files = {n: image.digest(d) for n, d in image.inputs().items() if n.startswith("sandbox/")}
    python = ".".join(image.inputs()["python"].decode().split()[0].split(".")[:3])
    known = locks.current()
    pins = tuple(known.lines() if lock is None else lock)
    said = tuple((pin.line, pin.licence, pin.hashes) for pin in known.pins)
    return _write(name, (version, python), pins, said, tuple(sorted(files.items())))


@cache
def _write(
    name: str,
    versions: tuple[str, str],  # of the image and of Python
    pins: tuple[str, ...],
    said: tuple[tuple[str, str, tuple[str, ...]], ...],
    files: tuple[tuple[str, str], ...],
) -> str:
    try:
        from cyclonedx.model import HashAlgorithm, HashType  # noqa: PLC0415 - heavy
        from cyclonedx.model.bom import Bom  # noqa: PLC0415
        from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
        from cyclonedx.output.json import JsonV1Dot6  # noqa: PLC0415
    except ImportError as error:
        raise InfrastructureError(
            "cyclonedx-python-lib is missing: install the platform's requirements."
        ) from error
    version, python = versions
    whole = Component(
        type=ComponentType.CONTAINER, name=name, version=version, bom_ref=f"{name}:{version}"
    )
    parts = [
        Component(type=ComponentType.PLATFORM, name="python", version=python, bom_ref="python")
    ]
    known = {line: (words, hashes) for line, words, hashes in said}
    parts += [_package(pin, *known.get(pin, ("", ()))) for pin in pins]
    parts += [
        Component(
            type=ComponentType.FILE,
            name=path,
            bom_ref=path,
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=value)],
        )
        for path, value in files
    ]
    bill = Bom(components=parts)
    bill.metadata.component = whole
    bill.register_dependency(whole, parts)
    bill.serial_number = uuid.uuid5(NAMESPACE, "\n".join([version, *pins]))
    data = json.loads(JsonV1Dot6(bill).output_as_string())
    data["metadata"].pop("timestamp", None)  # of the same inputs, the same bytes
    return json.dumps(data, indent=1, sort_keys=True) + "\n"


def _package(pin: str, said: str, hashes: tuple[str, ...]) -> Any:
    """`said` and `hashes`: its licence and its one wheel, where a request was approved for it."""
    from cyclonedx.contrib.license.factories import LicenseFactory  # noqa: PLC0415
    from cyclonedx.model import HashAlgorithm, HashType  # noqa: PLC0415
    from cyclonedx.model.component import Component, ComponentType  # noqa: PLC0415
    from packageurl import PackageURL  # noqa: PLC0415

    name, _, version = pin.partition("==")
    words = said or licence(name, version)
    # Of a package with a wheel for each machine, nobody knows here which one it is.
    only = hashes if len(hashes) == 1 else ()
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=pin,
        purl=PackageURL(type="pypi", name=name, version=version),
        licenses=[LicenseFactory().make_from_string(words)] if words else [],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=value) for value in only],
    )


def licence(name: str, version: str) -> str:
    """What the installed package of that very version says; empty where it is another or none."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
    return licence_of(found.metadata) if found.version == version else ""


def licence_of(metadata: Any) -> str:
    """The licence in a package's metadata: an SPDX expression, a short name or a classifier."""
    short = " ".join(str(metadata.get("License") or "").split())
    classifiers = [c for c in metadata.get_all("Classifier") or [] if c.startswith("License ::")]
    return (
        str(metadata.get("License-Expression") or "")
        or (short if len(short) <= 80 and short.upper() != "UNKNOWN" else "")
        or (classifiers[0].rpartition(" :: ")[2] if classifiers else "")
    )
