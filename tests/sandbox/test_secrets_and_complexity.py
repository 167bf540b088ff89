"""Static checks for keys in the text, and for code that nobody can follow."""

from __future__ import annotations

import random
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.checks import complexity, secrets
from sandbox.report import CheckResult, Draft, Outcome, Severity

ROOT = Path(__file__).resolve().parents[2]
HONEST = [
    *sorted((ROOT / "mechanisms_repo").rglob("*.py")),
    *sorted((ROOT / "tests/sandbox/specimens/honest").glob("*.py")),
]


def draft(source: str | bytes, test: str = "") -> Draft:
    files = {"mechanisms/a.py": source if isinstance(source, bytes) else source.encode()}
    if test:
        files["tests/test_a.py"] = test.encode()
    return Draft(mechanism_path="mechanisms/a.py", files=files)


def rules(result: CheckResult) -> list[tuple[str, Severity]]:
    return [(f.rule, f.severity) for f in result.findings]


def key(size: int, letters: str = string.ascii_letters + string.digits) -> str:
    """Made up, the same in each run of the tests; none is anybody's."""
    return "".join(random.Random(size).choices(letters, k=size - 3)) + "aZ9"


@pytest.mark.parametrize("path", HONEST, ids=lambda p: p.stem)
def test_honest_code_has_no_finding(path: Path) -> None:
    for check in (secrets.check, complexity.check):
        assert check(draft(path.read_bytes())).findings == ()


# --- secrets ---

TOKENS = {
    "aws": "AKIA" + key(16, string.ascii_uppercase + string.digits).upper(),
    "github": "ghp_" + key(36),
    "github, fine": "github_pat_" + key(50),
    "model": "sk-proj-" + key(40),
    "hugging face": "hf_" + key(34),
    "slack": "xoxb-" + key(24),
    "google": "AIza" + key(35),
    "payment": "sk_live_" + key(24),
    "pypi": "pypi-AgEI" + key(60),
    "jwt": f"eyJ{key(20)}.eyJ{key(30)}.{key(20)}",
    "url": f"postgres://admin:{key(12)}@db.example.org/x",
    "private": "-----BEGIN RSA " + "PRIVATE KEY-----",
}


@pytest.mark.parametrize("token", TOKENS.values(), ids=list(TOKENS))
@pytest.mark.parametrize(
    "form", ["x = 1\ny = '{}'", "x = 1\n# {}", "x = 1\ny = {{'a': b'{}'}}", "x = 1\ny = f'a {} '"]
)
def test_known_shapes_fail_wherever_they_stand_and_are_not_repeated(token: str, form: str) -> None:
    result = secrets.check(draft(form.format(token)))
    assert result.outcome is Outcome.FAILED
    assert rules(result)[0] == ("secret-token", Severity.ERROR)
    assert result.findings[0].line == 2
    assert not any(token[i : i + 9] in str(result) for i in range(0, len(token) - 9, 3) if i > 3)


@pytest.mark.parametrize("form", ["'{}' + '{}'", "'{}' '{}'", "''.join(['{}', '{}'])"])
def test_a_token_in_parts_is_put_together(form: str) -> None:
    token = TOKENS["github"]
    result = secrets.check(draft(f"x = {form.format(token[:9], token[9:])}"))
    assert ("secret-token", Severity.ERROR) in rules(result)


@pytest.mark.parametrize(
    "source",
    [
        "API_KEY = 'hunter2hunter2'",
        "self.db_password = 'correct-horse'",
        "connect(auth_token='abcdefgh1')",
        "x = {'client_secret': 'abcdefgh1'}",
        "password: str = 'abc' 'defgh'",
    ],
)
def test_a_value_for_a_secret_name_fails(source: str) -> None:
    result = secrets.check(draft(source))
    assert rules(result) == [("secret-named", Severity.ERROR)]
    assert "abcdefgh" not in str(result)


def test_random_looking_texts_are_a_warning_in_tests_too() -> None:
    result = secrets.check(draft("x = 1", f"y = '{key(40)}'\nz = '{key(64, '0123456789abcdef')}'"))
    assert result.outcome is Outcome.PASSED
    assert rules(result) == [("secret-entropy", Severity.WARNING)] * 2
    assert {f.path for f in result.findings} == {"tests/test_a.py"}


@pytest.mark.parametrize(
    "source",
    [
        "x = 'a reason: the learning_rate went from 0.001 to 0.0003 after 12 discards'",
        "x = 'sk-learn-like-implementation-of-a-tree'",
        "x = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'",
        "x = '0000000000000000000000000000000000000000'",
        "x = 'warmup_ratio/learning_rate/weight_decay/Batch'",
        "SECRETARY_RULE = 'one over e'",
        "password = None",
        "token_budget = 'tight-budget'",
        "x = 'see https://example.org/a:b and mailto:a@b.example'",
        "ALPHABET = 'abcdefghijklmnopqrstuvwxyz'",
    ],
)
def test_plain_texts_have_no_finding(source: str) -> None:
    assert secrets.check(draft(source)).findings == ()


@pytest.mark.parametrize("check", [secrets.check, complexity.check])
@pytest.mark.parametrize(
    ("source", "rule"),
    [(b"def f(:", "syntax_error"), (b"\xff", "not_utf8"), (b"-" * 3000 + b"1", "deeply_nested")],
)
def test_what_can_t_be_read_fails(check: object, source: bytes, rule: str) -> None:
    result = check(draft(source))  # type: ignore[operator]
    assert result.outcome is Outcome.FAILED
    assert rules(result) == [(rule, Severity.ERROR)]


@given(st.text(max_size=60))
def test_any_text_is_judged(text: str) -> None:
    for check in (secrets.check, complexity.check):
        for source in (f"x = {text!r}", text):
            assert check(draft(source.encode("utf-8", "replace"))).outcome in {
                Outcome.PASSED,
                Outcome.FAILED,
            }


# --- complexity ---


def ifs(count: int) -> str:
    return "def f(x):\n" + "".join(f"    if x > {i}:\n        x = {i}\n" for i in range(count))


def nested(levels: int) -> str:
    lines = [" " * (4 * (i + 1)) + f"for x{i} in x:" for i in range(levels)]
    return "def f(x):\n" + "\n".join(lines) + "\n" + " " * (4 * (levels + 1)) + "pass\n"


def edge(limit: complexity.Limit, build: object, below: int) -> None:
    for count, expected in (
        (limit.warn, []),
        (limit.warn + 1, [(limit.rule, Severity.WARNING)]),
        (limit.fail, [(limit.rule, Severity.WARNING)]),
        (limit.fail + 1, [(limit.rule, Severity.ERROR)]),
    ):
        result = complexity.check(draft(build(count - below)))  # type: ignore[operator]
        assert [r for r in rules(result) if r[0] == limit.rule] == expected, count
        failed = Outcome.FAILED if expected[-1:] == [(limit.rule, Severity.ERROR)] else None
        assert (result.outcome is Outcome.FAILED) is (failed is Outcome.FAILED)
        assert result.detail["largest"][limit.rule] == count


def test_limits_hold_at_their_edges() -> None:
    edge(complexity.BRANCHES, ifs, below=1)
    edge(complexity.DEPTH, nested, below=0)
    edge(complexity.FUNCTION_LINES, lambda n: "def f():\n" + "    x = 1\n" * n, below=1)
    edge(complexity.FILE_LINES, lambda n: "x = 1\n" * n, below=0)
    edge(
        complexity.PARAMETERS,
        lambda n: f"def f({', '.join(f'a{i}' for i in range(n))}): pass",
        below=0,
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 1", 1),
        ("x = 1 if y else 2", 2),
        ("a and b and c or d", 4),
        ("[x for x in y if x if z]", 4),
        ("try:\n    x\nexcept A:\n    x\nexcept B:\n    x", 3),
        ("match x:\n    case 1: pass\n    case _: pass", 3),
        ("def f():\n    if x: pass", 1),  # counted where it is, in f
    ],
)
def test_ways_through(source: str, expected: int) -> None:
    import ast

    assert complexity.branches(ast.parse(source)) == expected


def test_a_chain_of_elif_is_flat_and_an_if_in_an_else_is_not() -> None:
    import ast

    chain = "if a: pass\n" + "elif b: pass\n" * 9
    assert complexity.depth(ast.parse(chain)) == 1
    assert complexity.depth(ast.parse("if a:\n    pass\nelse:\n    x\n    if b: pass")) == 2


def test_code_of_the_module_and_of_lambdas_counts() -> None:
    module = complexity.check(draft("x = 1\n" + "if x: x = 2\n" * 41))
    assert ("too-many-branches", Severity.ERROR) in rules(module)
    hidden = complexity.check(draft("f = lambda x: " + " or ".join(["x"] * 42)))
    assert ("too-many-branches", Severity.ERROR) in rules(hidden)
