"""OpenMeet's backend: calls the provisioning API of the running program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession

from .waiting import LONG, until

Json = dict[str, Any]
WAIT = 25
"""Seconds that the API is asked to wait for Synapse, where Synapse is to be waited for."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API answered."""

    status: int
    body: Json
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class OpenMeet:
    """One key's holder, acting for one tenant."""

    session: ClientSession
    url: str
    key: str
    tenant: str

    async def call(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Make one request, below the tenant unless *path* begins with ``/v1``."""
        if not path.startswith("/v1"):
            path = f"/v1/tenants/{self.tenant}{path}"
        async with self.session.request(
            method,
            self.url + path,
            json=body,
            headers={"Authorization": f"Bearer {self.key}", **(headers or {})},
        ) as response:
            is_json = "json" in response.headers.get("Content-Type", "")
            return Answer(response.status, await response.json() if is_json else {}, response.headers)

    async def put(self, path: str, body: Json) -> Json:
        """Make a ``PUT`` that has to be accepted, and return the body."""
        answer = await self.call("PUT", path, body)
        assert answer.status in (200, 201, 202), answer
        return answer.body

    async def user(self, slug: str, name: str | None = None) -> Json:
        """Want a user."""
        return await self.put(f"/users/{slug}", {"display_name": name or slug.title()})

    async def get(self, path: str) -> Json:
        """Make a ``GET`` that has to find something."""
        answer = await self.call("GET", path)
        assert answer.status == 200, answer
        return answer.body

    async def ready(self, path: str, limit: float = LONG) -> Json:
        """Return the resource once Synapse agrees with it."""

        async def look() -> Json | None:
            found = await self.get(path)
            seen.append(found["sync"])
            return found if found["sync"]["phase"] == "ready" else None

        seen: list[Any] = []
        try:
            return await until(look, f"{path} is ready", limit)
        except AssertionError as error:
            raise AssertionError(f"{error}; its sync: {seen[-1:]}") from None

    async def say(self, path: str, sender: str, body: str, key: str | None = None) -> Answer:
        """Speak in the room of an event or group, under an ``Idempotency-Key`` if one is given."""
        headers = {"Idempotency-Key": key} if key else None
        return await self.call("POST", f"{path}/messages", {"sender": sender, "body": body}, headers)


def event(name: str, members: Mapping[str, str], **fields: Any) -> Json:
    """Return the spec of a published event, *members* by slug with their role."""
    return {
        "name": name,
        "visibility": "public",
        "status": "published",
        "members": [{"user": user, "role": role} for user, role in members.items()],
        **fields,
    }
