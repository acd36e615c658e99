"""Reading ``Retry-After``, as others ask for patience."""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def wait_ms(headers: Mapping[str, str], *, now: int, longest: int) -> int:
    """Return how many milliseconds the other side asks to be left alone, 0 where it does not.

    In seconds or as a date (RFC 9110, 10.2.3).

    Parameters
    ----------
    headers
        The answer's, by names in lower case.
    now
        Milliseconds since the epoch.
    longest
        What is cut off, in milliseconds: a typing error must not stop anything for years.
    """
    after = headers.get("retry-after", "").strip()
    if after.isascii() and after.isdigit():
        # So many digits are more than a year; int() would take its time with thousands of them.
        wait = int(after) * 1000 if len(after) <= 8 else longest
    else:
        try:
            wait = int(parsedate_to_datetime(after).timestamp() * 1000) - now
        except (ValueError, OverflowError):
            return 0
    return max(0, min(wait, longest))
