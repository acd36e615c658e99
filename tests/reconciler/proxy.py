"""A proxy in front of Synapse that fails where a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from aiohttp import ClientSession, ClientTimeout, web
from yarl import URL

from openmeet_appservice.dev import ports

Forward = Callable[[], Awaitable[web.Response]]
Fault = Callable[[web.Request, Forward], Awaitable[web.StreamResponse]]
"""Answers a request in its own way; the second argument asks Synapse."""

_PASSED_ON = ("Authorization", "Content-Type", "User-Agent")


@dataclass(slots=True)
class _Rule:
    method: str
    part: str
    fault: Fault
    times: int | None


@dataclass(slots=True)
class Seen:
    """One request, its path decoded."""

    method: str
    path: str
    user_id: str | None


@dataclass(slots=True)
class Proxy:
    """Passes requests on to Synapse at *target*, from a port that stays the same when it is restarted."""

    target: str
    session: ClientSession
    port: int = field(default_factory=ports.any_free_port)
    seen: list[Seen] = field(default_factory=list)
    _rules: list[_Rule] = field(default_factory=list)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{ports.LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=False, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, ports.LOOPBACK, self.port, reuse_address=True).start()

    async def stop(self) -> None:
        """Refuse connections until it is started again."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def fail(self, method: str, part: str, fault: Fault, times: int | None = 1) -> None:
        """Let *fault* answer the next requests of that method whose decoded path holds *part*."""
        self._rules.append(_Rule(method, part, fault, times))

    def heal(self) -> None:
        """Pass on everything again."""
        self._rules.clear()

    def count(self, method: str, part: str) -> int:
        """Return how many such requests there were."""
        return sum(seen.method == method and part in seen.path for seen in self.seen)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = unquote(request.raw_path.partition("?")[0])
        self.seen.append(Seen(request.method, path, request.query.get("user_id")))
        body = await request.read()

        async def forward() -> web.Response:
            return await self._forward(request, body)

        for rule in self._rules:
            if rule.method == request.method and rule.part in path and rule.times != 0:
                rule.times = None if rule.times is None else rule.times - 1
                return await rule.fault(request, forward)
        return await forward()

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        url = URL(self.target + request.raw_path, encoded=True)
        async with self.session.request(
            request.method, url, data=body, headers=headers, timeout=ClientTimeout(total=120)
        ) as answer:
            return web.Response(
                status=answer.status, body=await answer.read(), content_type=answer.content_type
            )


async def lost_answer(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Let Synapse do it, and break the connection instead of answering."""
    await forward()
    return await lost_request(request, forward)


async def lost_request(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Break the connection; Synapse never hears of it."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def internal_error(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Answer as a proxy does whose upstream has failed."""
    return web.Response(status=500, text="<html>Internal Server Error</html>", content_type="text/html")


async def limited(request: web.Request, forward: Forward) -> web.StreamResponse:
    """Ask for patience."""
    return web.json_response(
        {"errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests", "retry_after_ms": 50}, status=429
    )


def refused(status: int, errcode: str, error: str = "No") -> Fault:
    """Make a fault that refuses in Matrix's way."""

    async def fault(request: web.Request, forward: Forward) -> web.StreamResponse:
        return web.json_response({"errcode": errcode, "error": error}, status=status)

    return fault


@dataclass(slots=True)
class Gate:
    """A fault that holds a request until it is opened; ``reached`` tells that one has come."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, request: web.Request, forward: Forward) -> web.StreamResponse:
        self.reached.set()
        await self.opened.wait()
        return await forward()
