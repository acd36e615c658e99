"""The bot's own room, where a harmless event is written to make Synapse send what it has kept for us.

Synapse keeps what it could not send, but after a restart of its own it begins to send again only when a new
event for some application service comes by, and a ping is no such event.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from openmeet_appservice.domain.moments import Now, to_rfc3339
from openmeet_appservice.domain.names import CONTROL_ALIAS_LOCALPART, full_alias
from openmeet_appservice.errors import HomeserverError, HomeserverRefused
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.store import event_log, service
from openmeet_appservice.store.database import Database

log = logging.getLogger(__name__)

WAKE_EVENT = "net.openmeet.wake"
"""The type of the harmless event: state, so that a room of thousands of them stays small."""

_GONE = frozenset({403, 404})


@dataclass(frozen=True, slots=True)
class ControlRoom:
    """Finds or makes the room, and writes into it.

    Its alias is the lock: however many replicas start at once, one room is made.

    Parameters
    ----------
    server_name
        Of our homeserver.
    new_nonce
        Makes what no event before had: Synapse sends no event for state that is as it was.
    """

    homeserver: Homeserver
    database: Database
    server_name: str
    new_nonce: Callable[[], str]
    now: Now

    async def write_event(self) -> None:
        """Write the harmless event, into a new room if the old one is gone.

        Raises
        ------
        HomeserverError
            It could not be written; try again later.
        StoreError
            The database is away.
        """
        room_id = await self.database.read(service.get, event_log.CONTROL_ROOM)
        if room_id is not None and await self._write_into(room_id):
            return
        room_id = await self._find() or await self._make()
        await self.database.write(_remember, room_id)
        if not await self._write_into(room_id):
            raise HomeserverError(f"the bot may not write into its control room {room_id}")

    async def _write_into(self, room_id: str) -> bool:
        """Write into the room; False when the bot is not inside, or nobody ever again."""
        content = {"nonce": self.new_nonce(), "at": to_rfc3339(self.now())}
        try:
            await self.homeserver.set_state(room_id, WAKE_EVENT, content)
        except HomeserverRefused as error:
            if error.status not in _GONE:
                raise
            log.warning("the control room %s cannot be used: %s", room_id, error)
            return False
        return True

    async def _find(self) -> str | None:
        """Return the room behind the alias, if the bot can be inside; else free the alias."""
        alias = full_alias(CONTROL_ALIAS_LOCALPART, self.server_name)
        room_id = await self.homeserver.resolve_alias(alias)
        if room_id is None:
            return None
        try:
            await self.homeserver.join(room_id)
        except HomeserverRefused as error:
            if error.status not in _GONE:
                raise
            await self.homeserver.delete_alias(alias)
            return None
        return room_id

    async def _make(self) -> str:
        room_id = await self.homeserver.create_room(
            {
                "room_alias_name": CONTROL_ALIAS_LOCALPART,
                "preset": "private_chat",
                "visibility": "private",
                "name": "OpenMeet control room",
                "topic": "Used by the bot to see that events arrive. Nobody needs to be here.",
                "creation_content": {"m.federate": False},
            }
        )
        log.info("made the control room %s", room_id, extra={"room": room_id})
        return room_id


def _remember(connection: Connection, room_id: str) -> None:
    service.put(connection, event_log.CONTROL_ROOM, room_id)
    # Its first events came before anybody knew that it is this room.
    event_log.drop_held(connection, room_id)
