"""HTTP between the service's real client and the homeserver, and all that goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

from aiohttp import ClientConnectionError, ClientSession, ServerDisconnectedError
from multidict import CIMultiDict
from yarl import URL

from .life import Life

_DONE_BEFORE = frozenset({"lost_answer", "error_after", "gateway_after", "slow", "hung"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    url: URL
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any

    @property
    def path(self) -> str:
        """The path, decoded."""
        return unquote(self.url.raw_path)


@dataclass(slots=True)
class Answer:
    """What comes back."""

    status: int
    content: bytes
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> CIMultiDict[str]:
        """The headers, as aiohttp gives them."""
        return CIMultiDict(self.fields)

    async def read(self) -> bytes:
        """Return the body."""
        return self.content


Perform = Callable[[Asked], Awaitable[Answer]]


@dataclass(slots=True)
class Network:
    """What lies between the service and the homeserver.

    Parameters
    ----------
    perform
        What the homeserver does with a request: method, URL, query, headers and body.
    faults
        What befalls the next requests, in order; None for nothing.
    aim
        Which requests: a method and a part of the path; empty for all.
    is_down
        Nothing is answered at all.
    writes
        The requests that were not GET since this was emptied, as ``PUT /path``.
    slow, hung
        How many seconds it takes until a slow answer comes, and one that comes too late.
    """

    perform: Perform
    faults: deque[str | None] = field(default_factory=deque)
    aim: str = ""
    is_down: bool = False
    writes: list[str] = field(default_factory=list)
    slow: float = 40.0
    hung: float = 1000.0
    _inside: set[asyncio.Task[Any]] = field(default_factory=set)

    def session(self, life: Life) -> ClientSession:
        """Return what one process speaks through."""
        return cast(ClientSession, _Session(self, life))

    @property
    def is_busy(self) -> bool:
        """Whether the homeserver is doing something."""
        return bool(self._inside)

    def restart(self) -> None:
        """Let the homeserver die and come back: what it is doing stops wherever it is."""
        for task in self._inside:
            task.cancel()

    async def exchange(self, request: Asked) -> Answer:
        """Make one request and return the answer, or raise as aiohttp does."""
        fault = self._next_fault(request)
        if self.is_down or fault == "refused_connection":
            await asyncio.sleep(0.001)
            raise ClientConnectionError("Connection refused")
        if request.method != "GET":
            self.writes.append(f"{request.method} {request.path}")
        await asyncio.sleep(0.01)
        if fault == "lost_request":
            raise ServerDisconnectedError
        if fault == "error_before":
            return Answer(500, b"<html>Internal Server Error</html>")
        if fault == "gateway_before":
            return Answer(502, b"<html>Bad Gateway</html>")
        if fault == "limited":
            limited = {"errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests", "retry_after_ms": 700}
            return Answer(429, json.dumps(limited).encode(), {"Retry-After": "1"})
        inside = asyncio.ensure_future(self.perform(request))
        self._inside.add(inside)
        inside.add_done_callback(self._inside.discard)
        if fault == "dies_within":
            await asyncio.sleep(0.025)
            self.restart()
        # A client that goes away does not stop the homeserver.
        done = await asyncio.shield(asyncio.gather(inside, return_exceptions=True))
        if isinstance(done[0], asyncio.CancelledError):
            raise ServerDisconnectedError
        if isinstance(done[0], BaseException):
            raise done[0]
        if fault in _DONE_BEFORE:
            return await self._spoilt(fault, done[0])
        await asyncio.sleep(0.01)
        return done[0]

    def _next_fault(self, request: Asked) -> str | None:
        method, _, part = self.aim.partition(" ")
        hits = not self.aim or (request.method == method and part in request.path)
        return self.faults.popleft() if self.faults and hits else None

    async def _spoilt(self, fault: str | None, good: Answer) -> Answer:
        match fault:
            case "lost_answer":
                raise ServerDisconnectedError
            case "error_after":
                return Answer(500, b'{"errcode": "M_UNKNOWN", "error": "Internal server error"}')
            case "gateway_after":
                return Answer(504, b"<html>Gateway Time-out</html>")
            case "hung":
                await asyncio.sleep(self.hung)
            case _:
                await asyncio.sleep(self.slow)
        return good


@dataclass(slots=True)
class _Session:
    """As much of aiohttp's session as the client uses."""

    network: Network
    life: Life

    def request(
        self,
        method: str,
        url: URL,
        *,
        data: Any,
        params: Mapping[str, str],
        headers: Mapping[str, str],
        **others: Any,
    ) -> _Request:
        return _Request(self.life, self.network, Asked(method, url, params, headers, data))


@dataclass(slots=True)
class _Request:
    life: Life
    network: Network
    asked: Asked

    async def __aenter__(self) -> Answer:
        self.life.step()
        found = await self.network.exchange(self.asked)
        self.life.step()
        return found

    async def __aexit__(self, *error: object) -> None:
        return None
