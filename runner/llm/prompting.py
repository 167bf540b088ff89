"""Prompts as files with `{{place}}` marks, all of which must be filled.

Those of the project are `runner/llm/prompts/`; a site may keep a folder of its own, with the same
files and the same marks. What was asked is known by the digest of the folder, and each round by its
text.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

FOLDER = Path(__file__).with_name("prompts")
MAX_BYTES = 64 * 1024
_PLACE = re.compile(r"\{\{([a-z_]+)\}\}")


class PromptError(ValueError):
    """Prompt files that can't be used; the message says what to do."""


class Prompts:
    """The prompts of one folder, read once. Raises PromptError where they do not fit."""

    def __init__(self, folder: Path = FOLDER) -> None:
        names = sorted(path.name for path in FOLDER.glob("*.md"))
        self._texts = {name: _read(folder / name) for name in names}
        for name, template in self._texts.items():
            wanted = set(_PLACE.findall(_read(FOLDER / name)))
            if set(_PLACE.findall(template)) != wanted:
                raise PromptError(f"{folder / name} must have the marks {sorted(wanted)}")
        whole = "\0".join(f"{name}\0{text}" for name, text in self._texts.items())
        self.digest = hashlib.sha256(whole.encode()).hexdigest()

    def fill(self, file: str, /, **values: str) -> str:
        """The prompt with each mark replaced once; values are never searched for marks."""
        template = self._texts[file]
        places = set(_PLACE.findall(template))
        if places != set(values):
            raise PromptError(f"{file} has the marks {sorted(places)}, given were {sorted(values)}")
        return _PLACE.sub(lambda match: values[match[1]], template)


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
        if len(data) > MAX_BYTES:
            raise PromptError(f"{path} has over {MAX_BYTES} bytes: shorten it")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(
            f"the prompt {path} can't be read ({error}): copy {FOLDER} and edit the copy"
        ) from error
