"""Reading the environment: small, strict, loud about what it does not understand."""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

SECRET_CHARS = 50  # as Django's own deployment check


def flag(name: str) -> bool:
    """A yes/no variable; unset is no, anything unknown is an error."""
    value = os.environ.get(name, "0").strip().lower()
    if value in {"1", "true", "yes"}:
        return True
    if value in {"", "0", "false", "no"}:
        return False
    raise ImproperlyConfigured(f"{name}={value!r}: set it to 1 or 0")


def names(name: str, default: str) -> list[str]:
    """A comma-separated list."""
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def secret_key(path: Path) -> str:
    """Django's secret key: `ESCAPEMENT_SECRET_KEY`, else a file of mode 0600, made at first use."""
    value = os.environ.get("ESCAPEMENT_SECRET_KEY")
    if value is not None:
        if len(value) < SECRET_CHARS:
            raise ImproperlyConfigured(
                f"ESCAPEMENT_SECRET_KEY has {len(value)} characters: give {SECRET_CHARS} random "
                "ones or more, or unset it"
            )
        return value
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=path.name) as file:
            file.write(secrets.token_urlsafe(64))
            file.flush()
            with suppress(FileExistsError):  # somebody else was first: theirs counts
                os.link(file.name, path)  # all of it or nothing
    return path.read_text()


def database(var: Path) -> dict[str, Any]:
    """SQLite below `var`, or what `DATABASE_URL` (postgresql://...) names."""
    url = os.environ.get("DATABASE_URL", "")
    if not url:
        var.mkdir(parents=True, exist_ok=True)
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": var / "db.sqlite3",
            "OPTIONS": {
                # Writers queue at BEGIN instead of failing in the middle; readers never block.
                "transaction_mode": "IMMEDIATE",
                "timeout": 30,
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            },
        }
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"}:
        raise ImproperlyConfigured("DATABASE_URL must be postgresql://user:password@host:port/name")
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")),
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": parts.hostname or "",
        "PORT": parts.port or "",
    }
