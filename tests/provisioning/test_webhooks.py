"""Webhook endpoints."""

from __future__ import annotations

import asyncio
import base64

from sqlalchemy import Connection, text

from .conftest import Api

HOOK = "/tenants/t1/webhooks/main"
URL = "https://api.openmeet.net/hook"
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


async def test_a_secret_is_made_and_shown_once(api: Api) -> None:
    made = await api.put(HOOK, {"url": URL})
    assert made.status == 201
    secret = made.json.pop("secret")
    assert secret.startswith("whsec_")
    assert made.json == {
        "tenant": "t1",
        "name": "main",
        "url": URL,
        "created_at": "2026-11-22T19:00:00.000Z",
        "updated_at": "2026-11-22T19:00:00.000Z",
        "etag": made.json["etag"],
    }
    again = await api.put(HOOK, {"url": URL})
    assert (again.status, again.json["secret"], again.json["etag"]) == (200, None, made.json["etag"])
    assert (await api.get(HOOK)).json == made.json
    assert await api.all("/tenants/t1/webhooks", 10) == [made.json]

    def stored(connection: Connection) -> str:
        return str(connection.execute(text("SELECT secret FROM endpoints")).scalar_one())

    sealed = await api.database.read(stored)
    assert secret not in sealed
    assert api.parts.secrets.open(sealed) == secret


async def test_a_supplied_secret_is_not_repeated(api: Api) -> None:
    made = await api.put(HOOK, {"url": URL, "secret": SECRET})
    assert (made.status, made.json["secret"]) == (201, None)
    same = await api.put(HOOK, {"url": URL, "secret": SECRET})
    assert (same.status, same.json["etag"]) == (200, made.json["etag"])
    moved = await api.put(HOOK, {"url": f"{URL}2"}, If_Match=made.headers["ETag"])
    assert (moved.status, moved.json["url"]) == (200, f"{URL}2")
    assert (await api.put(HOOK, {"url": URL}, If_Match=made.headers["ETag"])).status == 412


WRONG: list[tuple[dict[str, object], list[str]]] = [
    ({}, ["/url"]),
    ({"url": "http://api.openmeet.net/"}, ["/url"]),
    ({"url": "https://127.0.0.1/"}, ["/url"]),
    ({"url": "ftp://x.org"}, ["/url"]),
    ({"url": URL, "secret": "hunter2"}, ["/secret"]),
    ({"url": URL, "types": ["room.events"]}, ["/types"]),
]


async def test_what_is_wrong_is_named(api: Api) -> None:
    for body, pointers in WRONG:
        wrong = await api.put(HOOK, body)
        assert (wrong.status, wrong.pointers) == (422, pointers), body
        assert "hunter2" not in str(wrong.json)


async def test_it_can_be_removed(api: Api) -> None:
    made = await api.put(HOOK, {"url": URL})
    assert (await api.delete(HOOK, If_Match='"x"')).status == 412
    assert (await api.delete(HOOK, If_Match=made.headers["ETag"])).status == 202
    assert (await api.get(HOOK)).code == "webhook_not_found"
    assert (await api.delete(HOOK)).code == "webhook_not_found"
    assert (await api.put(HOOK, {"url": URL})).status == 201


async def test_ten_at_once_make_one_and_show_one_secret(api: Api) -> None:
    answers = await asyncio.gather(*(api.put(HOOK, {"url": URL}) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] * 9 + [201]
    assert sum(answer.json["secret"] is not None for answer in answers) == 1
