"""Whether this process can do its work, as the parts that know report it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum

from openmeet_appservice.errors import StoreError

log = logging.getLogger(__name__)


class Phase(StrEnum):
    """Where the process stands in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether to send work here.

    Attributes
    ----------
    reasons
        Why not; empty when ready.
    degraded
        What does not work although the process is ready, one text each.
    """

    reasons: tuple[str, ...]
    degraded: tuple[str, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons


class Health:
    """Collects what the parts know.

    Parameters
    ----------
    database_ok
        Asks the database something small; False or a `StoreError` means that it is away.
    database_seconds
        How long that may take.
    """

    def __init__(self, database_ok: Callable[[], Awaitable[bool]], *, database_seconds: float = 2.0) -> None:
        self._database_ok = database_ok
        self._database_seconds = database_seconds
        self._phase = Phase.STARTING
        self._degraded: dict[str, str] = {}

    @property
    def phase(self) -> Phase:
        """Where the process stands."""
        return self._phase

    def ready(self) -> None:
        """The process has started and takes work."""
        self._phase = Phase.READY

    def draining(self) -> None:
        """The process ends what it began and takes no more."""
        self._phase = Phase.DRAINING

    def degrade(self, name: str, reason: str) -> None:
        """Say that the part *name* does not work; again with another *reason* replaces it."""
        if self._degraded.get(name) != reason:
            log.warning("%s is degraded: %s", name, reason)
        self._degraded[name] = reason

    def recover(self, name: str) -> None:
        """Say that the part *name* works; nothing happens if it always did."""
        if self._degraded.pop(name, None) is not None:
            log.info("%s works again", name)

    async def readiness(self) -> Readiness:
        """Ask the database, and return where things stand."""
        reasons = [] if self._phase is Phase.READY else [self._phase.value]
        if not await self._database_answers():
            reasons.append("the database cannot be reached")
        degraded = tuple(f"{name}: {self._degraded[name]}" for name in sorted(self._degraded))
        return Readiness(tuple(reasons), degraded)

    async def _database_answers(self) -> bool:
        try:
            async with asyncio.timeout(self._database_seconds):
                return await self._database_ok()
        except (StoreError, TimeoutError) as error:
            log.debug("the database does not answer: %s", type(error).__name__)
            return False
