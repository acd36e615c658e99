"""Calls about aliases and the public room directory."""

from __future__ import annotations

from typing import Literal, cast

from mautrix.api import Method, Path

from openmeet_appservice.errors import HomeserverRefused, HomeserverUnreachable
from openmeet_appservice.homeserver.calls import Calls, is_not_found, member

RoomVisibility = Literal["public", "private"]


class DirectoryCalls(Calls):
    """Where rooms are found."""

    async def resolve_alias(self, alias: str) -> str | None:
        """Return the id of the room behind *alias*, None when the homeserver says there is none.

        Synapse asks *us* about an alias of our namespace that it does not know, and answers only
        after that: whoever answers its queries must not wait for this call.
        """
        path = Path.v3.directory.room[alias]
        try:
            answer = await self._api.call("resolve_alias", Method.GET, path)
        except HomeserverRefused as error:
            if is_not_found(error):
                return None
            raise
        return member(answer, "room_id", str)

    async def put_alias(self, alias: str, room_id: str) -> None:
        """Make *alias* lead to the room; fine when it does so already.

        Raises
        ------
        HomeserverRefused
            409 when it leads to another room.
        """
        path = Path.v3.directory.room[alias]
        try:
            await self._api.call("put_alias", Method.PUT, path, body={"room_id": room_id})
        except HomeserverRefused as error:
            # Synapse answers 409 to the repetition of a success too.
            if error.status != 409 or await self.resolve_alias(alias) != room_id:
                raise

    async def delete_alias(self, alias: str) -> None:
        """Take *alias* away; fine when it is not there. Its room's state is not touched."""
        path = Path.v3.directory.room[alias]
        try:
            await self._api.call("delete_alias", Method.DELETE, path)
        except HomeserverRefused as error:
            if not is_not_found(error):
                raise

    async def room_aliases(self, room_id: str, as_user: str | None = None) -> set[str]:
        """Return the aliases of this homeserver that lead to the room. The asker must be inside."""
        path = Path.v3.rooms[room_id].aliases
        answer = await self._api.call("room_aliases", Method.GET, path, as_user=as_user)
        return set(member(answer, "aliases", list))

    async def room_visibility(self, room_id: str) -> RoomVisibility:
        """Tell whether the room is listed in the public directory."""
        path = Path.v3.directory.list.room[room_id]
        answer = await self._api.call("room_visibility", Method.GET, path)
        visibility = member(answer, "visibility", str)
        if visibility not in ("public", "private"):
            raise HomeserverUnreachable("the answer holds no usable `visibility`")
        return cast(RoomVisibility, visibility)

    async def set_room_visibility(
        self, room_id: str, visibility: RoomVisibility, as_user: str | None = None
    ) -> None:
        """List the room in the public directory, or not.

        Raises
        ------
        HomeserverRefused
            403 also when Synapse's ``room_list_publication_rules`` do not allow it.
        """
        path = Path.v3.directory.list.room[room_id]
        body = {"visibility": visibility}
        await self._api.call("set_room_visibility", Method.PUT, path, body=body, as_user=as_user)
