"""One run of the proof, from an empty database to the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from aiohttp import ClientSession

from benchmarks.delivery_proof import faults
from benchmarks.delivery_proof.blows import Blow, Planned, plan_blows
from benchmarks.delivery_proof.databases import Server, open_server
from benchmarks.delivery_proof.faults import Treatment
from benchmarks.delivery_proof.provision import WantedEndpoint, new_secrets, provision
from benchmarks.delivery_proof.receiver import Receiver, Treat, take_all
from benchmarks.delivery_proof.replicas import WEBHOOK_SECONDS, Replica, make_replicas
from benchmarks.delivery_proof.scenario import Scale, make_rooms, transactions
from benchmarks.delivery_proof.synapse import Pusher, StandIn
from benchmarks.delivery_proof.verdict import Judge, Request, Room, Verdict
from openmeet_appservice.store import lanes
from openmeet_appservice.store.lanes import Backlog
from openmeet_appservice.wiring import open_database

PLATFORM = "platform"
"""The name of the platform's endpoint; a tenant's has the tenant's id."""

PATIENCE = 120.0
"""Seconds without anything arriving after which what is missing counts as lost.

More than a dead replica's lease and a breaker's first round together.
"""

AHEAD = 3000
"""How many events the pusher may be ahead of what has arrived, so that both go on all the time.

In a short run it is no more than a quarter of all.
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be proved."""

    seed: int
    database: str
    replicas: int
    scale: Scale
    kills: int
    restarts: int
    outages: int
    logs: Path | None = None
    """A folder to keep the processes' logs in."""


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    verdict: Verdict
    seconds: float
    options: Options
    transactions: int
    pushes_failed: Counter[str]
    treated: Counter[faults.Kind]
    stray: int
    fell: Counter[Blow] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)
    """What went wrong besides what the receiver saw."""

    @property
    def holds(self) -> bool:
        """Whether the promises hold."""
        return self.verdict.holds and not self.troubles and not self.stray


@dataclass(slots=True)
class World:
    """Everything that takes part in a run, the replicas not started."""

    session: ClientSession
    server: Server
    homeserver: StandIn
    receiver: Receiver
    judge: Judge
    rooms: dict[str, Room]
    owners: dict[str, str | None]
    replicas: list[Replica]

    def pusher(self, seed: int, *, dropped: float = 0.0) -> Pusher:
        """Return what pushes to all replicas."""
        token = self.replicas[0].config.appservice.hs_tokens[0]
        urls = [replica.url for replica in self.replicas]
        return Pusher(self.session, urls, token, random.Random(f"{seed} pusher"), dropped)

    async def backlog(self) -> Backlog:
        """Return what the database says has not been taken."""
        database = open_database(self.replicas[0].config)
        try:
            return await database.read(lanes.backlog)
        finally:
            await database.close()

    async def all_arrived(self, patience: float = PATIENCE) -> bool:
        """Wait until everything sent has arrived and is written down as taken.

        False when nothing more came for *patience* seconds.
        """
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < patience:
            done = self.judge.arrived == self.judge.expected
            if done and (await self.backlog()).waiting == 0:
                return True
            if self.judge.arrived != seen:
                seen, since = self.judge.arrived, time.monotonic()
            await asyncio.sleep(0.2)
        return False


@contextlib.asynccontextmanager
async def open_world(
    server: Server,
    *,
    replicas: int,
    rooms: dict[str, Room],
    platform: bool = True,
    treat: Treat = take_all,
    settings: dict[str, str] | None = None,
) -> AsyncIterator[World]:
    """Everything that a run needs; at the end no process is left.

    Parameters
    ----------
    server
        Its database is empty.
    platform
        Whether there is a platform endpoint besides one for each tenant.
    treat
        What the receiver does.
    settings
        Of the replicas, besides those that make waits short.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="omas-proof-")))
        session = await stack.enter_async_context(ClientSession())
        owners: dict[str, str | None] = {room.tenant: room.tenant for room in rooms.values()}
        if platform:
            owners[PLATFORM] = None
        judge = Judge(owners, rooms)
        receiver = Receiver(new_secrets(owners), judge, treat)
        await receiver.start()
        stack.push_async_callback(receiver.stop)
        homeserver = StandIn()
        await homeserver.start()
        stack.push_async_callback(homeserver.stop)
        made = make_replicas(
            folder, replicas, homeserver_url=homeserver.url, database_url=server.url, settings=settings
        )
        for replica in made:
            stack.callback(replica.kill)
        wanted = {
            name: WantedEndpoint(owner, receiver.url_of(name), receiver.secrets[name])
            for name, owner in owners.items()
        }
        await provision(made[0].config, rooms, wanted)
        yield World(session, server, homeserver, receiver, judge, rooms, owners, made)


async def prove(options: Options) -> Outcome:
    """Run it."""
    with (
        tempfile.TemporaryDirectory(prefix="omas-db-") as folder,
        open_server(options.database, Path(folder)) as server,
    ):
        return await _prove(options, server)


async def _prove(options: Options, server: Server) -> Outcome:
    started = time.monotonic()
    async with open_world(
        server,
        replicas=options.replicas,
        rooms=make_rooms(options.scale),
        treat=partial(_treat, options.seed),
    ) as world:
        for replica in world.replicas:
            replica.launch()
        pusher = world.pusher(options.seed, dropped=0.02)
        fell: Counter[Blow] = Counter()
        work = [
            asyncio.create_task(_push(world, pusher, options)),
            asyncio.create_task(_strike(world, options, fell)),
        ]
        try:
            troubles = await _finish(world, work)
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
        for replica in world.replicas:
            try:
                # One that was only just started would be ended by the signal before it can heed it.
                await replica.ready(world.session)
            except RuntimeError as error:
                troubles.append(str(error))
            await replica.terminate()
            troubles += [f"{replica.name} ended by itself: {code}" for code in replica.ended_by_itself]
            if options.logs is not None:
                shutil.copy(replica.log, options.logs)
        return Outcome(
            verdict=world.judge.verdict(),
            seconds=time.monotonic() - started,
            options=options,
            transactions=pusher.transactions,
            pushes_failed=pusher.failures,
            treated=world.receiver.treated,
            stray=world.receiver.stray,
            fell=fell,
            troubles=troubles,
        )


def _treat(seed: int, request: Request, tries: int) -> Treatment:
    first, events = request.events[0].sequence, len(request.events)
    return faults.treat(
        seed, request.endpoint, request.room_id, first, events, tries, timeout=WEBHOOK_SECONDS
    )


async def _finish(world: World, work: list[asyncio.Task[None]]) -> list[str]:
    """Wait until everything is done, or nothing moves any more; return what went wrong."""
    done, seen, since = False, -1, time.monotonic()
    while not done and time.monotonic() - since < PATIENCE:
        for task in work:
            if task.done():
                task.result()
        done = all(task.done() for task in work)
        if world.judge.arrived != seen:
            seen, since = world.judge.arrived, time.monotonic()
        await asyncio.sleep(0.1)
    if not done:
        return ["nothing more arrived, and the run was given up"]
    if not await world.all_arrived():
        return ["not everything that was sent is taken and written down"]
    return []


async def _push(world: World, pusher: Pusher, options: Options) -> None:
    ahead = min(AHEAD, options.scale.events // 4)
    for transaction in transactions(options.seed, options.scale, world.rooms):
        await pusher.push(transaction)
        # Each goes to two endpoints.
        while world.judge.expected - world.judge.arrived > ahead * 2:
            await asyncio.sleep(0.02)


async def _strike(world: World, options: Options, fell: Counter[Blow]) -> None:
    """Let every blow fall when its time has come."""
    everything = options.scale.events * 2
    async with asyncio.TaskGroup() as outages:
        for planned in plan_blows(
            options.seed, kills=options.kills, restarts=options.restarts, outages=options.outages
        ):
            while world.judge.arrived < planned.at * everything:
                await asyncio.sleep(0.02)
            await asyncio.sleep(planned.delay)
            fell[planned.blow] += 1
            match planned.blow:
                case Blow.KILL:
                    replica = world.replicas[planned.target % len(world.replicas)]
                    replica.kill()
                    await asyncio.sleep(planned.pause)
                    replica.launch()
                case Blow.RESTART:
                    await world.server.restart(planned.mode)
                case Blow.OUTAGE:
                    outages.create_task(_outage(world, planned))


async def _outage(world: World, planned: Planned) -> None:
    endpoint = list(world.owners)[planned.target % len(world.owners)]
    world.receiver.down.add(endpoint)
    await asyncio.sleep(planned.pause)
    world.receiver.down.discard(endpoint)
