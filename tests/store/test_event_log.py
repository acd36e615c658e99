"""The event log: every event of a known room once, in order, whatever else happens."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, func, insert, select, text, update

from openmeet_appservice.domain.arrival import Arrival, Junk, read_transaction
from openmeet_appservice.store import event_log, schema, service
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.event_log import Appended
from openmeet_appservice.store.tables import (
    endpoints,
    held_events,
    lanes,
    messages,
    quarantine,
    room_events,
    rooms,
    tenants,
    users,
)

BOT = "@openmeet-bot:hs.test"
ADA = "@openmeet_t1_ada:hs.test"
STRANGER = "@mallory:hs.test"


def add_tenant(connection: Connection, tenant: str) -> None:
    connection.execute(
        insert(tenants).values(
            tenant=tenant,
            tenant_id=tenant,
            name=tenant,
            settings="{}",
            revision=1,
            last_position=0,
            created_at=0,
            updated_at=0,
        )
    )


def add_room(
    connection: Connection,
    tenant: str,
    ref: str,
    room_id: str | None,
    state: str = "open",
    claim: str | None = None,
) -> None:
    connection.execute(
        insert(rooms).values(
            tenant=tenant,
            id=ref,
            entity_ref=f"entity_{ref}",
            state=state,
            claim=claim or f"claim-{ref}",
            lock_alias=f"#{ref}:hs.test",
            room_id=room_id,
            room_version="12" if room_id else None,
            log_id=f"log_{ref}",
            last_sequence=0,
            created_at=0,
        )
    )


def add_endpoint(connection: Connection, tenant: str, ref: str) -> None:
    connection.execute(
        insert(endpoints).values(
            tenant=tenant,
            id=ref,
            name=ref,
            url="https://openmeet.test/",
            secret="",
            revision=1,
            created_at=0,
            updated_at=0,
        )
    )


def add_user(connection: Connection, tenant: str, ref: str, user_id: str) -> None:
    connection.execute(
        insert(users).values(
            tenant=tenant,
            id=ref,
            slug=ref,
            slug_key=ref,
            placeholder=False,
            spec="{}",
            revision=1,
            user_id=user_id,
            created_at=0,
            updated_at=0,
        )
    )


def fill(connection: Connection) -> None:
    for tenant in ("t1", "t2"):
        add_tenant(connection, tenant)
        for name in ("a", "b"):
            add_room(connection, tenant, f"{tenant}-{name}", f"!{tenant}-{name}")


@pytest.fixture
async def world(database: Database) -> Database:
    """Two tenants, each with two rooms."""
    await database.write(fill)
    return database


def event(event_id: str, room_id: str, **more: Any) -> dict[str, Any]:
    content = {"msgtype": "m.text", "body": event_id}
    plain = {"type": "m.room.message", "sender": STRANGER, "content": content}
    return {"event_id": event_id, "room_id": room_id, **plain, **more}


def create(room_id: str, claim: str, sender: str = BOT) -> dict[str, Any]:
    content = {"net.openmeet.claim": claim, "room_version": "12"}
    return event(f"$create-{room_id}", room_id, type="m.room.create", sender=sender, content=content)


async def push(database: Database, *events: Any, now: int = 1000) -> Appended:
    """Append events as they come in a transaction."""
    return await push_body(database, json.dumps({"events": events}).encode(), now=now)


async def push_body(database: Database, body: bytes, now: int = 1000) -> Appended:
    transaction = read_transaction(body)
    elements = transaction.elements if transaction else []
    arrivals = [element for element in elements if isinstance(element, Arrival)]
    junk = [element for element in elements if isinstance(element, Junk)]
    return await database.write(event_log.append, arrivals, junk, now=now, bot=BOT)


async def record(database: Database, ref: str, room_id: str) -> bool:
    """Record the id of a claimed room of ``t1``."""
    return await database.write(event_log.record_room_id, "t1", ref, room_id, "12", now=2000, bot=BOT)


async def logged(database: Database, tenant: str, column: str = "event_id") -> list[Any]:
    """One column of the tenant's log, in its order."""

    def read(connection: Connection) -> list[Any]:
        query = select(room_events.c[column]).where(room_events.c.tenant == tenant)
        return list(connection.execute(query.order_by(room_events.c.position)).scalars())

    return await database.read(read)


async def count(database: Database, table: Any) -> int:
    return await database.read(
        lambda connection: connection.execute(select(func.count()).select_from(table)).scalar_one()
    )


async def test_numbers_count_from_one(world: Database) -> None:
    done = await push(
        world, event("$1", "!t1-a"), event("$2", "!t1-b"), event("$3", "!t1-a"), event("$4", "!t2-a")
    )
    assert done.stored == {"message": 4}
    assert await logged(world, "t1") == ["$1", "$2", "$3"]
    assert await logged(world, "t1", "position") == [1, 2, 3]
    assert await logged(world, "t1", "sequence") == [1, 1, 2]
    assert await logged(world, "t1", "room_ref") == ["t1-a", "t1-b", "t1-a"]
    assert await logged(world, "t2", "position") == [1]
    await push(world, event("$5", "!t2-a"), event("$6", "!t1-a"))
    assert await logged(world, "t1", "sequence") == [1, 1, 2, 3]
    assert await logged(world, "t2", "sequence") == [1, 2]
    assert await logged(world, "t2", "position") == [1, 2]


async def test_an_event_is_stored_once(world: Database) -> None:
    done = await push(world, event("$1", "!t1-a"), event("$1", "!t1-a"), event("$2", "!t1-a"))
    assert (done.stored.total(), done.repeated) == (2, 1)
    done = await push(world, event("$2", "!t1-a"), event("$3", "!t1-a"))
    assert (done.stored.total(), done.repeated) == (1, 1)
    assert await logged(world, "t1") == ["$1", "$2", "$3"]
    assert await logged(world, "t1", "sequence") == [1, 2, 3]
    done = await push(world, event("$1", "!t1-a"), event("$3", "!t1-a"))
    assert (done.stored.total(), done.repeated) == (0, 2)


async def test_event_ids_are_told_apart_by_tenant(world: Database) -> None:
    done = await push(world, event("$1", "!t1-a"), event("$1", "!t2-a"))
    assert done.stored.total() == 2
    assert await logged(world, "t1") == await logged(world, "t2") == ["$1"]


async def test_the_text_is_kept_as_it_came(world: Database) -> None:
    bodies = [
        '{"room_id":"!t1-a", "event_id":"$1","n":123456789012345678901234567890,"f":1.10,"e":1E5}',
        '{"event_id":"$2","room_id":"!t1-a","type":"a\\u0000b","sender":"@x\\u0000y","content":{"b":"\\u0000"}}',
        '{"event_id":"$3","room_id":"!t1-a","type":"\\ud800","content":{"body":"\\udfff lone"}}',
        '{"event_id":"$4","room_id":"!t1-a","type":["no","text"],"content":17,"state_key":null}',
        '{"event_id":"$5","room_id":"!t1-a","content":{"body":"ünïcödé 🎲"}}',
    ]
    done = await push_body(world, ('{"events": [' + ", ".join(bodies) + "]}").encode())
    assert done.stored.total() == 5
    assert await logged(world, "t1", "body") == bodies
    assert await logged(world, "t1", "type") == ["", "a\ufffdb", "?", "", ""]
    assert (await logged(world, "t1", "sender"))[1] == "@x\ufffdy"


async def test_what_is_no_event_is_quarantined_and_spoils_nothing(world: Database) -> None:
    deep = "[" * 3000 + "]" * 3000
    long = '{"event_id":"$x","room_id":"!t1-a","n":' + "9" * 5000 + "}"
    elements = [
        "null",
        "17",
        '"text"',
        "[]",
        '{"event_id":"$1"}',
        '{"event_id":7,"room_id":"!t1-a"}',
        '{"event_id":"","room_id":"!t1-a"}',
        '{"event_id":"$\\u0000","room_id":"!t1-a"}',
        '{"event_id":"$\\ud800","room_id":"!t1-a"}',
        '{"event_id":"$' + "x" * 255 + '","room_id":"!t1-a"}',
        deep,
        '{"event_id":"$deep","room_id":"!t1-a","content":' + deep + "}",
        long,
        "9" * 5000,
    ]
    good = json.dumps(event("$good", "!t1-a"))
    done = await push_body(world, ('{"events":[' + ",".join([*elements, good]) + "]}").encode())
    assert done.quarantined == len(elements)
    assert await logged(world, "t1") == ["$good"]

    def kept(connection: Connection) -> list[str]:
        return list(connection.execute(select(quarantine.c.body).order_by(quarantine.c.id)).scalars())

    assert await world.read(kept) == elements


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_EVENT_LIKE = st.fixed_dictionaries(
    {},
    optional={
        "event_id": st.sampled_from(["$1", "$2"]) | _JSON,
        "room_id": st.sampled_from(["!t1-a", "!t2-b", "!unknown"]) | _JSON,
        "type": st.sampled_from(["m.room.create", "m.room.member", "m.room.message"]) | _JSON,
        "sender": st.sampled_from([BOT, ADA]) | _JSON,
        "state_key": st.sampled_from(["", ADA]) | _JSON,
        "content": st.dictionaries(
            st.sampled_from(["net.openmeet.claim", "net.openmeet.id", "room_version"]) | st.text(), _JSON
        )
        | _JSON,
    },
)


@given(elements=st.lists(_EVENT_LIKE | _JSON, max_size=5))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
async def test_no_shape_of_events_fails_a_transaction(world: Database, elements: list[Any]) -> None:
    done = await push(world, *elements)
    kept = done.stored.total() + done.held + done.repeated + done.quarantined
    assert kept == len(elements)


async def test_events_of_unknown_rooms_are_held_and_attached_in_order(world: Database) -> None:
    await world.write(add_room, "t1", "t1-new", None, "claimed")
    await push(world, event("$1", "!new"), event("$2", "!new"))
    done = await push(world, event("$2", "!new"), event("$other", "!other"), event("$3", "!new"))
    assert (done.held, done.repeated, done.stored) == (2, 1, {})
    assert await record(world, "t1-new", "!new")
    assert await logged(world, "t1") == ["$1", "$2", "$3"]
    assert await logged(world, "t1", "sequence") == [1, 2, 3]
    assert await count(world, held_events) == 1
    # What Synapse repeats after that is known, and the next one goes on.
    done = await push(world, event("$3", "!new"), event("$4", "!new"))
    assert (done.stored.total(), done.repeated) == (1, 1)
    assert await logged(world, "t1", "sequence") == [1, 2, 3, 4]


async def test_a_room_is_recorded_once(world: Database) -> None:
    await world.write(add_room, "t1", "t1-new", None, "claimed")
    assert await record(world, "t1-new", "!new")
    assert not await record(world, "t1-new", "!second")

    def room_id(connection: Connection) -> Any:
        return connection.execute(select(rooms.c.room_id).where(rooms.c.id == "t1-new")).scalar()

    assert await world.read(room_id) == "!new"


async def room_rows(database: Database, claim: str) -> list[tuple[Any, ...]]:
    def read(connection: Connection) -> list[tuple[Any, ...]]:
        query = select(rooms.c.state, rooms.c.room_id).where(rooms.c.claim == claim)
        return [tuple(row) for row in connection.execute(query.order_by(rooms.c.state))]

    return await database.read(read)


async def test_the_pushed_create_records_the_claimed_room(world: Database) -> None:
    await world.write(add_room, "t1", "t1-new", None, "claimed", "c1")
    await push(world, event("$early", "!new"))
    done = await push(world, create("!new", "c1"), event("$after", "!new"), event("$x", "!t1-a"))
    assert done.recorded == [("t1", "entity_t1-new")]
    assert await room_rows(world, "c1") == [("open", "!new")]
    assert await logged(world, "t1") == ["$early", "$create-!new", "$after", "$x"]
    assert await count(world, held_events) == 0
    # The answer to createRoom comes later and finds it done.
    assert not await record(world, "t1-new", "!new")


async def test_a_stranger_cannot_claim(world: Database) -> None:
    await world.write(add_room, "t1", "t1-new", None, "claimed", "c1")
    done = await push(world, create("!trap", "c1", sender=STRANGER), create("!no-claim", "unknown"))
    assert (done.held, done.recorded) == (2, [])
    assert await room_rows(world, "c1") == [("claimed", None)]


async def test_a_second_room_for_one_claim_is_an_orphan(world: Database) -> None:
    await world.write(add_room, "t1", "t1-new", None, "claimed", "c1")
    done = await push(world, create("!first", "c1"), create("!second", "c1"))
    assert done.recorded == [("t1", "entity_t1-new")] * 2
    assert await room_rows(world, "c1") == [("open", "!first"), ("orphan", "!second")]
    assert await count(world, held_events) == 0


async def test_a_room_for_a_claim_that_was_given_up_is_an_orphan(world: Database) -> None:
    await world.write(add_room, "t1", "t1-old", None, "former", "c1")
    await world.write(add_room, "t1", "t1-new", None, "claimed", "c2")
    same = update(rooms).values(entity_ref="entity_t1-new")
    await world.write(lambda connection: connection.execute(same.where(rooms.c.id == "t1-old")))
    done = await push(world, create("!late", "c1"))
    assert done.recorded == [("t1", "entity_t1-new")]
    assert await room_rows(world, "c1") == [("former", None), ("orphan", "!late")]
    assert await room_rows(world, "c2") == [("claimed", None)]


async def test_the_control_room_is_silent(world: Database) -> None:
    await world.write(service.put, event_log.CONTROL_ROOM, "!control")
    done = await push(world, event("$1", "!control"), event("$2", "!t1-a"))
    assert (done.ignored, done.held, done.stored.total()) == (1, 0, 1)
    assert await count(world, held_events) == 0


async def test_what_nobody_claims_is_forgotten(world: Database) -> None:
    await push(world, event("$1", "!old"), "junk", now=1000)
    await push(world, event("$2", "!young"), "junk", now=5000)
    assert await world.write(event_log.forget_held, before=5000) == 1
    assert await world.write(event_log.forget_quarantined, before=5000) == 1
    assert await count(world, held_events) == await count(world, quarantine) == 1


async def test_classes(world: Database) -> None:
    kinds = ["m.room.message", "m.sticker", "m.reaction", "m.room.member", "m.room.name", "x.y"]
    done = await push(world, *(event(f"${kind}", "!t1-a", type=kind) for kind in kinds))
    assert done.stored == {"message": 2, "reaction": 1, "membership": 1, "room": 1, "other": 1}


async def test_origins(world: Database) -> None:
    def fill(connection: Connection) -> None:
        add_user(connection, "t1", "ada", ADA)
        for name in ("m1", "m2"):
            connection.execute(
                insert(messages).values(
                    tenant="t1",
                    id=name,
                    room_ref="t1-a",
                    user_ref="ada",
                    transaction_id=name,
                    content="{}",
                    created_at=0,
                )
            )

    await world.write(fill)
    marked = {"msgtype": "m.text", "body": "x", "net.openmeet.id": "m1"}
    joined = {"type": "m.room.member", "content": {"membership": "join"}}
    await push(
        world,
        event("$bot", "!t1-a", sender=BOT),
        event("$copied", "!t1-a", content=marked),
        event("$ours", "!t1-a", sender=ADA, content=marked),
        event("$unmarked", "!t1-a", sender=ADA),
        event("$join", "!t1-a", sender=ADA, state_key=ADA, **joined),
        event("$walk-in", "!t1-a", state_key=STRANGER, **joined),
        event("$foreign", "!t2-a", sender=ADA, content=marked),
    )
    origins = dict(zip(await logged(world, "t1"), await logged(world, "t1", "origin"), strict=True))
    assert origins == {
        "$bot": "openmeet",
        "$copied": "matrix",
        "$ours": "openmeet",
        "$unmarked": "matrix",
        "$join": "openmeet",
        "$walk-in": "matrix",
    }
    assert await logged(world, "t2", "origin") == ["matrix"]

    def sent(connection: Connection) -> list[tuple[Any, ...]]:
        query = select(messages.c.event_id, messages.c.content).order_by(messages.c.id)
        return [tuple(row) for row in connection.execute(query)]

    assert await world.read(sent) == [("$ours", None), (None, "{}")]


async def lane_rows(database: Database) -> list[tuple[Any, ...]]:
    def read(connection: Connection) -> list[tuple[Any, ...]]:
        columns = (
            lanes.c.endpoint_ref,
            lanes.c.room_ref,
            lanes.c.acked_sequence,
            rooms.c.last_sequence,
            lanes.c.due_at,
            lanes.c.waiting_since,
        )
        joined = lanes.join(rooms, (rooms.c.tenant == lanes.c.tenant) & (rooms.c.id == lanes.c.room_ref))
        query = select(*columns).select_from(joined).order_by(*columns)
        return [tuple(row) for row in connection.execute(query)]

    return await database.read(read)


async def test_lanes_are_raised(world: Database) -> None:
    await push(world, event("$before", "!t1-a"))
    await world.write(add_endpoint, "t1", "e1")
    assert await lane_rows(world) == []
    await push(world, event("$1", "!t1-a"), event("$2", "!t1-a"), event("$3", "!t1-b"), now=50)
    # From the first event after the endpoint was made.
    assert await lane_rows(world) == [("e1", "t1-a", 1, 3, 50, 50), ("e1", "t1-b", 0, 1, 50, 50)]
    await world.write(add_endpoint, "t1", "e2")
    await world.write(add_endpoint, "t2", "e3")
    await push(world, event("$4", "!t1-b"), now=60)
    assert await lane_rows(world) == [
        ("e1", "t1-a", 1, 3, 50, 50),
        ("e1", "t1-b", 0, 2, 50, 50),
        ("e2", "t1-b", 1, 2, 60, 60),
    ]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # Caught up: due at once.
        ({"due_at": None, "waiting_since": None}, (1, 2, 60, 60)),
        # Waiting for its next attempt: not hurried.
        ({"due_at": 900, "waiting_since": 50}, (1, 2, 900, 50)),
        # Parked: stays so.
        ({"due_at": None, "waiting_since": 50, "parked_at": 55}, (1, 2, None, 50)),
    ],
)
async def test_a_raised_lane_keeps_its_state(
    world: Database, before: dict[str, Any], after: tuple[Any, ...]
) -> None:
    await world.write(add_endpoint, "t1", "e1")
    await push(world, event("$1", "!t1-a"), now=50)
    change = update(lanes).values(acked_sequence=1, **before)
    await world.write(lambda connection: connection.execute(change))
    await push(world, event("$2", "!t1-a"), now=60)
    assert [row[2:] for row in await lane_rows(world)] == [after]


async def test_many_events_in_one_transaction(world: Database) -> None:
    number = 40_000
    found = [event(f"${n}", "!t1-a", content={"net.openmeet.id": f"m{n}"}) for n in range(number)]
    done = await push(world, *found)
    assert done.stored.total() == number
    assert (await logged(world, "t1", "sequence"))[-1] == number
    assert (await push(world, *found)).repeated == number


async def everything(database: Database) -> list[list[Any]]:
    """All that events leave behind."""

    def read(connection: Connection) -> list[list[Any]]:
        tables = (room_events, held_events, lanes)
        queries = [select(*table.c).order_by(*table.primary_key.columns) for table in tables]
        queries += [
            select(tenants.c.tenant, tenants.c.last_position).order_by(tenants.c.tenant),
            select(rooms.c.id, rooms.c.last_sequence, rooms.c.last_event_at).order_by(rooms.c.id),
        ]
        return [list(map(tuple, connection.execute(query))) for query in queries]

    return await database.read(read)


async def test_one_event_a_transaction_leaves_the_same_as_all_in_one(tmp_path: Path) -> None:
    """On SQLite, where single plain events take a shorter way."""
    marked = {"msgtype": "m.text", "body": "x", "net.openmeet.id": "nobody's"}
    flow = [
        event("$1", "!t1-a"),
        event("$2", "!t1-b", sender=BOT),
        event("$3", "!t1-a", type="m.reaction", sender=ADA),
        event("$1", "!t1-a"),
        event("$4", "!t2-a", type="m.room.encrypted"),
        event("$5", "!t1-a", content=marked, sender=ADA),
        event("$6", "!t1-a", type="m.room.member", state_key=ADA, sender=ADA),
        event("$7", "!t1-a", type="m.room.name", state_key=""),
        event("$8", "!unknown"),
        event("$9", "!t1-a"),
    ]
    left = []
    for name, transactions in {"singly": [[each] for each in flow], "together": [flow]}.items():
        database = open_database(f"sqlite:///{tmp_path / name}.db")
        await database.write(schema.migrate)
        await database.write(fill)
        await database.write(add_endpoint, "t1", "e1")
        await database.write(add_user, "t1", "ada", ADA)
        done = [await push(database, *events) for events in transactions]
        counts = [sum((each.stored for each in done), Counter()), sum(each.repeated for each in done)]
        left.append([counts, *await everything(database)])
        await database.close()
    assert left[0] == left[1]
    assert len(left[0][1]) == 8


async def other_handle(database: Database, url: str) -> Database:
    """Another process's view of the same database; SQLite has only one writer, so there the same."""
    return open_database(url) if database.dialect == "postgresql" else database


async def test_numbers_stay_gapless_between_replicas(world: Database, migrated_url: str) -> None:
    replica = await other_handle(world, migrated_url)
    room_ids = ["!t1-a", "!t1-b", "!t2-a", "!t2-b"]

    async def pusher(database: Database, name: str) -> None:
        for number in range(15):
            # Every other event comes to both, as when Synapse repeats a transaction.
            names = [f"${name}-{number}", f"$both-{number}"]
            order = room_ids if name == "x" else room_ids[::-1]
            await push(database, *(event(f"{n}-{room}", room) for n in names for room in order))

    await asyncio.gather(pusher(world, "x"), pusher(replica, "y"), pusher(world, "z"), pusher(replica, "w"))
    for tenant in ("t1", "t2"):
        positions = await logged(world, tenant, "position")
        assert positions == list(range(1, len(positions) + 1))
        assert len(positions) == 15 * 5 * 2
        refs, sequences = await logged(world, tenant, "room_ref"), await logged(world, tenant, "sequence")
        for ref in set(refs):
            of_room = [s for r, s in zip(refs, sequences, strict=True) if r == ref]
            assert of_room == list(range(1, 15 * 5 + 1))
    if replica is not world:
        await replica.close()


async def test_holding_and_recording_at_once_loses_nothing(world: Database, migrated_url: str) -> None:
    """One replica holds the events of rooms that the other records just then."""
    replica = await other_handle(world, migrated_url)

    async def race(number: int) -> None:
        ref, room_id = f"race-{number}", f"!race-{number}"
        await world.write(add_room, "t1", ref, None, "claimed")
        await asyncio.gather(
            push(world, event(f"$1-{number}", room_id)),
            record(replica, ref, room_id),
            push(replica, event(f"$2-{number}", room_id)),
        )

    for start in range(0, 30, 3):
        await asyncio.gather(*(race(number) for number in range(start, start + 3)))
    assert await count(world, held_events) == 0
    assert sorted(await logged(world, "t1")) == sorted(f"${k}-{n}" for n in range(30) for k in (1, 2))
    if replica is not world:
        await replica.close()


async def test_an_uncommitted_hold_is_waited_for(world: Database, migrated_url: str) -> None:
    """The very order of events that loses one without the lock: held, not committed, room recorded."""
    if world.dialect != "postgresql":
        pytest.skip("SQLite lets nobody write meanwhile")
    replica = open_database(migrated_url)
    await world.write(add_room, "t1", "t1-new", None, "claimed")
    transaction = read_transaction(json.dumps({"events": [event("$1", "!new")]}).encode())
    assert transaction is not None
    arrivals: Sequence[Any] = transaction.elements

    def hold_slowly(connection: Connection) -> None:
        event_log.append(connection, arrivals, now=1, bot=BOT)
        connection.execute(text("SELECT pg_sleep(1)"))

    holding = asyncio.create_task(world.write(hold_slowly))

    def is_locked(connection: Connection) -> bool:
        query = text(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted "
            "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        return bool(connection.execute(query).scalar())

    async with asyncio.timeout(10):
        while not await replica.read(is_locked):
            await asyncio.sleep(0.01)
    assert await record(replica, "t1-new", "!new")
    await holding
    assert await logged(world, "t1") == ["$1"]
    assert await count(world, held_events) == 0
    await replica.close()
