"""Text that Escapement did not write, made safe to look at.

Two dangers: markup that acts (scripts, links, styles), and text that looks like ours or like
something that it is not (headings that claim a verdict, bidirectional and invisible characters).
So: no attribute, link, image or raw HTML survives; headings become the smallest one; hidden
characters are written out. What the text *says* is not judged here.
"""

from __future__ import annotations

import re
import unicodedata

import nh3
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

MAX_CHARACTERS = 120_000
TAGS = {
    *("p", "br", "hr", "em", "strong", "code", "pre", "blockquote", "ul", "ol", "li", "h6"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
_MARKED = re.compile("⟦(U\\+[0-9A-F]{4,6})⟧")
# Blank in most fonts, but of a category that is not "format" or "control".
_BLANK = {0x115F, 0x1160, 0x3164, 0xFFA0, 0x2800, 0x034F, *range(0xFE00, 0xFE10)}
_BLANK |= set(range(0xE0100, 0xE01F0))
_markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
_markdown.disable(["link", "image", "autolink", "html_inline", "html_block", "reference"])


def hidden(character: str) -> bool:
    """Whether a character acts on its neighbours or can't be seen."""
    if character in "\n\t":
        return False
    category = unicodedata.category(character)
    return category in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} or ord(character) in _BLANK


def reveal(text: str) -> str:
    """`text` with each hidden character written out as `⟦U+202E⟧`."""
    text = text.replace("\r\n", "\n")
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return text
    return "".join(f"⟦U+{ord(c):04X}⟧" if hidden(c) else c for c in text)


def mark(html: str) -> SafeString:
    """Escaped HTML with the written-out characters marked. `html` must be safe already."""
    return mark_safe(_MARKED.sub(lambda found: label(found[1]), html))  # noqa: S308


def label(name: str) -> str:
    """What stands for a hidden character, as HTML."""
    return f'<mark class="unseen" title="hidden character">{name}</mark>'


def plain(text: object) -> SafeString:
    """One piece of plain text, escaped, hidden characters marked."""
    return mark(escape(reveal(_cut(str(text)))))


def render(text: str) -> SafeString:
    """Markdown of an author as harmless HTML: structure only, nothing that acts or has a class."""
    tokens = _markdown.parse(reveal(_cut(text)))
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = "h6"
    # Once more: an entity such as `&#x202e;` is a hidden character only now.
    html = reveal(_markdown.renderer.render(tokens, _markdown.options, {}))
    return mark(nh3.clean(html, tags=TAGS, attributes={}, link_rel=None))


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    return f"{text[:MAX_CHARACTERS]}\n\n[{len(text) - MAX_CHARACTERS} further characters not shown]"
