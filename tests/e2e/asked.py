"""OpenMeet as it is asked: a look-up endpoint that verifies who asks."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook

from openmeet_appservice.dev.ports import LOOPBACK

Json = dict[str, Any]


@dataclass(slots=True)
class Asked:
    """Answers look-ups with what is in *things*, by tenant, kind and slug; anything else is 404."""

    secret: str
    things: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    requests: list[Json] = field(default_factory=list)
    held: asyncio.Event | None = None
    port: int = 0
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{LOOPBACK}:{self.port}/lookup"

    async def up(self) -> None:
        """Begin to listen."""
        app = web.Application()
        app.router.add_post("/lookup", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def down(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        raw = await request.read()
        asked: Json = json.loads(raw)
        Webhook(self.secret).verify(raw, dict(request.headers))
        assert request.headers["x-tenant-id"] == asked["tenant"]
        self.requests.append(asked)
        if self.held is not None:
            await self.held.wait()
        thing = self.things.get((asked["tenant"], asked["kind"], asked["slug"]))
        return web.Response(status=404) if thing is None else web.json_response(thing)
