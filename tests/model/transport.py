"""HTTP between the service's real client and the model homeserver, and all that goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote

from aiohttp import ClientConnectionError, ClientSession, ServerDisconnectedError
from multidict import CIMultiDict
from yarl import URL

from .life import Life
from .model_homeserver import ModelHomeserver
from .model_room import JsonObject, MatrixError
from .model_routes import UnknownRequest, answer

_DONE_BEFORE = frozenset({"lost_answer", "error_after", "gateway_after", "slow", "hung"})


@dataclass(slots=True)
class Network:
    """What lies between the service and the homeserver.

    Parameters
    ----------
    homeserver
        The model.
    faults
        What befalls the next requests, in order; None for nothing.
    aim
        Which requests: a method and a part of the path; empty for all.
    is_down
        Nothing is answered at all.
    writes
        The requests that were not GET since this was emptied, as ``PUT /path``.
    """

    homeserver: ModelHomeserver
    faults: deque[str | None] = field(default_factory=deque)
    aim: str = ""
    is_down: bool = False
    writes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    _inside: set[asyncio.Task[Any]] = field(default_factory=set)

    def session(self, life: Life) -> ClientSession:
        """Return what one process speaks through."""
        return cast(ClientSession, _Session(self, life))

    def restart(self) -> None:
        """Let the homeserver die and come back: what it is doing stops wherever it is."""
        for task in self._inside:
            task.cancel()

    async def exchange(self, method: str, url: URL, query: Mapping[str, str], body: Any) -> _Answer:
        """Make one request and return the answer, or raise as aiohttp does."""
        fault = self._next_fault(method, url)
        if self.is_down or fault == "refused_connection":
            await asyncio.sleep(0.001)
            raise ClientConnectionError("Connection refused")
        if method != "GET":
            self.writes.append(f"{method} {unquote(url.raw_path)}")
        await asyncio.sleep(0.01)
        if fault == "lost_request":
            raise ServerDisconnectedError
        if fault == "error_before":
            return _Answer(500, b"<html>Internal Server Error</html>")
        if fault == "gateway_before":
            return _Answer(502, b"<html>Bad Gateway</html>")
        if fault == "limited":
            limited = {"errcode": "M_LIMIT_EXCEEDED", "error": "Too Many Requests", "retry_after_ms": 700}
            return _Answer(429, json.dumps(limited).encode(), {"Retry-After": "1"})
        inside = asyncio.ensure_future(self._inside_of(method, url, query, body))
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

    def _next_fault(self, method: str, url: URL) -> str | None:
        wanted, _, part = self.aim.partition(" ")
        hits = not self.aim or (method == wanted and part in url.raw_path)
        return self.faults.popleft() if self.faults and hits else None

    async def _spoilt(self, fault: str | None, good: _Answer) -> _Answer:
        match fault:
            case "lost_answer":
                raise ServerDisconnectedError
            case "error_after":
                return _Answer(500, b'{"errcode": "M_UNKNOWN", "error": "Internal server error"}')
            case "gateway_after":
                return _Answer(504, b"<html>Gateway Time-out</html>")
            case "hung":
                await asyncio.sleep(1000)
            case _:
                await asyncio.sleep(40)
        return good

    async def _inside_of(self, method: str, url: URL, query: Mapping[str, str], body: Any) -> _Answer:
        parts = [unquote(part) for part in url.raw_path.removeprefix("/").split("/")]
        asked: JsonObject = json.loads(body) if body else {}
        try:
            found = await answer(self.homeserver, method, parts, query.get("user_id"), asked)
        except MatrixError as error:
            return _Answer(error.status, json.dumps(error.body).encode())
        except UnknownRequest as error:
            self.unknown.append(str(error))
            return _Answer(404, b'{"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}')
        return _Answer(200, json.dumps(found).encode())


@dataclass(slots=True)
class _Answer:
    status: int
    content: bytes
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> CIMultiDict[str]:
        return CIMultiDict(self.fields)

    async def read(self) -> bytes:
        return self.content


@dataclass(slots=True)
class _Session:
    """As much of aiohttp's session as the client uses."""

    network: Network
    life: Life

    def request(
        self, method: str, url: URL, *, data: Any, params: Mapping[str, str], **others: Any
    ) -> _Request:
        return _Request(self.life, lambda: self.network.exchange(method, url, params, data))


@dataclass(slots=True)
class _Request:
    life: Life
    exchange: Callable[[], Any]

    async def __aenter__(self) -> _Answer:
        self.life.step()
        found: _Answer = await self.exchange()
        self.life.step()
        return found

    async def __aexit__(self, *error: object) -> None:
        return None
