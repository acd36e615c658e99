"""An event loop in which waiting takes no time, so that hours of the service pass in a moment, always alike.

Whenever nothing is left to do but to wait, the loop's clock jumps to the next timer. Real work beside it
(PostgreSQL) is waited for in real time, as long as it says so.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import contextmanager


class VirtualLoop(asyncio.SelectorEventLoop):
    """The loop. *seconds* is its clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._outside = 0
        self._real = selectors.DefaultSelector()
        super().__init__(self._real)
        self._ask = self._real.select
        # The loop asks its selector to wait; there is no other place where it could be told not to.
        self._real.select = self._select  # type: ignore[method-assign]

    def time(self) -> float:
        """Return the pretended time."""
        return self.seconds

    @contextmanager
    def outside(self) -> Iterator[None]:
        """While something is under way that takes real time."""
        self._outside += 1
        try:
            yield
        finally:
            self._outside -= 1

    def _select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._ask(0)
        if ready or timeout == 0:
            return ready
        if self._outside:
            return self._ask(0.01)
        if timeout is None:
            raise RuntimeError("everything waits for something that never happens")
        self.seconds += timeout
        return []
