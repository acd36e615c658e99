"""Moments: inside, whole milliseconds since 1970 UTC; outside, RFC 3339 in UTC with milliseconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

Now: TypeAlias = Callable[[], int]
"""The clock, given to whoever needs it: milliseconds since 1970-01-01T00:00:00Z."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt ](\d{2}:\d{2}:\d{2})(?:\.(\d+))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII
)


def to_rfc3339(ms: int) -> str:
    """*ms* as ``2026-11-22T19:00:00.123Z``. Raises `OverflowError` outside the years 1 to 9999."""
    moment = _EPOCH + timedelta(milliseconds=ms)
    return moment.strftime(f"{moment.year:04d}-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def from_rfc3339(text: str) -> int:
    """The milliseconds of a moment of RFC 3339; what is finer than a millisecond is cut off.

    Raises
    ------
    ValueError
        The text is malformed, names no such moment, or has no offset from UTC (then nobody can know
        which moment is meant).
    """
    found = _RFC3339.fullmatch(text)
    if found is None:
        raise ValueError("not a moment of RFC 3339 with an offset, such as 2026-11-22T19:00:00Z")
    day, time, fraction, offset = found.groups()
    moment = datetime.fromisoformat(f"{day}T{time}{offset.upper()}")
    milliseconds = int(f"{fraction or '0':0<3}"[:3])
    try:
        return (moment - _EPOCH) // _MILLISECOND + milliseconds
    except OverflowError as fault:
        raise ValueError("this moment is outside the years 1 to 9999") from fault
