"""Batches under way, and what they are made from. On both databases."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection, insert, update

from openmeet_appservice.store import batches
from openmeet_appservice.store.batches import Batch, LoggedEvent, Prepared, Puppet, Route
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.lanes import Lane
from openmeet_appservice.store.replay_parts import Part
from openmeet_appservice.store.tables import (
    endpoints,
    entities,
    replays,
    room_events,
    rooms,
    tenants,
    users,
)


def lane(tenant: str = "t1", room: str = "a", acked: int = 0) -> Lane:
    return Lane(
        tenant=tenant,
        owner=tenant,
        endpoint_ref="e",
        room_ref=room,
        acked=acked,
        attempts=0,
        refusals=0,
        narrow=None,
        narrow_through=None,
        epoch=1,
        until=1000,
    )


@pytest.fixture
async def store(database: Database) -> Database:
    """Tenant ``T1``, whose room ``a`` has 120 events and whose room ``b`` has none."""

    def add(connection: Connection, table: Any, *values: dict[str, Any]) -> None:
        connection.execute(insert(table), list(values))

    def fill(connection: Connection) -> None:
        at = {"created_at": 0, "updated_at": 0, "revision": 1}
        add(
            connection,
            tenants,
            {"tenant": "t1", "tenant_id": "T1", "name": "", "settings": "{}", **at, "last_position": 0},
        )
        add(
            connection,
            endpoints,
            {"tenant": "t1", "id": "e", "name": "main", "url": "https://x.example", "secret": "sealed", **at},
        )
        entity = {
            "tenant": "t1",
            "kind": "event",
            "spec": "{}",
            "members_revision": 1,
            "removals_confirmed": 0,
            **at,
        }
        add(
            connection,
            entities,
            {
                **entity,
                "id": "ent",
                "slug": "Chess",
                "slug_key": "chess",
                "alias": "#x:y",
                "external_id": "17",
            },
        )
        add(
            connection,
            rooms,
            *(
                {
                    "tenant": "t1",
                    "id": room,
                    "entity_ref": "ent",
                    "state": state,
                    "claim": room,
                    "lock_alias": "#l:y",
                    "alias": "#chess:y",
                    "room_id": f"!{room}",
                    "room_version": "12",
                    "log_id": f"log_{room}",
                    "last_sequence": 0,
                    "created_at": 0,
                }
                for room, state in (("a", "open"), ("b", "former"))
            ),
        )
        add(
            connection,
            room_events,
            *(
                {
                    "tenant": "t1",
                    "position": n,
                    "room_ref": "a",
                    "sequence": n,
                    "event_id": f"${n}",
                    "type": "t",
                    "sender": "@s:y",
                    "origin": "matrix",
                    "received_at": n,
                    "body": f'{{"n":{n}}}',
                }
                for n in range(1, 121)
            ),
        )
        user = {"spec": "{}", "placeholder": False, **at}
        add(
            connection,
            users,
            {
                **user,
                "tenant": "t1",
                "id": "u",
                "slug": "Ada",
                "slug_key": "ada",
                "user_id": "@ada:y",
                "external_id": "7",
            },
        )
        add(
            connection,
            users,
            {
                **user,
                "tenant": "t2",
                "id": "u",
                "slug": "Eve",
                "slug_key": "eve",
                "user_id": "@eve:y",
                "external_id": None,
            },
        )

    await database.write(fill)
    return database


async def under_way(store: Database, room: str = "a", tenant: str = "t1") -> Batch | None:
    found = await store.read(batches.prepare, tenant, "e", [room])
    return found[room].batch


async def test_a_batch_is_kept_as_it_is_until_it_ends(store: Database) -> None:
    batch = Batch("msg_1", 1, 3, '{"b": 1,  "a":"\\u0000\N{GRINNING FACE}"}')
    assert await under_way(store) is None
    await store.write(batches.begin, [(lane(), batch)], now=5)
    assert await under_way(store) == batch
    assert await under_way(store, "b") is None
    await store.write(batches.end, lane(), "msg_0")
    assert await under_way(store) == batch
    await store.write(batches.end, lane(), "msg_1")
    assert await under_way(store) is None


async def test_the_route_is_as_things_are_now(store: Database) -> None:
    found = await store.read(batches.prepare, "t1", "e", ["a", "b", "gone"])
    assert found["a"] == Prepared(
        Route(
            tenant_id="T1",
            kind="event",
            slug="Chess",
            external_id="17",
            room_id="!a",
            alias="#chess:y",
            log_id="log_a",
        ),
        None,
        replaying=False,
    )
    assert found["b"].route.log_id == "log_b"
    assert found.keys() == {"a", "b"}
    assert await store.read(batches.prepare, "t2", "e", ["a"]) == {}


async def test_events_are_read_in_order_from_where_the_endpoint_is(store: Database) -> None:
    def some(connection: Connection, acked: int) -> list[LoggedEvent]:
        return list(batches.events_of(connection, lane(acked=acked)))

    assert [event.sequence for event in await store.read(some, 0)] == list(range(1, 121))
    assert [event.sequence for event in await store.read(some, 20)] == list(range(21, 121))
    assert await store.read(some, 119) == [LoggedEvent(120, "matrix", "@s:y", "t", '{"n":120}')]
    assert await store.read(some, 120) == []


async def test_a_part_of_a_replay_is_read_whatever_was_taken(store: Database) -> None:
    def some(connection: Connection) -> list[int]:
        part = Part("replay_1", 30, 110)
        return [event.sequence for event in batches.events_of(connection, lane(acked=115), part)]

    assert await store.read(some) == list(range(30, 111))


async def test_it_is_known_of_which_replay_a_batch_is_and_whether_one_waits(store: Database) -> None:
    def queue(connection: Connection) -> None:
        row = {"tenant": "t1", "endpoint_ref": "e", "room_ref": "a", "id": "replay_1", "owner": "t1"}
        span = {"next_sequence": 1, "last_sequence": 9, "created_at": 3}
        connection.execute(insert(replays), {**row, **span})

    await store.write(queue)
    batch = Batch("msg_1", 1, 3, "{}", "replay_1")
    await store.write(batches.begin, [(lane(), batch)], now=5)
    found = await store.read(batches.prepare, "t1", "e", ["a", "b"])
    assert (found["a"].batch, found["a"].replaying) == (batch, True)
    assert (found["b"].batch, found["b"].replaying) == (None, False)


async def test_what_gap_repair_added_is_told(store: Database) -> None:
    repaired = update(room_events).where(room_events.c.sequence == 120).values(repaired_after="$before")
    await store.write(lambda connection: connection.execute(repaired))
    [event] = await store.read(lambda c: list(batches.events_of(c, lane(acked=119))))
    assert event.repaired_after == "$before"


async def test_only_the_tenants_own_puppets_are_known(store: Database) -> None:
    found = await store.read(batches.puppets, "t1", ["@ada:y", "@ada:y", "@eve:y", "@bob:y"])
    assert found == {"@ada:y": Puppet("Ada", "7")}
