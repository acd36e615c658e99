"""Tenants, keys, and who may do what."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

import pytest
from sqlalchemy import Connection, text

from openmeet_appservice.domain.drift import Bans, Drift, DriftPolicy
from openmeet_appservice.domain.kinds import Access, AttendeeStatus, JoinPolicy
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.domain.tenant_settings import room_settings
from openmeet_appservice.store import tenants
from openmeet_appservice.web.routes import Access as RouteAccess
from openmeet_appservice.web.routes import Route

from .conftest import Api

SUPPLIED = "omk_tenant_" + "zyxwvuts" * 4
SPEC = {"name": "Games", "visibility": "public", "status": "published"}


async def test_a_tenant_is_made_once_whatever_its_case(admin: Api) -> None:
    made = await admin.put("/tenants/Tenant1", {"name": "One"})
    assert made.status == 201
    assert made.json == {
        "tenant": "Tenant1",
        "name": "One",
        "settings": {},
        "created_at": "2026-11-22T19:00:00.000Z",
        "updated_at": "2026-11-22T19:00:00.000Z",
        "etag": made.json["etag"],
        "lookup_secret": None,
    }
    same = await admin.put("/tenants/TENANT1", {"name": "One", "settings": {"rooms": {"access": None}}})
    assert (same.status, same.json) == (200, made.json)
    other = await admin.put("/tenants/tenant1", {"name": "Uno"}, If_Match=made.headers["ETag"])
    assert (other.status, other.json["name"], other.json["tenant"]) == (200, "Uno", "Tenant1")
    assert (await admin.put("/tenants/tenant1", {"name": "x"}, If_Match=made.headers["ETag"])).status == 412
    shown = (await admin.get("/tenants/tenant1")).json
    assert {**shown, "lookup_secret": None} == other.json
    assert (await admin.get("/tenants/none")).code == "tenant_not_found"
    assert (await admin.put("/tenants/a-b", {"name": "x"})).status == 422
    await admin.put("/tenants/another", {"name": "x"})
    assert [item["tenant"] for item in await admin.all("/tenants", 1)] == ["another", "Tenant1"]


async def test_one_tenant_made_ten_times_at_once(admin: Api) -> None:
    answers = await asyncio.gather(*(admin.put("/tenants/t", {"name": "T"}) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] * 9 + [201]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"colour": 1}, "/settings/colour"),
    ({"rooms": {"encrypted": "yes"}}, "/settings/rooms/encrypted"),
    ({"rooms": {"topic": "{where}"}}, "/settings/rooms/topic"),
    ({"rooms": {"joins": "auto"}}, "/settings/rooms/joins"),
    ({"rooms": {"drift": {"name": "keep"}}}, "/settings/rooms/drift/name"),
    ({"rooms": {"drift": {"members": "accept"}}}, "/settings/rooms/drift/members"),
    ({"rooms": {"access": "all"}}, "/settings/rooms/access"),
    ({"rooms": {"version": "10"}}, "/settings/rooms/version"),
    ({"rooms": {"power_levels": {"host": 101}}}, "/settings/rooms/power_levels/host"),
    ({"rooms": {"power_levels": {"king": 1}}}, "/settings/rooms/power_levels/king"),
    ({"rooms": {"join": "slowly"}}, "/settings/rooms/join"),
    ({"rooms": {"join_auto_limit": -1}}, "/settings/rooms/join_auto_limit"),
    ({"rooms": {"chat_statuses": []}}, "/settings/rooms/chat_statuses"),
    ({"rooms": {"chat_statuses": ["maybe", "maybe"]}}, "/settings/rooms/chat_statuses"),
]


async def test_wrong_settings_are_named(admin: Api) -> None:
    for settings, pointer in WRONG:
        wrong = await admin.put("/tenants/t1", {"name": "One", "settings": settings})
        assert (wrong.status, wrong.pointers) == (422, [pointer]), settings


async def test_settings_are_the_tenants_where_it_has_any(admin: Api) -> None:
    rooms = {
        "access": "anyone",
        "private_alias": True,
        "federate": True,
        "version": "11",
        "join": "lazy",
        "join_auto_limit": 7,
        "power_levels": {"speaker": 30},
        "chat_statuses": ["confirmed", "maybe"],
        "drift": {"name": "accept", "bans": "accept"},
    }
    made = await admin.put("/tenants/t1", {"name": "One", "settings": {"rooms": rooms}})
    assert made.json["settings"] == {"rooms": rooms}
    defaults = RoomSettings(
        alias="{kind}-{slug}-{tenant}",
        private_alias=False,
        version="12",
        federate=False,
        access=Access.MEMBERS,
        power_levels={"host": 100, "speaker": 25},
        chat_statuses=frozenset({AttendeeStatus.CONFIRMED}),
        drift=DriftPolicy(name=Drift.CORRECT, topic=Drift.ACCEPT),
    )
    tenant = await admin.database.read(tenants.get, "T1")
    assert tenant is not None
    assert room_settings(defaults, tenant.settings) == RoomSettings(
        alias="{kind}-{slug}-{tenant}",
        private_alias=True,
        version="11",
        federate=True,
        access=Access.ANYONE,
        power_levels={"host": 100, "speaker": 30},
        chat_statuses=frozenset({AttendeeStatus.CONFIRMED, AttendeeStatus.MAYBE}),
        join=JoinPolicy.LAZY,
        join_auto_limit=7,
        drift=DriftPolicy(name=Drift.ACCEPT, topic=Drift.ACCEPT, bans=Bans.ACCEPT),
    )
    await admin.put("/tenants/t1", {"name": "One"})
    tenant = await admin.database.read(tenants.get, "t1")
    assert tenant is not None
    assert room_settings(defaults, tenant.settings) == defaults


async def test_other_settings_have_every_room_looked_at(api: Api, admin: Api) -> None:
    for slug in ("a", "b", "c"):
        await api.put(f"/tenants/t1/events/{slug}", SPEC)
    await api.delete("/tenants/t1/events/c")
    await admin.put("/tenants/t2", {"name": "Two"})
    await admin.put("/tenants/t2/events/a", SPEC)
    await api.settle()
    await admin.put("/tenants/t1", {"name": "Uno"})
    assert await api.settle() == 0
    await admin.put("/tenants/t1", {"name": "Uno", "settings": {"rooms": {"access": "anyone"}}})
    assert (await api.get("/tenants/t1/events/a")).json["sync"]["phase"] == "pending"
    assert await api.settle() == 2


async def test_a_key_is_shown_once_and_kept_as_a_digest(admin: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await admin.put("/tenants/t1", {"name": "One"})
    made = await admin.post("/tenants/t1/keys", {"name": "backend"})
    assert made.status == 201
    key = made.json.pop("api_key")
    assert re.fullmatch(r"omk_tenant_[0-9a-f]{64}", key)
    assert made.json == {
        "id": made.json["id"],
        "scope": "tenant",
        "name": "backend",
        "created_at": "2026-11-22T19:00:00.000Z",
    }
    assert await admin.all("/tenants/T1/keys", 10) == [made.json]

    def everything(connection: Connection) -> str:
        return str(connection.execute(text("SELECT * FROM api_keys")).all())

    assert key not in await admin.database.read(everything)
    assert key not in caplog.text
    assert (await admin.with_key(key).get("/whoami")).status == 404
    assert (await admin.with_key(key).get("/tenants/t1/users")).status == 200
    assert (await admin.delete(f"/tenants/t1/keys/{made.json['id']}")).status == 202
    assert (await admin.with_key(key).get("/tenants/t1/users")).code == "unknown_key"
    assert (await admin.delete(f"/tenants/t1/keys/{made.json['id']}")).code == "key_not_found"


async def test_a_supplied_key(admin: Api) -> None:
    await admin.put("/tenants/t1", {"name": "One"})
    made = await admin.post("/tenants/t1/keys", {"name": "mine", "api_key": SUPPLIED})
    assert (made.status, made.json["api_key"]) == (201, SUPPLIED)
    assert (await admin.with_key(SUPPLIED).get("/tenants/t1/events")).status == 200
    again = await admin.post("/tenants/t1/keys", {"name": "mine", "api_key": SUPPLIED})
    assert (again.status, again.code) == (409, "key_in_use")
    for wrong in ("omk_tenant_short", "omk_tenant_" + "a" * 64, SUPPLIED.replace("tenant", "platform"), ""):
        refused = await admin.post("/tenants/t1/keys", {"name": "mine", "api_key": wrong})
        assert (refused.status, refused.pointers) == (422, ["/api_key"])
        assert not wrong or wrong not in str(refused.json)
    assert (await admin.post("/tenants/none/keys", {"name": "x"})).code == "tenant_not_found"


async def test_platform_keys(admin: Api) -> None:
    await admin.put("/tenants/t1", {"name": "One"})
    made = await admin.post("/keys", {"name": "backend"})
    assert (made.status, made.json["scope"]) == (201, "platform")
    assert made.json["api_key"].startswith("omk_platform_")
    platform = admin.with_key(made.json["api_key"])
    assert (await platform.put("/tenants/t1/users/a", {"display_name": "A"})).status == 202
    assert (await platform.put("/tenants/t9/users/a", {"display_name": "A"})).code == "tenant_not_found"
    assert [item["id"] for item in await admin.all("/keys", 10)] == [made.json["id"]]
    assert await admin.all("/tenants/t1/keys", 10) == []
    assert (await admin.delete(f"/tenants/t1/keys/{made.json['id']}")).status == 404
    assert (await admin.delete(f"/keys/{made.json['id']}")).status == 202
    assert (await platform.get("/tenants/t1/users")).status == 401


async def test_a_secret_is_never_replayed(admin: Api) -> None:
    first = await admin.post("/keys", {"name": "a"}, Idempotency_Key="k1")
    assert first.status == 201
    again = await admin.post("/keys", {"name": "a"}, Idempotency_Key="k1")
    assert (again.status, again.code) == (409, "secret_already_shown")
    other = await admin.post("/keys", {"name": "b"}, Idempotency_Key="k1")
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert len(await admin.all("/keys", 10)) == 1

    def everything(connection: Connection) -> str:
        return str(connection.execute(text("SELECT * FROM idempotency_keys")).all())

    assert first.json["api_key"] not in await admin.database.read(everything)
    admin.clock.ms += 24 * 3600 * 1000
    assert (await admin.post("/keys", {"name": "a"}, Idempotency_Key="k1")).status == 201


def path_for(route: Route, tenant: str) -> str:
    return route.path.removeprefix("/v1").format(
        tenant=tenant, user="ada", user_a="ada", user_b="bob", event="x", group="x", name="main", key_id="k"
    )


async def test_tenants_cannot_reach_each_other_by_any_route(admin: Api) -> None:
    callers = {}
    for tenant in ("t1", "t2"):
        await admin.put(f"/tenants/{tenant}", {"name": tenant})
        made = await admin.post(f"/tenants/{tenant}/keys", {"name": "k"})
        callers[tenant] = admin.with_key(made.json["api_key"])
    platform = admin.with_key((await admin.post("/keys", {"name": "p"})).json["api_key"])
    nobody = admin.with_key("omk_tenant_" + "0" * 64)
    seen = set()
    for route in admin.routes:
        seen.add(route.access)
        body = {"x": 1} if route.body else None
        for tenant in ("t1", "T2", "none"):
            path = path_for(route, tenant)
            answer = await callers["t1"].call(route.method, path, body)
            if route.access is not RouteAccess.TENANT:
                assert answer.status == 403, (str(route), tenant)
            elif tenant == "t1":
                assert answer.status not in {401, 403}, str(route)
            else:
                assert (answer.status, answer.code) == (404, "not_found"), (str(route), tenant)
            if route.access is RouteAccess.ADMIN:
                assert (await platform.call(route.method, path, body)).status == 403, str(route)
        assert (await nobody.call(route.method, path_for(route, "t1"), body)).status == 401, str(route)
    assert seen == {RouteAccess.ADMIN, RouteAccess.PLATFORM, RouteAccess.TENANT}
    assert len(await admin.all("/tenants/t2/users", 10)) == 0
