"""One direct room: made, kept and closed as the puppets that own it, for the bot is never inside."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from openmeet_appservice.domain.actions import (
    Action,
    CreateRoom,
    DeleteAlias,
    Invite,
    Join,
    Leave,
    MarkDirect,
    SetState,
)
from openmeet_appservice.domain.direct import with_marks
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.plan import Plan, plan
from openmeet_appservice.domain.rooms import ActualRoom, DesiredRoom
from openmeet_appservice.errors import HomeserverLimited, HomeserverRefused, NotReconciled
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.reconciler.aliases import Aliases
from openmeet_appservice.reconciler.making import DEAD_AFTER, RoomMaker
from openmeet_appservice.reconciler.observe import aliases_of_ours, read_room
from openmeet_appservice.reconciler.puppets import Puppets
from openmeet_appservice.store import direct, rooms
from openmeet_appservice.store import puppets as puppet_store
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.rooms import Room
from openmeet_appservice.store.wanted import WantedEntity
from openmeet_appservice.web.context import bind

logger = logging.getLogger(__name__)

MARKS = "m.direct"
"""The account data in which a user's clients keep which rooms are direct chats, and with whom."""

MAX_ROUNDS = 4

_KEPT_OUT = frozenset({403, 404})
_GONE = frozenset({"leave", "ban"})


class DirectRooms:
    """Makes Synapse agree with what is wanted of one direct room at a time.

    Parameters
    ----------
    settled
        Called when others may want to look: the room exists now.
    """

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        maker: RoomMaker,
        aliases: Aliases,
        puppets: Puppets,
        *,
        server_name: str,
        settled: Callable[[], None],
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._maker = maker
        self._aliases = aliases
        self._puppets = puppets
        self._server_name = server_name
        self._settled = settled

    async def round(self, entity: WantedEntity, desired: DesiredRoom, attempts: int) -> bool:
        """Compare once and do what comes out; tell whether there is more to compare afterwards.

        Parameters
        ----------
        attempts
            How many runs have failed before this one.

        Raises
        ------
        HomeserverError, NotReconciled
            Synapse does not agree, and why.
        """
        owners = desired.owners or ()
        for orphan in entity.orphans:
            await self._close_orphan(orphan, owners)
        if desired.wanted is Wanted.OPEN:
            await self._ensure(entity.tenant, owners)
        room = entity.in_use
        if room is None or room.room_id is None:
            return await self._without_room(entity, desired, owners, attempts)
        with bind(room=room.room_id):
            actual = await self.actual(room, desired)
            steps = plan(desired, actual)
            is_left = not any(actual.members.get(user) == "join" for user in owners)
            if desired.wanted is Wanted.OPEN and owners and is_left:
                await self._come_back(room, room.room_id, owners, actual, attempts)
                return True
            for action in steps.actions:
                await self._one_or_say_why(room, room.room_id, action)
            _raise_notes(steps)
        return False

    async def actual(self, room: Room, desired: DesiredRoom) -> ActualRoom:
        """Read how the room, whose id is recorded, is on Synapse: as a puppet that is inside.

        Where none is, all that is known is how each of them went.
        """
        assert room.room_id is not None
        owners = desired.owners or ()
        marked = await self._marked(room, room.room_id, desired)
        gone: dict[str, str] = {}
        for user in owners:
            state = await read_room(self._homeserver, room.room_id, user)
            if state is None:
                continue
            membership = state.members.get(user, "leave")
            if membership != "join":
                gone[user] = membership
                continue
            aliases = await self._homeserver.room_aliases(room.room_id, user)
            return ActualRoom(
                room_id=room.room_id,
                version=state.version,
                members=state.members,
                state=state.state,
                aliases=frozenset(aliases) & aliases_of_ours(room, (), self._server_name),
                marked=marked,
            )
        return ActualRoom(room_id=room.room_id, members=gone, marked=marked)

    async def _marked(self, room: Room, room_id: str, desired: DesiredRoom) -> frozenset[str]:
        """Return the puppets whose ``m.direct`` has the room where it belongs."""
        people = [member.user_id for member in desired.members]
        known = await self._database.read(puppet_store.by_user_id, room.tenant, desired.owners or ())
        marked = set()
        for user, puppet in known.items():
            content = await self._homeserver.account_data(user, MARKS) if puppet.registered else None
            for other in people:
                listed = (content or {}).get(other)
                if other != user and isinstance(listed, list) and room_id in listed:
                    marked.add(user)
        return frozenset(marked)

    async def _ensure(self, tenant: str, owners: Sequence[str]) -> None:
        for puppet in (await self._database.read(puppet_store.by_user_id, tenant, owners)).values():
            if not puppet.registered or puppet.profile_name is None:
                await self._puppets.ensure(puppet)

    async def _without_room(
        self, entity: WantedEntity, desired: DesiredRoom, owners: Sequence[str], attempts: int
    ) -> bool:
        if desired.wanted is Wanted.OPEN:
            steps = plan(desired, None)
            _raise_notes(steps)
            for action in steps.actions:
                if isinstance(action, CreateRoom):
                    await self._maker.make(entity, action, attempts=attempts)
            self._settled()
            return True
        # It may have been made although nobody told: then it has to be closed.
        room = entity.in_use
        return room is not None and bool(owners) and await self._maker.was_made(room, attempts, owners[0])

    async def _come_back(
        self, room: Room, room_id: str, owners: Sequence[str], actual: ActualRoom, attempts: int
    ) -> None:
        """Have a puppet enter a room that none of them is in; give the room up where none is let in."""
        refusal: HomeserverRefused | None = None
        for user in owners:
            try:
                await self._homeserver.join(room_id, user)
            except HomeserverRefused as error:
                if error.status not in _KEPT_OUT:
                    raise
                refusal = error
            else:
                return
        have_left = all(actual.members.get(user) in _GONE for user in owners)
        if not have_left and (attempts < DEAD_AFTER or self._maker.may_be_under_way(room)):
            # Synapse may be just making it.
            raise NotReconciled("room_lost", f"no puppet is in {room_id}, nor let in ({refusal})")
        logger.warning("no puppet is in %s, nor let in any more: a new room is made", room_id)
        await self._database.write(rooms.set_state, room.tenant, room.ref, "former")

    async def _one_or_say_why(self, room: Room, room_id: str, action: Action) -> None:
        try:
            await self._one(room, room_id, action)
        except HomeserverRefused as error:
            if isinstance(error, HomeserverLimited) or error.status == 401:
                raise
            code = "member_refused" if isinstance(action, Invite | Join | Leave) else "homeserver_refused"
            raise NotReconciled(code, f"{action.describe()}: {error}") from error

    async def _one(self, room: Room, room_id: str, action: Action) -> None:
        match action:
            case SetState(event_type=event_type, content=content, state_key=state_key, as_user=as_user):
                await self._homeserver.set_state(room_id, event_type, content, state_key, as_user)
            case DeleteAlias(alias=alias):
                await self._aliases.take_off(alias, room, room_id)
            case Invite(user_id=user_id, by=by):
                await self._homeserver.invite(room_id, user_id, by)
            case Join(user_id=user_id):
                await self._homeserver.join(room_id, user_id)
            case Leave(user_id=user_id):
                await self._homeserver.leave(room_id, user_id)
            case MarkDirect(user_id=user_id):
                await self._mark(room.tenant, user_id)
            case _:
                raise TypeError(f"{action.name} is not applied to a direct room")

    async def _mark(self, tenant: str, user_id: str) -> None:
        """Bring the user's ``m.direct`` in line with all its direct rooms of ours; see `with_marks`.

        It is one object, which the work on another room of the same user may write at the same time. Both
        write what all rooms need, and look afterwards whether that is still all.
        """
        for _ in range(MAX_ROUNDS):
            chats = await self._database.read(direct.chats_of, tenant, user_id)
            content = await self._homeserver.account_data(user_id, MARKS) or {}
            merged = with_marks(content, chats.present, chats.past)
            if merged != content:
                await self._homeserver.set_account_data(user_id, MARKS, merged)
            if await self._database.read(direct.chats_of, tenant, user_id) == chats:
                return
        raise NotReconciled("not_converging", f"the direct rooms of {user_id} change again and again")

    async def _close_orphan(self, orphan: Room, owners: Sequence[str]) -> None:
        """Have both leave a second room, of which nobody was told."""
        assert orphan.room_id is not None
        for user in owners:
            try:
                await self._homeserver.leave(orphan.room_id, user)
            except HomeserverRefused as error:
                if error.status not in _KEPT_OUT:
                    raise
        await self._aliases.take_off(orphan.lock_alias, orphan, orphan.room_id)
        await self._database.write(rooms.set_state, orphan.tenant, orphan.ref, "former")
        logger.warning("closed %s, a second room", orphan.room_id, extra={"tenant": orphan.tenant})


def _raise_notes(steps: Plan) -> None:
    for note in steps.notes:
        raise NotReconciled(note.code, note.describe(), patient=True)
