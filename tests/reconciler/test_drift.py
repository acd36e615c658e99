"""Changes that others make in a room, against a real Synapse: set right, accepted, or fought over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest_asyncio
from sqlalchemy import Connection

from openmeet_appservice.domain.drift import Drift, DriftPolicy
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.metrics import REGISTRY
from openmeet_appservice.store import schema, sync
from openmeet_appservice.store.database import open_database
from openmeet_appservice.store.entities import Entity

from .conftest import BOT, TENANT, Service, World, make_service, names
from .test_rooms import both_versions, on_postgresql, pytestmark

__all__ = ["on_postgresql", "pytestmark"]

WRITES = ("PUT", "POST", "DELETE")


async def accepting(world: World, tmp_path: Path, policy: DriftPolicy, version: str | None) -> Service:
    """Return a reconciler whose tenants let hosts change what *policy* says, not started."""
    database = open_database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.write(schema.migrate)
    made = await make_service(world, database, version)
    made.settings = replace(made.settings, rooms=replace(made.settings.rooms, drift=policy))
    return made


@pytest_asyncio.fixture(loop_scope="session")
async def tolerant(world: World, tmp_path: Path) -> AsyncIterator[Service]:
    """A reconciler at work that accepts other names and power levels."""
    made = await accepting(
        world, tmp_path, DriftPolicy(name=Drift.ACCEPT, power_levels=Drift.ACCEPT), version="11"
    )
    await made.start()
    yield made
    await made.stop()
    await made.proxy.stop()
    await made.database.close()


@pytest_asyncio.fixture(loop_scope="session")
async def of_version(world: World, tmp_path: Path, version: str) -> AsyncIterator[Service]:
    """A reconciler at work that makes rooms of one version."""
    made = await accepting(world, tmp_path, DriftPolicy(), version)
    await made.start()
    yield made
    await made.stop()
    await made.proxy.stop()
    await made.database.close()


async def compared(service: Service, entity: Entity) -> None:
    """Have the room compared again, as what Synapse pushes does, and return once it was."""

    def poke(connection: Connection) -> None:
        sync.poke(connection, TENANT, "entity", entity.ref, now=1)

    await service.database.write(poke)
    service.wakeups.wake("reconcile")
    await service.settled(entity)


def writes(service: Service) -> list[str]:
    """Return the requests since the last look that write."""
    seen = [f"{one.method} {one.path}" for one in service.proxy.seen if one.method in WRITES]
    service.proxy.seen.clear()
    return seen


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"openmeet_as_{name}", labels) or 0.0


async def rename(service: Service, room_id: str, name: str, who: str) -> None:
    await service.homeserver.set_state(room_id, "m.room.name", {"name": name}, as_user=service.user_id(who))


async def _set_right(service: Service) -> None:
    event = await service.put("games", topic="Bring dice", who={"ada": "host", "bob": "moderator"})
    await service.settled(event)
    room_id = await service.room_id(event)
    before = metric("drift_total", field="name", outcome="corrected")
    await rename(service, room_id, "Party", "ada")
    await service.homeserver.set_state(
        room_id, "m.room.topic", {"topic": "Bring beer"}, as_user=service.user_id("bob")
    )
    writes(service)
    await compared(service, event)
    assert names(await service.state(room_id)) == ("Games", "Bring dice")
    assert len(writes(service)) == 2
    assert metric("drift_total", field="name", outcome="corrected") == before + 1
    await compared(service, event)
    assert writes(service) == [], "the second reconcile writes nothing"


@both_versions
async def test_a_host_renames_the_room_and_a_moderator_changes_the_topic(
    of_version: Service, version: str
) -> None:
    await _set_right(of_version)


async def test_the_same_on_postgresql(on_postgresql: Service) -> None:
    await _set_right(on_postgresql)


@both_versions
async def test_40_powers_that_others_gave_are_dropped(of_version: Service, version: str) -> None:
    """OpenMeet's own service only ever adds to the map of users: who was there once keeps the power."""
    service = of_version
    event = await service.put("powers", who={"ada": "host", "bob": "moderator"})
    await service.settled(event)
    room_id = await service.room_id(event)
    levels = (await service.state(room_id))["m.room.power_levels"]
    more = {**levels, "users": {**levels["users"], "@gone:hs.test": 50}, "users_default": 50}
    await service.homeserver.set_state(room_id, "m.room.power_levels", more)
    writes(service)
    await compared(service, event)
    after = (await service.state(room_id))["m.room.power_levels"]
    assert (after["users"], after["users_default"]) == (levels["users"], 0)
    assert len(writes(service)) == 1
    await service.put("powers", who={"ada": "host"})
    await service.settled(event)
    left = (await service.state(room_id))["m.room.power_levels"]["users"].keys() - {BOT}
    assert left == {service.user_id("ada")}


async def test_a_member_who_was_removed_is_let_in_again(running: Service) -> None:
    event = await running.put("club", who={"ada": "host", "bob": "participant"})
    await running.settled(event)
    room_id, bob = await running.room_id(event), running.user_id("bob")
    await running.homeserver.kick(room_id, bob, as_user=running.user_id("ada"))
    await compared(running, event)
    assert bob in await running.inside(room_id)


async def test_a_bot_that_left_comes_back_where_anyone_may_join(running: Service) -> None:
    event = await running.put("open", access="anyone", who={"ada": "host"})
    await running.settled(event)
    room_id = await running.room_id(event)
    await running.homeserver.leave(room_id)
    await rename(running, room_id, "Ours now", "ada")
    await compared(running, event)
    assert BOT in await running.homeserver.joined_members(room_id)
    assert names(await running.state(room_id))[0] == "Open"


async def test_a_bot_that_cannot_come_back_says_who_can_help(running: Service) -> None:
    event = await running.put("shut", who={"ada": "host"})
    await running.settled(event)
    room_id = await running.room_id(event)
    await running.homeserver.leave(room_id)
    await running.put("shut", name="Shut up")
    status = await running.failed(event, "bot_locked_out")
    assert status.error is not None
    assert "must invite it" in status.error.detail
    await running.homeserver.invite(room_id, BOT, as_user=running.user_id("ada"))
    await compared(running, event)
    assert names(await running.state(room_id))[0] == "Shut up"


async def test_a_bot_without_power_says_who_can_help(world: World, tmp_path: Path) -> None:
    service = await accepting(world, tmp_path, DriftPolicy(), "11")
    await service.start()
    try:
        event = await service.put("lowered", topic="Bring dice", who={"ada": "host"})
        await service.settled(event)
        room_id, ada = await service.room_id(event), service.user_id("ada")
        levels = (await service.state(room_id))["m.room.power_levels"]
        # Only the bot itself can do this, or a host of a room that was made otherwise.
        lowered = {**levels, "users": {BOT: 50, ada: 100}}
        await service.homeserver.set_state(room_id, "m.room.power_levels", lowered)
        await service.homeserver.set_state(room_id, "m.room.topic", {"topic": "Bring beer"}, as_user=ada)
        await service.database.write(sync.poke, TENANT, "entity", event.ref, now=1)
        service.wakeups.wake("reconcile")
        status = await service.failed(event, "bot_demoted")
        assert status.error is not None
        assert ada in status.error.detail
        assert names(await service.state(room_id))[1] == "Bring dice", "what it still can, it does"
        await service.homeserver.set_state(room_id, "m.room.power_levels", levels, as_user=ada)
        await compared(service, event)
    finally:
        await service.stop()
        await service.proxy.stop()
        await service.database.close()


async def test_what_a_host_says_stays_until_openmeet_says_something_new(tolerant: Service) -> None:
    event = await tolerant.put("games", topic="Bring dice", who={"ada": "host", "bob": "participant"})
    await tolerant.settled(event)
    room_id = await tolerant.room_id(event)
    before = metric("drift_total", field="name", outcome="accepted")
    await rename(tolerant, room_id, "Party", "ada")
    writes(tolerant)
    await compared(tolerant, event)
    await compared(tolerant, event)
    assert writes(tolerant) == []
    assert metric("drift_total", field="name", outcome="accepted") == before + 1
    # Something new of another field is nothing new of this one; also for a process that begins anew.
    await tolerant.stop()
    await tolerant.start()
    await tolerant.put("games", topic="Bring cards")
    await tolerant.settled(event)
    assert names(await tolerant.state(room_id)) == ("Party", "Bring cards")
    await tolerant.put("games", topic="Bring cards", name="Card games")
    await tolerant.settled(event)
    assert names(await tolerant.state(room_id)) == ("Card games", "Bring cards")
    # And saying the old name again is something new, too.
    await tolerant.put("games", topic="Bring cards", name="Games")
    await tolerant.settled(event)
    assert names(await tolerant.state(room_id))[0] == "Games"


async def test_two_who_rename_the_room_against_each_other_come_to_rest(running: Service) -> None:
    event = await running.put("fight", who={"ada": "host", "bob": "participant"})
    await running.settled(event)
    room_id = await running.room_id(event)
    for number in range(5):
        await rename(running, room_id, f"Party {number}", "ada")
        await compared(running, event)
        assert names(await running.state(room_id))[0] == "Fight"
    await rename(running, room_id, "Party for ever", "ada")
    writes(running)
    await running.database.write(sync.poke, TENANT, "entity", event.ref, now=1)
    running.wakeups.wake("reconcile")
    status = await running.failed(event, "drift_contested")
    assert status.error is not None
    assert "again" in status.error.detail
    assert writes(running) == []
    assert names(await running.state(room_id))[0] == "Party for ever"
    # A new process remembers it, and what OpenMeet newly says is written all the same.
    await running.stop()
    await running.start()
    await running.put("fight", name="Peace")
    await running.settled(event)
    assert names(await running.state(room_id))[0] == "Peace"


async def test_the_dry_run_says_why_and_writes_nothing(tolerant: Service) -> None:
    event = await tolerant.put("show", topic="Bring dice", who={"ada": "host"})
    await tolerant.settled(event)
    room_id = await tolerant.room_id(event)
    await rename(tolerant, room_id, "Party", "ada")
    await tolerant.homeserver.set_state(
        room_id, "m.room.topic", {"topic": "Bring beer"}, as_user=tolerant.user_id("ada")
    )
    writes(tolerant)
    stored = (await tolerant.status(event.ref)).memory
    assert tolerant.reconciler is not None
    found = await tolerant.reconciler.explain(TENANT, EntityKind.EVENT, tolerant.slug("show"))
    assert found is not None
    shown: dict[str, Any] = found.verdict.to_json()
    assert [(one["event_type"], one["reason"]) for one in shown["actions"]] == [
        ("m.room.topic", "topic differs: 'Bring beer' on Matrix, 'Bring dice' wanted by OpenMeet")
    ]
    assert shown["accepted"] == [
        {
            "field": "name",
            "reason": "accepted by rooms.drift.name: name differs: 'Party' on Matrix, "
            "'Show' wanted by OpenMeet",
        }
    ]
    sides = found.sides()
    assert sides["desired"] is not None
    assert sides["actual"] is not None
    assert (sides["desired"]["name"], sides["actual"]["name"]) == ("Show", "Party")
    assert sides["actual"]["members"] == {"join": 2}
    assert writes(tolerant) == []
    assert (await tolerant.status(event.ref)).memory == stored
