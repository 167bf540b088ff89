"""Prompts as files: `runner/prompts/NAME` with `{{place}}` marks, all of which must be filled."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("prompts")
_PLACE = re.compile(r"\{\{([a-z_]+)\}\}")


class PromptError(ValueError):
    """A prompt file and the values given for it do not fit together."""


@cache
def _template(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def fill(file: str, /, **values: str) -> str:
    """The prompt with each mark replaced once; values are never searched for marks."""
    template = _template(file)
    places = set(_PLACE.findall(template))
    if places != set(values):
        raise PromptError(f"{file} has the places {sorted(places)}, given were {sorted(values)}")
    return _PLACE.sub(lambda match: values[match[1]], template)
