"""Check `secrets`: keys and passwords that stand in a draft's text.

Known shapes of keys anywhere in a file, comments included; texts that look random; assignments to
names that say "secret". A finding never repeats what it found: reports and logs are kept for good.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Iterator

from sandbox.report import CheckResult, Draft, DraftError, Finding, Outcome, Severity
from sandbox.syntax import parse

CHECK = "secrets"
MAX_FINDINGS = 40
# Every repetition has an end: a text can be made so that an endless one takes minutes.
SHAPES = {
    "a private key": r"-----BEGIN (?:[A-Z]{1,20} ){0,5}PRIVATE KEY(?: BLOCK)?-----",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
    "a GitLab token": r"\bglpat-[\w-]{20,}",
    "a language model's key": r"\bsk-(?=[\w-]{0,99}\d)(?=[\w-]{0,99}[A-Z])[\w-]{20,99}",
    "a Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}",
    "a Slack token": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,200}",
    "a Google key": r"\bAIza[\w-]{35}",
    "a payment service's key": r"\b[rs]k_(?:live|test)_[A-Za-z0-9]{16,}",
    "a PyPI token": r"\bpypi-AgEI[\w-]{40,}",
    "an npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "a JSON web token": r"\beyJ[\w-]{10,500}\.eyJ[\w-]{10,500}\.[\w-]{5,}",
    "an address with a password": r"\b[a-z][a-z0-9+.-]{0,20}://[^\s/:@'\"]{1,200}:[^\s/@'\"{}]{1,200}@\w",
}
KNOWN = {what: re.compile(shape) for what, shape in SHAPES.items()}
HEX = re.compile(r"[0-9a-fA-F]{32,}")
DENSE = re.compile(r"[A-Za-z0-9+/_=-]{28,}")
HEX_BITS = 3.0  # a character; random hex has up to 4
DENSE_BITS = 4.2  # random base64 has up to 6, English words joined by `_` below 4
SECRET_NAME = re.compile(
    r"(?:^|_)(?:passw(?:or)?d|secret|api_?key|access_?key|private_?key|auth_?token|credentials?)(?:_|$)",
    re.IGNORECASE,
)
WHY = (
    "A draft is stored, shown and kept for years, and sent to a language model. A key that stood "
    "in it is known to all of them: withdraw the key where it was issued, then take it out. A "
    "mechanism has no network, and so no use for one."
)


def check(draft: Draft) -> CheckResult:
    """Known shapes and named secrets fail; what only looks random is a warning."""
    findings: list[Finding] = []
    for path, data in draft.files.items():
        findings.extend(_file(path, data)[:MAX_FINDINGS])
    failed = any(f.severity is Severity.ERROR for f in findings)
    return CheckResult(
        name=CHECK,
        outcome=Outcome.FAILED if failed else Outcome.PASSED,
        findings=tuple(findings),
    )


def _file(path: str, data: bytes) -> list[Finding]:
    try:
        tree = parse(path, data)
    except DraftError as error:
        return [_finding(path, 0, error.code, str(error), Severity.ERROR)]
    found: dict[tuple[int, str], Finding] = {}
    for line, text in _texts(tree, data.decode("utf-8")):
        for what in _known(text):
            message = f"line {line} holds {what} (not repeated here)"
            found[line, what] = _finding(path, line, "secret-token", message, Severity.ERROR)
    told = {line for line, _ in found}
    for line, name in _named(tree):
        if line not in told:
            message = f"line {line} writes a value for {name!r} into the code (not repeated here)"
            found[line, name] = _finding(path, line, "secret-named", message, Severity.ERROR)
            told.add(line)
    for line, text in _constants(tree):
        if line not in told and (size := _random(text)):
            message = f"line {line} holds {size} characters that look random, as a key does"
            found[line, "random"] = _finding(path, line, "secret-entropy", message)
    return [found[key] for key in sorted(found)]


def _texts(tree: ast.Module, source: str) -> Iterator[tuple[int, str]]:
    yield from enumerate(source.splitlines(), start=1)
    yield from _constants(tree)  # what was put together from parts


def _known(text: str) -> list[str]:
    return [what for what, shape in KNOWN.items() if shape.search(text)]


def _random(text: str) -> int:
    """How long the part is that looks random; 0: none does."""
    for word in HEX.findall(text):
        if entropy_bits(word.lower()) >= HEX_BITS:
            return len(word)
    for word in DENSE.findall(text):
        mixed = re.search("[A-Z]", word) and re.search("[a-z]", word) and re.search("[0-9]", word)
        if mixed and entropy_bits(word) >= DENSE_BITS:
            return len(word)
    return 0


def entropy_bits(text: str) -> float:
    """Shannon entropy of the characters, in bits for each."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def _constants(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Texts and bytes in the code, also those that are joined from literals."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Constant, ast.BinOp, ast.Call, ast.JoinedStr)):
            text = _folded(node)
            if text is not None and len(text) >= 8:
                yield node.lineno, text


def _folded(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, bytes):
            return node.value.decode("latin-1")
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [_folded(node.left), _folded(node.right)]
    elif isinstance(node, ast.JoinedStr):
        parts = [_folded(part) or "" for part in node.values]
    elif (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "join"
        and isinstance(node.func.value, ast.Constant)
        and len(node.args) == 1
        and isinstance(node.args[0], (ast.List, ast.Tuple))
    ):
        joint = _folded(node.func.value)
        parts = [_folded(part) for part in node.args[0].elts]
        texts = [part for part in parts if part is not None]
        return None if joint is None or len(texts) != len(parts) else joint.join(texts)
    else:
        return None
    texts = [part for part in parts if part is not None]
    return "".join(texts) if len(texts) == len(parts) else None


def _named(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Lines where a literal text is given to something whose name says that it is secret."""
    for node in ast.walk(tree):
        pairs: list[tuple[ast.expr | str | None, ast.expr | None]] = []
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
        elif isinstance(node, (ast.AnnAssign, ast.NamedExpr)):
            pairs = [(node.target, node.value)]
        elif isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Dict):
            pairs = list(zip(node.keys, node.values, strict=True))
        for target, value in pairs:
            name = _name_of(target)
            text = _folded(value) if value is not None else None
            if name and text and len(text) >= 8 and " " not in text and SECRET_NAME.search(name):
                yield value.lineno if value is not None else 0, name


def _name_of(target: ast.expr | str | None) -> str:
    if isinstance(target, str):
        return target
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Attribute):
        return target.attr
    if isinstance(target, ast.Constant) and isinstance(target.value, str):
        return target.value
    return ""


def _finding(
    path: str, line: int, rule: str, message: str, severity: Severity = Severity.WARNING
) -> Finding:
    return Finding(
        check=CHECK,
        rule=rule,
        severity=severity,
        message=message,
        path=path,
        line=line,
        why=WHY,
    )
