"""A caller of the provisioning API, as OpenMeet's backend is one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession

from openmeet_appservice.errors import OpenMeetError


class RequestFailed(OpenMeetError):
    """The provisioning API refused a request."""


@dataclass(frozen=True, slots=True)
class Api:
    """Calls the API at *url* with one key."""

    session: ClientSession
    url: str
    key: str

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make one request and return the JSON of the answer.

        Raises
        ------
        RequestFailed
            The answer was not 2xx; the message has the problem document's words.
        """
        async with self.session.request(
            method,
            f"{self.url}{path}",
            json=body,
            headers={"Authorization": f"Bearer {self.key}", **(headers or {})},
        ) as response:
            answer = await response.json(content_type=None) if response.content_length != 0 else {}
            if response.ok:
                return dict(answer or {})
        detail = answer.get("detail", "") if isinstance(answer, dict) else ""
        faults = [f"{fault['pointer']}: {fault['detail']}" for fault in (answer or {}).get("errors", [])]
        raise RequestFailed(f"{method} {path}: {response.status} {'; '.join([detail, *faults])}")
