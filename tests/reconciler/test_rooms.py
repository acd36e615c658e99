"""The whole of the reconciler against a real Synapse: what OpenMeet wants is there."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url

from openmeet_appservice.domain.actions import CreateRoom
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.store import rooms, schema
from openmeet_appservice.store.database import open_database
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.members import Standing

from .conftest import BOT, SERVER, TENANT, Service, World, make_service, names, until

pytestmark = pytest.mark.asyncio(loop_scope="session")
both_versions = pytest.mark.parametrize("version", ["11", "12"])


@pytest_asyncio.fixture(loop_scope="session")
async def on_postgresql(world: World, postgresql_server: str) -> AsyncIterator[Service]:
    """A reconciler on PostgreSQL at work."""
    name = f"test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgresql_server)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    url = make_url(postgresql_server).set(database=name).render_as_string(hide_password=False)
    database = open_database(url)
    await database.write(schema.migrate)
    made = await make_service(world, database, None)
    await made.start()
    yield made
    await made.stop()
    await made.proxy.stop()
    await database.close()


@pytest_asyncio.fixture(loop_scope="session")
async def of_version(world: World, tmp_path: Path, version: str) -> AsyncIterator[Service]:
    """A reconciler at work that makes rooms of one version."""
    database = open_database(f"sqlite:///{tmp_path / 'test.db'}")
    await database.write(schema.migrate)
    made = await make_service(world, database, version)
    await made.start()
    yield made
    await made.stop()
    await made.proxy.stop()
    await database.close()


async def test_a_user_is_registered_and_named_and_named_anew(running: Service) -> None:
    ref = await running.put_user("ada", "Ada Lovelace")
    await running.settled(ref, "user")
    assert await running.homeserver.display_name(running.user_id("ada")) == "Ada Lovelace"
    await running.put_user("ada", "Countess")
    await running.settled(ref, "user")
    assert await running.homeserver.display_name(running.user_id("ada")) == "Countess"
    assert running.proxy.count("POST", "/register") == 1


async def test_a_name_that_another_process_set_at_the_same_time_is_put_right(running: Service) -> None:
    ref = await running.put_user("ada", "Ada Lovelace")
    await running.settled(ref, "user")
    await running.homeserver.set_display_name(running.user_id("ada"), "An older name")
    await running.put_user("ada", "Ada Lovelace")
    await running.settled(ref, "user")
    assert await running.homeserver.display_name(running.user_id("ada")) == "Ada Lovelace"


async def _story(service: Service, world: World, version: str) -> None:
    await service.put_user("ada", "Ada Lovelace")
    event = await service.put(
        "games",
        topic="Bring one",
        who={
            "ada": "host",
            "bob": "moderator",
            "cyd": "participant",
            "dan": Standing("participant", "waitlist"),
        },
    )
    await service.settled(event)
    room_id = await service.room_id(event)
    assert await world.person.resolve_alias(service.alias("games")) == room_id
    state = await service.state(room_id)
    assert names(state) == ("Games", "Bring one")
    assert state["m.room.create"].get("room_version") == version
    assert state["m.room.join_rules"]["join_rule"] == "invite"
    assert state["m.room.history_visibility"]["history_visibility"] == "shared"
    assert state["m.room.guest_access"]["guest_access"] == "forbidden"
    assert state["m.room.canonical_alias"] == {"alias": service.alias("games")}
    assert await service.homeserver.room_visibility(room_id) == "public"
    ada, bob, cyd = (service.user_id(name) for name in ("ada", "bob", "cyd"))
    assert await service.inside(room_id) == {ada, bob, cyd}
    host = 100 if version == "12" else 99
    expected = {ada: host, bob: 50} | ({} if version == "12" else {BOT: 100})
    assert state["m.room.power_levels"]["users"] == expected
    assert await service.homeserver.display_name(bob) == service.slug("bob"), "a placeholder has its slug"
    assert [room.alias for room in await service.rooms(event)] == [service.alias("games")]


@both_versions
async def test_a_public_event_from_nothing(of_version: Service, world: World, version: str) -> None:
    await _story(of_version, world, version)


async def test_the_same_on_postgresql(on_postgresql: Service, world: World) -> None:
    await _story(on_postgresql, world, "12")


@both_versions
async def test_roles_and_members_change(of_version: Service, version: str) -> None:
    service = of_version
    event = await service.put("talk", who={"ada": "host", "bob": "participant", "cyd": "moderator"})
    await service.settled(event)
    room_id = await service.room_id(event)
    await service.put("talk", who={"ada": "host", "bob": "moderator", "dan": "speaker"})
    await service.settled(event)
    ada, bob, dan = (service.user_id(name) for name in ("ada", "bob", "dan"))
    assert await service.inside(room_id) == {ada, bob, dan}
    users = (await service.state(room_id))["m.room.power_levels"]["users"]
    users.pop(BOT, None)
    assert users == {ada: 100 if version == "12" else 99, bob: 50, dan: 25}


async def test_one_member_more_costs_a_few_requests(running: Service) -> None:
    who: dict[str, str | Standing] = {f"u{number}": "participant" for number in range(6)}
    event = await running.put("club", who=who)
    await running.settled(event)
    running.proxy.seen.clear()
    await running.put("club", who=who | {"new": "participant"})
    await running.settled(event)
    assert running.proxy.count("POST", "/join") == 1
    assert len(running.proxy.seen) <= 8, [f"{s.method} {s.path}" for s in running.proxy.seen]


async def test_nothing_is_asked_while_nothing_changes(running: Service) -> None:
    event = await running.put("quiet", who={"ada": "host"})
    await running.settled(event)
    running.proxy.seen.clear()
    await running.put("other")
    await running.settled(await running.put("other"))
    assert running.proxy.count("GET", await running.room_id(event)) == 0


async def test_a_private_group_has_no_alias_and_is_not_listed(running: Service, world: World) -> None:
    group = await running.put(
        "secret", kind=EntityKind.GROUP, visibility="private", who={"ada": "owner", "gil": "guest"}
    )
    await running.settled(group)
    room_id = await running.room_id(group)
    assert await running.homeserver.room_aliases(room_id) == set()
    assert (await running.state(room_id)).get("m.room.canonical_alias", {}) == {}
    assert await running.homeserver.room_visibility(room_id) == "private"
    assert await running.inside(room_id) == {running.user_id("ada")}, "a group's guest only applied"
    with pytest.raises(HomeserverRefused) as caught:
        await world.person.resolve_alias(running.alias("secret", "group"))
    assert caught.value.status == 404
    (room,) = await running.rooms(group)
    assert room.alias is None
    with pytest.raises(HomeserverRefused) as caught:
        await world.person.resolve_alias(room.lock_alias)
    assert caught.value.status == 404


async def test_anyone_may_join_where_access_says_so(running: Service, world: World) -> None:
    event = await running.put("open", visibility="unlisted", access="anyone", who={"ada": "host"})
    await running.settled(event)
    room_id = await world.person.join(running.alias("open"))
    assert room_id == await running.room_id(event)
    assert await running.homeserver.room_visibility(room_id) == "private"
    await running.put("open", visibility="unlisted", access="anyone", name="Wide open", who={})
    await running.settled(event)
    assert await running.inside(room_id) == {world.person.user_id}, "strangers stay, puppets go"


async def test_private_becomes_public_and_private_again(running: Service, world: World) -> None:
    event = await running.put("shy", visibility="private", who={"ada": "host"})
    await running.settled(event)
    room_id = await running.room_id(event)
    await running.put("shy", visibility="public")
    await running.settled(event)
    assert await world.person.resolve_alias(running.alias("shy")) == room_id
    assert (await running.rooms(event))[0].alias == running.alias("shy")
    await running.put("shy", visibility="private")
    await running.settled(event)
    with pytest.raises(HomeserverRefused):
        await world.person.resolve_alias(running.alias("shy"))
    assert (await running.rooms(event))[0].alias is None
    assert await running.room_id(event) == room_id


async def test_name_and_topic_change_and_a_cancelled_event_says_so(running: Service) -> None:
    event = await running.put("picnic", topic="In the park")
    await running.settled(event)
    room_id = await running.room_id(event)
    await running.put("picnic", name="Picnic (moved)", topic="At home", status="cancelled")
    await running.settled(event)
    assert names(await running.state(room_id)) == ("Picnic (moved)", "Cancelled. At home")


async def test_a_draft_gets_a_room_only_once_published(running: Service) -> None:
    event = await running.put("plan", status="draft", who={"ada": "host"})
    await running.settled(event)
    assert await running.rooms(event) == []
    await running.put("plan", status="published")
    await running.settled(event)
    assert await running.inside(await running.room_id(event)) == {running.user_id("ada")}


@both_versions
async def test_closed_and_opened_again(of_version: Service, world: World, version: str) -> None:
    service = of_version
    event = await service.put("party", who={"ada": "host", "bob": "participant"})
    await service.settled(event)
    room_id = await service.room_id(event)
    await service.put("party", status="draft")
    await service.settled(event)
    assert await service.inside(room_id) == set()
    state = await service.state(room_id)
    assert state["m.room.canonical_alias"] == {}
    assert state["m.room.power_levels"]["events_default"] == (150 if version == "12" else 100)
    assert await service.homeserver.room_visibility(room_id) == "private"
    with pytest.raises(HomeserverRefused):
        await world.person.resolve_alias(service.alias("party"))
    await service.put("party", status="published")
    await service.settled(event)
    assert await service.room_id(event) == room_id
    assert await world.person.resolve_alias(service.alias("party")) == room_id
    assert await service.inside(room_id) == {service.user_id("ada"), service.user_id("bob")}


async def test_fault_32_a_slug_used_again_gets_a_fresh_room(running: Service, world: World) -> None:
    first = await running.put("annual", who={"ada": "host"})
    await running.settled(first)
    old = await running.room_id(first)
    await running.archive("annual")
    second = await running.put("annual", who={"bob": "host"})
    assert second.ref != first.ref
    await running.settled(first)
    await running.settled(second)
    new = await running.room_id(second)
    assert new != old
    assert await world.person.resolve_alias(running.alias("annual")) == new
    assert await running.inside(old) == set()
    assert (await running.state(old))["m.room.canonical_alias"] == {}
    assert [room.alias for room in await running.rooms(first)] == [None]


async def test_removing_many_is_held_until_confirmed(running: Service) -> None:
    everybody: dict[str, str | Standing] = {f"m{number}": "participant" for number in range(24)}
    event = await running.put("crowd", who={"ada": "host", **everybody})
    await running.settled(event)
    room_id = await running.room_id(event)
    await running.put("crowd", name="Crowd, smaller", who={"ada": "host"})
    status = await running.failed(event, "mass_removal_held")
    assert status.error is not None
    assert "24 of 25" in status.error.detail
    assert "confirm_removals=true" in status.error.detail
    assert status.due_at is not None
    assert len(await running.inside(room_id)) == 25
    assert names(await running.state(room_id))[0] == "Crowd, smaller", "the rest is done"
    await running.put("crowd", name="Crowd, smaller", confirmed=True)
    await running.settled(event)
    assert await running.inside(room_id) == {running.user_id("ada")}


async def test_whom_a_moderator_banned_is_reported_and_not_unbanned(running: Service) -> None:
    event = await running.put("strict", who={"ada": "host", "bob": "participant"})
    await running.settled(event)
    room_id = await running.room_id(event)
    bob = running.user_id("bob")
    await running.homeserver.ban(room_id, bob, as_user=running.user_id("ada"))
    await running.put("strict", name="Stricter")
    status = await running.failed(event, "member_banned")
    assert status.error is not None
    assert bob in status.error.detail
    assert (await running.memberships(room_id))[bob] == "ban"
    assert names(await running.state(room_id))[0] == "Stricter"


@both_versions
async def test_bans_and_mutes_come_and_go(of_version: Service, version: str) -> None:
    service = of_version
    who: dict[str, str | Standing] = {"ada": "host", "bob": "moderator", "cyd": "participant"}
    event = await service.put("games", who=who)
    await service.settled(event)
    room_id = await service.room_id(event)
    bob, cyd = service.user_id("bob"), service.user_id("cyd")
    banned = Standing("moderator", banned=True)
    await service.put("games", who={**who, "bob": banned, "cyd": Standing("participant", muted=True)})
    await service.settled(event)
    assert (await service.memberships(room_id))[bob] == "ban"
    assert (await service.state(room_id))["m.room.power_levels"]["users"][cyd] == -1
    with pytest.raises(HomeserverRefused):
        await service.homeserver.send(
            room_id, "m.room.message", new_id("txn"), {"msgtype": "m.text", "body": "?"}, as_user=cyd
        )
    await service.put("games", who={"ada": "host", "cyd": "participant"})
    await service.settled(event)
    assert (await service.memberships(room_id))[bob] == "ban", "nobody is unbanned silently"
    await service.homeserver.send(
        room_id, "m.room.message", new_id("txn"), {"msgtype": "m.text", "body": "!"}, as_user=cyd
    )
    await service.put("games", who=who)
    await service.settled(event)
    assert bob in await service.inside(room_id)


async def test_the_dry_run_changes_nothing(running: Service) -> None:
    event = await running.put("show", who={"ada": "host"}, status="draft")
    await running.settled(event)
    reconciler = running.reconciler
    assert reconciler is not None
    slug = running.slug("show")
    explained = await reconciler.explain(TENANT.upper(), EntityKind.EVENT, slug.upper())
    assert explained is not None
    assert explained.plan.actions == ()
    await running.put("show", status="published")
    await running.settled(event)
    await running.homeserver.set_state(await running.room_id(event), "m.room.name", {"name": "Odd"})
    explained = await reconciler.explain(TENANT, EntityKind.EVENT, slug)
    assert explained is not None
    assert [action.name for action in explained.plan.actions] == ["set_state"]
    assert names(await running.state(await running.room_id(event)))[0] == "Odd"
    assert await reconciler.explain(TENANT, EntityKind.EVENT, "nothing") is None


async def test_what_half_a_creation_left_is_finished(service: Service) -> None:
    event = await service.put("half", who={"ada": "host"})
    claim = "c" * 32
    await _claim(service, event.ref, claim, service.alias("half"))
    with pytest.raises(HomeserverRefused):
        # Alias and first events are stored before Synapse finds that the name is too long.
        await service.homeserver.create_room(
            CreateRoom(
                service.alias("half")[1:].partition(":")[0], {"room_version": "12", "name": "x" * 70_000}
            ).request(claim)
        )
    made = await service.homeserver.resolve_alias(service.alias("half"))
    assert made is not None
    await service.start()
    await service.settled(event)
    assert await service.room_id(event) == made
    assert names(await service.state(made))[0] == "Half"
    assert await service.inside(made) == {service.user_id("ada")}
    assert await service.homeserver.room_visibility(made) == "public"


async def test_a_claim_whose_alias_is_no_longer_wanted_makes_no_second_room(service: Service) -> None:
    event = await service.put("turn", who={"ada": "host"}, visibility="private")
    claim = "d" * 32
    await _claim(service, event.ref, claim, service.alias("turn"))
    made = await service.homeserver.create_room(
        CreateRoom(service.alias("turn")[1:].partition(":")[0], {"room_version": "12"}).request(claim)
    )
    await service.start()
    await service.settled(event)
    assert await service.room_id(event) == made
    assert await service.homeserver.room_aliases(made) == set()


async def test_a_claim_whose_alias_is_no_longer_wanted_locks_with_another(service: Service) -> None:
    event = await service.put("swerve", visibility="private")
    await _claim(service, event.ref, "e" * 32, service.alias("swerve"))
    await service.start()
    await service.settled(event)
    (room,) = await service.rooms(event)
    assert room.lock_alias == f"#_openmeet_{'e' * 32}:{SERVER}"
    assert service.proxy.count("POST", "/createRoom") == 1


async def test_an_archived_event_whose_room_may_have_been_made_is_closed(service: Service) -> None:
    event = await service.put("gone", who={"ada": "host"})
    claim = "f" * 32
    await _claim(service, event.ref, claim, service.alias("gone"))
    made = await service.homeserver.create_room(
        CreateRoom(service.alias("gone")[1:].partition(":")[0], {"room_version": "12"}).request(claim)
    )
    await service.archive("gone")
    await service.start()
    await service.settled(event)
    assert await service.room_id(event) == made
    assert await service.homeserver.room_aliases(made) == set()
    assert (await service.state(made))["m.room.power_levels"]["events_default"] == 150


async def test_a_room_that_nobody_can_enter_any_more_is_replaced(running: Service, world: World) -> None:
    event = await running.put("lost", who={})
    await running.settled(event)
    old = await running.room_id(event)
    await running.homeserver.leave(old)
    await running.put("lost", name="Found")
    await running.failed(event, "room_lost")

    async def is_replaced() -> bool:
        return len(await running.rooms(event)) == 2

    await until(is_replaced, "a new room")
    await running.settled(event)
    new = await running.room_id(event)
    assert new != old
    assert await world.person.resolve_alias(running.alias("lost")) == new
    assert [room.state for room in await running.rooms(event)] == ["former", "open"]


async def _claim(service: Service, ref: str, claim: str, lock_alias: str) -> None:
    await service.database.write(
        rooms.claim, TENANT, ref, claim=claim, lock_alias=lock_alias, now=1, new_id=new_id
    )
