"""OpenMeet's place in the proof: takes webhooks at ``/{endpoint}``, as unreliably as it is told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from benchmarks.delivery_proof.faults import TAKEN, Kind, Treatment
from benchmarks.delivery_proof.verdict import Judge, Outcome, Request, read_request
from openmeet_appservice.dev.ports import LOOPBACK

MAX_BODY = 16 * 1024 * 1024
REFUSED = frozenset({400, 422})
REFUSING = REFUSED | {413}
TAKING = frozenset({Kind.TAKEN, Kind.SLOW, Kind.LATE, Kind.CUT})

Treat = Callable[[Request, int], Treatment]
"""Says what to do with a request that has come so often before."""


def take_all(request: Request, tries: int) -> Treatment:
    """Take everything."""
    return TAKEN


@dataclass(slots=True)
class Receiver:
    """Listens, and tells the judge.

    Parameters
    ----------
    secrets
        The endpoints' secrets by their names.
    judge
        Is told of every request.
    treat
        Says what to do with each.
    port
        Where to listen; 0 is any free port, known once it is up.
    """

    secrets: Mapping[str, str]
    judge: Judge
    treat: Treat = take_all
    port: int = 0
    treated: Counter[Kind] = field(default_factory=Counter)
    down: set[str] = field(default_factory=set)
    """Endpoints that answer nothing but 503 for now."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, requests that have come in wait for their answers."""
    waiting: int = 0
    """How many wait there."""
    stray: int = 0
    """How many requests came that are none of ours: a redirect that was followed, say."""
    _tries: Counter[str] = field(default_factory=Counter)
    _took: set[str] = field(default_factory=set)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    def url_of(self, endpoint: str) -> str:
        """Return where an endpoint's webhooks are to be sent."""
        return f"{self.url}/{endpoint}"

    async def start(self) -> None:
        """Listen."""
        self.gate.set()
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, LOOPBACK, self.port, backlog=1024, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Listen no more; connections are refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        endpoint = http.match_info["path"]
        if endpoint not in self.secrets or http.method != "POST":
            self.stray += 1
            return web.Response(status=404)
        raw = await http.read()
        request = read_request(
            endpoint,
            http.headers.get("webhook-id", ""),
            http.headers.get("x-tenant-id", ""),
            raw,
            signed=is_signed(self.secrets[endpoint], raw, http.headers),
        )
        self.judge.came(request)
        self.waiting += 1
        await self.gate.wait()
        self.waiting -= 1
        if endpoint in self.down:
            self.judge.answering(request, Outcome.FAILED)
            return web.Response(status=503)
        tries = self._tries[request.webhook_id]
        self._tries[request.webhook_id] += 1
        treatment = self.treat(request, tries)
        if treatment.kind in TAKING:
            self._took.add(request.webhook_id)
        elif treatment.status in REFUSING and request.webhook_id in self._took:
            # Whoever has taken something, and was not heard, does not call it wrong when it comes again.
            treatment = TAKEN
        self.treated[treatment.kind] += 1
        return await self._answer(http, request, treatment)

    async def _answer(self, http: web.Request, request: Request, treatment: Treatment) -> web.StreamResponse:
        match treatment.kind:
            case Kind.TAKEN | Kind.SLOW | Kind.LATE:
                await asyncio.sleep(treatment.seconds)
                return self._answered(request, Outcome.TAKEN, web.Response(status=treatment.status))
            case Kind.STATUS | Kind.TOO_LARGE | Kind.REST:
                outcome = Outcome.REFUSED if treatment.status in REFUSED else Outcome.FAILED
                if treatment.kind is Kind.TOO_LARGE:
                    outcome = Outcome.TOO_LARGE
                headers = {"Location": f"{self.url}/elsewhere"} if treatment.status // 100 == 3 else {}
                if treatment.kind is Kind.REST:
                    headers = {"Retry-After": f"{treatment.seconds:.0f}"}
                return self._answered(
                    request, outcome, web.Response(status=treatment.status, headers=headers)
                )
            case Kind.HANGS:
                # Until the sender hangs up.
                while http.transport is not None and not http.transport.is_closing():
                    await asyncio.sleep(0.1)
                return self._answered(request, Outcome.FAILED, web.Response(status=500))
            case Kind.RESET:
                _reset(http)
                return self._answered(request, Outcome.FAILED, web.Response(status=500))
            case Kind.CUT:
                self.judge.answering(request, Outcome.TAKEN)
                return await _cut(http)

    def _answered(self, request: Request, outcome: Outcome, answer: web.Response) -> web.Response:
        self.judge.answering(request, outcome)
        return answer


async def _cut(http: web.Request) -> web.StreamResponse:
    """Begin to answer that it is taken, and break off."""
    answer = web.StreamResponse(headers={"Content-Length": "100"})
    with contextlib.suppress(ConnectionError):
        await answer.prepare(http)
        await answer.write(b"half")
    _reset(http)
    return answer


def _reset(http: web.Request) -> None:
    if http.transport is not None:
        http.transport.abort()


def is_signed(secret: str, raw: bytes, headers: Mapping[str, str]) -> bool:
    """Tell whether a webhook is signed with the secret, as OpenMeet's library sees it."""
    try:
        Webhook(secret).verify(raw, dict(headers), json_parse=False)
    except WebhookVerificationError:
        return False
    return True
