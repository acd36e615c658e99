"""What the answer of a server that has a picture means."""

from __future__ import annotations

from dataclasses import dataclass

from openmeet_appservice.domain.pictures import LONGEST_WAIT_MS, MAX_BYTES, is_called_picture, media_type
from openmeet_appservice.outbound import retry_after
from openmeet_appservice.outbound.client import Answer, NoAnswer, Reason

MAX_HEADER = 255

_REFUSED = frozenset({Reason.URL_REFUSED, Reason.ADDRESS_REFUSED})


@dataclass(frozen=True, slots=True)
class Image:
    """A picture, whole. *etag* and *last_modified* are what its server knows this version by."""

    content: bytes
    media_type: str
    etag: str | None
    last_modified: str | None


@dataclass(frozen=True, slots=True)
class Unchanged:
    """It is still the one that was fetched before."""


@dataclass(frozen=True, slots=True)
class NoImage:
    """There is none that can be used.

    Parameters
    ----------
    code
        ``image_refused``: this service does not call that address. ``image_unavailable``: nobody answers, or
        not with it. ``image_unusable``: it is too large, or none.
    detail
        For people, without the URL, which may hold a secret.
    wait_ms
        For how long its server asks to be left alone, in milliseconds.
    """

    code: str
    detail: str
    wait_ms: int = 0


def judge(answer: Answer | NoAnswer, *, now: int) -> Image | Unchanged | NoImage:
    """Say what came of asking for a picture.

    Both the header and the first bytes must say that it is one. *now* is in milliseconds since the epoch.
    """
    if isinstance(answer, NoAnswer):
        code = "image_refused" if answer.reason in _REFUSED else "image_unavailable"
        return NoImage(code, answer.detail)
    if answer.status == 304:
        return Unchanged()
    if 300 <= answer.status < 400:
        return NoImage(
            "image_unavailable", f"The answer was HTTP {answer.status}; redirects are not followed."
        )
    if answer.status != 200:
        wait = retry_after.wait_ms(answer.headers, now=now, longest=LONGEST_WAIT_MS)
        return NoImage("image_unavailable", f"The answer was HTTP {answer.status}.", wait)
    return _content(answer)


def _content(answer: Answer) -> Image | NoImage:
    if answer.end == "broken_off":
        return NoImage("image_unavailable", "It broke off, or did not come in time.")
    if answer.end == "longer":
        return NoImage("image_unusable", f"It has more than {MAX_BYTES // 1024 // 1024} MiB.")
    called = answer.headers.get("content-type", "")
    kind = media_type(answer.body_start)
    if kind is None or not is_called_picture(called):
        said = "Content-Type names no picture" if kind else "it is none of these"
        return NoImage("image_unusable", f"It has to be PNG, JPEG, GIF or WebP: {said}.")
    return Image(answer.body_start, kind, _header(answer, "etag"), _header(answer, "last-modified"))


def _header(answer: Answer, name: str) -> str | None:
    """Return a header to be sent back later, None where it is not fit for that."""
    value = answer.headers.get(name, "")
    return value if 0 < len(value) <= MAX_HEADER and value.isascii() and value.isprintable() else None
