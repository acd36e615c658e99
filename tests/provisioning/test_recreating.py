"""Putting a new room in the place of a present one."""

from __future__ import annotations

import asyncio

from openmeet_appservice.store import rooms
from openmeet_appservice.store.rooms import Room

from .conftest import Api

EVENT = "/tenants/t1/events/Games"
SPEC = {"name": "Games", "visibility": "public", "status": "published"}


async def test_a_new_room_takes_the_place_of_the_old(api: Api) -> None:
    made = (await api.put(EVENT, SPEC)).json
    await api.settle()
    old = (await api.get(EVENT)).json["matrix"]["room_id"]
    asked = await api.post(f"{EVENT}/recreate", {})
    assert (asked.status, asked.json["sync"]["phase"]) == (202, "pending")
    assert asked.json["matrix"]["room_id"] is None
    assert asked.json["etag"] == made["etag"], "nothing else is wanted of it"
    await api.settle()
    read = (await api.get(EVENT)).json
    assert read["sync"]["phase"] == "ready"
    assert read["matrix"]["room_id"] not in (None, old)
    former, present = await _rooms(api, asked.json["etag"])
    assert (former.room_id, former.state, present.state) == (old, "replaced", "open")
    assert present.replaces == former.ref, "OpenMeet is told which one it replaces"


async def test_encryption_is_remembered(api: Api) -> None:
    made = (await api.put(EVENT, {**SPEC, "encrypted": True, "external_id": "e1"})).json
    await api.settle()
    asked = await api.post(f"{EVENT}/recreate", {"encrypted": False})
    assert asked.json["spec"]["encrypted"] is False
    assert asked.json["spec"]["external_id"] == "e1"
    assert asked.json["etag"] != made["etag"]
    await api.settle()
    assert (await api.post(f"{EVENT}/recreate", {})).json["spec"]["encrypted"] is False
    assert (await api.post(f"{EVENT}/recreate", {"encrypted": "no"})).status == 422


async def test_only_one_successor_is_made_at_a_time(api: Api) -> None:
    await api.put(EVENT, SPEC)
    early = await api.post(f"{EVENT}/recreate", {})
    assert (early.status, early.code) == (409, "room_not_ready")
    await api.settle()
    answers = await asyncio.gather(*(api.post(f"{EVENT}/recreate", {}) for _ in range(3)))
    assert sorted(answer.status for answer in answers) == [202, 409, 409]
    await api.settle()
    first = await api.post(f"{EVENT}/recreate", {}, Idempotency_Key="k")
    await api.settle()
    again = await api.post(f"{EVENT}/recreate", {}, Idempotency_Key="k")
    assert (first.status, again.json) == (202, first.json)
    assert len(await _rooms(api, first.json["etag"])) == 3


async def test_what_has_no_open_room_is_not_recreated(api: Api) -> None:
    assert (await api.post(f"{EVENT}/recreate", {})).code == "event_not_found"
    await api.put(EVENT, {**SPEC, "status": "draft"})
    draft = await api.post(f"{EVENT}/recreate", {})
    assert (draft.status, draft.code) == (409, "not_open")
    await api.put(EVENT, SPEC)
    await api.settle()
    stale = await api.call("POST", f"{EVENT}/recreate", {}, {"If-Match": '"other"'})
    assert stale.status == 412
    await api.delete(EVENT)
    assert (await api.post(f"{EVENT}/recreate", {})).code == "archived"


async def test_an_older_request_is_superseded(api: Api) -> None:
    await api.put(f"{EVENT}?as_of=2026-11-22T18:00:00Z", SPEC)
    await api.settle()
    late = await api.post(f"{EVENT}/recreate?as_of=2026-11-22T17:00:00Z", {"encrypted": True})
    assert (late.status, late.json["superseded"], late.json["spec"]["encrypted"]) == (200, True, None)
    assert late.json["matrix"]["room_id"]


async def _rooms(api: Api, etag: str) -> list[Room]:
    return await api.database.read(rooms.of_entity, "t1", etag.partition(".")[0])
