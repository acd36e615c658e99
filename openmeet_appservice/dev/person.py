"""A person with an ordinary Matrix account, as the story of `dev` and the tests need one.

It speaks the client-server API directly and shares nothing with the service's own client, so that
what it sees is what any Matrix client would see.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from aiohttp import ClientSession

from openmeet_appservice.errors import HomeserverRefused

JsonObject = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Account:
    """A login: who it is and the token that proves it."""

    user_id: str
    device_id: str
    access_token: str = field(repr=False)


async def call(
    session: ClientSession,
    method: str,
    url: str,
    *,
    body: JsonObject | None = None,
    query: Mapping[str, str] | None = None,
    token: str | None = None,
) -> JsonObject:
    """Make one Matrix request and return the JSON object of the answer.

    Raises
    ------
    HomeserverRefused
        The answer was not 2xx.
    aiohttp.ClientError
        There was no answer.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else None
    async with session.request(method, url, json=body, params=query, headers=headers) as response:
        answer: Any = await response.json(content_type=None)
        if response.ok:
            return {"events": answer} if isinstance(answer, list) else dict(answer)
        raise HomeserverRefused(
            response.status,
            answer.get("errcode", "M_UNKNOWN"),
            answer.get("error", ""),
        )


class Person:
    """An ordinary account at the homeserver at *url*, logged in as *account*.

    Every method raises `HomeserverRefused` when the homeserver says no.
    """

    def __init__(self, session: ClientSession, url: str, account: Account) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self.account = account

    @property
    def user_id(self) -> str:
        """The full Matrix id."""
        return self.account.user_id

    @classmethod
    async def register(cls, session: ClientSession, url: str, name: str, password: str) -> Person:
        """Make the account *name* on a server with open registration and log in."""
        body: JsonObject = {
            "username": name,
            "password": password,
            "auth": {"type": "m.login.dummy"},
        }
        return cls(session, url, await _login(session, url, "register", body))

    @classmethod
    async def login(cls, session: ClientSession, url: str, name: str, password: str) -> Person:
        """Log in as the account *name* that exists already."""
        body: JsonObject = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": name},
            "password": password,
        }
        return cls(session, url, await _login(session, url, "login", body))

    async def resolve_alias(self, alias: str) -> str:
        """Return the room id behind *alias*; 404 ``M_NOT_FOUND`` when there is none."""
        answer = await self._call("GET", ["directory", "room", alias])
        return str(answer["room_id"])

    async def join(self, room: str) -> str:
        """Join a room by its id or alias and return its id."""
        answer = await self._call("POST", ["join", room], {})
        return str(answer["room_id"])

    async def invite(self, user_id: str, *, direct: bool = True) -> str:
        """Make a room, invite *user_id* into it, to a direct chat or not, and return the room's id."""
        body = {"preset": "private_chat", "invite": [user_id], "is_direct": direct}
        answer = await self._call("POST", ["createRoom"], body)
        return str(answer["room_id"])

    async def leave(self, room_id: str) -> None:
        """Leave the room."""
        await self._call("POST", ["rooms", room_id, "leave"], {})

    async def send_text(self, room_id: str, text: str) -> str:
        """Send *text* as an ordinary message and return its event id."""
        return await self.send(room_id, "m.room.message", {"msgtype": "m.text", "body": text})

    async def send(self, room_id: str, event_type: str, content: JsonObject) -> str:
        """Send a message event of any type and return its event id."""
        path = ["rooms", room_id, "send", event_type, uuid.uuid4().hex]
        answer = await self._call("PUT", path, content)
        return str(answer["event_id"])

    async def start_typing(self, room_id: str) -> None:
        """Begin to type in the room."""
        path = ["rooms", room_id, "typing", self.user_id]
        await self._call("PUT", path, {"typing": True, "timeout": 30_000})

    async def mark_read(self, room_id: str, event_id: str) -> None:
        """Say that everything up to that event was read."""
        await self._call("POST", ["rooms", room_id, "receipt", "m.read", event_id], {})

    async def messages(self, room_id: str, limit: int = 100) -> list[JsonObject]:
        """Return the newest *limit* events of the room that this person may see, oldest first."""
        path = ["rooms", room_id, "messages"]
        answer = await self._call("GET", path, query={"dir": "b", "limit": str(limit)})
        return list(reversed(answer["chunk"]))

    async def texts(self, room_id: str, limit: int = 100) -> list[tuple[str, str]]:
        """Return ``(sender, body)`` of the newest messages of the room, oldest first."""
        return [
            (event["sender"], event["content"]["body"])
            for event in await self.messages(room_id, limit)
            if event["type"] == "m.room.message" and "body" in event["content"]
        ]

    async def joined_members(self, room_id: str) -> dict[str, str | None]:
        """Return the display name of everybody in the room, by user id."""
        answer = await self._call("GET", ["rooms", room_id, "joined_members"])
        return {user: entry.get("display_name") for user, entry in answer["joined"].items()}

    async def joined_rooms(self) -> set[str]:
        """Return the ids of the rooms this person is in."""
        answer = await self._call("GET", ["joined_rooms"])
        return set(answer["joined_rooms"])

    async def state(self, room_id: str) -> dict[tuple[str, str], JsonObject]:
        """Return the content of the room's whole state, by event type and state key."""
        answer = await self._call("GET", ["rooms", room_id, "state"])
        return {(event["type"], event["state_key"]): event["content"] for event in answer["events"]}

    async def public_rooms(self) -> list[JsonObject]:
        """Return the entries of the server's public room directory."""
        answer = await self._call("GET", ["publicRooms"])
        return list(answer["chunk"])

    async def _call(
        self,
        method: str,
        path: Sequence[str],
        body: JsonObject | None = None,
        query: Mapping[str, str] | None = None,
    ) -> JsonObject:
        return await call(
            self._session,
            method,
            _client_url(self._url, path),
            body=body,
            query=query,
            token=self.account.access_token,
        )


def _client_url(url: str, path: Sequence[str]) -> str:
    parts = "/".join(quote(part, safe="") for part in path)
    return f"{url.rstrip('/')}/_matrix/client/v3/{parts}"


async def _login(session: ClientSession, url: str, endpoint: str, body: JsonObject) -> Account:
    answer = await call(session, "POST", _client_url(url, [endpoint]), body=body)
    return Account(answer["user_id"], answer["device_id"], answer["access_token"])
