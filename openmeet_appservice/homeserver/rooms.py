"""Calls about rooms: making them, their state, who is inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mautrix.api import Method, Path

from openmeet_appservice.errors import HomeserverRefused, HomeserverUnreachable
from openmeet_appservice.homeserver.calls import Calls, JsonObject, is_not_found, member


class RoomCalls(Calls):
    """Rooms, their state and membership."""

    async def create_room(self, content: Mapping[str, Any], as_user: str | None = None) -> str:
        """Make a room and return its id. Never repeated by itself.

        Not atomic: after an error, and all the more after no answer, the room and its alias may be
        there, half made.

        Parameters
        ----------
        content
            The body as the specification has it.
        as_user
            Who makes it, the bot when None.
        """
        answer = await self._api.call(
            "create_room",
            Method.POST,
            Path.v3.createRoom,
            body=content,
            as_user=as_user,
            repeatable=False,
            timeout=self._api.limits.create_room,
        )
        return member(answer, "room_id", str)

    async def room_state(self, room_id: str, as_user: str | None = None) -> list[JsonObject]:
        """Return all state events of the room."""
        path = Path.v3.rooms[room_id].state
        answer = await self._api.call("room_state", Method.GET, path, as_user=as_user)
        if not isinstance(answer, list):
            raise HomeserverUnreachable("the room's state is not a list")
        return answer

    async def state_event(
        self, room_id: str, event_type: str, state_key: str = "", as_user: str | None = None
    ) -> JsonObject | None:
        """Return the content of one state event, None when the room has no such event."""
        path = Path.v3.rooms[room_id].state[event_type][state_key]
        try:
            answer = await self._api.call("state_event", Method.GET, path, as_user=as_user)
        except HomeserverRefused as error:
            if is_not_found(error):
                return None
            raise
        if not isinstance(answer, dict):
            raise HomeserverUnreachable("the state event's content is not an object")
        return answer

    async def membership(self, room_id: str, user_id: str) -> JsonObject | None:
        """Return the whole event that says what *user_id* is in the room, None where there is none."""
        path = Path.v3.rooms[room_id].state["m.room.member"][user_id]
        try:
            # The specification knows only the content; Synapse has known this form for many years.
            answer = await self._api.call("membership", Method.GET, path, query={"format": "event"})
        except HomeserverRefused as error:
            if is_not_found(error):
                return None
            raise
        if not isinstance(answer, dict) or "content" not in answer:
            raise HomeserverUnreachable("the membership is no event")
        return answer

    async def set_state(
        self,
        room_id: str,
        event_type: str,
        content: Mapping[str, Any],
        state_key: str = "",
        as_user: str | None = None,
    ) -> str:
        """Set one state event and return its id; Synapse keeps the old one if it is the same."""
        path = Path.v3.rooms[room_id].state[event_type][state_key]
        answer = await self._api.call("set_state", Method.PUT, path, body=content, as_user=as_user)
        return member(answer, "event_id", str)

    async def join(self, room_id: str, as_user: str | None = None) -> None:
        """Let *as_user*, or the bot, join; fine when inside already."""
        path = Path.v3.rooms[room_id].join
        await self._api.call("join", Method.POST, path, as_user=as_user, repeatable=True)

    async def invite(self, room_id: str, user_id: str, as_user: str | None = None) -> None:
        """Invite *user_id*; fine when invited already.

        Raises
        ------
        HomeserverRefused
            403 ``M_FORBIDDEN`` also when inside already, ``M_BAD_STATE`` when banned.
        """
        path = Path.v3.rooms[room_id].invite
        body = {"user_id": user_id}
        await self._api.call("invite", Method.POST, path, body=body, as_user=as_user, repeatable=True)

    async def kick(
        self, room_id: str, user_id: str, reason: str | None = None, as_user: str | None = None
    ) -> None:
        """Remove *user_id* from the room. Never repeated by itself.

        A repetition after a success is refused with 403 like every kick of somebody who is not
        inside, and so could not be told from a real refusal.
        """
        path = Path.v3.rooms[room_id].kick
        body = {"user_id": user_id} | ({"reason": reason} if reason else {})
        await self._api.call("kick", Method.POST, path, body=body, as_user=as_user)

    async def ban(
        self, room_id: str, user_id: str, reason: str | None = None, as_user: str | None = None
    ) -> None:
        """Ban *user_id*, inside or not; fine when banned already."""
        path = Path.v3.rooms[room_id].ban
        body = {"user_id": user_id} | ({"reason": reason} if reason else {})
        await self._api.call("ban", Method.POST, path, body=body, as_user=as_user, repeatable=True)

    async def unban(self, room_id: str, user_id: str, as_user: str | None = None) -> None:
        """Take a ban back. Never repeated by itself: who is not banned cannot be unbanned."""
        path = Path.v3.rooms[room_id].unban
        body = {"user_id": user_id}
        await self._api.call("unban", Method.POST, path, body=body, as_user=as_user)

    async def leave(self, room_id: str, as_user: str | None = None, reason: str | None = None) -> None:
        """Let *as_user*, or the bot, leave; fine when it has left already.

        Raises
        ------
        HomeserverRefused
            403 ``M_FORBIDDEN`` when it was removed or has never been inside.
        """
        path = Path.v3.rooms[room_id].leave
        body = {"reason": reason} if reason else {}
        await self._api.call("leave", Method.POST, path, body=body, as_user=as_user, repeatable=True)

    async def joined_members(self, room_id: str, as_user: str | None = None) -> set[str]:
        """Return the ids of everybody who is inside.

        Synapse answers the bot as long as any user of ours is inside.
        """
        path = Path.v3.rooms[room_id].joined_members
        answer = await self._api.call("joined_members", Method.GET, path, as_user=as_user)
        return set(member(answer, "joined", dict))
