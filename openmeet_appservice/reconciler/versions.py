"""The room version that Synapse gives to new rooms where nobody asks for another."""

from __future__ import annotations

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.homeserver import Homeserver

KEPT_MS = 10 * 60_000
"""For how long an answer is kept: it changes only with Synapse's release or configuration."""


class DefaultVersion:
    """Asks Synapse, and remembers the answer for ten minutes."""

    def __init__(self, homeserver: Homeserver, *, now: Now) -> None:
        self._homeserver = homeserver
        self._now = now
        self._known: tuple[str, int] | None = None

    async def get(self) -> str:
        """Return the default room version."""
        if self._known is None or self._now() - self._known[1] > KEPT_MS:
            capabilities = await self._homeserver.capabilities()
            self._known = (capabilities.default_room_version, self._now())
        return self._known[0]
