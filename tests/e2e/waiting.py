"""Waiting for a condition, never for a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiohttp import ClientError

T = TypeVar("T")

LONG = 60.0
"""Seconds after which something has certainly not happened."""

_PAUSE = 0.03


async def until(look: Callable[[], Awaitable[T | None]], what: str, limit: float = LONG) -> T:
    """Return what *look* returns as soon as that is true; no answer at all counts as not yet.

    Parameters
    ----------
    look
        Asked again and again.
    what
        What is waited for, for the message.
    limit
        Seconds after which the test fails.
    """
    end = time.monotonic() + limit
    while True:
        seen: object = None
        try:
            seen = found = await look()
            if found:
                return found
        except (ClientError, ConnectionError) as error:
            seen = error
        assert time.monotonic() < end, f"not within {limit:g} s: {what}; at last: {seen!r}"
        await asyncio.sleep(_PAUSE)


async def until_true(look: Callable[[], object], what: str, limit: float = LONG) -> None:
    """Return as soon as *look*, which asks nobody, returns something true."""

    async def ask() -> object:
        return look()

    await until(ask, what, limit)
