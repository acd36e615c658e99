"""Everybody else, in a process of their own: who takes webhooks, an application service that does nothing,
and as much of a homeserver as the service asks for when it starts.

``python -m benchmarks.webhook_sink`` prints its port and serves until it is ended. What came is kept by the
name at the end of the path it came to:

``POST /hook/{name}``
    A webhook. Its signature is checked, and that no room has a gap or goes back.
``GET /arrived/{name}?count=N``
    Answers once N events have come in all, or after a minute, with how many, in how many webhooks, how many
    came again, and what was wrong.
``GET /event/{name}/{event_id}``
    Answers once that event has come, with when it came.
``GET /arrivals/{name}``
    When each event came (`time.monotonic_ns`, which all processes of a machine share), by event id; they are
    forgotten then.
``PUT /null/_matrix/app/v1/transactions/{txn_id}``
    The application service that does nothing; what it is sent is kept under ``null``.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from openmeet_appservice.dev.stand_in import fault_of

SECRET = "whsec_" + "YmVuY2htYXJr" * 3
PATIENCE = 60.0
"""Seconds after which the sink answers that not everything has come."""


@dataclass(slots=True)
class Came:
    """What came under one name."""

    count: int = 0
    webhooks: int = 0
    repeated: int = 0
    faults: list[str] = field(default_factory=list)
    arrivals: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    more: asyncio.Event = field(default_factory=asyncio.Event)

    def event(self, event_id: str, at: int) -> None:
        """Note an event that is new."""
        self.arrivals[event_id] = at
        self.count += 1

    def webhook(self, body: Any, at: int) -> None:
        """Note the events of a webhook, and whether they are the next ones of their room."""
        self.webhooks += 1
        log_id = body["data"]["room"]["log_id"]
        last = self.last.get(log_id, 0)
        for item in body["data"]["events"]:
            if item["sequence"] <= last:
                self.repeated += 1
                continue
            if item["sequence"] != last + 1:
                self.faults.append(f"{log_id}: {item['sequence']} came after {last}")
            last = item["sequence"]
            self.event(item["event"]["event_id"], at)
        self.last[log_id] = last

    async def until(self, reached: Callable[[], bool]) -> bool:
        """Wait until something is so; False when it takes longer than `PATIENCE`."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not reached():
                    self.more.clear()
                    await self.more.wait()
        except TimeoutError:
            return False
        return True


class Sink:
    """Takes what comes and tells of it."""

    def __init__(self) -> None:
        self._came: dict[str, Came] = {}

    def app(self) -> web.Application:
        """Return the application to serve."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.add_routes(
            [
                web.post("/hook/{name}", self._hook),
                web.put("/null/_matrix/app/v1/transactions/{txn_id}", self._null),
                web.get("/arrived/{name}", self._arrived),
                web.get("/event/{name}/{event_id}", self._event),
                web.get("/arrivals/{name}", self._arrivals),
                web.route("*", "/_matrix/client/{call:.*}", self._homeserver),
            ]
        )
        return app

    def _of(self, name: str) -> Came:
        return self._came.setdefault(name, Came())

    async def _hook(self, request: web.Request) -> web.Response:
        at = time.monotonic_ns()
        raw = await request.read()
        came = self._of(request.match_info["name"])
        fault = fault_of(request.headers, raw, SECRET, time.time())
        if fault is not None:
            came.faults.append(fault)
        body = orjson.loads(raw)
        if body["type"] == "room.events":
            came.webhook(body, at)
        came.more.set()
        return web.Response(status=204)

    async def _null(self, request: web.Request) -> web.Response:
        at = time.monotonic_ns()
        came = self._of("null")
        for event in orjson.loads(await request.read())["events"]:
            came.event(event["event_id"], at)
        came.more.set()
        return web.json_response({})

    async def _arrived(self, request: web.Request) -> web.Response:
        came, count = self._of(request.match_info["name"]), int(request.query["count"])
        if not await came.until(lambda: came.count >= count):
            came.faults.append(f"only {came.count} of {count} events came")
        return web.json_response(
            {
                "count": came.count,
                "webhooks": came.webhooks,
                "repeated": came.repeated,
                "faults": came.faults,
            }
        )

    async def _event(self, request: web.Request) -> web.Response:
        came, event_id = self._of(request.match_info["name"]), request.match_info["event_id"]
        if not await came.until(lambda: event_id in came.arrivals):
            came.faults.append(f"{event_id} did not come")
        return web.json_response({"at": came.arrivals.get(event_id), "faults": came.faults})

    async def _arrivals(self, request: web.Request) -> web.Response:
        came = self._of(request.match_info["name"])
        arrivals, came.arrivals = came.arrivals, {}
        return web.json_response(body=orjson.dumps(arrivals))

    async def _homeserver(self, request: web.Request) -> web.Response:
        """Answer what the service asks at its start: a ping, and its control room."""
        call = request.match_info["call"]
        if call.endswith("/ping"):
            return web.json_response({"duration_ms": 1})
        if request.method == "GET":
            return web.json_response({"errcode": "M_NOT_FOUND", "error": "there is none"}, status=404)
        return web.json_response({"room_id": "!control:bench.example", "event_id": "$wake"})


async def main() -> None:
    """Serve, and print the port."""
    runner = web.AppRunner(Sink().app(), access_log=None)
    await runner.setup()
    gc.freeze()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
