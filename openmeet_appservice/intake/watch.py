"""After a start and after an outage of our own: let Synapse know that we are here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from openmeet_appservice.errors import HomeserverError, HomeserverRefused, StoreError
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.intake.advice import advice
from openmeet_appservice.intake.control_room import ControlRoom
from openmeet_appservice.store import event_log, service
from openmeet_appservice.store.database import Database

log = logging.getLogger(__name__)

FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0
"""Seconds between two attempts: doubled from the first to the longest."""


@dataclass(slots=True)
class Watch:
    """Pings Synapse and wakes it, until both have succeeded; then it rests until there is an outage.

    A ping that succeeds makes Synapse repeat at once what it could not send, for which it would otherwise
    wait up to 8.5 minutes; the event in the control room makes it do so after a restart of its own.

    Parameters
    ----------
    homeserver, control_room, database
        What it works with.
    report
        Is told what is wrong, and None when nothing is.
    new_txn_id
        Makes the transaction ids of pings.
    sleep, random_number
        Wait some seconds; a number in [0, 1).
    """

    homeserver: Homeserver
    control_room: ControlRoom
    database: Database
    report: Callable[[str | None], None]
    new_txn_id: Callable[[], str]
    sleep: Callable[[float], Awaitable[None]]
    random_number: Callable[[], float]
    _needed: asyncio.Event = field(default_factory=asyncio.Event)
    _problem: str | None = None
    _heard: bool = False

    @property
    def has_announced(self) -> bool:
        """Whether Synapse knows that we are here, as far as is known."""
        return self._heard and not self._needed.is_set()

    def rouse(self) -> None:
        """Ask for a ping and an event, as after an outage; fine to call at any time."""
        self._needed.set()

    async def run(self) -> None:
        """Announce us now, and again after each `rouse`, until cancelled."""
        self._needed.set()
        pause = FIRST_WAIT
        while True:
            await self._needed.wait()
            self._needed.clear()
            await self._announce_until_heard()
            await self.sleep(pause)
            # Roused again already: what Synapse repeats at our ping fails each time, so pings are no help.
            pause = min(pause * 2, LONGEST_WAIT) if self._needed.is_set() else FIRST_WAIT

    async def _announce_until_heard(self) -> None:
        wait = FIRST_WAIT
        self._heard = False
        while True:
            problem = await self._announce()
            self._tell(problem)
            if problem is None:
                self._heard = True
                return
            # Up to a quarter less, so that replicas do not keep step.
            await self.sleep(wait * (1 - self.random_number() / 4))
            wait = min(wait * 2, LONGEST_WAIT)

    async def _announce(self) -> str | None:
        """Ping and wake Synapse; return what went wrong."""
        try:
            # First whether there is a place for what Synapse would send.
            await self.database.read(service.get, event_log.CONTROL_ROOM)
        except (StoreError, SQLAlchemyError) as error:
            return f"The database cannot be used: {_first_line(error)}"
        try:
            milliseconds = await self.homeserver.ping(self.new_txn_id())
        except HomeserverError as error:
            return f"The ping failed. {error}. {advice(error)}"
        log.info("Synapse reached us in %d ms", milliseconds)
        try:
            await self.control_room.write_event()
        except (HomeserverError, StoreError, SQLAlchemyError) as error:
            hint = f" {advice(error)}" if isinstance(error, HomeserverRefused) else ""
            return f"Synapse reaches us, but the control room cannot be used: {_first_line(error)}.{hint}"
        return None

    def _tell(self, problem: str | None) -> None:
        if problem is not None and problem != self._problem:
            log.error("%s", problem)
        elif problem is not None:
            log.debug("still: %s", problem)
        self._problem = problem
        self.report(problem)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] if not isinstance(error, SQLAlchemyError) else type(error).__name__
