"""Sending one webhook to one endpoint, signed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.outbound.signing import webhook_headers
from openmeet_appservice.store.endpoint_row import Endpoint, unseal
from openmeet_appservice.store.secretbox import SecretBox


class Poster(Protocol):
    """Sends a body and returns what came of it; `openmeet_appservice.outbound.client.GuardedClient`."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer | NoAnswer:
        """Send *body* to *url*, raising nothing but cancellation."""


@dataclass(frozen=True, slots=True)
class Posting:
    """Sends webhooks.

    Parameters
    ----------
    client
        What sends.
    secrets
        Opens the endpoints' secrets.
    """

    client: Poster
    secrets: SecretBox
    now: Now

    async def post(
        self, endpoint: Endpoint, webhook_id: str, body: bytes, tenant_id: str
    ) -> Answer | NoAnswer:
        """Send *body*, signed now; nothing is raised but this and cancellation.

        Parameters
        ----------
        tenant_id
            Whom it is about, as OpenMeet gave it; empty for nobody in particular.

        Raises
        ------
        SecretUnreadable
            No key that we have opens the endpoint's secret or its headers.
        """
        now = self.now()
        unsealed = unseal(endpoint, self.secrets, now=now)
        headers = webhook_headers(
            unsealed.secrets, webhook_id, now, body, tenant_id=tenant_id, static=unsealed.headers
        )
        return await self.client.post(endpoint.wanted.url, body, headers)
