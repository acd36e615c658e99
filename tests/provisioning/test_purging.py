"""Deleting events and groups for good, as far as the API has to do with it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from aiohttp.test_utils import TestClient

from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.routes import routes
from openmeet_appservice.store import entities, erasing, rooms
from openmeet_appservice.store.database import Database

from .conftest import Api, ClientMaker, Clock, application

EVENT = "/tenants/t1/events/Games"
SPEC = {"name": "Games", "visibility": "public", "status": "published"}


@pytest.fixture
async def purging(parts: Parts, clock: Clock, aiohttp_client: ClientMaker) -> Api:
    """The API where an admin's token is configured, called with the admin key."""
    able = replace(parts, can_purge=True)
    served = routes(able)
    client: TestClient = await aiohttp_client(application(able, served))  # type: ignore[type-arg]
    api = Api(client, able.database, able, clock, served)
    assert (await api.put("/tenants/t1", {"name": "One"})).status == 201
    return api


async def _erase(api: Api, etag: str) -> None:
    """Do what the reconciler does once Synapse has deleted the rooms."""
    ref = etag.partition(".")[0]
    entity = await api.database.read(entities.get, "t1", ref)
    assert entity is not None
    known = await api.database.read(rooms.of_entity, "t1", ref)
    assert await api.database.write(erasing.finish, entity, [room.ref for room in known])
    api.parts.wakeups.wake("reconciled")


async def test_without_an_admins_token_nothing_is_done(api: Api) -> None:
    await api.put(EVENT, SPEC)
    await api.settle()
    refused = await api.delete(f"{EVENT}?purge=true")
    assert (refused.status, refused.code) == (409, "purge_unavailable")
    assert (await api.get(EVENT)).json["sync"]["phase"] == "ready"
    assert await api.settle() == 0
    assert (await api.delete(f"{EVENT}?purge=false")).status == 202


async def test_it_is_readable_until_it_is_done_and_then_404(purging: Api) -> None:
    await purging.put(EVENT, SPEC)
    await purging.settle()
    asked = await purging.delete(f"{EVENT}?purge=true")
    assert (asked.status, asked.json["sync"]["phase"]) == (202, "deleting")
    assert (await purging.get(EVENT)).json["sync"]["phase"] == "deleting"
    again = await purging.delete(f"{EVENT}?purge=true")
    assert (again.status, again.json["sync"]) == (202, asked.json["sync"])
    assert (await purging.delete(EVENT)).json["sync"]["phase"] == "deleting"
    await purging.fail("admin_token_refused")
    stuck = (await purging.get(EVENT)).json["sync"]
    assert (stuck["phase"], stuck["last_error"]["code"]) == ("degraded", "admin_token_refused")
    await _erase(purging, asked.json["etag"])
    for method in ("GET", "DELETE", "PATCH"):
        gone = await purging.call(method, EVENT, {} if method == "PATCH" else None)
        assert (gone.status, gone.code) == (404, "event_not_found")
    assert (await purging.put(EVENT, SPEC)).status == 202


async def test_what_is_archived_can_be_deleted_for_good_later(purging: Api) -> None:
    await purging.put(EVENT, SPEC)
    await purging.settle()
    await purging.delete(EVENT)
    await purging.settle()
    assert (await purging.get(EVENT)).json["sync"]["phase"] == "archived"
    asked = await purging.delete(f"{EVENT}?purge=true")
    assert (asked.status, asked.json["sync"]["phase"]) == (202, "deleting")
    assert await purging.settle() == 1


async def test_whoever_waits_is_answered_when_it_is_gone(purging: Api) -> None:
    made = await purging.put(EVENT, SPEC)
    waiting = asyncio.create_task(purging.delete(f"{EVENT}?purge=true&wait=20"))
    async with asyncio.timeout(20):
        while (await purging.get(EVENT)).json["sync"]["phase"] != "deleting":
            await asyncio.sleep(0.01)
    await _erase(purging, made.json["etag"])
    answer = await waiting
    assert (answer.status, answer.json["slug"], answer.json["sync"]["phase"]) == (202, "Games", "deleting")
    assert (await purging.get(EVENT)).status == 404


async def test_an_older_request_is_superseded(purging: Api) -> None:
    await purging.put(f"{EVENT}?as_of=2026-11-22T18:00:00Z", SPEC)
    late = await purging.delete(f"{EVENT}?purge=true&as_of=2026-11-22T17:00:00Z")
    assert (late.status, late.json["superseded"], late.json["sync"]["phase"]) == (200, True, "pending")


async def test_the_slug_is_free_at_once(purging: Api) -> None:
    old = await purging.put(EVENT, {**SPEC, "external_id": "e1"})
    await purging.delete(f"{EVENT}?purge=true")
    new = await purging.put(EVENT, {**SPEC, "external_id": "e2"})
    assert (new.status, new.json["etag"] == old.json["etag"]) == (202, False)
    await _erase(purging, old.json["etag"])
    assert (await purging.get(EVENT)).json["spec"]["external_id"] == "e2"


async def test_an_older_one_under_the_slug_does_not_come_to_light(purging: Api, database: Database) -> None:
    await purging.put(EVENT, {**SPEC, "name": "First"})
    await purging.delete(EVENT)
    second = await purging.put(EVENT, {**SPEC, "name": "Second"})
    await purging.delete(f"{EVENT}?purge=true")
    await _erase(purging, second.json["etag"])
    assert (await purging.get(EVENT)).status == 404
