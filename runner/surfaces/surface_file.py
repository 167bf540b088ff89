"""A recorded surface on the disk: compressed JSON with its recipe, where it came from, and hashes.

Written by `runner.recording`, read by `runner.tasks.table`. Whatever a file lacks, lies about or
breaks is a SurfaceError that says what is wrong; nothing is ever filled in. No training here.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from runner.interfaces import FAILURES, LARGEST_METRIC
from runner.surfaces.recipe import Recipe, RecipeError, recipe_of
from sandbox.files import put

FORMAT = "escapement surface v1"
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_TEXT_BYTES = 64 * 1024 * 1024
ORIGIN = ("seed_rule", "trainer_digest", "corpus_digest", "torch", "host", "cpu_seconds", "times")


class SurfaceError(ValueError):
    """A surface that can't be used; the message says what to do."""


class Measured(NamedTuple):
    """One training: its metric, or None and the class of failure; steps done, CPU seconds."""

    metric: float | None
    failure: str
    steps: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SurfaceFile:
    """A surface: for each point of the recipe's grid the trainings that were recorded, in the
    order of their repeats (empty: the surface lacks that point)."""

    recipe: Recipe
    origin: dict[str, Any]
    results: tuple[tuple[Measured, ...], ...]

    def body(self) -> dict[str, Any]:
        """Everything that the digest covers."""
        return {
            "format": FORMAT,
            "recipe": self.recipe.model_dump(mode="json"),
            **{key: self.origin[key] for key in ORIGIN},
            "results": [[list(one) for one in point] for point in self.results],
        }

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over recipe, origin and every result."""
        return hashlib.sha256(_canonical(self.body())).hexdigest()


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode()


def write_surface(path: Path, surface: SurfaceFile) -> str:
    """Write it, all or nothing; the same surface gives the same bytes. Its digest."""
    body = {**surface.body(), "digest": surface.digest}
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, gzip.compress(_canonical(body), compresslevel=9, mtime=0), mode=0o644)
    return surface.digest


def read_surface(path: Path) -> SurfaceFile:
    """Read and verify. Raises SurfaceError."""
    body = _json_in(path)
    if body.get("format") != FORMAT:
        raise SurfaceError(f"{path} is no recorded surface: its format is not {FORMAT!r}")
    missing = sorted({"recipe", "results", "digest", *ORIGIN} - set(body))
    if missing:
        raise SurfaceError(f"the surface {path} lacks {', '.join(missing)}")
    try:
        recipe = recipe_of(body["recipe"], str(path))
    except RecipeError as error:
        raise SurfaceError(str(error)) from None
    _check_origin(body, path)
    surface = SurfaceFile(
        recipe=recipe,
        origin={key: body[key] for key in ORIGIN},
        results=_results(body["results"], recipe, path),
    )
    if surface.digest != body["digest"]:
        raise SurfaceError(
            f"the surface {path} has digest {surface.digest[:12]}, recorded is "
            f"{str(body['digest'])[:12]}: it was changed; get the recorded file again"
        )
    return surface


def _check_origin(body: dict[str, Any], path: Path) -> None:
    """Raise SurfaceError where what it says of its origin can't be said again beside a number."""
    if not isinstance(body["host"], dict):
        raise SurfaceError(f"the surface {path}: `host` must be an object of facts")
    try:
        origin = {key: body[key] for key in ORIGIN}
        json.dumps(origin, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:  # NaN, infinity, half a character
        raise SurfaceError(f"the surface {path}: its origin can't be written: {error}") from None


def _json_in(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():  # a pipe would be waited for, without end
            raise SurfaceError(f"cannot read the surface {path}: it is no file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SurfaceError(f"{path} is larger than {MAX_FILE_BYTES} bytes: no surface is")
        with gzip.open(path) as file:
            text = file.read(MAX_TEXT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise SurfaceError(f"cannot read the surface {path}: {error or 'it ends early'}") from None
    if len(text) > MAX_TEXT_BYTES:
        raise SurfaceError(f"{path} unpacks to over {MAX_TEXT_BYTES} bytes: no surface does")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SurfaceError(f"the surface {path} is no JSON: {error}") from None
    if not isinstance(body, dict):
        raise SurfaceError(f"the surface {path} is a {type(body).__name__}, no JSON object")
    return body


def _results(value: Any, recipe: Recipe, path: Path) -> tuple[tuple[Measured, ...], ...]:
    if not isinstance(value, list) or len(value) != recipe.points:
        raise SurfaceError(
            f"the surface {path} must have a list of {recipe.points} results, one for each point"
        )
    return tuple(_point(point, number, path) for number, point in enumerate(value))


def _point(value: Any, number: int, path: Path) -> tuple[Measured, ...]:
    wrong = SurfaceError(f"the surface {path}: point {number} is not a list of trainings")
    if not isinstance(value, list):
        raise wrong
    found = []
    for one in value:
        if not isinstance(one, list) or len(one) != len(Measured._fields):
            raise wrong
        measured = Measured(*one)
        if not _sound(measured):
            raise SurfaceError(f"the surface {path}: point {number} has a training {one!r:.100}")
        found.append(measured)
    return tuple(found)


def _sound(measured: Measured) -> bool:
    metric, failure, steps, seconds = measured
    known = failure in FAILURES if metric is None else failure == ""
    numbers = type(steps) is int and steps >= 0 and _finite(seconds) and seconds >= 0
    return known and numbers and (metric is None or _finite(metric))


def _finite(value: object) -> bool:
    """A number that can be computed with; NaN is never below."""
    return type(value) in (int, float) and abs(value) <= LARGEST_METRIC  # type: ignore[arg-type]
