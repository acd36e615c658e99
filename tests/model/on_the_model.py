"""A run whose homeserver is the model, and whose time is pretended."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from openmeet_appservice.homeserver import Homeserver, MatrixApi
from openmeet_appservice.store.database import Database

from .life import Life
from .model_homeserver import ModelHomeserver
from .model_routes import performer
from .program import Step
from .run import Run
from .stack import BOT, SERVER, Stack
from .transport import Network
from .virtual_time import VirtualLoop

START = 1_795_374_000_000
"""2026-11-22T19:00:00Z, in milliseconds."""

PREFIXES = ("openmeet_", "event-", "group-", "_openmeet_")
QUICK = 0.01
"""Seconds that a step of making a room takes, unless it is said otherwise."""

STRANGER = f"@paul:{SERVER}"


class OnTheModel(Run):
    """See the module.

    *seed* chooses the room version, whether two processes share the database (on SQLite they only do here,
    for their leases' sake), and what the service itself leaves to chance.
    """

    patience = 4 * 3600.0

    def __init__(self, database: Database, loop: VirtualLoop, seed: int) -> None:
        dice = random.Random(seed)
        began, version = loop.seconds, dice.choice(["12", "12", "11", "10"])
        stack = Stack(
            database,
            self.speak,
            version=version,
            now=lambda: START + round((loop.seconds - began) * 1000),
            seed=seed,
            processes=dice.choice([1, 1, 2]),
            is_shared=database.dialect == "postgresql",
        )
        super().__init__(stack, version, STRANGER)
        self.pause = QUICK
        self.homeserver = ModelHomeserver(
            SERVER, BOT, PREFIXES, "12", pause=self._pause, push=stack.outbox.append
        )
        self.homeserver.profiles[STRANGER] = "paul"
        self.unknown: list[str] = []
        self.network = self._network()

    async def _pause(self, creator_is_inside: bool) -> None:
        await asyncio.sleep(QUICK if creator_is_inside else self.pause)

    def _network(self) -> Network:
        return Network(performer(self.homeserver, self.unknown))

    def speak(self, life: Life) -> Homeserver:
        """Return the client of a process."""
        return self._client(life, self.network)

    def eyes(self) -> Homeserver:
        return self._client(Life(), self._network())

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

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def stranger_does(self, what: str, room_id: str) -> None:
        await getattr(self.eyes(), what)(room_id, as_user=STRANGER)

    async def rooms_made(self) -> set[str]:
        return {room.room_id for room in self.homeserver.rooms.values() if room.membership(BOT)}

    async def making_takes(self, pause: float) -> None:
        self.pause = pause or QUICK

    async def play(self, steps: Sequence[Step]) -> None:
        await super().play(steps)
        assert self.unknown == []
