"""Wheels as an author would make them, for tests that let real pip take them."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def make_wheel(
    folder: Path,
    name: str,
    version: str,
    files: Mapping[str, str] | None = None,
    *,
    needs: Sequence[str] = (),
    licence: str = "MIT",
    tag: str = "py3-none-any",
) -> Path:
    """One wheel with metadata and a list of its files; by default a module with one name."""
    folder.mkdir(parents=True, exist_ok=True)
    package = name.replace("-", "_")
    information = f"{package}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"License: {licence}"] if licence else []
    lines += [f"Requires-Dist: {need}" for need in needs]
    body = {
        **(files if files is not None else {f"{package}/__init__.py": "LIMIT = 3\n"}),
        f"{information}/METADATA": "\n".join(lines) + "\n",
        f"{information}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        f"Tag: {tag}\n",
    }
    path = folder / f"{package}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in body.items():
            archive.writestr(zipfile.ZipInfo(file), text)
        archive.writestr(
            zipfile.ZipInfo(f"{information}/RECORD"), _record(body, f"{information}/RECORD")
        )
    return path


def _record(body: Mapping[str, str], own: str) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for file, content in body.items():
        value = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest())
        rows.writerow([file, f"sha256={value.rstrip(b'=').decode()}", len(content.encode())])
    rows.writerow([own, "", ""])
    return text.getvalue()
