"""The cover page of an evidence bundle: population, exceptions first, where to sign.

A page that needs nothing else: no script, no picture, no network. It judges nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from audit.verifier import Note, Result

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; width: 100%; margin: 0 0 1rem }
th, td { border: 1px solid #999; padding: .3rem .5rem; text-align: left; vertical-align: top }
code { font-size: .85em; overflow-wrap: anywhere } .bad { color: #a40000 } .ok { color: #006400 }
.sign td { height: 3.5rem } @media print { body { margin: 0 } }
"""


def page(
    *,
    made_at: str,
    made_by: str,
    result: Result,
    population: Sequence[Mapping[str, Any]],
    exceptions: Sequence[tuple[str, str]],
    newest: Note,
) -> str:
    """The page as HTML."""
    parts = [
        _head(made_at, made_by, result),
        _problems(result),
        _exceptions(exceptions),
        _population(population),
        _how(result, newest),
        _signatures(),
    ]
    return "".join(parts)


def _head(made_at: str, made_by: str, result: Result) -> SafeString:
    return format_html(
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        "<title>Escapement: evidence</title><style>{}</style><h1>Evidence of governed changes</h1>"
        "<p>Made {} by {}. It covers the audit log from its first entry to entry {}.</p>",
        SafeString(_STYLE),
        made_at,
        made_by,
        result.entries,
    )


def _problems(result: Result) -> SafeString:
    if not result.problems:
        return format_html(
            '<h2>Verification at export</h2><p class="ok">{}</p>',
            "The log, its signatures and its rules held. Verify again, below: that is the point.",
        )
    lines = format_html_join("", "<li>{}</li>", ((str(p),) for p in result.problems))
    title = "Verification at export found problems"
    return format_html('<h2 class="bad">{}</h2><ul class="bad">{}</ul>', title, lines)


def _exceptions(exceptions: Sequence[tuple[str, str]]) -> SafeString:
    if not exceptions:
        return format_html("<h2>Exceptions</h2><p>{}</p>", "None.")
    rows = format_html_join("", "<tr><td>{}</td><td>{}</td></tr>", exceptions)
    return format_html(
        "<h2>Exceptions ({})</h2><table><tr><th>What<th>Why to look at it</tr>{}</table>",
        len(exceptions),
        rows,
    )


def _population(population: Sequence[Mapping[str, Any]]) -> SafeString:
    states = Counter(str(row["state"]) for row in population)
    shown = ("of", "name", "state", "target", "digest")
    counts = format_html_join(", ", "{} {}", ((n, s) for s, n in sorted(states.items())))
    rows = format_html_join(
        "",
        '<tr><td><a href="changes/{}/">{}</a></td><td>{}</td><td>{}</td><td>{}</td>'
        "<td><code>{}</code></td></tr>",
        ((row["of"].partition(":")[2], *(row[name] for name in shown)) for row in population),
    )
    return format_html(
        "<h2>Population: all {} proposals</h2><p>{}</p><table><tr><th>Proposal<th>Mechanism"
        "<th>State<th>Target<th>Digest</tr>{}</table>",
        len(population),
        counts,
        rows,
    )


def _how(result: Result, newest: Note) -> SafeString:
    return format_html(
        "<h2>How to verify</h2><p>In this folder, with Python 3.11 and nothing of ours:</p>"
        "<pre>python3 verify.py --public-key YOUR-COPY-OF-platform.pub</pre><p>{}</p>"
        "<table><tr><th>Public key<td><code>{}</code></tr>"
        "<tr><th>Entries<td>{}</tr><tr><th>Newest checkpoint<td>{} entries, root <code>{}</code>"
        "</tr></table>",
        "Use the key that you were given at another time by another way; the one in this bundle "
        "proves nothing about its sender. The same holds for verify.py: read it, or compare it "
        "with the one that a source you trust makes (PYTHONPATH=platform python -m audit.onefile).",
        result.key,
        result.entries,
        newest.size,
        newest.root,
    )


def _signatures() -> SafeString:
    return format_html(
        '<h2>Signatures</h2><table class="sign"><tr><th>{}<th>{}<th>{}</tr>{}</table></html>',
        "Role",
        "Name, date",
        "Signature",
        format_html_join(
            "", "<tr><td>{}</td><td></td><td></td></tr>", (("Prepared by",), ("Verified by",))
        ),
    )
