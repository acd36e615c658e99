"""Ids that we generate: 128 random bits as lower-case hex, prefixed so that a person sees what it names."""

from __future__ import annotations

import secrets
from collections.abc import Callable

NewId = Callable[[str], str]
"""Makes a fresh id with the given prefix, such as ``room_5f…``; injected so that tests can foretell it."""


def new_id(prefix: str) -> str:
    """Return a fresh id such as ``room_0c4e…``."""
    return f"{prefix}_{secrets.token_hex(16)}"
