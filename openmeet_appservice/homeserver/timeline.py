"""Calls about what is said in a room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

from mautrix.api import Method, Path

from openmeet_appservice.errors import HomeserverUnreachable
from openmeet_appservice.homeserver.calls import Calls, JsonObject, member

Direction = Literal["b", "f"]


def new_txn_id(uuid: Callable[[], UUID] = uuid4) -> str:
    """Return a transaction id that nobody has used.

    Synapse remembers the ids of an application service's requests by path and service, not by user:
    with an id that another puppet used in the same room, nothing would be sent.
    """
    return f"openmeet-{uuid().hex}"


@dataclass(frozen=True, slots=True)
class MessagesPage:
    """A part of a room's history.

    Parameters
    ----------
    events
        In the direction asked for.
    start, end
        Tokens for where it begins and for the next page; *end* is None when there is no more.
    """

    events: list[JsonObject]
    start: str
    end: str | None


class TimelineCalls(Calls):
    """Sending and reading events."""

    async def send(
        self,
        room_id: str,
        event_type: str,
        txn_id: str,
        content: Mapping[str, Any],
        as_user: str | None = None,
    ) -> str:
        """Send an event and return its id. Not repeated here where the outcome is unknown.

        Parameters
        ----------
        room_id, event_type, content
            What, and where.
        txn_id
            See `new_txn_id`. The same one again gives the same event for about half an hour and until
            Synapse restarts: whoever repeats it must first see that the event is not there.
        as_user
            Who sends it, the bot when None.
        """
        path = Path.v3.rooms[room_id].send[event_type][txn_id]
        answer = await self._api.call(
            "send", Method.PUT, path, body=content, as_user=as_user, repeatable=False
        )
        return member(answer, "event_id", str)

    async def messages(
        self,
        room_id: str,
        *,
        from_: str | None = None,
        direction: Direction = "b",
        limit: int = 100,
        as_user: str | None = None,
    ) -> MessagesPage:
        """Read the room's history.

        Parameters
        ----------
        room_id
            The room.
        from_
            Where to begin: a token of an earlier page, or None for the newest (backwards) or the
            oldest (forwards) event.
        direction
            ``b`` backwards or ``f`` forwards in time.
        limit
            How many events a page holds at most.
        as_user
            Who reads, the bot when None. Must be inside, or have been.
        """
        query = {"dir": direction, "limit": str(limit)} | ({"from": from_} if from_ else {})
        path = Path.v3.rooms[room_id].messages
        answer = await self._api.call("messages", Method.GET, path, query=query, as_user=as_user)
        return MessagesPage(member(answer, "chunk", list), member(answer, "start", str), answer.get("end"))

    async def token_behind(self, room_id: str, event_id: str, as_user: str | None = None) -> str:
        """Return the token from which `messages` goes forwards with what comes after an event.

        Raises
        ------
        HomeserverRefused
            404 ``M_NOT_FOUND`` when there is no such event or the reader may not see it.
        """
        path = Path.v3.rooms[room_id].context[event_id]
        answer = await self._api.call("context", Method.GET, path, query={"limit": "0"}, as_user=as_user)
        return member(answer, "end", str)

    async def event(self, room_id: str, event_id: str, as_user: str | None = None) -> JsonObject:
        """Return one event.

        Raises
        ------
        HomeserverRefused
            404 ``M_NOT_FOUND`` when there is none or the reader may not see it: Synapse does not tell
            which.
        """
        path = Path.v3.rooms[room_id].event[event_id]
        answer = await self._api.call("event", Method.GET, path, as_user=as_user)
        if not isinstance(answer, dict):
            raise HomeserverUnreachable("the event is not an object")
        return answer
