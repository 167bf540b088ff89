"""How single values look on a page: digests, times, numbers, states, text of others."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from django import template
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from proposals import modeltext
from proposals.states import State

register = template.Library()
NOTHING = "\N{EN DASH}"

TONES = {
    State.PASSED: "turn",
    State.APPROVED: "turn",
    State.ACTIVATING: "turn",
    State.LIVE: "good",
    State.FAILED: "bad",
    State.REFUSED: "bad",
    State.REJECTED: "bad",
    State.SUBMITTED: "warn",
    State.SCREENING: "warn",
}
WORDS = {
    State.SUBMITTED: "waiting for screening",
    State.SCREENING: "screening",
    State.PASSED: "waiting for review",
    State.APPROVED: "approved",
    State.ACTIVATING: "activating",
    State.ROLLED_BACK: "rolled back",
}
OTHER_TONES = {
    **{"passed": "good", "kept": "good", "allow": "good", "valid": "good", "running": "turn"},
    **{"failed": "bad", "error": "bad", "deny": "bad", "could_not_look": "bad", "refused": "bad"},
    **{"warning": "warn", "escalate": "turn", "skipped": "warn", "stopped": "bad"},
    **{"guarded": "auto", "shadow": "auto", "approve": "good", "reject": "bad", "live": "good"},
}


@register.simple_tag
def state_pill(state: str) -> SafeString:
    """The state of a proposal."""
    tone = TONES.get(State(state), "")
    return format_html('<span class="pill {}">{}</span>', tone, WORDS.get(State(state), state))


@register.simple_tag
def pill(word: object, tone: str = "") -> SafeString:
    """Any other short word of a closed set."""
    tone = tone or OTHER_TONES.get(str(word), "")
    return format_html('<span class="pill {}">{}</span>', tone, str(word).replace("_", " "))


@register.simple_tag
def digest(value: object, length: int = 12) -> SafeString:
    """A digest: short on the screen, whole in print and in the clipboard."""
    text = str(value or "")
    if not text:
        return format_html('<span class="muted">{}</span>', "none")
    return format_html(
        '<span class="digest"><code title="{0}"><span class="short">{1}</span>'
        '<span class="full">{0}</span></code>'
        '<button type="button" class="copy noprint" data-copy="{0}" aria-label="Copy {1}">copy'
        "</button></span>",
        text, text.removeprefix("sha256:")[:length],
    )  # fmt: skip


@register.filter
def short(value: object) -> str:
    """The first twelve digits of a digest."""
    return str(value or "").removeprefix("sha256:")[:12]


@register.filter
def ago(value: datetime | None) -> SafeString:
    """A time: how long ago, the exact moment on demand and in print."""
    if value is None:
        return format_html('<span class="muted">{}</span>', "never")
    exact = f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>', value.isoformat(), exact, _distance(value)
    )


def _distance(value: datetime) -> str:
    seconds = (timezone.now() - value).total_seconds()
    size = abs(seconds)
    units = ((90, "s", 1), (5400, "min", 60), (129_600, "h", 3600))
    unit, divisor = next(((u, d) for limit, u, d in units if size < limit), ("", 0))
    if not divisor:
        return f"{value:%d %b %Y}"
    text = f"{round(size / divisor)} {unit}"
    if seconds < 0:
        return f"in {text}"
    return "just now" if size < 2 else f"{text} ago"


@register.filter
def number(value: Any) -> str:
    """A measured number with as many digits as mean something; anything else as it is."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int):
        return str(value)
    if value == 0 or 0.001 <= abs(value) < 1e4:
        return f"{value:.4f}"
    return f"{value:.7g}" if 1e4 <= abs(value) < 1e7 else f"{value:.3g}"


@register.filter
def to_noise(value: Any, sigma: float | None) -> str:
    """A metric with a digit more than its noise has, where `number` would show fewer."""
    if not sigma or not isinstance(value, float) or abs(value) >= 1e7:
        return number(value)
    places = 1 - math.floor(math.log10(sigma))
    return f"{value:.{min(places, 12)}f}" if places > 4 else number(value)


@register.filter
def signed(value: Any) -> str:
    """A difference with its sign and three digits that mean something."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return NOTHING
    return f"{value:+.3g}" if abs(value) >= 1e-9 else "0"


@register.filter
def seconds(value: Any) -> str:
    """A duration."""
    if not isinstance(value, (int, float)):
        return NOTHING
    if value < 10:
        return f"{value:.1f}\N{NO-BREAK SPACE}s"
    unit, size = ("s", value) if value < 120 else ("min", value / 60)
    return f"{size:.0f}\N{NO-BREAK SPACE}{unit}"


@register.filter
def foreign(value: object) -> SafeString:
    """Plain text that we did not write."""
    return modeltext.plain(value)


@register.filter
def foreign_markdown(value: object) -> SafeString:
    """Markdown that we did not write."""
    return modeltext.render(str(value))


@register.filter
def words(value: object) -> str:
    """An identifier as words."""
    return str(value).replace("_", " ")


@register.filter
def changes(value: Any) -> SafeString:
    """A mapping of knobs to values, on one line."""
    if not value:
        return format_html('<span class="muted">{}</span>', "nothing")
    if not isinstance(value, dict):
        return modeltext.plain(value)
    return modeltext.plain(", ".join(f"{k}={number(v)}" for k, v in value.items()))


@register.filter
def plainly(value: Any) -> str:
    """JSON data on one line, as a person would write it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: NOTHING}[value]
    if isinstance(value, dict):
        return ", ".join(f"{k}: {plainly(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(plainly(v) for v in value) or "none"
    return number(value)


@register.filter
def lookup(mapping: Any, key: str) -> Any:
    """`mapping[key]`, None where there is none."""
    return mapping.get(key) if hasattr(mapping, "get") else None
