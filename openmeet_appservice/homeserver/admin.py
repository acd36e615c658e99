"""Calls of Synapse's admin API, for which a server admin's own access token is needed."""

from __future__ import annotations

from mautrix.api import Method, SynapseAdminPath

from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.homeserver.calls import Calls, is_not_found, member


class AdminCalls(Calls):
    """What only an admin of the homeserver may do.

    Parameters
    ----------
    api
        A client with the admin's access token, not with ours.
    """

    async def room_exists(self, room_id: str) -> bool:
        """Tell whether the homeserver knows the room."""
        try:
            await self._api.call("admin_room", Method.GET, SynapseAdminPath.v1.rooms[room_id])
        except HomeserverRefused as error:
            if is_not_found(error):
                return False
            raise
        return True

    async def delete_room(self, room_id: str) -> None:
        """Have everybody removed from the room, nobody let in again, and all of it deleted; not waited for.

        Raises
        ------
        HomeserverRefused
            400 also when that is under way already.
        """
        path = SynapseAdminPath.v2.rooms[room_id]
        body = {"purge": True, "block": True}
        await self._api.call("admin_delete_room", Method.DELETE, path, body=body, repeatable=False)

    async def deletions(self, room_id: str) -> list[str]:
        """Return how each deletion of the room stands that the homeserver remembers.

        That is ``scheduled``, ``active``, ``complete``, ``failed`` or ``cancelled``.
        """
        path = SynapseAdminPath.v2.rooms[room_id].delete_status
        try:
            answer = await self._api.call("admin_delete_status", Method.GET, path)
        except HomeserverRefused as error:
            if is_not_found(error):
                return []
            raise
        return [member(deletion, "status", str) for deletion in member(answer, "results", list)]
