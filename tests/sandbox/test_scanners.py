"""Static checks beside the allow list: characters, bandit and dependencies."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox.checks import bandit, characters, dependencies
from sandbox.report import CheckResult, Draft, Outcome, Severity


def draft(source: str | bytes, test: str = "") -> Draft:
    data = source if isinstance(source, bytes) else source.encode()
    files = {"mechanisms/a.py": data}
    if test:
        files["tests/test_a.py"] = test.encode()
    return Draft(mechanism_path="mechanisms/a.py", files=files)


def rules(result: CheckResult, severity: Severity = Severity.ERROR) -> set[str]:
    return {f.rule for f in result.findings if f.severity is severity}


# --- characters ---


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("x = 1  # \u202e", "bidirectional-character"),
        ("x = '\u2066'", "bidirectional-character"),
        ("x = 'a\u200bb'", "hidden-character"),
        ("x = 'a\u00adb'", "hidden-character"),
        ("\ufeffx = 1", "hidden-character"),
        ("x = 1\rimport os", "hidden-character"),
        ("x = 1\x0c", "hidden-character"),
        ("x = '\x00'", "hidden-character"),
        ("x = '\u3164'", "hidden-character"),
        ("x = '\U000e0041'", "hidden-character"),
        ("x = 'a\ufe01'", "hidden-character"),
        ("\u0441ount = 1", "non-ascii-identifier"),
        ("def f\u00e9(): pass", "non-ascii-identifier"),
        ("x = 1" + " " * 60 + "; import os", "hidden-off-screen"),
        ("x = 1" + "\t" * 9 + "; import os", "hidden-off-screen"),
        ("if x:\n" + " " * 150 + "y = 1", "hidden-off-screen"),
        ("x = '" + "a" * 500 + "'", "long-line"),
        ("# vim: set fileencoding=rot13 :\nx = 1", "encoding-not-utf8"),
        ("#!/usr/bin/python\n# -*- coding: utf-7 -*-\nx = 1", "encoding-not-utf8"),
    ],
)
def test_hidden_characters(source: str, rule: str) -> None:
    result = characters.check(draft(source))
    assert result.outcome is Outcome.FAILED
    assert rule in rules(result)


def test_bytes_that_are_not_utf8() -> None:
    assert rules(characters.check(draft(b"x = '\xff'"))) == {"encoding-not-utf8"}


@pytest.mark.parametrize(
    "source",
    [
        "# -*- coding: utf-8 -*-\nx = 'caf\u00e9 \u2192 \u03c3 \u26a0\ufe0f'\r\n",
        '"""\u4e2d\u6587, \u0440\u0443\u0441\u0441\u043a\u0438\u0439"""\n',
        "if x:\n\ty = [\n\t\t1,\n\t]\n",
        "x = {\n    'a':      1,   # aligned\n    'bbbbbb': 2,   # aligned\n}\n",
    ],
)
def test_plain_text_has_no_finding(source: str) -> None:
    assert characters.check(draft(source)).findings == ()


# --- bandit ---


def test_bandit_finds_and_ignores_nosec() -> None:
    result = bandit.check(draft("eval('1')  # nosec\n", "def test_a():\n    assert 1\n"))
    assert result.outcome is Outcome.FAILED
    (finding,) = result.findings
    assert (finding.rule, finding.path, finding.line) == ("B307-blacklist", "mechanisms/a.py", 1)


def test_bandit_leaves_search_code_alone() -> None:
    source = (
        "import hashlib, random\nx = random.Random(1).random()\n"
        "r = f'update {x} then set {x}'\ny = hashlib.md5(b'key').hexdigest()\n"
    )
    result = bandit.check(draft(source, "def test_a():\n    assert 1\n"))
    assert (result.outcome, result.findings) == (Outcome.PASSED, ())


def test_low_severity_is_a_warning() -> None:
    result = bandit.check(draft("try:\n    x = 1\nexcept Exception:\n    pass\n"))
    assert result.outcome is Outcome.PASSED
    assert rules(result, Severity.WARNING) == {"B110-try_except_pass"}


def test_bandit_that_could_not_read_could_not_look() -> None:
    result = bandit.check(draft("def (:\n"))
    assert result.outcome is Outcome.COULD_NOT_LOOK
    assert "could not read" in result.findings[0].message


ANSWERS = {
    "it ends": "",
    "no line of ours": "print('hello')",
    "a failure": "print('{\"code\": 3}')",
    "ended by a signal": "print('{\"code\": -14}')",
    "no file": "print('{\"code\": 0}')",
    "an empty object": "write('{}')",
    "another shape": "write('[]')",
    "no JSON": "write('not json')",
    "it looked at nothing": 'write(\'{"errors": [], "results": [], "metrics": {}}\')',
    "it hangs": "time.sleep(600)",
}
IMPOSTOR = """
import json, sys, time
request = json.loads(sys.stdin.readline())
def write(text):
    words = request["arguments"]
    open(words[words.index("--output") + 1], "w").write(text)
    print('{"code": 0}')
ANSWER
"""


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_bandit_that_gives_no_answer_could_not_look(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program in its place: exit 0 alone is no clean answer. The next look is at a new
    one."""
    script = tmp_path / "impostor.py"
    script.write_text(IMPOSTOR.replace("ANSWER", answer))
    with monkeypatch.context() as patch:
        patch.setattr(bandit, "SCRIPT", script)
        patch.setattr(bandit, "_ready", bandit._Ready())
        if "sleep" in answer:
            patch.setattr(bandit, "START_SECONDS", 0)
            patch.setattr(bandit, "TIMEOUT_SECONDS", 1)
        assert bandit.check(draft("x = 1")).outcome is Outcome.COULD_NOT_LOOK
        patch.undo()
        assert bandit.check(draft("x = 1")).outcome is Outcome.PASSED


def test_bandit_is_told_when_to_end_and_one_draft_leaves_nothing_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert bandit.check(draft("x = 1")).outcome is Outcome.PASSED
    kept = bandit._ready._process
    assert bandit.check(draft("eval('1')")).outcome is Outcome.FAILED
    assert bandit.check(draft("x = 1")).outcome is Outcome.PASSED
    assert bandit._ready._process is kept
    assert kept is not None
    kept.kill()
    kept.wait()
    assert bandit.check(draft("x = 1")).outcome is Outcome.PASSED


# --- dependencies ---


def test_missing_and_forbidden_packages() -> None:
    source = "import xgboost.dask\nfrom torch import nn\nimport numpy\nimport pytest\nimport os\n"
    result = dependencies.check(draft(source, "import pytest\nimport pandas\n"))
    assert result.outcome is Outcome.FAILED
    found = [(f.rule, f.path, f.line) for f in result.findings if f.severity is Severity.ERROR]
    assert found == [
        ("dependency-missing", "mechanisms/a.py", 1),
        ("dependency-missing", "mechanisms/a.py", 2),
        ("dependency-forbidden", "mechanisms/a.py", 4),
        ("dependency-missing", "tests/test_a.py", 2),
    ]
    assert "xgboost" in result.findings[0].message
    assert "ask" in result.findings[0].why
    assert result.detail["advisories"]["state"] == "not scanned"
    assert rules(result, Severity.WARNING) == {"advisories-not-scanned"}
