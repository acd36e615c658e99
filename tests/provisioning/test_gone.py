"""What OpenMeet does not know any more: archived only when that is certain, and never many at once."""

from __future__ import annotations

from typing import Any

import pytest

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.store import entities, gone, wanted

from .conftest import Api, Clock
from .lookups import ROOMS, SPEC, OpenMeet, World, answer, build, member

MINUTE, HOUR = 60_000, 3_600_000


@pytest.fixture
def world(parts: Parts, clock: Clock, api: Api) -> World:
    """What asks OpenMeet, which knows nothing."""
    return build(parts, clock, OpenMeet())


async def provision(api: Api, number: int) -> None:
    """Make some events."""
    for one in range(number):
        await api.put(f"/tenants/t1/events/e{one}", {**SPEC, "members": [member("ada")]})
    await api.settle()


async def hint(api: Api, *slugs: str, **more: Any) -> None:
    """Hint at events."""
    changes = [{"kind": "event", "slug": slug, **more} for slug in slugs]
    assert (await api.post("/tenants/t1/changes", {"changes": changes})).status == 202


async def in_use(world: World) -> set[str]:
    """Slugs of the events in use."""
    return {key.removeprefix("event ") for key in await world.state()}


async def held(api: Api, slug: str) -> bool:
    """Whether the event's end is held."""
    entity = await api.database.read(entities.find, "t1", EntityKind.EVENT, slug)
    assert entity is not None
    return await api.database.read(gone.is_held, "t1", entity.ref)


async def test_one_404_archives_nothing_until_it_is_repeated_after_an_hour(api: Api, world: World) -> None:
    await provision(api, 1)
    await hint(api, "e0")
    await world.follow()
    for _ in range(5):
        await world.later(10 * MINUTE)
        await hint(api, "e0")
        await world.follow()
        assert await in_use(world) == {"e0"}
    await world.later(11 * MINUTE)
    assert await in_use(world) == set()
    assert await world.waiting() == 0
    assert (await api.get("/tenants/t1/events/e0")).json["sync"]["phase"] in ("pending", "archived")


async def test_a_404_that_a_200_follows_is_forgotten(api: Api, world: World) -> None:
    await provision(api, 1)
    await hint(api, "e0")
    await world.follow()
    world.openmeet.things["event", "e0"] = {"spec": SPEC}
    await world.later(61 * MINUTE)
    del world.openmeet.things["event", "e0"]
    await hint(api, "e0")
    await world.follow()
    await world.later(59 * MINUTE)
    assert await in_use(world) == {"e0"}


async def test_what_a_hint_calls_deleted_is_archived_once_openmeet_confirms_it(
    api: Api, world: World
) -> None:
    await provision(api, 2)
    # This one is still there, whatever the hint says.
    world.openmeet.things["event", "e1"] = {"spec": SPEC}
    await hint(api, "e0", "e1", deleted=True)
    await world.follow()
    assert await in_use(world) == {"e1"}
    assert await world.waiting() == 0


@pytest.mark.parametrize(("number", "most"), [(30, 5), (499, 5), (700, 7)])
async def test_only_some_are_archived_in_an_hour(api: Api, world: World, number: int, most: int) -> None:
    await make_many(api, number)
    first = [f"e{one}" for one in range(12)]
    await hint(api, *first, deleted=True)
    await world.follow()
    assert len(await in_use(world)) == number - most
    assert [await held(api, slug) for slug in first].count(True) == 12 - most
    # Later as many again, without anybody having to ask.
    await world.later(HOUR + MINUTE)
    assert len(await in_use(world)) == number - min(12, 2 * most)
    await world.later(HOUR + MINUTE)
    assert len(await in_use(world)) == number - 12
    assert await world.waiting() == 0


async def make_many(api: Api, number: int) -> None:
    """Make many events, without the API's many requests."""

    def make(connection: Any) -> None:
        for one in range(number):
            slug = f"e{one}"
            made = entities.create(
                connection,
                "t1",
                EntityKind.EVENT,
                slug,
                alias=f"#event-{slug}-t1:example.org",
                spec={**SPEC, "access": None, "topic": None},
                external_id=None,
                as_of=None,
                now=api.clock.ms,
                new_id=api.parts.new_id,
            )
            assert made is not None
            entities.touch(connection, made, entities.Removals.FEW, now=api.clock.ms)

    await api.database.write(make)


async def test_an_endpoint_that_forgets_everything_costs_a_handful(api: Api, world: World) -> None:
    """A wrong route, a database restored empty: everything is 404, for days."""
    await make_many(api, 40)
    await world.worker._enrol_all()
    for _ in range(8):
        await world.later(30 * MINUTE)
    left = await in_use(world)
    assert len(left) >= 40 - 5 * 4
    # Once it is right again, nothing more goes, and what was held is so no longer.
    for slug in left:
        world.openmeet.things["event", slug] = {"spec": SPEC}
    for _ in range(10):
        await world.later(HOUR)
    assert await in_use(world) == left
    for slug in left:
        assert not await held(api, slug)


async def test_what_is_held_is_degraded_and_can_be_deleted(api: Api, world: World) -> None:
    await make_many(api, 10)
    await hint(api, *(f"e{one}" for one in range(6)), deleted=True)
    await api.settle()
    await world.follow()
    (slug,) = [f"e{one}" for one in range(6) if f"e{one}" in await in_use(world)]
    assert await held(api, slug)
    # It is due, so that the reconciler says why it is not as it should be.
    assert await api.settle() == 6
    assert (await api.delete(f"/tenants/t1/events/{slug}")).status == 202
    assert not await held_row(api, slug)


async def held_row(api: Api, slug: str) -> bool:
    """Whether what is read of the event for the reconciler says that it is held."""
    found = await api.database.read(wanted.entity_by_slug, "t1", EntityKind.EVENT, slug, defaults=ROOMS)
    assert found is not None
    return found.removal_held


async def test_another_thing_of_the_same_name_follows_the_first(api: Api, world: World) -> None:
    await api.put("/tenants/t1/groups/chess", {**SPEC, "external_id": "01"})
    world.openmeet.things["group", "chess"] = {"spec": {**SPEC, "name": "New", "external_id": "02"}}
    changes = [{"kind": "group", "slug": "chess"}]
    await api.post("/tenants/t1/changes", {"changes": changes})
    await world.follow()
    assert (await world.state())["group chess"]["external_id"] == "01"
    await world.later(61 * MINUTE)
    await world.later(MINUTE)
    state = (await world.state())["group chess"]
    assert (state["external_id"], state["spec"]["name"]) == ("02", "New")


async def test_what_is_not_in_use_here_is_not_missed(api: Api, world: World) -> None:
    await hint(api, "nobody-knows-it", deleted=True)
    await world.follow()
    assert (await world.waiting(), await world.turns()) == (0, {})


async def test_what_was_renamed_stays_itself(api: Api, world: World) -> None:
    body = {**SPEC, "external_id": "01", "members": [member("ada", "member")]}
    before = (await api.put("/tenants/t1/groups/chess", body)).json
    world.openmeet.things["group", "chess-club"] = {"spec": {**SPEC, "name": "New", "external_id": "01"}}
    changes = [{"kind": "group", "slug": "chess-club", "previous_slug": "chess"}]
    for _ in range(2):
        # Twice does no harm.
        await api.post("/tenants/t1/changes", {"changes": changes})
        await world.follow()
    state = await world.state()
    assert set(state) == {"group chess-club"}
    assert state["group chess-club"]["members"] == {"ada": "member"}
    after = (await api.get("/tenants/t1/groups/chess-club")).json
    assert after["etag"].partition(".")[0] == before["etag"].partition(".")[0]
    assert after["spec"]["name"] == "New"
    assert await world.waiting() == 0


async def test_another_thing_does_not_become_what_a_hint_calls_its_former_name(
    api: Api, world: World
) -> None:
    await api.put("/tenants/t1/groups/chess", {**SPEC, "external_id": "01"})
    world.openmeet.things["group", "chess"] = {"spec": {**SPEC, "external_id": "01"}}
    world.openmeet.things["group", "chess-club"] = {"spec": {**SPEC, "external_id": "02"}}
    changes = [{"kind": "group", "slug": "chess-club", "previous_slug": "chess"}]
    await api.post("/tenants/t1/changes", {"changes": changes})
    await world.follow()
    state = await world.state()
    assert {slug: one["external_id"] for slug, one in state.items()} == {
        "group chess": "01",
        "group chess-club": "02",
    }


async def test_a_404_that_is_older_than_a_write_counts_for_nothing(api: Api, world: World) -> None:
    await provision(api, 1)

    def says(_: Any) -> Any:
        return answer(404)

    world.openmeet.says = says
    await hint(api, "e0", deleted=True)
    await api.put("/tenants/t1/events/e0?as_of=2026-11-22T19:01:00Z", SPEC)
    await world.follow()
    assert await in_use(world) == {"e0"}
