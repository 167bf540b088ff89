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
from unidiff.patch import PatchSet

from proposals.modeltext import hidden, label, mark, reveal

MAX_LINES = 6000
NO_NEWLINE = "\N{NO-BREAK SPACE}(no newline)"
PRIVATE, MAX_HIDDEN = 0xF0000, 60_000
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


def colour(source: bytes) -> list[SafeString]:
    """Python source as one piece of HTML a line.

    While it is coloured, one private character stands for each hidden one, so that no token is
    torn apart; private characters of the source are hidden ones themselves.
    """
    text = source.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    found = sorted({c for c in text if hidden(c)})[:MAX_HIDDEN]
    standins = {ord(c): chr(PRIVATE + i) for i, c in enumerate(found)}
    formatter = HtmlFormatter(nowrap=True, classprefix="tok-")
    lexer = PythonLexer(stripnl=False, ensurenl=True)
    html = reveal_others(highlight(text.translate(standins), lexer, formatter), standins)
    for character, standin in standins.items():
        html = html.replace(standin, label(f"U+{character:04X}"))
    lines = [mark(line) for line in html.split("\n")]
    if text and not text.endswith("\n"):
        lines[text.count("\n")] += mark(label("no newline"))
    return lines


def reveal_others(html: str, standins: dict[int, str]) -> str:
    """Write out what has no stand-in, were there more kinds of it than stand-ins."""
    known = set(standins.values())
    return "".join(c if c in known or not hidden(c) else reveal(c) for c in html)


def lines_of(source: bytes) -> list[str]:
    """A file's visible lines; the last one says so where its newline is missing."""
    lines = text_of(source).split("\n")
    if lines[-1]:
        lines[-1] += NO_NEWLINE
        return lines
    return lines[:-1]


def compare(old: bytes, new: bytes, *, context: int = 3) -> FileDiff:
    """The differences, with `context` lines around each; `WHOLE` shows the file."""
    before, after = lines_of(old)[:MAX_LINES], lines_of(new)[:MAX_LINES]
    old_html, new_html = colour(old), colour(new)
    patch = "\n".join(difflib.unified_diff(before, after, "a", "b", n=context, lineterm=""))
    if not patch:
        same = _whole(len(after), new_html) if context == WHOLE else ()
        return FileDiff(rows=same + _cut(new), added=0, removed=0)
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
    return FileDiff(rows=_joined(hunks) + _cut(new), added=file.added, removed=file.removed)


def _joined(hunks: list[list[Row]]) -> tuple[Row, ...]:
    rows = list(hunks[0])
    for earlier, later in pairwise(hunks):
        skipped = (
            (later[0].new or later[0].old or 0) - (earlier[-1].new or earlier[-1].old or 0) - 1
        )
        rows.append(Row(kind="gap", html=f"{max(skipped, 1)} lines that are the same"))
        rows += later
    return tuple(rows)


def _whole(count: int, html: list[SafeString]) -> tuple[Row, ...]:
    return tuple(Row(kind="same", old=n, new=n, html=_at(html, n)) for n in range(1, count + 1))


def _cut(new: bytes) -> tuple[Row, ...]:
    """Says so where a file is too long to be shown: nobody approves what was not shown."""
    more = len(lines_of(new)) - MAX_LINES
    return (Row(kind="gap", html=f"{more} FURTHER LINES ARE NOT SHOWN"),) if more > 0 else ()


def _at(lines: list[SafeString], number: int | None) -> SafeString | str:
    return lines[number - 1] if number and number <= len(lines) else ""
