"""Reading from Synapse how a room is now.

Unknown is not absent: whatever Synapse does not answer is an error, with one exception. Where it answers
that the bot is not in the room, that is known, and all that is known.
"""

from __future__ import annotations

from collections.abc import Collection

from openmeet_appservice.domain.names import full_alias, temporary_alias_localpart
from openmeet_appservice.domain.people import CAME_BACK
from openmeet_appservice.domain.reading import RoomState, read_state
from openmeet_appservice.domain.rooms import ActualRoom
from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.store.rooms import Room


def aliases_of_ours(room: Room, entity_aliases: Collection[str], server_name: str) -> frozenset[str]:
    """Return every full alias that this service may have let point to *room*."""
    temporary = full_alias(temporary_alias_localpart(room.claim), server_name)
    kept = {*entity_aliases, room.lock_alias, room.alias, temporary}
    return frozenset(alias for alias in kept if alias is not None)


async def read_room(homeserver: Homeserver, room_id: str, as_user: str | None = None) -> RoomState | None:
    """Return the room's state, None when Synapse says that *as_user*, or the bot, has never been in it.

    Whoever has left gets it as it was then.
    """
    try:
        return read_state(await homeserver.room_state(room_id, as_user))
    except HomeserverRefused as error:
        if error.status == 403 and error.errcode == "M_FORBIDDEN":
            return None
        raise


async def observe(
    homeserver: Homeserver, room_id: str, *, bot: str, our_aliases: Collection[str]
) -> ActualRoom:
    """Return the room as Synapse has it.

    Parameters
    ----------
    room_id
        A room of ours. If the bot is not inside, little is known of it, and ``members`` says so.
    bot
        The bot's user id.
    our_aliases
        The aliases of ours that may point to it; others are nobody's concern here.

    Where the desired alias points to is not asked: Synapse would ask this very service about an alias
    that it does not know, and wait for the answer. `PutAlias` finds out.
    """
    state = await read_room(homeserver, room_id)
    if state is None:
        return ActualRoom(room_id=room_id)
    is_inside = state.members.get(bot) == "join"
    aliases = await homeserver.room_aliases(room_id) if is_inside else set()
    return ActualRoom(
        room_id=room_id,
        version=state.version,
        members=state.members,
        state=state.state,
        listed=is_inside and await homeserver.room_visibility(room_id) == "public",
        aliases=frozenset(aliases) & frozenset(our_aliases),
        our_bans=our_bans(state, bot),
        kept_out=kept_out(state, bot),
    )


def our_bans(state: RoomState, bot: str) -> frozenset[str]:
    """Return whom the bot has banned."""
    return frozenset(user for user, sender in state.banned_by.items() if sender == bot)


def kept_out(state: RoomState, bot: str) -> frozenset[str]:
    """Return whom the bot has banned for coming back again and again."""
    return frozenset(user for user in our_bans(state, bot) if state.ban_reasons[user] == CAME_BACK)
