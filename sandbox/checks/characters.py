"""Check `characters`: what a reviewer sees must be what Python reads.

Looks at bytes and code points alone: hidden and bidirectional characters, identifiers that only
look like others, encodings other than UTF-8, code pushed off the screen. Executes nothing.
"""

from __future__ import annotations

import ast
import io
import tokenize
import unicodedata
from collections.abc import Iterator

from sandbox.report import CheckResult, Draft, DraftError, Finding, Outcome, Severity
from sandbox.syntax import encoding_cookie, parse

CHECK = "characters"
MAX_COLUMNS = 400
MAX_INDENT = 100
MAX_GAP = 40
MAX_STATEMENT_COLUMN = 120  # where a statement may begin: a screen is about that wide
MAX_BLANK_LINES = 40
MAX_FINDINGS = 40

BIDIRECTIONAL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
INVISIBLE_LETTERS = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
HIDDEN_CATEGORIES = frozenset({"Cf", "Cc", "Co", "Cn", "Cs", "Zl", "Zp"})
PLAIN_CONTROLS = frozenset("\n\t")

WHY_SEEN = "A person approves what they read. What they can't see, they can't approve."


def check(draft: Draft) -> CheckResult:
    """Findings for all files of the draft."""
    findings: list[Finding] = []
    for path, data in draft.files.items():
        findings.extend(_file(path, data)[:MAX_FINDINGS])
    failed = any(f.severity is Severity.ERROR for f in findings)
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if failed else Outcome.PASSED,
        findings=tuple(findings),
    )


def _finding(
    path: str, line: int, rule: str, message: str, severity: Severity = Severity.ERROR
) -> Finding:
    return Finding(
        check=CHECK,
        rule=rule,
        severity=severity,
        message=f"line {line} {message}",
        path=path,
        line=line,
        why=WHY_SEEN,
    )


def _file(path: str, data: bytes) -> list[Finding]:
    findings: list[Finding] = []
    if cookie := encoding_cookie(data):
        message = f"declares the encoding {cookie!r}: the text that runs is not the text shown"
        findings.append(_finding(path, 1, "encoding-not-utf8", message))
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        findings.append(_finding(path, line, "encoding-not-utf8", "is not UTF-8"))
        return findings
    for number, line_text in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        findings.extend(_line(path, number, line_text))
    findings.extend(_gaps(path, text))
    findings.extend(_identifiers(path, text))
    findings.extend(_tree(path, data, text, {f.line for f in findings}))
    return findings


def _line(path: str, number: int, text: str) -> list[Finding]:
    found: list[Finding] = []
    for character in sorted(set(text)):
        if problem := _hidden(character):
            rule, what, severity = problem
            message = f"has {what} {_spelled(character)}"
            found.append(_finding(path, number, rule, message, severity))
    shown = text.expandtabs(8)
    if len(shown) > MAX_COLUMNS:
        message = f"is {len(shown)} columns wide (limit {MAX_COLUMNS}): break it"
        found.append(_finding(path, number, "long-line", message))
    body = shown.strip()
    indent = len(shown) - len(shown.lstrip())
    if body and (indent > MAX_INDENT or " " * MAX_GAP in body):
        message = "pushes code off the screen with blanks"
        found.append(_finding(path, number, "hidden-off-screen", message))
    return found


def _gaps(path: str, text: str) -> Iterator[Finding]:
    """Runs of blank lines that look like the end of the file."""
    last, lines = 0, text.split("\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            if number - last - 1 > MAX_BLANK_LINES:
                message = f"comes after {number - last - 1} blank lines, below what seems the end"
                yield _finding(path, number, "hidden-off-screen", message)
            last = number


def _hidden(character: str) -> tuple[str, str, Severity] | None:
    """Rule, description and severity for a character that can't be seen, or None."""
    if character in PLAIN_CONTROLS or " " <= character <= "~":
        return None
    if character in BIDIRECTIONAL:
        return "bidirectional-character", "the bidirectional control", Severity.ERROR
    if unicodedata.category(character) in HIDDEN_CATEGORIES or character in INVISIBLE_LETTERS:
        return "hidden-character", "the hidden character", Severity.ERROR
    code = ord(character)
    if 0xFE00 <= code < 0xFE0F or 0xE0100 <= code <= 0xE01EF:  # FE0F only colours an emoji
        return "hidden-character", "the variation selector", Severity.ERROR
    if unicodedata.category(character) == "Zs":
        return "unusual-space", "an unusual space", Severity.WARNING
    return None


def _spelled(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, 'without a name')}"


def _identifiers(path: str, text: str) -> list[Finding]:
    found: list[Finding] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and not token.string.isascii():
                odd = ", ".join(_spelled(c) for c in token.string if not c.isascii())
                message = f"has the identifier {token.string!r}, which is not ASCII: {odd}"
                found.append(_finding(path, token.start[0], "non-ascii-identifier", message))
    except (tokenize.TokenError, SyntaxError, RecursionError):
        return found  # the check `draft` says that this is not Python
    return found


def _tree(path: str, data: bytes, text: str, told: set[int]) -> Iterator[Finding]:
    """What only the syntax tree tells: names in formatted texts, statements far to the right."""
    try:
        tree = parse(path, data)
    except DraftError:
        return  # the check `draft` says that this is not Python
    lines = text.split("\n")
    seen: set[str] = set()
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        for name in _names(node):
            if name in seen:
                continue
            seen.add(name)
            # Python reads letters that look alike as the same: what is in the tree is not always
            # what stands in the file.
            if (not name.isascii() or name not in text) and line not in told:
                told.add(line)
                message = f"has the name {name!r} in letters that are not ASCII"
                yield _finding(path, line, "non-ascii-identifier", message)
        if isinstance(node, ast.stmt) and 0 < line <= len(lines):
            before = lines[line - 1].encode()[: node.col_offset].decode("utf-8", "replace")
            column = len(before.expandtabs(8))
            if column > MAX_STATEMENT_COLUMN:
                message = f"has a statement that starts at column {column}: give it its own line"
                yield _finding(path, line, "hidden-off-screen", message)


def _names(node: ast.AST) -> Iterator[str]:
    for field in ("id", "attr", "name", "arg", "asname", "rest"):
        name = getattr(node, field, None)
        if isinstance(name, str):
            yield from name.split(".")
