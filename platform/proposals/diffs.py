"""Differences between two files as rows for a table, with syntax colours, rendered here.

Reads bytes, writes escaped HTML; knows neither git nor proposals. Hidden characters are written
out before anything else, so that no line can look like another one.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from itertools import pairwise

from django.utils.safestring import SafeString
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from unidiff import PatchSet

from proposals.modeltext import mark, reveal

MAX_LINES = 6000
WHOLE = 1_000_000  # lines of context: the whole file


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a diff; `kind` is add, del, same or gap."""

    kind: str
    old: int | None = None
    new: int | None = None
    html: SafeString | str = ""

    @property
    def sign(self) -> str:
        return {"add": "+", "del": "-"}.get(self.kind, " ")


@dataclass(frozen=True, kw_only=True)
class FileDiff:
    """What is different between two files."""

    rows: tuple[Row, ...]
    added: int
    removed: int

    @property
    def same(self) -> bool:
        return not self.added and not self.removed


def text_of(source: bytes) -> str:
    """Bytes as visible text; what is no UTF-8 shows as an escape."""
    return reveal(source.decode("utf-8", "backslashreplace"))


def colour(text: str) -> list[SafeString]:
    """Python text as one piece of HTML a line."""
    formatter = HtmlFormatter(nowrap=True, classprefix="tok-")
    html = highlight(text, PythonLexer(stripnl=False, ensurenl=True), formatter)
    return [mark(line) for line in html.split("\n")]


def compare(old: bytes, new: bytes, *, context: int = 3) -> FileDiff:
    """The differences, with `context` lines around each; `WHOLE` shows the file."""
    before, after = text_of(old), text_of(new)
    old_html, new_html = colour(before), colour(after)
    patch = "\n".join(
        difflib.unified_diff(
            before.split("\n")[:MAX_LINES], after.split("\n")[:MAX_LINES], "a", "b",
            n=context, lineterm="",
        )
    )  # fmt: skip
    if not patch:
        return FileDiff(
            rows=_whole(after, new_html) if context == WHOLE else (), added=0, removed=0
        )
    (file,) = PatchSet(patch)
    hunks: list[list[Row]] = []
    for hunk in file:
        rows = []
        for line in hunk:
            if line.is_added:
                row = Row(
                    kind="add", new=line.target_line_no, html=_at(new_html, line.target_line_no)
                )
            elif line.is_removed:
                row = Row(
                    kind="del", old=line.source_line_no, html=_at(old_html, line.source_line_no)
                )
            else:
                row = Row(
                    kind="same",
                    old=line.source_line_no,
                    new=line.target_line_no,
                    html=_at(new_html, line.target_line_no),
                )
            rows.append(row)
        hunks.append(rows)
    return FileDiff(rows=_joined(hunks), added=file.added, removed=file.removed)


def _joined(hunks: list[list[Row]]) -> tuple[Row, ...]:
    rows = list(hunks[0])
    for earlier, later in pairwise(hunks):
        skipped = (
            (later[0].new or later[0].old or 0) - (earlier[-1].new or earlier[-1].old or 0) - 1
        )
        rows.append(Row(kind="gap", html=f"{max(skipped, 1)} lines that are the same"))
        rows += later
    return tuple(rows)


def _whole(text: str, html: list[SafeString]) -> tuple[Row, ...]:
    count = len(text.removesuffix("\n").split("\n"))
    return tuple(Row(kind="same", old=n, new=n, html=_at(html, n)) for n in range(1, count + 1))


def _at(lines: list[SafeString], number: int) -> SafeString | str:
    return lines[number - 1] if number <= len(lines) else ""
