"""Ending rooms that nobody is to use any more.

* A second room for one claim is emptied, and the bot leaves it.
* A room that was recreated says where it goes on (its tombstone) and becomes read-only. Its people stay, for
  that is how a client finds the way to the successor; who was banned is banned there as well.
* Once what it was made for is closed, it is emptied too.

A room that the bot cannot enter or has no power in is left as it is: nothing can be done about it, and it
must not keep its successor from being put right.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.people import BANNED, BANNED_BEFORE
from openmeet_appservice.domain.plan import plan
from openmeet_appservice.domain.rooms import ActualRoom, DesiredMember, DesiredRoom
from openmeet_appservice.errors import HomeserverLimited, HomeserverRefused, NotReconciled
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.reconciler.apply import Applier, people_refused
from openmeet_appservice.reconciler.making import RoomMaker
from openmeet_appservice.reconciler.observe import aliases_of_ours, observe
from openmeet_appservice.store import rooms
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.rooms import Room, State
from openmeet_appservice.store.wanted import WantedEntity

logger = logging.getLogger(__name__)

TOMBSTONE = "m.room.tombstone"


class Endings:
    """Ends rooms.

    Parameters
    ----------
    bot, server_name
        The bot's user id and the homeserver's name.
    """

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        maker: RoomMaker,
        applier: Applier,
        *,
        bot: str,
        server_name: str,
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._maker = maker
        self._applier = applier
        self._bot = bot
        self._server_name = server_name

    async def close_orphan(self, orphan: Room) -> None:
        """Empty a second room that was made for one claim, and leave it."""
        assert orphan.room_id is not None
        ours = {orphan.lock_alias} | ({orphan.alias} if orphan.alias else set())
        try:
            actual = await self._inside(orphan.room_id, ours)
            await self._close(orphan, actual, stay=False)
            await self._homeserver.leave(orphan.room_id)
        except HomeserverRefused as error:
            if error.status not in (403, 404):
                raise
            if error.status == 404 and self._maker.may_be_under_way(orphan):
                await self._maker.look_again(orphan)
                return
            # Nobody can enter it, so there is nothing in it to close.
            logger.info("the second room %s cannot be entered: %s", orphan.room_id, error)
        await self._into(orphan, "former")
        logger.warning("closed %s, a second room", orphan.room_id, extra={"tenant": orphan.tenant})

    async def succeed(self, entity: WantedEntity, successor: str) -> None:
        """Have the rooms that were recreated lead to *successor* (a room id), and make them read-only."""
        for room in entity.replaced:
            await self._end(entity, room, successor)

    async def close_predecessors(self, entity: WantedEntity) -> None:
        """Empty the rooms that were recreated, now that what they were made for is closed itself."""
        for room in (*entity.replaced, *entity.ended):
            await self._end(entity, room, None)

    async def _end(self, entity: WantedEntity, room: Room, successor: str | None) -> None:
        assert room.room_id is not None
        after: State = "former" if successor is None else "ended"
        try:
            ours = aliases_of_ours(room, entity.aliases, self._server_name)
            actual = await self._inside(room.room_id, ours)
            if successor is not None:
                await self._carry_bans(actual, successor)
                await self._point(actual, successor)
            await self._close(room, actual, stay=successor is not None)
        except (HomeserverRefused, NotReconciled) as error:
            if not _is_for_good(error):
                raise
            logger.warning("%s, which was recreated, is left as it is: %s", room.room_id, error)
            after = "former"
        await self._into(room, after)

    async def _inside(self, room_id: str, our_aliases: Collection[str]) -> ActualRoom:
        """Return the room as it is, once the bot is in it."""
        actual = await observe(self._homeserver, room_id, bot=self._bot, our_aliases=our_aliases)
        if actual.members.get(self._bot) == "join":
            return actual
        await self._homeserver.join(room_id)
        return await observe(self._homeserver, room_id, bot=self._bot, our_aliases=our_aliases)

    async def _close(self, room: Room, actual: ActualRoom, *, stay: bool) -> None:
        """Take alias and listing away, and everybody's voice; unless they *stay*, everybody too."""
        inside = [user for user, membership in sorted(actual.members.items()) if membership == "join"]
        members = tuple(DesiredMember(user) for user in inside if user != self._bot) if stay else ()
        closed = DesiredRoom(wanted=Wanted.CLOSED, bot=self._bot, members=members)
        actions = plan(closed, actual).actions
        applied = await self._applier.apply(room, actual.room_id, actions, is_outdated=lambda: False)
        if applied.refused:
            raise people_refused(applied)

    async def _point(self, actual: ActualRoom, successor: str) -> None:
        content = {"body": "This room has been replaced", "replacement_room": successor}
        if actual.content(TOMBSTONE).get("replacement_room") != successor:
            await self._homeserver.set_state(actual.room_id, TOMBSTONE, content)

    async def _carry_bans(self, actual: ActualRoom, successor: str) -> None:
        """Ban in the successor who is banned here, before anybody comes; OpenMeet's bans as OpenMeet's."""
        for user, membership in sorted(actual.members.items()):
            if membership == "ban":
                reason = BANNED if user in actual.our_bans else BANNED_BEFORE
                await self._homeserver.ban(successor, user, reason)

    async def _into(self, room: Room, state: State) -> None:
        await self._database.write(rooms.set_state, room.tenant, room.ref, state)


def _is_for_good(error: HomeserverRefused | NotReconciled) -> bool:
    """Whether trying again would end the same: the bot is not let in, or has no power there."""
    refused = error.__cause__ if isinstance(error, NotReconciled) else error
    if isinstance(refused, HomeserverLimited) or not isinstance(refused, HomeserverRefused):
        return False
    return refused.status == 403 or (refused.status == 404 and error is refused)
