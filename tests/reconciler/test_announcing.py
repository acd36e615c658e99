"""When OpenMeet is told what of its events, groups and users, on both databases."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, select

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.webhook_types import ROOM_ARCHIVED, ROOM_READY
from openmeet_appservice.reconciler.announcing import (
    PATIENCE,
    Announcer,
    Success,
    after_success,
    tells_failure,
)
from openmeet_appservice.reconciler.failures import Failure
from openmeet_appservice.reconciler.results import Result
from openmeet_appservice.store import (
    endpoints,
    entities,
    event_log,
    kicks,
    member_errors,
    puppets,
    rooms,
    sync,
    tenants,
    users,
)
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_row import Wanted
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.rooms import Room
from openmeet_appservice.store.sync import Announced, Lease, SyncError
from openmeet_appservice.store.tables import notices
from openmeet_appservice.store.wakeups import Wakeups

BOT = "@bot:example.org"
NOW = 1_795_374_000_000

WAITS = Failure("homeserver_refused", "no", 1000)
LASTS = Failure("alias_taken", "points elsewhere", 1000, lasting=True)
AWAY = Failure("homeserver_unreachable", "away", 1000)


@pytest.mark.parametrize(
    ("announced", "is_open", "archived", "has_room", "expected"),
    [
        (None, True, False, True, Success(ROOM_READY, "ready")),
        ("degraded", True, False, True, Success(ROOM_READY, "ready")),
        ("ready", True, False, True, Success(None, "ready")),
        ("lacking", True, False, True, Success(ROOM_READY, "ready")),
        # A draft: nothing is told, and once it is published it is told anew.
        (None, False, False, False, Success(None, None)),
        ("ready", False, False, True, Success(None, None)),
        ("degraded", False, False, True, Success(None, None)),
        ("ready", False, True, True, Success(ROOM_ARCHIVED, "archived")),
        (None, False, True, True, Success(ROOM_ARCHIVED, "archived")),
        ("degraded", False, True, True, Success(ROOM_ARCHIVED, "archived")),
        ("archived", False, True, True, Success(None, "archived")),
        # It never had a room.
        (None, False, True, False, Success(None, None)),
    ],
)
def test_what_is_told_once_it_agrees(
    announced: Announced | None, is_open: bool, archived: bool, has_room: bool, expected: Success
) -> None:
    assert after_success(announced, is_open=is_open, archived=archived, has_room=has_room) == expected


@pytest.mark.parametrize(
    ("announced", "failure", "attempts", "expected"),
    [
        (None, LASTS, 1, True),
        ("ready", LASTS, 1, True),
        ("degraded", LASTS, 1, False),
        ("lacking", LASTS, 1, True),
        # Something newer is wanted already.
        (None, LASTS, 0, False),
        (None, WAITS, PATIENCE - 1, False),
        (None, WAITS, PATIENCE, True),
        ("archived", WAITS, PATIENCE, True),
        ("degraded", WAITS, 99, False),
        (None, AWAY, 99, False),
    ],
)
def test_which_failures_are_told(
    announced: Announced | None, failure: Failure, attempts: int, expected: bool
) -> None:
    assert tells_failure(announced, failure, attempts=attempts) is expected


@dataclass
class Told:
    """A tenant with one endpoint, and the announcer."""

    database: Database
    wakeups: Wakeups = field(default_factory=Wakeups)
    ids: Any = field(default_factory=lambda: itertools.count(1))

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self.ids):04}"

    @property
    def announcer(self) -> Announcer:
        return Announcer(self.database, self.wakeups, now=lambda: NOW, new_id=self.new_id)

    async def entity(self, slug: str = "Picnic", status: str = "published") -> Entity:
        def create(connection: Connection) -> Entity:
            made = entities.create(
                connection,
                "t1",
                EntityKind.EVENT,
                slug,
                alias=f"#event-{slug.lower()}-t1:example.org",
                spec={"name": slug, "visibility": "public", "status": status},
                external_id="77",
                as_of=None,
                now=1,
                new_id=self.new_id,
            )
            assert made is not None
            sync.touch(connection, "t1", "entity", made.ref, now=1)
            return made

        return await self.database.write(create)

    async def room(self, entity: Entity, room_id: str) -> Room:
        def make(connection: Connection) -> Room:
            assert entity.alias is not None
            made = rooms.claim(
                connection,
                "t1",
                entity.ref,
                claim=f"claim{room_id}",
                lock_alias=entity.alias,
                now=next(self.ids),
                new_id=self.new_id,
            )
            event_log.record_room_id(connection, "t1", made.ref, room_id, "12", now=1, bot=BOT)
            rooms.set_alias(connection, "t1", made.ref, entity.alias)
            return made

        return await self.database.write(make)

    async def lease(self, ref: str) -> Lease:
        def take(connection: Connection) -> Lease:
            sync.poke(connection, "t1", "entity", ref, now=NOW)
            [lease] = sync.claim_due(connection, now=NOW, lease=1000, limit=9)
            return lease

        return await self.database.write(take)

    async def finish(self, entity: Entity, lacking: SyncError | None = None) -> None:
        lease = await self.lease(entity.ref)
        await self.announcer.finish(lease, Result(lease.generation, lacking=lacking))

    async def fail(self, entity: Entity, failure: Failure = WAITS) -> None:
        await self.announcer.fail(await self.lease(entity.ref), failure, now=NOW, retry_at=NOW + 5000)

    async def bodies(self) -> list[dict[str, Any]]:
        """Return what was told, in order, and forget it."""

        def take(connection: Connection) -> list[str]:
            found = list(connection.execute(select(notices.c.body).order_by(notices.c.id)).scalars())
            connection.execute(notices.delete())
            return found

        return [json.loads(body) for body in await self.database.write(take)]

    async def types(self) -> list[str]:
        return [body["type"] for body in await self.bodies()]


@pytest.fixture
async def told(database: Database) -> Told:
    told = Told(database)

    def fill(connection: Connection) -> None:
        tenants.create(connection, "T1", name="", settings={}, now=1)
        endpoints.put(
            connection,
            "t1",
            "main",
            Wanted("https://x.example"),
            secret_encrypted=None,
            fresh_secret_encrypted="",
            now=1,
            new_id=told.new_id,
        )

    await database.write(fill)
    return told


def shown(room: Room, room_id: str | None = "!1") -> dict[str, Any]:
    return {
        "kind": "event",
        "slug": "Picnic",
        "external_id": "77",
        "room_id": room_id,
        "alias": "#event-picnic-t1:example.org",
        "log_id": room.log_id,
    }


async def test_a_room_that_is_ready_is_told_once(told: Told) -> None:
    entity = await told.entity()
    room = await told.room(entity, "!1")
    ticket = told.wakeups.ticket("notify")
    await told.finish(entity)
    assert told.wakeups.ticket("notify") == ticket + 1
    assert await told.bodies() == [
        {
            "type": "room.ready",
            "timestamp": "2026-11-22T19:00:00.000Z",
            "data": {"tenant": "T1", "room": shown(room), "room_version": "12"},
        }
    ]
    await told.finish(entity)
    assert await told.bodies() == []
    assert told.wakeups.ticket("notify") == ticket + 1


async def test_a_room_that_is_degraded_is_told_once_and_again_when_it_is_ready(told: Told) -> None:
    entity = await told.entity()
    room = await told.room(entity, "!1")
    await told.finish(entity)
    for _ in range(PATIENCE - 1):
        await told.fail(entity)
    assert await told.types() == ["room.ready"]
    for _ in range(3):
        await told.fail(entity)
    [body] = await told.bodies()
    assert body["type"] == "room.degraded"
    assert body["data"] == {
        "tenant": "T1",
        "room": shown(room),
        "error": {
            "code": "homeserver_refused",
            "detail": "no",
            "at": "2026-11-22T19:00:00.000Z",
            "attempts": PATIENCE,
            "next_attempt_at": "2026-11-22T19:00:05.000Z",
        },
    }
    await told.finish(entity)
    assert await told.types() == ["room.ready"]


async def test_what_has_no_room_yet_is_told_to_be_degraded_without_one(told: Told) -> None:
    entity = await told.entity()
    await told.fail(entity, LASTS)
    [body] = await told.bodies()
    assert body["data"]["room"] == {
        "kind": "event",
        "slug": "Picnic",
        "external_id": "77",
        "room_id": None,
        "alias": None,
        "log_id": None,
    }


async def test_a_deleted_entity_s_room_is_told_to_be_archived_once_it_is_closed(told: Told) -> None:
    entity = await told.entity()
    await told.room(entity, "!1")
    await told.finish(entity)

    def archive(connection: Connection) -> None:
        entities.archive(connection, entity, as_of=None, now=2)
        sync.touch(connection, "t1", "entity", entity.ref, now=2)

    # Deleted while a run for what was wanted before is under way: that says nothing of the room now.
    lease = await told.lease(entity.ref)
    await told.database.write(archive)
    await told.announcer.finish(lease, Result(lease.generation))
    assert await told.types() == ["room.ready"]
    await told.finish(entity)
    assert await told.types() == ["room.archived"]
    await told.finish(entity)
    assert await told.types() == []


@pytest.mark.parametrize("was_told", [False, True])
async def test_what_is_deleted_for_good_is_told_to_be_archived_if_it_was_not(
    told: Told, was_told: bool
) -> None:
    event = await told.entity()
    room = await told.room(event, "!one")
    await told.database.write(entities.archive, event, as_of=None, now=2)
    if was_told:
        await told.finish(event)
        assert await told.types() == ["room.archived"]
    assert not await told.announcer.erase("t1", event.ref, []), "its room is not deleted yet"
    assert await told.types() == []
    assert await told.announcer.erase("t1", event.ref, [room.ref])
    bodies = await told.bodies()
    assert [body["type"] for body in bodies] == ([] if was_told else ["room.archived"])
    for body in bodies:
        assert (body["data"]["room"]["slug"], body["data"]["room"]["room_id"]) == ("Picnic", "!one")
    assert await told.announcer.erase("t1", event.ref, [room.ref]), "doing it again does no harm"
    assert await told.types() == []


async def test_what_is_told_after_a_change_of_members(told: Told) -> None:
    entity = await told.entity()
    await told.room(entity, "!1")
    await told.finish(entity)
    await told.database.write(member_errors.replace, "t1", entity.ref, {"@ada:x": "no"}, now=1)

    async def finish(*, lacking: SyncError | None = None, is_part: bool) -> None:
        def take(connection: Connection) -> Lease:
            sync.change(connection, "t1", "entity", entity.ref, now=NOW, whole=False)
            [lease] = sync.claim_due(connection, now=NOW, lease=1000, limit=9)
            return lease

        lease = await told.database.write(take)
        await told.announcer.finish(lease, Result(lease.generation, lacking=lacking, is_part=is_part))

    # Of the rest nothing is known then.
    await finish(is_part=True)
    assert await told.types() == ["room.ready"]
    assert await told.database.read(member_errors.of, "t1", entity.ref, "@ada:x") is not None
    # The whole was compared all the same, and what is lacking is told.
    await finish(lacking=SyncError("image_unavailable", "HTTP 404", NOW), is_part=False)
    assert await told.types() == ["room.degraded"]
    assert await told.database.read(member_errors.of, "t1", entity.ref, "@ada:x") is None


async def test_a_draft_is_not_told_of(told: Told) -> None:
    entity = await told.entity(status="draft")
    await told.finish(entity)
    await told.room(entity, "!1")
    await told.finish(entity)
    assert await told.types() == []


@pytest.mark.parametrize("succeeds", [True, False])
async def test_a_room_in_the_place_of_another_is_told_once(told: Told, succeeds: bool) -> None:
    entity = await told.entity()
    first = await told.room(entity, "!1")
    await told.finish(entity)
    # A second one made for the same claim was never used, so none takes its place.
    await told.database.write(
        rooms.add_orphan, first, "!orphan", "12", now=next(told.ids), new_id=told.new_id
    )
    assert await told.types() == ["room.ready"]

    def lose(connection: Connection) -> None:
        for room in rooms.of_entity(connection, "t1", entity.ref):
            rooms.set_state(connection, "t1", room.ref, "former")

    await told.database.write(lose)
    second = await told.room(entity, "!2")
    await (told.finish if succeeds else told.fail)(entity)
    [body] = await told.bodies()
    assert body["type"] == "room.replaced"
    assert body["data"] == {
        "tenant": "T1",
        "room": shown(second, "!2"),
        "replaced": {"room_id": "!1", "log_id": first.log_id},
    }
    await told.finish(entity)
    assert await told.types() == []


async def test_what_holds_nothing_back_is_told_only_of_a_room_that_is_ready(
    told: Told, valid_webhook: Callable[[str | bytes], dict[str, Any]]
) -> None:
    entity = await told.entity()
    await told.room(entity, "!1")

    def broken(attempts: int, code: str = "image_unavailable") -> SyncError:
        return SyncError(code, "Its picture: HTTP 404", NOW, attempts, NOW + 5000)

    await told.finish(entity, broken(PATIENCE - 1))
    assert await told.types() == ["room.ready"]
    await told.finish(entity, broken(99, "homeserver_unreachable"))
    assert await told.types() == []
    await told.finish(entity, broken(PATIENCE))
    [body] = await told.bodies()
    assert valid_webhook(json.dumps(body))["type"] == "room.degraded"
    assert body["data"]["error"] == {
        "code": "image_unavailable",
        "detail": "Its picture: HTTP 404",
        "at": "2026-11-22T19:00:00.000Z",
        "attempts": PATIENCE,
        "next_attempt_at": "2026-11-22T19:00:05.000Z",
    }
    await told.finish(entity, broken(PATIENCE + 1))
    assert await told.types() == [], "once is enough"
    await told.fail(entity, LASTS)
    await told.finish(entity, broken(PATIENCE + 2))
    assert await told.types() == ["room.degraded", "room.ready", "room.degraded"]
    await told.finish(entity)
    assert await told.types() == ["room.ready"]


async def test_a_lost_lease_tells_nothing(told: Told) -> None:
    entity = await told.entity()
    await told.room(entity, "!1")
    lost = await told.lease(entity.ref)
    await told.database.write(sync.release, lost, now=NOW)
    await told.lease(entity.ref)
    await told.announcer.finish(lost, Result(lost.generation))
    for _ in range(PATIENCE):
        await told.announcer.fail(lost, LASTS, now=NOW, retry_at=NOW)
    assert await told.types() == []


async def test_a_puppet_s_first_name_is_told(told: Told) -> None:
    def create(connection: Connection) -> str:
        made = users.create(
            connection,
            "t1",
            "Ada",
            user_id="@openmeet_t1_ada:example.org",
            spec={"display_name": "Ada L."},
            external_id="9",
            as_of=None,
            now=1,
            new_id=told.new_id,
        )
        assert made is not None
        return made.ref

    ref = await told.database.write(create)
    puppet = await told.database.read(puppets.get, "t1", ref)
    assert puppet is not None
    assert await told.announcer.named(puppet)
    [body] = await told.bodies()
    assert (body["type"], body["data"]) == (
        "user.ready",
        {
            "tenant": "T1",
            "user": {"user": "Ada", "external_id": "9", "user_id": "@openmeet_t1_ada:example.org"},
        },
    )
    # Read before the name was recorded: another process was faster.
    assert not await told.announcer.named(puppet)
    assert await told.types() == []


async def test_somebody_who_is_denied_is_told_of(told: Told) -> None:
    entity = await told.entity()
    room = await told.room(entity, "!1")
    await told.announcer.removed(room, "@stranger:example.org", "not a member", denied=True, counted=False)
    [body] = await told.bodies()
    assert (body["type"], body["data"]) == (
        "member.denied",
        {
            "tenant": "T1",
            "room": shown(room),
            "member": {"user_id": "@stranger:example.org", "user": None, "external_id": None},
            "reason": "not a member",
        },
    )


async def test_a_user_who_is_denied_is_named(told: Told) -> None:
    entity = await told.entity()
    room = await told.room(entity, "!1")
    await told.database.write(
        users.create,
        "t1",
        "Ada",
        user_id="@openmeet_t1_ada:example.org",
        spec={},
        external_id="9",
        as_of=None,
        now=1,
        new_id=told.new_id,
    )
    await told.announcer.removed(room, "@openmeet_t1_ada:example.org", "came back", denied=True, counted=True)
    [body] = await told.bodies()
    assert body["data"]["member"] == {
        "user_id": "@openmeet_t1_ada:example.org",
        "user": "Ada",
        "external_id": "9",
    }


async def test_who_is_removed_is_remembered_for_an_hour(told: Told) -> None:
    entity = await told.entity()
    room = await told.room(entity, "!1")
    for at, who in ((NOW, "@a:x"), (NOW + 1, "@a:x"), (NOW + 1, "@b:x")):
        announcer = Announcer(told.database, told.wakeups, now=partial(int, at), new_id=told.new_id)
        await announcer.removed(room, who, "gone", denied=False, counted=True)
    assert await told.types() == []
    recent = told.database.read
    assert await recent(kicks.recent, "t1", entity.ref, now=NOW + 1) == {"@a:x": 2, "@b:x": 1}
    assert await recent(kicks.recent, "t2", entity.ref, now=NOW + 1) == {}
    assert await recent(kicks.recent, "t1", entity.ref, now=NOW + kicks.WITHIN_MS) == {"@a:x": 1, "@b:x": 1}
    assert await recent(kicks.recent, "t1", entity.ref, now=NOW + kicks.WITHIN_MS + 1) == {}
