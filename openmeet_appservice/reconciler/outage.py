"""Noticing that the homeserver is away, and that it is back.

While it is away, one cheap probe is made again and again instead of every room running into its own time
limits. The first failure only raises the suspicion: a single request can time out on a homeserver that is
merely busy, so the probe decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from openmeet_appservice.errors import HomeserverError, HomeserverUnreachable
from openmeet_appservice.reconciler.failures import OUTAGES, code_of

logger = logging.getLogger(__name__)

PROBE_SECONDS = 10.0
"""How long a probe may take."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0
"""Seconds between probes: each twice the one before."""


class Outage:
    """Whether the homeserver can be used.

    Parameters
    ----------
    probe
        A cheap request that succeeds exactly if the homeserver answers and knows our token.
    ended
        Called once the homeserver is back after an outage, and when it is found working at the start.
    sleep, random_number
        Wait some seconds; a number in [0, 1).
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[object]],
        ended: Callable[[], Awaitable[None]],
        *,
        sleep: Callable[[float], Awaitable[None]],
        random_number: Callable[[], float],
    ) -> None:
        self._probe = probe
        self._ended = ended
        self._sleep = sleep
        self._random = random_number
        self._prober: asyncio.Task[None] | None = None
        self.reason: HomeserverError | None = None
        """Why it cannot be used; None while it can, as far as is known."""

    def start(self) -> None:
        """Find out; what failed for an outage before our own start is tried again when it works."""
        self._watch(was_away=True)

    def suspect(self, error: Exception) -> None:
        """Take note of a failure; look into it if it could be everybody's."""
        if isinstance(error, HomeserverError) and code_of(error) in OUTAGES:
            self._watch(was_away=False)

    async def stop(self) -> None:
        """Stop probing."""
        if self._prober is not None:
            self._prober.cancel()
            await asyncio.gather(self._prober, return_exceptions=True)

    def _watch(self, *, was_away: bool) -> None:
        if self._prober is None or self._prober.done():
            self._prober = asyncio.create_task(self._until_it_works(was_away), name="homeserver-probe")

    async def _until_it_works(self, was_away: bool) -> None:
        pause = FIRST_PAUSE
        while (error := await self._try()) is not None:
            if self.reason is None:
                logger.warning("the homeserver cannot be used, waiting for it: %s", error)
            self.reason = error
            was_away = True
            await self._sleep(pause * (0.5 + self._random() / 2))
            pause = min(LONGEST_PAUSE, pause * 2)
        if self.reason is not None:
            logger.info("the homeserver can be used again")
        self.reason = None
        if was_away:
            await self._ended()

    async def _try(self) -> HomeserverError | None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await self._probe()
        except TimeoutError:
            return HomeserverUnreachable(f"no answer within {PROBE_SECONDS:g} s")
        except HomeserverError as error:
            # Any other answer shows that it is there; what it refuses is its own matter.
            return error if code_of(error) in OUTAGES else None
        return None
