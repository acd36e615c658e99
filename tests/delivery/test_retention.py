"""Old events leave the log, and never one that somebody still needs. On both databases."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from openmeet_appservice.delivery import housekeeping
from openmeet_appservice.store import dead_letters, endpoints, retention
from openmeet_appservice.store.dead_letters import DeadLetter, Reason
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.tables import batches, lanes, replays, room_events
from openmeet_appservice.store.tables import endpoints as endpoint_rows

from .conftest import START, World

OLD, CUTOFF, YOUNG = 1_000, 2_000, 3_000
"""Moments after the start."""


async def say_at(world: World, moment: int, *bodies: str, room: str = "!a") -> None:
    world.clock.now = START + moment
    await world.say(room, *bodies)


async def acked(world: World, sequence: int, *, room: str = "!a", endpoint: Endpoint | None = None) -> None:
    """Have the room's lanes, or the one to *endpoint*, passed everything up to *sequence*."""
    change = update(lanes).where(lanes.c.room_ref == f"room_{room}").values(acked_sequence=sequence)
    if endpoint is not None:
        change = change.where(lanes.c.endpoint_ref == endpoint.ref)
    await world.database.write(lambda connection: connection.execute(change))


async def no_sleep(seconds: float) -> None:
    """Wait for nothing."""


async def release(world: World, before: int = CUTOFF) -> int:
    return await housekeeping.release_events(world.database, before=START + before, sleep=no_sleep)


async def log_of(world: World, room: str = "!a") -> list[int]:
    query = (
        select(room_events.c.sequence)
        .where(room_events.c.room_ref == f"room_{room}")
        .order_by(room_events.c.sequence)
    )
    return await world.database.read(lambda connection: list(connection.execute(query).scalars()))


async def test_what_is_old_and_taken_by_all_leaves_the_log(world: World) -> None:
    await say_at(world, OLD, "1", "2")
    await say_at(world, YOUNG, "3")
    await acked(world, 3)
    assert await release(world) == 2
    assert await log_of(world) == [3]
    assert await release(world) == 0


async def test_an_event_just_old_enough_goes_and_one_at_the_limit_stays(world: World) -> None:
    await say_at(world, CUTOFF - 1, "1")
    await say_at(world, CUTOFF, "2")
    await acked(world, 2)
    await release(world)
    assert await log_of(world) == [2]


async def test_what_one_of_the_endpoints_waits_for_stays(world: World) -> None:
    second = await world.add_endpoint(name="second")
    await world.add_endpoint("", "everybodys")
    await say_at(world, OLD, "1", "2", "3")
    await acked(world, 3)
    await acked(world, 1, endpoint=second)
    await release(world)
    assert await log_of(world) == [2, 3]
    await acked(world, 3, endpoint=second)
    await release(world)
    assert await log_of(world) == []


async def test_what_the_platforms_endpoint_waits_for_stays(world: World) -> None:
    platforms = await world.add_endpoint("", "everybodys")
    await say_at(world, OLD, "1", "2")
    await acked(world, 2)
    await acked(world, 0, endpoint=platforms)
    assert await release(world) == 0
    assert await log_of(world) == [1, 2]


@pytest.mark.parametrize("state", ["paused", "disabled", "parked"])
async def test_what_waits_for_an_endpoint_that_gets_nothing_stays(world: World, state: str) -> None:
    await say_at(world, OLD, "1")

    def stop(connection: Connection) -> None:
        column = {"paused": "paused_at", "disabled": "disabled_at", "parked": "parked_at"}[state]
        table = lanes if state == "parked" else endpoint_rows
        connection.execute(update(table).values({column: 1}))

    await world.database.write(stop)
    assert await release(world) == 0


async def test_a_room_without_lanes_goes_by_age(world: World) -> None:
    await say_at(world, OLD, "1")
    await say_at(world, YOUNG, "2")
    await world.database.write(endpoints.delete, "t1", "main")
    assert await release(world) == 1
    assert await log_of(world) == [2]


async def test_a_batch_under_way_holds_its_events(world: World) -> None:
    """A replay's batch holds events that the lane has passed long ago."""
    main = await world.database.read(endpoints.get, "t1", "main")
    assert main is not None
    await say_at(world, OLD, "1", "2", "3")
    await acked(world, 3)

    def hold(connection: Connection) -> None:
        connection.execute(
            insert(batches).values(
                tenant="t1",
                endpoint_ref=main.ref,
                room_ref="room_!a",
                webhook_id="msg",
                first_sequence=2,
                last_sequence=2,
                body="{}",
                replay_ref="r",
                created_at=0,
            )
        )

    await world.database.write(hold)
    await release(world)
    assert await log_of(world) == [2, 3]
    await world.database.write(lambda connection: connection.execute(delete(batches)))
    await release(world)
    assert await log_of(world) == []


async def test_a_replay_keeps_what_it_has_yet_to_send(world: World) -> None:
    main = await world.database.read(endpoints.get, "t1", "main")
    assert main is not None
    await say_at(world, OLD, "1", "2", "3", "4")
    await acked(world, 4)
    await world.database.write(
        lambda connection: connection.execute(
            insert(replays).values(
                tenant="t1",
                endpoint_ref=main.ref,
                room_ref="room_!a",
                id="r",
                owner="t1",
                next_sequence=3,
                last_sequence=3,
                created_at=0,
            )
        )
    )
    await release(world)
    assert await log_of(world) == [3, 4]


async def test_a_replay_begun_after_the_room_was_found_is_seen(world: World) -> None:
    await say_at(world, OLD, "1", "2")
    page = await world.database.read(retention.find, before=START + CUTOFF)
    assert page.rooms == ()
    await acked(world, 2)
    page = await world.database.read(retention.find, before=START + CUTOFF)
    assert page.rooms == (("t1", "room_!a"),)
    await acked(world, 0)
    released = await world.database.write(retention.release, page.rooms, before=START + CUTOFF)
    assert (released.rooms, released.events) == (1, 0)


async def test_numbers_are_never_used_again(world: World) -> None:
    await say_at(world, OLD, "1", "2")
    await acked(world, 2)
    await release(world)
    assert await log_of(world) == []
    await say_at(world, YOUNG, "3")
    query = select(room_events.c.sequence, room_events.c.position)
    assert await world.database.read(lambda c: [tuple(row) for row in c.execute(query)]) == [(3, 3)]


async def test_what_is_left_of_a_room_has_no_gap_though_the_clock_went_back(world: World) -> None:
    for moment in (OLD, YOUNG, OLD):
        await say_at(world, moment, "x")
    await acked(world, 3)
    assert await release(world) == 1
    assert await log_of(world) == [2, 3]
    assert await release(world) == 0


async def test_another_tenants_room_is_its_own(world: World) -> None:
    """The same endpoint and room refs in another tenant hold nothing back, and lose nothing."""
    await world.add_tenant("T2")
    await world.add_endpoint("t2")
    await world.add_room("!c", "t2")
    await say_at(world, OLD, "1", room="!c")
    await say_at(world, OLD, "1")
    await acked(world, 1)
    assert await release(world) == 1
    assert (await log_of(world), await log_of(world, "!c")) == ([], [1])


async def test_a_round_comes_to_all_rooms_and_all_events(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(retention, "ROOMS_AT_ONCE", 2)
    monkeypatch.setattr(retention, "ROOMS_CHANGED_AT_ONCE", 1)
    monkeypatch.setattr(retention, "EVENTS_AT_ONCE", 2)
    names = [f"!r{n}" for n in range(5)]
    for name in names:
        await world.add_room(name)
        await say_at(world, OLD, *"12345", room=name)
        await acked(world, 5, room=name)
    await acked(world, 3, room="!r2")
    assert await release(world) == 23
    assert [await log_of(world, name) for name in names] == [[], [], [4, 5], [], []]


async def test_a_round_broken_off_anywhere_is_made_up_by_the_next(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(retention, "EVENTS_AT_ONCE", 2)
    await say_at(world, OLD, *"12345")
    await acked(world, 5)
    page = await world.database.read(retention.find, before=START + CUTOFF)
    released = await world.database.write(retention.release, page.rooms, before=START + CUTOFF)
    assert (released.rooms, released.events) == (0, 2)
    assert await log_of(world) == [3, 4, 5]
    assert await release(world) == 3


async def test_two_rounds_at_once_do_no_harm(world: World) -> None:
    for name in ("!a", "!b"):
        await say_at(world, OLD, *"12345", room=name)
        await acked(world, 5, room=name)
    released = await asyncio.gather(release(world), release(world))
    assert sum(released) == 10
    assert (await log_of(world), await log_of(world, "!b")) == ([], [])


def letter(endpoint: Endpoint, number: int, first: int, last: int, room: str = "!a") -> DeadLetter:
    reason = Reason.REFUSED
    return DeadLetter(
        "t1", endpoint.ref, number, f"letter{number}", "t1", f"room_{room}", first, last, reason, ""
    )


async def test_a_dead_letter_goes_with_the_last_of_its_events(world: World) -> None:
    main = await world.database.read(endpoints.get, "t1", "main")
    assert main is not None
    await say_at(world, OLD, *"1234")
    await say_at(world, YOUNG, "5")
    await acked(world, 5)
    platforms = await world.add_endpoint("", "everybodys")
    letters = [letter(main, 1, 1, 2), letter(main, 2, 3, 5), letter(main, 3, 1, 2, "!b")]
    for one in (*letters, replace(letter(platforms, 4, 1, 4), owner="")):
        await world.database.write(dead_letters.record, one, new_id=world.new_id)
    await release(world)
    left = await world.database.read(dead_letters.list_page, main.key, limit=9)
    assert [one.id for one in left] == ["letter3", "letter2"]
    assert await world.database.read(dead_letters.count, platforms.key) == 0


async def test_it_is_done_at_start_and_again_and_again(world: World) -> None:
    await say_at(world, OLD, "1")
    await acked(world, 1)
    rounds: list[int] = []

    async def sleep(_: float) -> None:
        rounds.append(len(await log_of(world)))
        if len(rounds) == 1:
            world.clock.now = START + OLD + 5_001
        else:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await housekeeping.keep_tidy(world.database, keep_events=5_000, now=world.clock, sleep=sleep)
    assert rounds == [1, 0]


async def test_others_have_their_turn_between_the_pieces_of_a_round(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "EVENTS_AT_ONCE", 2)
    await say_at(world, 1, *"123456")
    await acked(world, 6)
    pauses: list[float] = []

    async def breathe(seconds: float) -> None:
        pauses.append(seconds)

    released = await housekeeping.release_events(world.database, before=START + CUTOFF, sleep=breathe)
    assert released == 6
    assert len(pauses) >= 3
    assert set(pauses) == {housekeeping.BREATH}
