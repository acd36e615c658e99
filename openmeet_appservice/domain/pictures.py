"""What counts as a picture, and how long a broken one is left alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MAX_BYTES: Final = 5 * 1024 * 1024

FIRST_WAIT_MS: Final = 30_000
LONGEST_WAIT_MS: Final = 6 * 60 * 60_000

MEDIA_TYPES: Final = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""What clients show and Synapse makes thumbnails of. SVG is none of them: it can hold scripts."""

_NAMES = frozenset({*MEDIA_TYPES, "image/jpg", "image/pjpeg", "image/x-png"})


def media_type(content: bytes) -> str | None:
    """Return which of `MEDIA_TYPES` *content* begins like, None for none."""
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if content.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if content.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        return "image/webp"
    return None


def is_called_picture(content_type: str) -> bool:
    """Tell whether a header ``Content-Type`` announces a picture, which then may be of another kind."""
    return content_type.partition(";")[0].strip().lower() in _NAMES


def wait_ms(attempts: int, random_number: Callable[[], float], *, longest: int) -> int:
    """Return the wait after *attempts* + 1 failures in a row, half of it at random, at most *longest*."""
    full = min(longest, FIRST_WAIT_MS << min(attempts, 20))
    return round(full * (0.5 + random_number() / 2))
