"""Giving an alias to a room and taking it off again, with the store kept in step.

Synapse has no way to let an alias point elsewhere in one step, and two entities can want the same one: an
archived event and its successor under the same slug, or a renamed one and whatever took its slug. So an
alias is only taken off the room that is expected to have it, and afterwards the entity it is kept for is
compared again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from sqlalchemy import Connection

from openmeet_appservice.domain.canonical import named_aliases, without_alias
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.names import temporary_alias_localpart
from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.store import entities, former_slugs, rooms, wanted
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.rooms import Room

logger = logging.getLogger(__name__)

CANONICAL = "m.room.canonical_alias"

ATTEMPTS = 3
"""How often an alias is put in one run, when it has to be freed first."""


class Aliases:
    """Moves aliases.

    Parameters
    ----------
    poked
        Called when another entity has to be compared again.
    """

    def __init__(
        self, database: Database, homeserver: Homeserver, *, now: Now, poked: Callable[[], None]
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._now = now
        self._poked = poked

    async def put(self, alias: str, room: Room, room_id: str) -> str | None:
        """Let *alias* point to *room*; return the id of the room it points to instead, None if done.

        A room of ours that may lose it loses it first. The empty string: it does not become free.
        """
        for _ in range(ATTEMPTS):
            other = await self._try_to_put(alias, room_id)
            if other is None:
                await self._database.write(_put, room, alias)
                return None
            former = None
            if other:
                former = await self._database.read(wanted.may_lose_alias, room.tenant, other, alias)
                if former is None:
                    return other
                await self.take_from_former(alias, former, other)
        return ""

    async def _try_to_put(self, alias: str, room_id: str) -> str | None:
        """Return the id of the room that has it, the empty string if that has just lost it, None if done."""
        try:
            await self._homeserver.put_alias(alias, room_id)
        except HomeserverRefused as error:
            if error.status != 409:
                raise
            target = await self._homeserver.resolve_alias(alias)
            return None if target == room_id else target or ""
        return None

    async def take_off(self, alias: str, room: Room, room_id: str) -> None:
        """Take *alias* off *room*, if that has it. What the room says about itself is not touched."""
        is_temporary = alias.startswith(f"#{temporary_alias_localpart(room.claim)}:")
        if is_temporary or await self._homeserver.resolve_alias(alias) == room_id:
            await self._homeserver.delete_alias(alias)
        if await self._database.write(_taken_off, room, alias, now=self._now()):
            self._poked()

    async def take_from_former(self, alias: str, room: Room, room_id: str) -> None:
        """Take *alias* off *room*, which may lose it, for another one that is to have it."""
        logger.info("taking the alias %s off %s", alias, room_id, extra={"tenant": room.tenant})
        await self._forget_canonical(alias, room_id)
        await self.take_off(alias, room, room_id)

    async def _forget_canonical(self, alias: str, room_id: str) -> None:
        """Have the room no longer name the alias, where the bot is inside.

        Synapse does not see to it when an application service deletes an alias.
        """
        try:
            content = await self._homeserver.state_event(room_id, CANONICAL)
            if content and alias in named_aliases(content):
                await self._homeserver.set_state(room_id, CANONICAL, without_alias(content, alias))
        except HomeserverRefused as error:
            if error.status != 403:
                raise
            logger.info("%s goes on naming %s: the bot is not inside", room_id, alias)


def _put(connection: Connection, room: Room, alias: str) -> None:
    """Record the alias, if it is the one that OpenMeet is told and no alternative."""
    entity = entities.get(connection, room.tenant, room.entity_ref)
    if entity is not None and entity.alias == alias:
        rooms.set_alias(connection, room.tenant, room.ref, alias)


def _taken_off(connection: Connection, room: Room, alias: str, *, now: int) -> bool:
    fresh = rooms.get(connection, room.tenant, room.ref)
    if fresh is not None and fresh.alias == alias:
        rooms.set_alias(connection, room.tenant, room.ref, None)
    former_slugs.forget_lost(connection, room.tenant, room.entity_ref, alias)
    return wanted.poke_owner_of_alias(connection, room.tenant, alias, but=room.entity_ref, now=now)
