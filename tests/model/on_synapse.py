"""A run on a real Synapse, in real time: what takes long is cut short there, and Synapse does not die."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Sequence

from openmeet_appservice.homeserver import Homeserver, MatrixApi, RetryPolicy, TimeLimits
from openmeet_appservice.store.database import Database

from .conftest import World
from .life import Life
from .program import Step
from .run import Run
from .stack import Stack
from .transport import Answer, Asked, Network

LONGEST_PAUSE = 0.4
"""Seconds that pass at a time, at most."""

_runs = itertools.count(1)


class OnSynapse(Run):
    """See the module. *seed* chooses as it does in `OnTheModel`, but there is only one process."""

    patience = 90.0

    def __init__(self, database: Database, world: World, seed: int) -> None:
        version = random.Random(seed).choice(["12", "12", "11", "10"])
        stack = Stack(
            database,
            self.speak,
            version=version,
            now=lambda: time.time_ns() // 1_000_000,
            seed=seed,
            tenant=f"s{next(_runs)}",
        )
        super().__init__(stack, version, world.person.user_id)
        self.world = world
        self.network = Network(self._perform, slow=0.3, hung=6.0)
        self._before: set[str] = set()

    def speak(self, life: Life) -> Homeserver:
        """Return the client of a process."""
        api = MatrixApi(
            self.world.synapse.url,
            [self.world.token],
            self.network.session(life),
            limits=TimeLimits(total=5.0, create_room=5.0),
            retries=RetryPolicy(first_wait=0.05, longest_wait=0.5),
        )
        return Homeserver(api, "openmeet")

    async def _perform(self, asked: Asked) -> Answer:
        async with self.world.session.request(
            asked.method, asked.url, data=asked.body, params=asked.query, headers=asked.headers
        ) as answer:
            return Answer(answer.status, await answer.read(), dict(answer.headers))

    def eyes(self) -> Homeserver:
        return self.world.homeserver()

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, LONGEST_PAUSE))

    async def stranger_does(self, what: str, room_id: str) -> None:
        await getattr(self.world.person, what)(room_id)

    async def rooms_made(self) -> set[str]:
        return await self.eyes().joined_rooms() - self._before

    async def making_takes(self, pause: float) -> None:
        # Synapse takes the time that it takes.
        await self.pass_time(pause)

    async def play(self, steps: Sequence[Step]) -> None:
        self._before = await self.eyes().joined_rooms()
        self.world.take = self.stack.outbox.take
        await super().play(steps)
