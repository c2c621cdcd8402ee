"""Secrets and personal data hidden behind their kind: `[EMAIL]`, `[GITHUB_TOKEN]`."""

from __future__ import annotations

from functools import lru_cache

from pegbox.data.doctor import personal, secrets


def redact(text: str) -> str:
    """The text without them; doing it again changes nothing."""
    return personal.redact(secrets.redact(text))


@lru_cache(maxsize=10_000)
def name_shown(name: str) -> str:
    """The name of a label as it may be shown: somebody may have put a key into that column."""
    return redact(name)
