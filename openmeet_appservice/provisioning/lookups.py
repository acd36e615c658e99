"""All that asks OpenMeet, together: after hints, in turn, and for aliases."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.provisioning.alias_worker import AliasWorker
from openmeet_appservice.provisioning.hint_work import HintWork
from openmeet_appservice.provisioning.hint_worker import HintWorker
from openmeet_appservice.provisioning.lookup import Lookup
from openmeet_appservice.provisioning.lookup_rest import Rests
from openmeet_appservice.provisioning.parts import Parts


@dataclass(frozen=True, slots=True)
class Lookups:
    """Asks OpenMeet about whatever there is to ask about, until it is stopped.

    Parameters
    ----------
    parts
        What the answers are written with.
    lookup
        Asks.
    rooms
        The room settings of tenants that chose nothing themselves.
    """

    parts: Parts
    lookup: Lookup
    rooms: RoomSettings
    random: Callable[[], float] = random.random

    async def run(self) -> None:
        """Work until cancelled."""
        work = HintWork(self.parts, self.lookup, Rests(self.parts.now, self.random), self.random)
        worker = HintWorker(work, time.monotonic, asyncio.sleep)
        aliases = AliasWorker(self.parts, self.lookup, self.rooms, asyncio.sleep)
        async with asyncio.TaskGroup() as tasks:
            for part in (worker.run(), worker.enrol(), aliases.run()):
                tasks.create_task(part)
