"""Puppets: that Synapse has them, and under the right name."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Connection

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.errors import NotReconciled
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.reconciler.announcing import Announcer
from openmeet_appservice.store import puppets as store
from openmeet_appservice.store import sync
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.puppets import Puppet

logger = logging.getLogger(__name__)

MAX_ROUNDS = 3


class Puppets:
    """Registers and names puppets, each once however many rooms need it at the same time.

    Parameters
    ----------
    database, homeserver
        The two that are to agree.
    announcer
        Told of new names.
    now
        The clock.
    """

    def __init__(self, database: Database, homeserver: Homeserver, announcer: Announcer, *, now: Now) -> None:
        self._database = database
        self._homeserver = homeserver
        self._announcer = announcer
        self._now = now
        self._busy: dict[str, tuple[asyncio.Lock, int]] = {}

    async def reconcile(self, tenant: str, ref: str) -> int:
        """Make Synapse agree with what is wanted of one user; return the generation that it agrees with.

        Compares with what Synapse says, not with what it once accepted: another process may have
        named the puppet at the same time.
        """
        for _ in range(MAX_ROUNDS):
            found = await self._database.read(_with_generation, tenant, ref)
            if found is None:
                return 0
            puppet, generation = found
            async with self._alone(puppet):
                await self._register(puppet)
                if await self._is_named(puppet) or await self._name(puppet):
                    return generation
        raise NotReconciled("not_converging", "the display name changes again and again")

    async def ensure(self, puppet: Puppet) -> None:
        """See to it that the puppet can join rooms, under a name: for users that a room needs now.

        A puppet that has a name keeps it here; changing it is `reconcile`'s.
        """
        async with self._alone(puppet):
            fresh = await self._database.read(store.get, puppet.tenant, puppet.ref)
            if fresh is None:
                return
            await self._register(fresh)
            if fresh.profile_name is None and not await self._name(fresh):
                await self._database.write(sync.poke, fresh.tenant, "user", fresh.ref, now=self._now())

    async def _register(self, puppet: Puppet) -> None:
        if puppet.registered:
            return
        # An account that exists already is ours: nobody else can register in our exclusive namespace.
        await self._homeserver.register(puppet.user_id[1:].partition(":")[0])
        await self._database.write(store.set_registered, puppet.tenant, puppet.ref, now=self._now())
        logger.info("registered %s", puppet.user_id, extra={"tenant": puppet.tenant})

    async def _is_named(self, puppet: Puppet) -> bool:
        if puppet.profile_name != puppet.display_name:
            return False
        return await self._homeserver.display_name(puppet.user_id) == puppet.display_name

    async def _name(self, puppet: Puppet) -> bool:
        """Set the display name; False when another process set one meanwhile."""
        await self._homeserver.set_display_name(puppet.user_id, puppet.display_name)
        return await self._announcer.named(puppet)

    @asynccontextmanager
    async def _alone(self, puppet: Puppet) -> AsyncIterator[None]:
        lock, waiting = self._busy.get(puppet.user_id, (asyncio.Lock(), 0))
        self._busy[puppet.user_id] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            waiting = self._busy[puppet.user_id][1] - 1
            if waiting:
                self._busy[puppet.user_id] = (lock, waiting)
            else:
                del self._busy[puppet.user_id]


def _with_generation(connection: Connection, tenant: str, ref: str) -> tuple[Puppet, int] | None:
    puppet = store.get(connection, tenant, ref)
    status = sync.status(connection, tenant, "user", ref)
    return None if puppet is None else (puppet, status.generation if status else 0)
