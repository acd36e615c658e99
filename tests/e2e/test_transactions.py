"""Transactions of every kind, sent to the running program as Synapse sends them."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientSession

from .conftest import Stage
from .openmeet import event

MIB = 1024 * 1024


@dataclass(slots=True)
class Sender:
    """Sends transactions with *token* in Synapse's place."""

    session: ClientSession
    url: str
    token: str
    _ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    async def put(
        self, body: bytes | dict[str, Any], *, token: str | None = "", txn_id: str = ""
    ) -> tuple[int, Any]:
        """Send one, and return the status and the body of the answer; no *token* when None."""
        given = self.token if token == "" else token
        headers = {"Content-Type": "application/json"}
        if given is not None:
            headers["Authorization"] = f"Bearer {given}"
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"{self.url}/_matrix/app/v1/transactions/{txn_id or f'test-{next(self._ids)}'}"
        async with self.session.put(url, data=io.BytesIO(raw), headers=headers) as answer:
            text = await answer.text()
            assert "Traceback" not in text
            return answer.status, json.loads(text)


def message(room_id: str, text: str) -> dict[str, Any]:
    """Return a message as Synapse pushes it."""
    return {
        "type": "m.room.message",
        "event_id": f"${secrets.token_urlsafe(32)}",
        "room_id": room_id,
        "sender": "@somebody:hs.test",
        "origin_server_ts": 1_795_000_000_000,
        "content": {"msgtype": "m.text", "body": text},
    }


def of_size(size: int, events: list[Mapping[str, Any]]) -> bytes:
    """Return a transaction of exactly *size* bytes, filled up with events of a room nobody knows."""
    filler = [message("!unknown", "x" * 60_000) for _ in range(size // 60_400)]
    body = json.dumps({"events": [*events, *filler]}).encode()
    missing = size - len(body) - len(b', "fill": ""')
    assert missing >= 0
    return body[:-1] + b', "fill": "' + b"x" * missing + b'"}'


async def test_transactions_are_answered_as_the_contract_says(stage: Stage) -> None:
    installation = stage.install()
    service = await stage.start(installation)
    openmeet = await stage.openmeet(installation)
    await openmeet.put("/events/games", event("Games", {}))
    room_id = (await openmeet.ready("/events/games"))["matrix"]["room_id"]
    config = installation.config()
    synapse = Sender(stage.session, config.appservice.url, config.appservice.hs_token.get_secret_value())
    kept = []

    def fresh(text: str) -> dict[str, Any]:
        kept.append(message(room_id, text))
        return kept[-1]

    refused = {"events": [message(room_id, "never to be seen")]}
    status, body = await synapse.put(refused, token=None)
    assert (status, body["errcode"]) == (401, "M_MISSING_TOKEN")
    status, body = await synapse.put(refused, token="x" * 64)
    assert (status, body["errcode"]) == (403, "M_FORBIDDEN")

    for raw in (b"", b"{", b"\xff\xfe", b'{"events": [}'):
        status, body = await synapse.put(raw)
        assert (status, body["errcode"]) == (400, "M_NOT_JSON"), raw
    for raw in (b"{}", b"[]", b'{"events": null}', b'{"events": {}}'):
        status, body = await synapse.put(raw)
        assert (status, body["errcode"]) == (400, "M_BAD_JSON"), raw

    strange: list[Any] = [None, 7, "text", [], {}, {"event_id": 1, "room_id": room_id}]
    assert await synapse.put({"events": [*strange, fresh("after null"), None]}) == (200, {})

    assert await synapse.put(of_size(60 * MIB, [fresh("in 60 MiB")])) == (200, {})
    status, body = await synapse.put(of_size(65 * MIB, [message(room_id, "in 65 MiB")]))
    assert (status, body["errcode"]) == (413, "M_TOO_LARGE")

    copies = {"events": [fresh(f"copied {number}") for number in range(20)]}
    answers = await asyncio.gather(*(synapse.put(copies, txn_id="same") for _ in range(10)))
    assert answers == [(200, {})] * 10
    # The id begins again after a restart of Synapse; what it holds is new all the same.
    assert await synapse.put({"events": [fresh("under an old id")]}, txn_id="same") == (200, {})

    await stage.receiver.has([each["event_id"] for each in kept])
    assert stage.receiver.texts(room_id) == [each["content"]["body"] for each in kept]
    stage.receiver.check()
    assert await service.terminate() == 0


async def test_tokens_during_and_after_a_rotation(stage: Stage) -> None:
    fresh = secrets.token_hex(32)
    during = stage.install(APPSERVICE__HS_TOKEN_NEXT=fresh)
    config = during.config()
    old = config.appservice.hs_token.get_secret_value()
    service = await stage.start(during)
    synapse = Sender(stage.session, config.appservice.url, old)
    assert await synapse.put({"events": []}) == (200, {})
    assert await synapse.put({"events": []}, token=fresh) == (200, {})
    assert await service.terminate() == 0

    await stage.start(stage.install(APPSERVICE__HS_TOKEN=fresh))
    assert await synapse.put({"events": []}, token=fresh) == (200, {})
    status, body = await synapse.put({"events": []}, token=old)
    assert (status, body["errcode"]) == (403, "M_FORBIDDEN")
