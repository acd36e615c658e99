"""A gate on a way between two programs, closed at the very request that a test chooses.

One stands between the service and Synapse, another between Synapse and the service. With them a test
kills the service, say, when Synapse has made a room and nobody knows: no code for tests is in the product.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import unquote

from aiohttp import ClientError, ClientSession, ClientTimeout, web
from yarl import URL

from openmeet_appservice.dev.ports import LOOPBACK

from .waiting import LONG

_PASSED_ON = ("Authorization", "Content-Type", "User-Agent")
_LARGEST = 128 * 1024 * 1024


@dataclass(slots=True)
class Hold:
    """A place where requests stop.

    Parameters
    ----------
    method, part
        Stops requests of that method whose decoded path holds *part*.
    after
        Whether they stop on the way back, when what they ask for is done.
    skip
        How many such requests pass before the first stops.
    lost
        Whether a request that was stopped gets no answer in the end, its connection broken.
    """

    method: str
    part: str
    after: bool = False
    skip: int = 0
    lost: bool = False
    stopped: int = 0
    _reached: asyncio.Event = field(default_factory=asyncio.Event)
    _open: asyncio.Event = field(default_factory=asyncio.Event)

    async def reached(self, limit: float = LONG) -> None:
        """Return once a request has stopped here; after *limit* seconds the test fails."""
        try:
            await asyncio.wait_for(self._reached.wait(), limit)
        except TimeoutError:
            raise AssertionError(f"no {self.method} …{self.part}… within {limit:g} s") from None

    def let_go(self) -> None:
        """Let what stopped here go on, and all that comes after it."""
        self._open.set()

    def takes(self, method: str, path: str) -> bool:
        """Tell whether the request has to stop here."""
        if self._open.is_set() or method != self.method or self.part not in path:
            return False
        if self.skip:
            self.skip -= 1
            return False
        return True

    async def stop(self) -> None:
        """Hold the request that calls this until the hold is let go."""
        self.stopped += 1
        self._reached.set()
        await self._open.wait()


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that came: its method, its decoded path, and the status it was answered with."""

    method: str
    path: str
    status: int | None


class Gate:
    """Listens on *port* and passes requests on to *target*, a base URL.

    While `shut` is set, every connection is broken at its first request.
    """

    def __init__(self, port: int, target: str) -> None:
        self.port = port
        self.target = target
        self.shut = False
        self.passed: list[Passed] = []
        self._holds: list[Hold] = []
        self._runner: web.AppRunner | None = None
        self._session: ClientSession | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        self._session = ClientSession(timeout=ClientTimeout(total=180), auto_decompress=False)
        app = web.Application(client_max_size=_LARGEST)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port, reuse_address=True).start()

    async def stop(self) -> None:
        """Let everything go and listen no more."""
        self.open()
        if self._runner is not None:
            await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def hold(self, method: str, part: str, *, after: bool = False, skip: int = 0, lost: bool = False) -> Hold:
        """Stop requests; see `Hold`."""
        hold = Hold(method, part, after, skip, lost)
        self._holds.append(hold)
        return hold

    def open(self) -> None:
        """Let everything go, and pass on what comes from now on."""
        self.shut = False
        for hold in self._holds:
            hold.let_go()
        self._holds.clear()

    def count(self, method: str, part: str) -> int:
        """Return how many such requests have come, those that are stopped included."""
        held = sum(hold.stopped for hold in self._holds if hold.method == method and part in hold.part)
        return held + sum(each.method == method and part in each.path for each in self.passed)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = unquote(request.raw_path)
        if self.shut:
            return _broken(request)
        body = await request.read()
        hold = next((hold for hold in self._holds if hold.takes(request.method, path)), None)
        if hold is not None and not hold.after:
            await hold.stop()
        lost = hold is not None and hold.lost
        answer = None if lost and hold is not None and not hold.after else await self._forward(request, body)
        if hold is not None and hold.after:
            await hold.stop()
        self.passed.append(Passed(request.method, path, None if answer is None else answer.status))
        return _broken(request) if answer is None or lost else answer

    async def _forward(self, request: web.Request, body: bytes) -> web.Response | None:
        """Pass the request on and return the answer, None when there was none."""
        assert self._session is not None
        headers = {name: request.headers[name] for name in _PASSED_ON if name in request.headers}
        url = URL(self.target + request.raw_path, encoded=True)
        try:
            async with self._session.request(request.method, url, data=body, headers=headers) as answer:
                return web.Response(
                    status=answer.status,
                    body=await answer.read(),
                    headers={
                        name: answer.headers[name]
                        for name in ("Content-Type", "Retry-After")
                        if name in answer.headers
                    },
                )
        except ClientError:
            return None


def _broken(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)
