"""A run whose homeserver is the model, and whose time is pretended."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence

from openmeet_appservice.homeserver import Homeserver, MatrixApi
from openmeet_appservice.store.database import Database

from .life import Life
from .model_homeserver import ModelHomeserver
from .program import Step
from .run import Run
from .stack import BOT, SERVER, Stack
from .transport import Network
from .virtual_time import VirtualLoop

START = 1_795_374_000_000
"""2026-11-22T19:00:00Z, in milliseconds."""

PREFIXES = ("openmeet_", "event-", "group-", "_openmeet_")
STRANGER = f"@paul:{SERVER}"


class OnTheModel(Run):
    """See the module. *seed* chooses the room version, and what the service itself leaves to chance."""

    def __init__(self, database: Database, loop: VirtualLoop, seed: int) -> None:
        began, version = loop.seconds, random.Random(seed).choice(["12", "12", "11", "10"])
        stack = Stack(
            database,
            self.speak,
            version=version,
            now=lambda: START + round((loop.seconds - began) * 1000),
            seed=seed,
        )
        super().__init__(stack, version, STRANGER)
        self.homeserver = ModelHomeserver(
            SERVER, BOT, PREFIXES, "12", pause=lambda: asyncio.sleep(0.01), push=stack.outbox.append
        )
        self.homeserver.profiles[STRANGER] = "paul"
        self.network = Network(self.homeserver)

    def speak(self, life: Life) -> Homeserver:
        """Return the client of a process."""
        return self._client(life, self.network)

    def eyes(self) -> Homeserver:
        return self._client(Life(), Network(self.homeserver))

    def _client(self, life: Life, network: Network) -> Homeserver:
        api = MatrixApi(
            "http://model",
            ["as-token"],
            network.session(life),
            random_number=lambda: 0.5,
            monotonic=asyncio.get_running_loop().time,
            now=self.stack.now,
        )
        return Homeserver(api, "openmeet")

    def heal(self) -> None:
        self.network.faults.clear()

    def requests_that_write(self) -> list[str]:
        written, self.network.writes = self.network.writes, []
        return written

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def stranger_does(self, what: str, room_id: str) -> None:
        await getattr(self.eyes(), what)(room_id, as_user=STRANGER)

    async def rooms_made(self) -> set[str]:
        return {room.room_id for room in self.homeserver.rooms.values() if room.membership(BOT)}

    async def requests_fail(self, faults: list[str | None], seconds: float, aim: str = "") -> None:
        self.network.faults, self.network.aim = deque(faults), aim
        await self.pass_time(seconds)

    async def goes_down(self, seconds: float) -> None:
        self.network.is_down = True
        await self.pass_time(seconds)
        self.network.is_down = False

    async def synapse_restarts(self) -> None:
        self.network.restart()
        self.stack.outbox.events.clear()

    async def play(self, steps: Sequence[Step]) -> None:
        await super().play(steps)
        assert self.network.unknown == []
