"""Text of authors: nothing acts, nothing hides, nothing passes for ours."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st
from proposals import diffs, modeltext

TAG = re.compile(r"<[^>]*>")
ALLOWED = re.compile(
    r"</?(p|br|hr|em|strong|code|pre|blockquote|ul|ol|li|h6|table|thead|tbody|tr|th|td)>"
    r'|<mark class="unseen" title="hidden character">|</mark>'
)
NASTY = st.text(
    alphabet=st.one_of(
        st.sampled_from(list("<>&\"'/=[]()#`*_-!|\\\n\t :")),
        st.sampled_from(["\u202e", "\u200b", "\u2066", "\ufeff", "\x00", "\x1b", "\u3164", "⟦"]),
        st.characters(codec="utf-8"),
    ),
    max_size=300,
)


@given(NASTY)
def test_only_structure_survives(text: str) -> None:
    """Whatever is written: no attribute, no unknown tag, no hidden character."""
    for html in (modeltext.render(text), modeltext.plain(text)):
        assert all(ALLOWED.fullmatch(tag) for tag in TAG.findall(html))
        assert not any(modeltext.hidden(c) for c in html)


@pytest.mark.parametrize(
    "text",
    [
        "[x](javascript:alert(1))",
        "<javascript:alert(1)>",
        "![x](http://example.invalid/leak.png)",
        "<script>alert(1)</script>",
        "<a href='javascript:x' class='pill good'>passed</a>",
        "<svg onload=alert(1)>",
        "[r]: javascript:alert(1)\n\n[r]",
        "&#x202e;",
    ],
)
def test_nothing_acts(text: str) -> None:
    """The usual ways in."""
    html = modeltext.render(text)
    assert not re.search(r"<(a|img|script|svg|link|style)\b", html)
    assert "\u202e" not in html


def test_hidden_characters_are_written_out() -> None:
    """Also where they would change what a line of code seems to say."""
    assert modeltext.reveal("a\u202eb\u200bc\r\nd") == "a⟦U+202E⟧b⟦U+200B⟧c\nd"
    diff = diffs.compare(b"x = 1\n", "x = 1\nif a:\u2028    pass  # \u2066\n".encode())
    assert (diff.added, diff.removed) == (1, 0)
    (row,) = [r for r in diff.rows if r.kind == "add"]
    assert row.html.count('class="unseen"') == 2


@given(st.binary(max_size=400), st.binary(max_size=400), st.sampled_from([0, 3, diffs.WHOLE]))
def test_a_diff_tells_all_lines(old: bytes, new: bytes, context: int) -> None:
    """Any bytes: as many lines are added and removed as the files differ in, each shown."""
    found = diffs.compare(old, new, context=context)
    before, after = len(diffs.lines_of(old)), len(diffs.lines_of(new))
    assert after - before == found.added - found.removed
    assert sum(r.kind == "add" for r in found.rows) == found.added
    assert sum(r.kind == "del" for r in found.rows) == found.removed
    assert found.same == (diffs.text_of(old) == diffs.text_of(new))
    if context == diffs.WHOLE:
        assert [r.new for r in found.rows if r.new] == list(range(1, after + 1))


def test_hostile_text_on_the_page(story: dict[str, Any], as_: Callable[[str], Client]) -> None:
    """A forged verdict stays inside the author's box, without our classes."""
    text = as_("ada").get(f"/proposals/{story['high'].pk}/").content.decode()
    assert "<script>window.pwned" not in text
    assert "<h6>PASSED: approved by Escapement</h6>" in text
    assert text.count('<section class="verdict') == 1
    assert "<img" not in text
    assert "U+202E" in text
    assert "\u202e" not in text
    box = text.split('<div class="foreign">')[1].split("</section>")[0]
    assert "written by the author, not by Escapement" in box
    assert 'class="verdict' not in box
