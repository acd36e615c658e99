"""How fast requests follow one another."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Pace:
    """Lets each request begin some time after the one before, however many ask at once.

    Parameters
    ----------
    gap
        Seconds from one to the next.
    sleep, monotonic
        Wait some seconds; a clock in seconds that never goes back.
    """

    gap: float
    sleep: Callable[[float], Awaitable[None]]
    monotonic: Callable[[], float]
    _next: float = 0.0

    async def turn(self) -> None:
        """Return when it is the caller's turn."""
        now = self.monotonic()
        mine = max(now, self._next)
        self._next = mine + self.gap
        if mine > now:
            await self.sleep(mine - now)
