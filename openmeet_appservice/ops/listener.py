"""What the ops listener serves: ``/live``, ``/ready``, ``/metrics``, ``/version``. It asks for no key."""

from __future__ import annotations

import platform
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from openmeet_appservice.ops.health import Health
from openmeet_appservice.web.middleware import add_headers


def build_ops_app(health: Health, version: str, registry: CollectorRegistry) -> web.Application:
    """Return the application for the ops listener.

    Parameters
    ----------
    health
        What ``/ready`` tells: 200 or 503 with the reasons. ``/live`` is 200 as long as the process can
        answer at all, so that nobody kills it because something else is away.
    version
        The release of this program.
    registry
        What ``/metrics`` shows.
    """

    async def live(request: web.Request) -> web.Response:
        return _json(200, {"live": True})

    async def ready(request: web.Request) -> web.Response:
        found = await health.readiness()
        if not found.ready:
            return _json(503, {"ready": False, "reasons": list(found.reasons)})
        return _json(200, {"ready": True, "degraded": list(found.degraded)})

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    async def show_version(request: web.Request) -> web.Response:
        return _json(200, {"version": version, "python": platform.python_version()})

    app = web.Application()
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/live", live)
    app.router.add_get("/ready", ready)
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/version", show_version)
    return app


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json")
