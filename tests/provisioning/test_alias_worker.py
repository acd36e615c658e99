"""What strangers seek by an alias: made if they may find it, else as if it were not there."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from sqlalchemy import select

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.store import alias_lookups
from openmeet_appservice.store.alias_lookups import REMEMBERED, AliasLookup, State
from openmeet_appservice.store.tables import entities

from .conftest import Api, Clock
from .lookups import NOBODY, SPEC, Json, OpenMeet, World, answer, build, member

ONE = AliasLookup("t1", EntityKind.EVENT, "games")


@pytest.fixture
def world(parts: Parts, clock: Clock, api: Api) -> World:
    """What asks OpenMeet, which knows nothing."""
    return build(parts, clock, OpenMeet())


async def seek(world: World, one: AliasLookup = ONE) -> State:
    """Ask for one and have it answered; return how that ended."""
    now = world.clock.ms
    asked = await world.parts.database.write(alias_lookups.ask, one, now=now, wait_until=now + 3000)
    await world.aliases.once()
    if asked is State.ABSENT:
        return asked
    return await world.parts.database.read(alias_lookups.state, one, now=world.clock.ms)


async def stored(world: World) -> int:
    """How many events and groups there are, former ones too."""
    return len(await world.parts.database.read(lambda c: c.execute(select(entities.c.id)).all()))


async def test_what_openmeet_knows_is_made_with_its_members(api: Api, world: World) -> None:
    world.openmeet.things["event", "games"] = {
        "spec": SPEC,
        "members": [member("ada", "host"), member("bob")],
    }
    assert await seek(world) is State.OVER
    assert world.openmeet.asked == [{"tenant": "t1", "kind": "event", "slug": "games"}]
    assert (await world.state())["event games"]["members"] == {"ada": "host", "bob": "participant"}
    assert world.parts.wakeups.ticket("reconcile") > 0
    assert world.parts.wakeups.ticket("looked_up") > 0


async def test_fault_6_nobody_waits_for_thousands_of_members(api: Api, world: World) -> None:
    """The room first; they come by an ordinary hint."""
    world.openmeet.page = 500
    everybody = [member(f"u{number}") for number in range(1200)]
    world.openmeet.things["event", "games"] = {"spec": SPEC, "members": everybody}
    assert await seek(world) is State.OVER
    assert len(world.openmeet.asked) == 1
    assert (await world.state())["event games"]["members"] == {}
    await world.later(1)
    assert len(world.openmeet.asked) == 4
    assert len((await world.state())["event games"]["members"]) == 1200


@pytest.mark.parametrize(
    "more",
    [
        {"status": "draft"},
        {"status": "pending"},
        {"visibility": "private"},
        {"visibility": "private", "status": "draft"},
    ],
)
async def test_fault_28_what_is_hidden_is_like_what_is_not_there(api: Api, world: World, more: Json) -> None:
    world.openmeet.things["event", "games"] = {"spec": {**SPEC, **more}, "members": [member("ada")]}
    assert await seek(world) is State.ABSENT
    # Nothing is stored because a stranger asked, and it is remembered just as long.
    assert await stored(world) == 0
    assert await seek(world) is State.ABSENT
    assert len(world.openmeet.asked) == 1
    world.clock.ms += REMEMBERED + 1
    assert await seek(world) is State.ABSENT
    assert len(world.openmeet.asked) == 2


async def test_what_is_private_is_found_where_the_tenant_gives_it_an_alias(
    api: Api, admin: Api, world: World
) -> None:
    await admin.put("/tenants/t1", {"name": "One", "settings": {"rooms": {"private_alias": True}}})
    world.openmeet.things["event", "games"] = {"spec": {**SPEC, "visibility": "private"}}
    assert await seek(world) is State.OVER
    assert await stored(world) == 1


async def test_what_is_not_there_is_remembered_for_a_minute(api: Api, world: World) -> None:
    assert await seek(world) is State.ABSENT
    world.clock.ms += REMEMBERED - 1
    assert await seek(world) is State.ABSENT
    assert len(world.openmeet.asked) == 1
    world.openmeet.things["event", "games"] = {"spec": SPEC}
    world.clock.ms += 1
    assert await seek(world) is State.OVER
    assert await stored(world) == 1


@pytest.mark.parametrize(
    "said",
    [
        NOBODY,
        answer(500),
        answer(401),
        answer(200, b"{"),
        answer(200, {"spec": {**SPEC, "password": "x"}}),
        answer(200, {"spec": {**SPEC, "visibility": "secret"}}),
    ],
    ids=lambda said: said.outcome,
)
async def test_an_answer_that_says_nothing_makes_nothing_and_is_not_remembered(
    api: Api, world: World, said: Any
) -> None:
    world.openmeet.says = lambda _: said
    assert await seek(world) is State.OVER
    assert await stored(world) == 0
    world.openmeet.says = None
    world.openmeet.things["event", "games"] = {"spec": SPEC}
    assert await seek(world) is State.OVER
    assert await stored(world) == 1


async def test_an_answer_that_does_not_come_in_time_makes_nothing(
    api: Api, world: World, parts: Parts
) -> None:
    async def never(url: str, body: bytes, headers: dict[str, str]) -> Any:
        await asyncio.Event().wait()

    defaults = dataclasses.replace(parts.lookups, alias_timeout=0.01)
    world.aliases.lookup = dataclasses.replace(world.aliases.lookup, post=never, defaults=defaults)
    assert await asyncio.wait_for(seek(world), timeout=30) is State.OVER
    assert await stored(world) == 0


async def test_a_query_and_a_put_at_once_make_one(api: Api, world: World) -> None:
    async def slow(url: str, body: bytes, headers: dict[str, str]) -> Any:
        reply = await world.openmeet(url, body, headers)
        put = await api.put("/tenants/t1/events/games", {**SPEC, "name": "By PUT"})
        assert put.status == 202
        return reply

    world.openmeet.things["event", "games"] = {"spec": SPEC}
    world.aliases.lookup = dataclasses.replace(world.aliases.lookup, post=slow)
    assert await seek(world) is State.OVER
    assert await stored(world) == 1
    assert (await world.state())["event games"]["spec"]["name"] == "By PUT"


async def test_what_nobody_waits_for_any_more_is_not_asked(api: Api, world: World) -> None:
    now = world.clock.ms
    await world.parts.database.write(alias_lookups.ask, ONE, now=now, wait_until=now + 3000)
    world.clock.ms += 3000
    await world.aliases.once()
    assert world.openmeet.asked == []
    # And it is gone with the next that is.
    await seek(world, AliasLookup("t1", EntityKind.EVENT, "chess"))
    assert await world.parts.database.read(alias_lookups.state, ONE, now=world.clock.ms) is State.OVER


async def test_what_a_killed_worker_had_begun_is_asked_again_while_somebody_waits(
    api: Api, world: World
) -> None:
    now = world.clock.ms
    database = world.parts.database
    await database.write(alias_lookups.ask, ONE, now=now, wait_until=now + 30_000)
    assert len(await database.write(alias_lookups.claim, now=now, until=now + 5000, limit=8)) == 1
    assert await database.write(alias_lookups.claim, now=now, until=now + 5000, limit=8) == []
    world.clock.ms += 5001
    world.openmeet.things["event", "games"] = {"spec": SPEC}
    await world.aliases.once()
    assert await stored(world) == 1
