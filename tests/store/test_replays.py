"""Replays: what is queued for which lane, on both databases."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.domain.replay import Asked, Counts, Only
from openmeet_appservice.store import (
    dead_letters,
    endpoints,
    event_log,
    lanes,
    parking,
    replay_pages,
    replay_queue,
)
from openmeet_appservice.store import replays as replaying
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.dead_letters import DeadLetter, Reason
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.endpoint_row import Wanted
from openmeet_appservice.store.replays import Progress
from openmeet_appservice.store.tables import dead_letters as letter_rows
from openmeet_appservice.store.tables import lanes as lane_rows
from openmeet_appservice.store.tables import replays, room_events, rooms, tenants

ALL, FAILED, MISSING = Asked(Only.ALL), Asked(Only.FAILED), Asked(Only.MISSING)
ROOMS = ("a", "b", "c")


class Store:
    """A database with tenants ``t1`` and ``t2``, rooms in each, and no endpoint yet."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._ids = itertools.count(1)
        self._events = itertools.count(1)

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._ids):04}"

    async def fill(self) -> None:
        def fill(connection: Connection) -> None:
            for tenant in ("t1", "t2"):
                at = {"created_at": 0, "updated_at": 0, "revision": 1}
                connection.execute(
                    insert(tenants).values(
                        tenant=tenant, tenant_id=tenant, name="", settings="{}", last_position=0, **at
                    )
                )
                for room in ROOMS:
                    connection.execute(
                        insert(rooms).values(
                            tenant=tenant,
                            id=room,
                            entity_ref=room,
                            state="open",
                            claim=room,
                            lock_alias="#lock:example.org",
                            room_id=f"!{tenant}{room}",
                            room_version="12",
                            log_id="log",
                            last_sequence=0,
                            created_at=0,
                        )
                    )

        await self.database.write(fill)

    async def endpoint(self, owner: str = "t1", name: str = "main", **wanted: Any) -> EndpointKey:
        put = await self.database.write(
            endpoints.put,
            owner,
            name,
            Wanted(url="https://openmeet.example/hook", **wanted),
            secret_encrypted="s",
            fresh_secret_encrypted="s",
            now=0,
            new_id=self.new_id,
        )
        return put.endpoint.key

    async def say(self, room: str, count: int = 1, *, tenant: str = "t1", now: int = 1) -> None:
        arrivals = []
        for _ in range(count):
            arrival = read_event({"event_id": f"$e{next(self._events)}", "room_id": f"!{tenant}{room}"})
            assert isinstance(arrival, Arrival)
            arrivals.append(arrival)
        await self.database.write(event_log.append, arrivals, now=now, bot="@bot:example.org")

    async def take_all(self) -> None:
        """Have every lane as if all there is was taken."""
        newest = (
            select(rooms.c.last_sequence)
            .where(rooms.c.tenant == lane_rows.c.tenant, rooms.c.id == lane_rows.c.room_ref)
            .scalar_subquery()
        )

        def take(connection: Connection) -> None:
            connection.execute(
                update(lane_rows).values(acked_sequence=newest, due_at=None, waiting_since=None)
            )
            connection.execute(delete(replays))

        await self.database.write(take)

    async def bury(self, endpoint: EndpointKey, room: str, first: int, last: int) -> str:
        letter = self.new_id("letter")
        tenant = endpoint[0] or "t1"
        await self.database.write(
            dead_letters.record,
            DeadLetter(*endpoint, 5, letter, tenant, room, first, last, Reason.EXHAUSTED, "no"),
            new_id=self.new_id,
        )
        return letter

    async def replay(self, endpoint: EndpointKey, asked: Asked, **given: Any) -> tuple[int, int]:
        given = {"now": lambda: 50, "new_id": self.new_id} | given
        counts = await replaying.replay(self.database, endpoint, asked, **given)
        return counts.rooms, counts.events

    async def queued(self) -> list[tuple[str, str, int, int]]:
        columns = (replays.c.tenant, replays.c.room_ref, replays.c.next_sequence, replays.c.last_sequence)
        return await self.read(select(*columns).order_by(*columns))

    async def lanes(self) -> dict[tuple[str, str], Any]:
        found = await self.read(select(lane_rows))
        return {(row.tenant, row.room_ref): row for row in found}

    async def letters(self) -> list[str]:
        return [row.id for row in await self.read(select(letter_rows.c.id).order_by(letter_rows.c.id))]

    async def read(self, query: Any) -> list[Any]:
        return await self.database.read(lambda connection: list(connection.execute(query)))


@pytest.fixture
async def store(database: Database) -> Store:
    store = Store(database)
    await store.fill()
    return store


async def test_all_is_everything_that_the_lanes_have_passed(store: Store) -> None:
    await store.say("a", 3)
    main = await store.endpoint()
    await store.say("b", 4)
    await store.take_all()
    await store.say("b", 2, now=9)
    assert await store.replay(main, ALL, dry_run=True) == (2, 7)
    assert (await store.queued(), len(await store.lanes())) == ([], 1)
    assert await store.replay(main, ALL) == (2, 7)
    # What the lane has not passed yet comes anyway; a room from before the endpoint gets a lane.
    assert await store.queued() == [("t1", "a", 1, 3), ("t1", "b", 1, 4)]
    found = await store.lanes()
    a, b = found["t1", "a"], found["t1", "b"]
    assert (a.acked_sequence, a.began_after, a.due_at, a.waiting_since) == (3, 0, 50, 50)
    assert (b.acked_sequence, b.due_at, b.waiting_since) == (4, 9, 9)
    assert await store.database.read(replay_queue.queued_events, main) == 7
    assert await store.database.read(replay_queue.queued_events) == 7


async def test_what_is_still_queued_is_not_queued_again(store: Store) -> None:
    main = await store.endpoint()
    await store.say("a", 10)
    await store.take_all()
    assert await store.replay(main, Asked(Only.ALL, tenant="t1", room_ref="a", from_sequence=7)) == (1, 4)
    assert await store.replay(main, ALL) == (1, 6)
    assert await store.replay(main, ALL) == (0, 0)
    assert await store.queued() == [("t1", "a", 1, 6), ("t1", "a", 7, 10)]
    # Once it is taken, it can be asked for again.
    await store.take_all()
    assert await store.replay(main, ALL) == (1, 10)


async def test_missing_is_what_was_before_and_what_failed_and_is_missing_once(store: Store) -> None:
    await store.say("a", 3)
    await store.say("b", 2)
    main = await store.endpoint()
    await store.say("b", 4)
    await store.take_all()
    letter = await store.bury(main, "b", 4, 5)
    assert (await store.lanes())["t1", "b"].began_after == 2
    assert await store.replay(main, MISSING, dry_run=True) == (2, 7)
    assert await store.letters() == [letter]
    assert await store.replay(main, MISSING) == (2, 7)
    assert await store.queued() == [("t1", "a", 1, 3), ("t1", "b", 1, 2), ("t1", "b", 4, 5)]
    assert await store.letters() == []
    await store.take_all()
    assert await store.replay(main, MISSING) == (0, 0)
    assert {lane.began_after for lane in (await store.lanes()).values()} == {0}


async def test_a_part_of_what_is_missing_leaves_the_rest_missing(store: Store) -> None:
    await store.say("a", 3, now=10)
    await store.say("a", 3, now=20)
    main = await store.endpoint()
    assert await store.replay(main, Asked(Only.MISSING, since=20)) == (1, 3)
    await store.take_all()
    assert (await store.lanes())["t1", "a"].began_after == 3
    assert await store.replay(main, MISSING) == (1, 3)
    assert (await store.lanes())["t1", "a"].began_after == 0


async def test_time_goes_by_when_an_event_was_stored(store: Store) -> None:
    main = await store.endpoint()
    for now in (10, 20, 30):
        await store.say("a", 2, now=now)
    await store.say("b", 1, now=10)
    await store.take_all()
    for since, until, meant in (
        (20, None, [("a", 3, 6)]),
        (None, 20, [("a", 1, 2), ("b", 1, 1)]),
        (20, 30, [("a", 3, 4)]),
        (10, 31, [("a", 1, 6), ("b", 1, 1)]),
        (31, None, []),
        (None, 10, []),
    ):
        await store.replay(main, Asked(Only.ALL, since=since, until=until))
        assert [row[1:] for row in await store.queued()] == meant
        await store.take_all()


async def test_failed_is_the_dead_letters_all_or_some(store: Store) -> None:
    main = await store.endpoint()
    other = await store.endpoint(name="other")
    await store.say("a", 9)
    await store.say("b", 9)
    await store.take_all()
    one = await store.bury(main, "a", 2, 3)
    two = await store.bury(main, "a", 4, 4)
    three = await store.bury(main, "b", 9, 9)
    kept = await store.bury(other, "a", 1, 1)
    await store.bury(main, "gone", 1, 1)
    assert await store.replay(main, Asked(Only.FAILED, letters=(two, "unknown", kept))) == (1, 1)
    assert await store.queued() == [("t1", "a", 4, 4)]
    assert two not in await store.letters()
    assert await store.replay(main, FAILED) == (2, 3)
    assert await store.queued() == [("t1", "a", 2, 3), ("t1", "a", 4, 4), ("t1", "b", 9, 9)]
    assert not {one, three} & set(await store.letters())
    assert kept in await store.letters()
    assert await store.replay(main, FAILED) == (0, 0)


async def test_what_is_no_longer_in_the_log_is_passed_over(store: Store) -> None:
    main = await store.endpoint()
    await store.say("a", 6)
    await store.say("b", 2)
    await store.take_all()
    gone = await store.bury(main, "a", 1, 2)
    half = await store.bury(main, "a", 3, 4)

    def purge(connection: Connection) -> None:
        connection.execute(
            delete(room_events).where(room_events.c.room_ref == "a", room_events.c.sequence <= 3)
        )
        connection.execute(delete(room_events).where(room_events.c.room_ref == "b"))

    await store.database.write(purge)
    assert await store.replay(main, FAILED) == (1, 1)
    assert await store.queued() == [("t1", "a", 4, 4)]
    assert (gone in await store.letters(), half in await store.letters()) == (True, False)
    assert await store.replay(main, ALL) == (1, 2)


async def test_a_lane_that_waits_or_is_parked_stays_as_it_is(store: Store) -> None:
    main = await store.endpoint()
    for room in ROOMS:
        await store.say(room, 2)

    def stop(connection: Connection) -> None:
        waits = update(lane_rows).values(acked_sequence=1)
        connection.execute(waits.where(lane_rows.c.room_ref == "a").values(due_at=700, attempts=3))
        connection.execute(waits.where(lane_rows.c.room_ref == "b").values(due_at=None, parked_at=6))
        connection.execute(waits.where(lane_rows.c.room_ref == "c").values(due_at=90, lease_until=90))

    await store.database.write(stop)
    assert await store.replay(main, ALL) == (3, 3)
    found = await store.lanes()
    assert [found["t1", room].due_at for room in ROOMS] == [700, None, 90]
    assert found["t1", "b"].parked_at == 6


async def test_a_lane_parked_with_nothing_but_a_replay_is_resumed_with_its_endpoint(store: Store) -> None:
    main = await store.endpoint()
    await store.say("a", 2)
    await store.take_all()
    await store.replay(main, ALL)
    await store.database.write(lambda c: c.execute(update(lane_rows).values(due_at=None, parked_at=6)))
    assert await store.database.write(lanes.try_again, main, now=60) == 1
    lane = (await store.lanes())["t1", "a"]
    assert (lane.due_at, lane.parked_at, lane.waiting_since) == (60, None, 50)


async def test_a_lane_parked_while_idle_learns_of_a_replay(store: Store) -> None:
    main = await store.endpoint()
    await store.say("a", 2)
    await store.take_all()
    await store.database.write(parking.park, main, "t1", "a", now=6)
    await store.replay(main, ALL)
    lane = (await store.lanes())["t1", "a"]
    assert (lane.due_at, lane.parked_at, lane.waiting_since) == (None, 6, 50)
    assert await store.database.write(parking.resume, main, "t1", "a", now=60)
    assert (await store.lanes())["t1", "a"].due_at == 60


async def test_a_tenants_endpoint_gets_that_tenants_rooms_only(store: Store) -> None:
    main = await store.endpoint()
    await store.say("a", 2)
    await store.say("a", 3, tenant="t2")
    await store.take_all()
    assert await store.replay(main, ALL) == (1, 2)
    assert await store.replay(main, Asked(Only.ALL, tenant="t2")) == (0, 0)
    assert await store.replay(main, Asked(Only.ALL, tenant="t2", room_ref="a")) == (0, 0)
    assert [row[0] for row in await store.queued()] == ["t1"]


async def test_the_platforms_gets_every_tenants_or_those_that_it_is_for(store: Store) -> None:
    everybody = await store.endpoint("")
    some = await store.endpoint("", "some", tenants=("t2",))
    await store.say("a", 2)
    await store.say("a", 3, tenant="t2")
    await store.take_all()
    assert await store.replay(everybody, ALL) == (2, 5)
    assert await store.replay(some, ALL) == (1, 3)
    assert await store.replay(some, Asked(Only.ALL, tenant="t1")) == (0, 0)
    await store.take_all()
    assert await store.replay(everybody, Asked(Only.ALL, tenant="t1")) == (1, 2)
    # What failed while a tenant was served is not sent when it is served no more.
    await store.bury(some, "a", 1, 1)
    assert await store.replay(some, FAILED) == (0, 0)


async def test_an_endpoint_that_takes_no_events_or_is_gone_gets_none(store: Store) -> None:
    main = await store.endpoint()
    await store.say("a", 2)
    await store.bury(main, "a", 1, 1)
    page = await store.database.read(replay_pages.plan_page, main, ALL)
    assert page is not None
    await store.endpoint(types=("endpoint.test",))
    assert await store.replay(main, ALL) == (0, 0)
    assert await store.replay(main, FAILED) == (0, 0)
    given: Any = {"now": 50, "new_id": store.new_id}
    # Not even when that happened after the page was planned.
    assert await store.database.write(replay_queue.queue_page, main, ALL, page, **given) == Counts()
    await store.database.write(endpoints.delete, "t1", "main")
    assert await store.database.write(replay_queue.queue_page, main, ALL, page, **given) == Counts()
    assert (await store.queued(), await store.lanes()) == ([], {})


async def test_what_is_queued_goes_with_the_endpoint_and_with_the_tenant(store: Store) -> None:
    main = await store.endpoint()
    platform = await store.endpoint("", "platform")
    for tenant in ("t1", "t2"):
        await store.say("a", 2, tenant=tenant)
    await store.take_all()
    await store.replay(main, ALL)
    await store.replay(platform, ALL)
    await store.database.write(endpoints.delete, "t1", "main")
    assert [row[:2] for row in await store.queued()] == [("t1", "a"), ("t2", "a")]
    await store.endpoint("", "platform", tenants=("t2",))
    assert [row[:2] for row in await store.queued()] == [("t2", "a")]
    await store.endpoint("", "platform", types=("endpoint.test",))
    assert await store.queued() == []


async def test_it_goes_page_by_page_and_may_be_cut_off_anywhere(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_pages.plan_page, "__kwdefaults__", {"after": None, "limit": 2})
    platform = await store.endpoint("")
    for tenant in ("t1", "t2"):
        for room in ROOMS:
            await store.say(room, 2, tenant=tenant)
    await store.take_all()
    told: list[Progress] = []
    assert await store.replay(platform, ALL, dry_run=True, on_page=told.append) == (6, 12)
    assert [(one.seen, one.total, one.counts.events) for one in told] == [
        (2, 6, 4),
        (3, 6, 6),
        (5, 6, 10),
        (6, 6, 12),
    ]

    class Died(Exception):
        pass

    def die(progress: Progress) -> None:
        if progress.seen == 3:
            raise Died

    with pytest.raises(Died):
        await store.replay(platform, ALL, on_page=die)
    assert len(await store.queued()) == 3
    assert await store.replay(platform, ALL) == (3, 6)
    assert len(await store.queued()) == 6
