"""Synapse's place in the proof: answers what the service asks at its start, and pushes transactions."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout, web

from benchmarks.delivery_proof.scenario import BOT, SERVER, Transaction
from openmeet_appservice.dev.ports import LOOPBACK

CONTROL_ROOM = "!control:" + SERVER

PUSH_SECONDS = 10.0
PAUSE_SECONDS = 0.05


class StandIn:
    """A homeserver with nobody in it but the bot, and no room but the bot's own.

    It knows only as much as `run` asks of it. What else it is asked for it does not know, and counts.
    """

    def __init__(self) -> None:
        self.port = 0
        self.unknown: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        client = "/_matrix/client"
        room = client + "/v3/rooms/{room_id}"
        for method, path, answer in (
            ("GET", client + "/versions", {"versions": ["v1.11"], "unstable_features": {}}),
            ("GET", client + "/v3/account/whoami", {"user_id": BOT}),
            ("POST", client + "/v1/appservice/{id}/ping", {"duration_ms": 1}),
            ("POST", client + "/v3/createRoom", {"room_id": CONTROL_ROOM}),
            ("POST", room + "/join", {"room_id": CONTROL_ROOM}),
            ("PUT", room + "/state/{tail:.*}", {"event_id": "$state"}),
            ("GET", room + "/messages", {"chunk": [], "start": "s"}),
        ):
            app.router.add_route(method, path, self._says(answer))
        app.router.add_get(client + "/v3/directory/room/{alias}", self._says_nothing("M_NOT_FOUND"))
        app.router.add_route("*", "/{path:.*}", self._says_nothing("M_UNRECOGNIZED"))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, LOOPBACK, 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Listen no more."""
        if self._runner is not None:
            await self._runner.cleanup()

    def _says(self, answer: dict[str, Any]) -> Any:
        async def say(request: web.Request) -> web.Response:
            return web.json_response(answer)

        return say

    def _says_nothing(self, errcode: str) -> Any:
        async def say(request: web.Request) -> web.Response:
            if errcode == "M_UNRECOGNIZED":
                self.unknown[f"{request.method} {request.path}"] += 1
            return web.json_response({"errcode": errcode, "error": "There is no such thing."}, status=404)

        return say


@dataclass(slots=True)
class Pusher:
    """Pushes transactions as Synapse does: one at a time, each until it is answered 200.

    Parameters
    ----------
    urls
        The service's listeners for Synapse, one for each replica: what would be behind one address.
    hs_token
        What it shows.
    chance
        Chooses the replica, and where the connection is dropped without waiting for the answer.
    dropped
        How often that happens, from 0 to 1.
    """

    session: ClientSession
    urls: Sequence[str]
    hs_token: str
    chance: random.Random
    dropped: float = 0.0
    transactions: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    async def push_all(self, transactions: Iterable[Transaction]) -> None:
        """Push them one after the other."""
        for transaction in transactions:
            await self.push(transaction)

    async def push(self, transaction: Transaction) -> None:
        """Push one, to whichever replica takes it."""
        body = orjson.dumps({"events": transaction.events, "ephemeral": []})
        drop = self.chance.random() < self.dropped
        while not await self._try(self.chance.choice(self.urls), transaction.txn_id, body, drop):
            drop = False
            await asyncio.sleep(PAUSE_SECONDS)
        self.transactions += 1

    async def _try(self, url: str, txn_id: str, body: bytes, drop: bool) -> bool:
        timeout = ClientTimeout(total=self.chance.uniform(0.001, 0.02) if drop else PUSH_SECONDS)
        try:
            async with self.session.put(
                f"{url}/_matrix/app/v1/transactions/{txn_id}",
                data=body,
                headers={"Authorization": f"Bearer {self.hs_token}", "Content-Type": "application/json"},
                timeout=timeout,
            ) as answer:
                await answer.read()
                if answer.status != 200:
                    self.failures[str(answer.status)] += 1
                return answer.status == 200
        except (ClientError, TimeoutError, OSError) as error:
            self.failures["dropped" if drop else type(error).__name__] += 1
            return False
