"""From Matrix back to OpenMeet."""

from __future__ import annotations

from urllib.parse import quote

import orjson

from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.store import event_log

from .conftest import BOT, Api

SPEC = {"name": "Games", "visibility": "public", "status": "published", "external_id": "e7"}


async def ask(api: Api, what: str, name: str, tenant: str | None = "t1") -> tuple[int, object]:
    base = "" if tenant is None else f"/tenants/{tenant}"
    answer = await api.get(f"{base}/resolve?{what}={quote(name, safe='')}")
    return answer.status, answer.json if answer.status == 200 else answer.json["code"]


async def test_every_name_leads_back(api: Api, admin: Api) -> None:
    await api.put("/tenants/t1/events/Games", SPEC)
    await api.put("/tenants/t1/users/Ada", {"display_name": "Ada"})
    await admin.put("/tenants/t2", {"name": "Two"})
    await api.settle()
    room_id = (await api.get("/tenants/t1/events/games")).json["matrix"]["room_id"]
    event = {
        "event_id": "$e1",
        "room_id": room_id,
        "type": "m.room.message",
        "sender": "@x:example.org",
        "content": {},
    }
    arrival = read_event(orjson.loads(orjson.dumps(event)))
    assert isinstance(arrival, Arrival)
    await api.database.write(event_log.append, [arrival], now=1, bot=BOT)
    its = {"tenant": "t1", "kind": "event", "slug": "Games", "external_id": "e7"}
    ada = {"tenant": "t1", "kind": "user", "slug": "Ada", "external_id": None}
    for what, name, expected in (
        ("room_id", room_id, its),
        ("alias", "#event-games-t1:example.org", its),
        ("alias", "#EVENT-Games-t1:example.org", its),
        ("event_id", "$e1", its),
        ("user_id", "@openmeet_t1_ada:example.org", ada),
    ):
        assert await ask(api, what, name) == (200, expected)
        assert await ask(admin, what, name, tenant=None) == (200, expected)
        assert await ask(admin, what, name, tenant="t2") == (404, "not_resolved")
        assert await ask(admin, what, name + "x", tenant=None) == (404, "not_resolved")


async def test_a_reused_slugs_alias_is_the_new_ones(api: Api) -> None:
    await api.put("/tenants/t1/events/games", SPEC)
    await api.settle()
    old_room = (await api.get("/tenants/t1/events/games")).json["matrix"]["room_id"]
    await api.delete("/tenants/t1/events/games")
    alias = "#event-games-t1:example.org"
    assert (await ask(api, "alias", alias))[1] == {**SPEC_OF, "external_id": "e7"}
    await api.put("/tenants/t1/events/games", {**SPEC, "external_id": "e8"})
    assert (await ask(api, "alias", alias))[1] == {**SPEC_OF, "external_id": "e8"}
    assert (await ask(api, "room_id", old_room))[1] == {**SPEC_OF, "external_id": "e7"}


SPEC_OF = {"tenant": "t1", "kind": "event", "slug": "games"}


async def test_exactly_one_name_is_asked_for(api: Api) -> None:
    for query in ("", "?room_id=!a&alias=%23b"):
        wrong = await api.get(f"/tenants/t1/resolve{query}")
        assert (wrong.status, wrong.pointers) == (422, ["?"])
