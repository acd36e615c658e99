"""Durations as people write them: a number with its unit, such as ``15s`` or ``1h30m``."""

from __future__ import annotations

import re
from datetime import timedelta

_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")


def parse_duration(value: object) -> timedelta:
    """Return the time that a text such as ``15s``, ``1h30m`` or ``250ms`` stands for."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str) or not _DURATION.fullmatch(value.strip()):
        raise ValueError(f"must be a time with its unit, such as 15s, 5m, 24h or 7d, not {value!r}")
    parts = _DURATION_PART.findall(value)
    try:
        return timedelta(seconds=sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts))
    except OverflowError:
        raise ValueError("is longer than any time this program can reckon with") from None


def duration_text(value: timedelta) -> str:
    """Write *value* in the largest unit that leaves a whole number, as `parse_duration` reads it."""
    milliseconds = round(value / timedelta(milliseconds=1))
    for unit in ("d", "h", "m", "s"):
        size = int(_UNIT_SECONDS[unit] * 1000)
        if milliseconds % size == 0 and (milliseconds or unit == "s"):
            return f"{milliseconds // size}{unit}"
    return f"{milliseconds}ms"
