"""What Synapse itself says: seen with the bot's token, past the program under test."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiohttp import ClientSession

from openmeet_appservice.dev.person import call
from openmeet_appservice.errors import HomeserverRefused

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Homeserver:
    """Synapse at *url*, asked as the bot whose application service has *as_token*."""

    session: ClientSession
    url: str
    as_token: str
    server_name: str

    async def bots_rooms(self) -> set[str]:
        """Return every room that the bot is in."""
        return set((await self._get("joined_rooms"))["joined_rooms"])

    async def state(self, room_id: str) -> dict[tuple[str, str], Json]:
        """Return the content of the room's whole state, by event type and state key."""
        answer = await self._get("rooms", room_id, "state")
        return {(event["type"], event["state_key"]): event["content"] for event in answer["events"]}

    async def made_since(self, before: set[str]) -> dict[str, dict[tuple[str, str], Json]]:
        """Return the state of each room that the service made since *before*, by room id.

        Rooms are told by their claim, which even a half-made one has; the control room has none.
        """
        states = {room_id: await self.state(room_id) for room_id in await self.bots_rooms() - before}
        return {
            room_id: state
            for room_id, state in states.items()
            if "net.openmeet.claim" in state["m.room.create", ""]
        }

    async def joined(self, room_id: str) -> set[str]:
        """Return who is in the room."""
        return set((await self._get("rooms", room_id, "joined_members"))["joined"])

    async def aliases(self, room_id: str) -> set[str]:
        """Return every local alias that leads to the room."""
        return set((await self._get("rooms", room_id, "aliases"))["aliases"])

    async def resolve(self, alias: str) -> str | None:
        """Look an alias up as anybody can, without a login."""
        url = f"{self.url}/_matrix/client/v3/directory/room/{quote(alias, safe='')}"
        try:
            return str((await call(self.session, "GET", url))["room_id"])
        except HomeserverRefused as error:
            if error.status == 404:
                return None
            raise

    async def messages(self, room_id: str) -> list[Json]:
        """Return the newest hundred messages of the room, oldest first."""
        answer = await self._get("rooms", room_id, "messages", query={"dir": "b", "limit": "100"})
        return [event for event in reversed(answer["chunk"]) if event["type"] == "m.room.message"]

    async def say_as(self, user_id: str, room_id: str, text: str) -> str:
        """Let one of the service's puppets speak, past the service, and return the event's id."""
        path = f"rooms/{quote(room_id, safe='')}/send/m.room.message/{uuid.uuid4().hex}"
        answer = await call(
            self.session,
            "PUT",
            f"{self.url}/_matrix/client/v3/{path}",
            body={"msgtype": "m.text", "body": text},
            query={"user_id": user_id},
            token=self.as_token,
        )
        return str(answer["event_id"])

    async def _get(self, *path: str, query: dict[str, str] | None = None) -> Json:
        parts = "/".join(quote(part, safe="") for part in path)
        return await call(
            self.session, "GET", f"{self.url}/_matrix/client/v3/{parts}", query=query, token=self.as_token
        )
