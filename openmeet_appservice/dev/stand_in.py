"""A stand-in for OpenMeet: takes webhooks, checks them as OpenMeet should, and remembers what came.

It shares no code with the side that signs, so that a fault there cannot approve of itself. Run alone it
prints a line for each event::

    python -m openmeet_appservice.dev.stand_in --listen 127.0.0.1:18080 --secret-file webhook.secret
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

TOLERANCE = 300
"""Seconds by which ``webhook-timestamp`` may differ from the clock here."""

MAX_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request that came.

    Parameters
    ----------
    fault
        Why it was not accepted as OpenMeet's, None when signature and time are right.
    """

    webhook_id: str
    tenant: str
    body: Any
    fault: str | None


def fault_of(headers: Mapping[str, str], body: bytes, secret: str, now: float) -> str | None:
    """Return what is wrong with a webhook, None when nothing is.

    Parameters
    ----------
    secret
        ``whsec_…`` as it was shown when the endpoint was made.
    now
        Seconds since the epoch.
    """
    webhook_id, timestamp = headers.get("webhook-id"), headers.get("webhook-timestamp")
    if not webhook_id or not timestamp or not timestamp.isdigit():
        return "a header of Standard Webhooks is missing"
    if abs(now - int(timestamp)) > TOLERANCE:
        return "the timestamp is too far from now"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = hmac.digest(key, f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = "v1," + base64.b64encode(mac).decode()
    for signature in headers.get("webhook-signature", "").split(" "):
        if hmac.compare_digest(signature, expected):
            return None
    return "the signature is not made with this secret"


class StandIn:
    """Takes webhooks at ``POST /webhooks``.

    Parameters
    ----------
    secret
        What the webhooks must be signed with.
    status
        What a right webhook is answered with; a wrong one always gets 401.
    now
        Seconds since the epoch.
    told
        Is told of each accepted event, in words.
    """

    def __init__(
        self,
        secret: str,
        *,
        status: int = 204,
        now: Callable[[], float] = time.time,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.deliveries: list[Delivery] = []
        self._secret = secret
        self._status = status
        self._now = now
        self._told = told
        self._arrived = asyncio.Condition()
        self._seen: set[tuple[str, str]] = set()

    def app(self) -> web.Application:
        """Return the application to serve."""
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/webhooks", self._take)
        return app

    async def wait_for(self, wanted: Callable[[Mapping[str, Any]], bool], timeout: float) -> dict[str, Any]:
        """Return the first event (an element of ``data.events``) that is *wanted*, once it has come.

        Raises
        ------
        TimeoutError
            It has not come within *timeout* seconds.
        """
        async with asyncio.timeout(timeout), self._arrived:
            while True:
                for event in self.events():
                    if wanted(event):
                        return event
                await self._arrived.wait()

    def events(self) -> list[dict[str, Any]]:
        """Return the events of all accepted ``room.events``, in the order they came, repeats included."""
        return [
            event
            for delivery in self.deliveries
            if delivery.fault is None and delivery.body["type"] == "room.events"
            for event in delivery.body["data"]["events"]
        ]

    async def _take(self, request: web.Request) -> web.Response:
        raw = await request.read()
        fault = fault_of(request.headers, raw, self._secret, self._now())
        body = orjson.loads(raw) if fault is None else None
        accepted = fault is None and 200 <= self._status < 300
        self.deliveries.append(
            Delivery(
                webhook_id=request.headers.get("webhook-id", ""),
                tenant=request.headers.get("x-tenant-id", ""),
                body=body,
                fault=fault if fault or accepted else f"answered {self._status} on purpose",
            )
        )
        if body is not None and accepted:
            self._tell(body)
        elif self._told:
            self._told(f"refused a webhook: {fault or f'answering {self._status} on purpose'}")
        async with self._arrived:
            self._arrived.notify_all()
        return web.Response(status=401 if fault else self._status)

    def _tell(self, body: Mapping[str, Any]) -> None:
        if self._told is None or body["type"] != "room.events":
            return
        room = body["data"]["room"]
        for item in body["data"]["events"]:
            key = (body["data"]["tenant"], item["event"]["event_id"])
            repeated = " (again)" if key in self._seen else ""
            self._seen.add(key)
            self._told(
                f"{body['data']['tenant']} {room['kind']} {room['slug']} #{item['sequence']}: "
                f"{item['event']['type']} from {item['sender']['user_id']}{repeated}"
            )


def main(arguments: list[str] | None = None) -> int:
    """Run the stand-in alone until it is interrupted."""
    parser = argparse.ArgumentParser(prog="stand_in", description="Takes webhooks in OpenMeet's place.")
    parser.add_argument("--listen", default="127.0.0.1:18080", metavar="HOST:PORT")
    parser.add_argument("--secret-file", type=Path, help="holds the endpoint's secret (whsec_…)")
    asked = parser.parse_args(arguments)
    secret = (
        asked.secret_file.read_text().strip()
        if asked.secret_file
        else os.environ.get("OPENMEET_WEBHOOK_SECRET", "")
    )
    if not secret.startswith("whsec_"):
        print("give the endpoint's secret: --secret-file, or OPENMEET_WEBHOOK_SECRET", file=sys.stderr)
        return 2
    host, _, port = asked.listen.rpartition(":")
    stand_in = StandIn(secret, told=lambda line: print(line, flush=True))
    web.run_app(stand_in.app(), host=host, port=int(port), print=None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
