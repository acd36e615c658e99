"""Making a room so that there is never a second one in use.

A claim, a random id, is committed before Synapse is asked, and sent along. So is an alias, of which Synapse
lets only one exist: it is the lock. Synapse makes alias, first events and the rest one after the other, so
after an error, no answer, or our own death anything between nothing and everything may be there::

    claim committed ──▶ createRoom ──200──────────────▶ recorded
                          ▲   └─ alias exists ─▶ whose is the room?
                          │                        ├─ our claim ─▶ recorded, finished by the plan
                          └──── alias taken off ───┼─ history of ours, or renamed
                                                   └─ somebody's ─▶ alias_taken

Whoever learns the room's id first records it: this, or the pushed ``m.room.create``. A second room for the
same claim becomes an orphan.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from openmeet_appservice.domain.actions import CreateRoom
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.names import full_alias, temporary_alias_localpart
from openmeet_appservice.domain.power_levels import supports_creator_power
from openmeet_appservice.errors import HomeserverError, HomeserverRefused, NotReconciled
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.reconciler.aliases import Aliases
from openmeet_appservice.reconciler.observe import read_room
from openmeet_appservice.store import event_log, rooms, sync, wanted
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.rooms import Room
from openmeet_appservice.store.wanted import WantedEntity

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often a room is asked for in one run, when its alias has to be freed first."""

DEAD_AFTER = 3
"""After how many failed runs a room that nobody can enter is given up."""

MAKING_MS = 5 * 60_000
"""For how long Synapse may be at making a room, in milliseconds. We wait three minutes for its answer, but a
process that begins meanwhile knows nothing of that."""


AGAIN_MS = 30_000
"""After how many milliseconds a second room that cannot be entered yet is tried again."""


class RoomMaker:
    """Makes rooms by the claim procedure.

    Parameters
    ----------
    bot, server_name
        The bot's user id and the homeserver's name.
    new_id, new_claim
        Make an id of ours with a prefix, and a claim (16 to 64 lower-case letters and digits), at random.
    """

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        aliases: Aliases,
        *,
        bot: str,
        server_name: str,
        now: Now,
        new_id: NewId,
        new_claim: Callable[[], str],
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._aliases = aliases
        self._bot = bot
        self._server_name = server_name
        self._now = now
        self._new_id = new_id
        self._new_claim = new_claim

    async def make(self, entity: WantedEntity, action: CreateRoom, *, attempts: int) -> None:
        """See to it that the entity has a room in use, recorded, though perhaps half made.

        Parameters
        ----------
        action
            What the plan asks for.
        attempts
            How many runs for this entity have failed before this one.

        Raises
        ------
        NotReconciled
            ``alias_taken``: the alias leads to a room that is not ours. ``room_not_ready``: what Synapse
            has so far cannot be entered.
        """
        room = await self._claimed(entity, action, attempts)
        if room.room_id is not None:
            return
        is_public = room.lock_alias != self._temporary(room.claim)
        asked = action if is_public else replace(action, alias_localpart=None)
        body = asked.request(room.claim, await self._database.read(predecessor, room, action))
        for _ in range(ATTEMPTS):
            try:
                room_id = await self._homeserver.create_room(body, action.as_user)
            except HomeserverError as error:
                if not _is_in_use(error):
                    await self._database.write(rooms.note_asked, room.tenant, room.ref, now=self._now())
                    raise
                if await self._find(room, attempts, action.as_user):
                    return
            else:
                await self._record(room, room_id, str(body["room_version"]))
                return
        raise NotReconciled("alias_taken", f"{room.lock_alias} does not become free")

    def may_be_under_way(self, room: Room) -> bool:
        """Tell whether Synapse may still be making the room, if it never let its maker in."""
        return self._now() - room.asked_at < MAKING_MS

    async def look_again(self, orphan: Room) -> None:
        """Have the entity compared again in a while, when Synapse may have made its second room."""
        await self._database.write(
            sync.poke_by, orphan.tenant, "entity", orphan.entity_ref, at=self._now() + AGAIN_MS
        )

    async def was_made(self, room: Room, attempts: int, as_user: str | None = None) -> bool:
        """Find out whether a room was made for the claim though nobody told; if so, record it.

        *as_user* is who would have made it, the bot when None.
        """
        try:
            return await self._find(room, attempts, as_user)
        except NotReconciled as error:
            # Somebody else has the alias, so our request for a room with it never succeeded.
            if error.code != "alias_taken":
                raise
            return False

    async def _find(self, room: Room, attempts: int, as_user: str | None) -> bool:
        """Record the room behind the claim's lock alias if it was made; tell whether it was.

        False means that the alias is free now: no room was made, or what had the alias is history.
        """
        target = await self._homeserver.resolve_alias(room.lock_alias)
        if target is None:
            return False
        state = await read_room(self._homeserver, target, as_user)
        maker = as_user or self._bot
        if state is not None and state.claim == room.claim and state.creator == maker:
            await self._record(room, target, state.version)
            return True
        former = await self._database.read(wanted.may_lose_alias, room.tenant, target, room.lock_alias)
        if former is not None:
            await self._aliases.take_from_former(room.lock_alias, former, target)
            return False
        if state is None and not await self._enter(room, target, attempts, as_user):
            return False
        if state is None:
            return await self._find(room, attempts, as_user)
        raise NotReconciled(
            "alias_taken",
            f"{room.lock_alias} leads to {target}, which this service did not make: "
            "`openmeet-appservice adopt` takes over the rooms of OpenMeet's former service",
        )

    async def _enter(self, room: Room, target: str, attempts: int, as_user: str | None) -> bool:
        """Join a room that may be ours, half made; False when it was given up and its alias taken off."""
        try:
            await self._homeserver.join(target, as_user)
            return True
        except HomeserverRefused as error:
            if error.status == 403:
                raise NotReconciled(
                    "alias_taken",
                    f"{room.lock_alias} leads to {target}, which {as_user or 'the bot'} may not enter",
                ) from error
            if error.status != 404:
                raise
            if attempts < DEAD_AFTER or self.may_be_under_way(room):
                raise NotReconciled("room_not_ready", f"nobody is in {target} yet ({error})") from error
        logger.warning("nobody can enter %s, which %s leads to: making another", target, room.lock_alias)
        await self._homeserver.delete_alias(room.lock_alias)
        return False

    async def _claimed(self, entity: WantedEntity, action: CreateRoom, attempts: int) -> Room:
        """Return the committed claim, one whose lock alias still fits."""
        room = entity.in_use
        if room is None:
            claim = self._new_claim()
            return await self._database.write(
                rooms.claim,
                entity.tenant,
                entity.ref,
                claim=claim,
                lock_alias=self._lock(action, claim),
                now=self._now(),
                new_id=self._new_id,
            )
        if room.lock_alias in (self._lock(action, room.claim), self._temporary(room.claim)):
            return room
        # Its alias is no longer wanted. Nothing may have been made with it, or anything.
        if await self.was_made(room, attempts, action.as_user):
            made = await self._database.read(rooms.get, room.tenant, room.ref)
            assert made is not None
            return made
        lock_alias = self._lock(action, room.claim)
        await self._database.write(rooms.relock, room.tenant, room.ref, lock_alias)
        return replace(room, lock_alias=lock_alias)

    def _lock(self, action: CreateRoom, claim: str) -> str:
        if action.alias_localpart is None:
            return self._temporary(claim)
        return full_alias(action.alias_localpart, self._server_name)

    def _temporary(self, claim: str) -> str:
        return full_alias(temporary_alias_localpart(claim), self._server_name)

    async def _record(self, room: Room, room_id: str, version: str) -> None:
        public = room.lock_alias if room.lock_alias != self._temporary(room.claim) else None
        is_ours = await self._database.write(
            _record, room, room_id, version, public, now=self._now(), bot=self._bot, new_id=self._new_id
        )
        fields = {"tenant": room.tenant, "room": room_id}
        if is_ours:
            logger.info("made %s", room_id, extra=fields)
        else:
            logger.warning("%s is a second room for the same claim; it will be closed", room_id, extra=fields)


def _is_in_use(error: HomeserverError) -> bool:
    return isinstance(error, HomeserverRefused) and (error.errcode == "M_ROOM_IN_USE" or error.status == 409)


def predecessor(connection: Connection, room: Room, action: CreateRoom) -> dict[str, str] | None:
    """Return what a new room says of the one whose place it takes (specification, ``m.room.create``)."""
    before = None if room.replaces is None else rooms.get(connection, room.tenant, room.replaces)
    if before is None or before.room_id is None:
        return None
    told = {"room_id": before.room_id}
    # From version 12 on the id of an event is no part of it any more.
    if not supports_creator_power(str(action.content["room_version"])):
        last = event_log.newest_event_id(connection, before.tenant, before.ref)
        told |= {} if last is None else {"event_id": last}
    return told


def _record(
    connection: Connection,
    room: Room,
    room_id: str,
    version: str,
    alias: str | None,
    *,
    now: int,
    bot: str,
    new_id: NewId,
) -> bool:
    """Record the room's id, unless another room is recorded already: then this one is an orphan."""
    event_log.record_room_id(connection, room.tenant, room.ref, room_id, version, now=now, bot=bot)
    recorded = rooms.get(connection, room.tenant, room.ref)
    assert recorded is not None
    if recorded.room_id != room_id:
        rooms.add_orphan(connection, recorded, room_id, version, now=now, new_id=new_id)
        return False
    if alias is not None:
        rooms.set_alias(connection, room.tenant, room.ref, alias)
    return True
