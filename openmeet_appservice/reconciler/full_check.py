"""The slow round in which every room is compared once in a while, though nobody said that it changed.

What others change is noticed from what Synapse pushes. This finds the rest: what was changed in the room
directory, by an admin in the database, or while nobody listened. Each turn makes one event or group due; the
turns are spread evenly, and never so close together that Synapse is asked more often than is allowed.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import StoreError
from openmeet_appservice.metrics import FULL_CHECK_OLDEST
from openmeet_appservice.store import full_check
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.full_check import Standing
from openmeet_appservice.store.wakeups import Wakeups

logger = logging.getLogger(__name__)

PART = 0.9
"""In what part of the period each has its turn, so that what goes wrong can be made good."""

REQUESTS = 3
"""How many requests a comparison makes that finds nothing to do."""

LOOK_EVERY = 600.0
"""Seconds for which the number of rooms is taken to be the same, and the longest sleep."""

PAUSE = 30.0
"""Seconds of rest when Synapse or the database is away."""


@dataclass(frozen=True, slots=True)
class FullCheckSettings:
    """How the full check goes about it.

    Parameters
    ----------
    period
        Within how many milliseconds every room is compared once.
    rate
        How many requests a second there are at most, on average.
    """

    period: int
    rate: float

    def gap(self, entities: int) -> int:
        """Return the milliseconds from one turn to the next where so many take turns."""
        return int(max(self.period * PART / max(1, entities), 1000 * REQUESTS / self.rate))


@dataclass(slots=True)
class FullCheck:
    """Takes turns until it is cancelled.

    Parameters
    ----------
    wakeups
        Woken for ``reconcile``.
    is_away
        Whether Synapse cannot be used: what is due then would only wait, and all come at once afterwards.
    now, sleep
        Milliseconds since the epoch; waits some seconds.
    """

    database: Database
    wakeups: Wakeups
    settings: FullCheckSettings
    is_away: Callable[[], bool]
    now: Now
    sleep: Callable[[float], Awaitable[None]]
    _standing: Standing | None = None
    _looked_at: int = 0

    async def run(self) -> None:
        """Take one turn after the other."""
        while True:
            await self.sleep(await self.step())

    async def step(self) -> float:
        """Take a turn if it is time; return after how many seconds to look again."""
        if self.is_away():
            return PAUSE
        try:
            gap = self.settings.gap((await self._look()).entities)
            turn = await self.database.write(full_check.take_turn, now=self.now(), gap=gap)
        except (StoreError, SQLAlchemyError) as error:
            logger.warning("the full check waits for the database: %s", type(error).__name__)
            return PAUSE
        except Exception:
            logger.exception("the full check failed; it goes on")
            return PAUSE
        if turn.taken:
            self.wakeups.wake("reconcile")
        return min(LOOK_EVERY, max(0.0, (turn.next_at - self.now()) / 1000))

    async def _look(self) -> Standing:
        """Return how it stands, or stood not long ago."""
        now = self.now()
        if self._standing is None or not 0 <= now - self._looked_at < LOOK_EVERY * 1000:
            self._standing, self._looked_at = await self.database.read(full_check.standing), now
        oldest = self._standing.oldest
        FULL_CHECK_OLDEST.set(0 if oldest is None else max(0, now - oldest) / 1000)
        return self._standing
