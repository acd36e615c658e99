"""Takes the webhooks of openmeet-appservice: checks them, stores them, and only then answers.

pip install aiohttp standardwebhooks
WEBHOOK_SECRET=whsec_… python python_receiver.py
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from contextlib import closing
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

MAX_BODY = 1024 * 1024

SCHEMA = """
CREATE TABLE IF NOT EXISTS matrix_events (
    tenant TEXT NOT NULL, event_id TEXT NOT NULL, log_id TEXT NOT NULL, sequence BIGINT NOT NULL,
    room TEXT NOT NULL, item TEXT NOT NULL, PRIMARY KEY (tenant, event_id)
);
CREATE TABLE IF NOT EXISTS matrix_notices (
    webhook_id TEXT NOT NULL PRIMARY KEY, type TEXT NOT NULL, data TEXT NOT NULL
);
"""
EVENT = "INSERT INTO matrix_events VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, event_id) DO NOTHING"
NOTICE = "INSERT INTO matrix_notices VALUES (?, ?, ?) ON CONFLICT (webhook_id) DO NOTHING"


class Receiver:
    """Stores webhooks in the SQLite database at *path*; work on them from there."""

    def __init__(self, secret: str, path: str) -> None:
        self._webhook = Webhook(secret)
        self._path = path
        with closing(sqlite3.connect(path)) as database:
            database.executescript(SCHEMA)

    def app(self) -> web.Application:
        """Return the application to serve."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/webhooks/matrix", self.take)
        return app

    async def take(self, request: web.Request) -> web.Response:
        """Answer a webhook: 204 once it is stored, 401 when it is not ours to believe."""
        raw = await request.read()
        try:
            self._webhook.verify(raw, dict(request.headers), json_parse=False)
        except (WebhookVerificationError, ValueError):
            # A malformed header makes the library raise ValueError.
            return web.Response(status=401)
        await asyncio.to_thread(self._store, request.headers["webhook-id"], json.loads(raw))
        return web.Response(status=204)

    def _store(self, webhook_id: str, body: dict[str, Any]) -> None:
        kind, data = body["type"], body["data"]
        # The inner `with` is one transaction: all of a webhook, or an error and a retry.
        with closing(sqlite3.connect(self._path)) as database, database:
            if kind == "room.events":
                room = data["room"]
                for item in data["events"]:
                    database.execute(
                        EVENT,
                        (
                            data["tenant"],
                            item["event"]["event_id"],
                            room["log_id"],
                            item["sequence"],
                            json.dumps(room),
                            json.dumps(item),
                        ),
                    )
            elif kind != "room.ephemeral":
                # Types that came with a later release are kept as well.
                database.execute(NOTICE, (webhook_id, kind, json.dumps(data)))


if __name__ == "__main__":
    web.run_app(
        Receiver(os.environ["WEBHOOK_SECRET"], os.environ.get("DATABASE", "webhooks.db")).app(),
        host=os.environ.get("HOST", "127.0.0.1"),
        port=int(os.environ.get("PORT", "8080")),
    )
