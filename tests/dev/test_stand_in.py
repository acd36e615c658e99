"""The stand-in takes what an outside library signed, and nothing else."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestClient, TestServer
from standardwebhooks import Webhook

from openmeet_appservice.dev import ports
from openmeet_appservice.dev.stand_in import TOLERANCE, StandIn, main

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()
NOW = 1_795_374_000


def body_of(*event_ids: str) -> bytes:
    """The body of a webhook with these events."""
    events = [
        {
            "sequence": number,
            "origin": "matrix",
            "sender": {"user_id": "@bob:x", "kind": "other"},
            "event": {"type": "m.room.message", "event_id": event_id},
        }
        for number, event_id in enumerate(event_ids, 1)
    ]
    room = {"kind": "event", "slug": "games", "room_id": "!a"}
    data = {"tenant": "t1", "room": room, "events": events}
    return json.dumps({"type": "room.events", "timestamp": "…", "data": data}).encode()


def signed(body: bytes, secret: str = SECRET, at: float = NOW, webhook_id: str = "w1") -> dict[str, str]:
    """The headers as the library makes them."""
    moment = datetime.fromtimestamp(at, UTC)
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": str(int(at)),
        "webhook-signature": Webhook(secret).sign(webhook_id, moment, body.decode()),
        "x-tenant-id": "t1",
    }


class Served:
    """A stand-in that is listening."""

    def __init__(self, stand_in: StandIn, client: TestClient[Any, Any], lines: list[str]) -> None:
        self.stand_in = stand_in
        self.client = client
        self.lines = lines

    async def post(self, body: bytes, headers: dict[str, str]) -> int:
        async with self.client.post("/webhooks", data=body, headers=headers) as response:
            return response.status


async def serve(status: int = 204) -> AsyncIterator[Served]:
    lines: list[str] = []
    stand_in = StandIn(SECRET, status=status, now=lambda: NOW, told=lines.append)
    async with TestClient(TestServer(stand_in.app())) as client:
        yield Served(stand_in, client, lines)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """One that takes everything."""
    async for one in serve():
        yield one


@pytest.fixture
async def failing() -> AsyncIterator[Served]:
    """One that answers 500."""
    async for one in serve(500):
        yield one


async def test_it_takes_what_is_signed_and_tells_of_each_event(served: Served) -> None:
    body = body_of("$1", "$2")
    assert await served.post(body, signed(body)) == 204
    assert await served.post(body, signed(body)) == 204
    assert [e["event"]["event_id"] for e in served.stand_in.events()] == ["$1", "$2", "$1", "$2"]
    assert served.lines[1] == "t1 event games #2: m.room.message from @bob:x"
    assert served.lines[3] == "t1 event games #2: m.room.message from @bob:x (again)"
    (first, _) = served.stand_in.deliveries
    assert (first.webhook_id, first.tenant, first.fault) == ("w1", "t1", None)


async def test_one_of_several_signatures_is_enough(served: Served) -> None:
    body = body_of("$1")
    headers = signed(body)
    others = signed(body, OTHER)["webhook-signature"]
    headers["webhook-signature"] = f"v1a,abc {others} {headers['webhook-signature']}"
    assert await served.post(body, headers) == 204


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"webhook-id": "w2"}, "signature"),
        ({"webhook-timestamp": str(NOW + 1)}, "signature"),
        ({"webhook-signature": ""}, "signature"),
        ({"webhook-signature": signed(body_of("$1"), OTHER)["webhook-signature"]}, "signature"),
        (signed(body_of("$1"), at=NOW - TOLERANCE - 1), "timestamp"),
        (signed(body_of("$1"), at=NOW + TOLERANCE + 1), "timestamp"),
        ({"webhook-timestamp": "soon"}, "header"),
        ({"webhook-id": ""}, "header"),
    ],
)
async def test_it_refuses_what_is_not_right(served: Served, change: dict[str, str], fault: str) -> None:
    body = body_of("$1")
    assert await served.post(body, signed(body) | change) == 401
    assert served.stand_in.events() == []
    (delivery,) = served.stand_in.deliveries
    assert fault in (delivery.fault or "")
    assert "refused" in served.lines[0]


async def test_it_refuses_another_body(served: Served) -> None:
    assert await served.post(body_of("$2"), signed(body_of("$1"))) == 401


async def test_what_it_is_told_to_refuse_did_not_arrive(failing: Served) -> None:
    body = body_of("$1")
    assert await failing.post(body, signed(body)) == 500
    assert failing.stand_in.events() == []
    assert failing.stand_in.deliveries[0].fault == "answered 500 on purpose"


async def test_waiting_for_an_event(served: Served) -> None:
    waiting = asyncio.create_task(
        served.stand_in.wait_for(lambda event: event["event"]["event_id"] == "$2", timeout=10)
    )
    for event_id in ("$1", "$2"):
        assert not waiting.done()
        body = body_of(event_id)
        await served.post(body, signed(body))
    assert (await waiting)["event"]["event_id"] == "$2"
    with pytest.raises(TimeoutError):
        await served.stand_in.wait_for(lambda event: False, timeout=0)


async def test_it_runs_alone(tmp_path: Path) -> None:
    secret, port = tmp_path / "webhook.secret", ports.any_free_port()
    secret.write_text(SECRET + "\n")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "openmeet_appservice.dev.stand_in",
        "--listen",
        f"127.0.0.1:{port}",
        "--secret-file",
        str(secret),
        stdout=asyncio.subprocess.PIPE,
    )
    body = body_of("$1")
    headers = signed(body, at=datetime.now(UTC).timestamp())
    async with ClientSession() as session, asyncio.timeout(30):
        while True:
            try:
                async with session.post(f"http://127.0.0.1:{port}/webhooks", data=body, headers=headers) as r:
                    assert r.status == 204
                    break
            except OSError:
                assert process.returncode is None
                await asyncio.sleep(0.05)
        assert process.stdout is not None
        assert re.match(rb"t1 event games #1: m.room.message", await process.stdout.readline())
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


def test_it_does_not_run_without_a_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENMEET_WEBHOOK_SECRET", raising=False)
    assert "OPENMEET_WEBHOOK_SECRET" not in os.environ
    assert main([]) == 2
    assert "--secret-file" in capsys.readouterr().err
