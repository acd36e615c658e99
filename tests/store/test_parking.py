"""Parking by hand, whatever a lane is doing just then. On both databases."""

from __future__ import annotations

from typing import Any

import pytest

from openmeet_appservice.store import lanes, parking
from openmeet_appservice.store.database import Database

from .test_lanes import row, say, store, take

__all__ = ["store"]  # a fixture

KEY = ("t1", "e")


async def park(store: Database, *, now: int = 6) -> bool:
    return await store.write(parking.park, KEY, "t1", "a", now=now)


async def resume(store: Database, *, now: int = 50) -> bool:
    return await store.write(parking.resume, KEY, "t1", "a", now=now)


async def test_a_parked_room_gets_nothing_until_it_is_resumed(store: Database) -> None:
    await say(store, "a", "$1", now=1)
    await say(store, "b", "$2", now=1)
    assert await park(store)
    assert await park(store, now=7)
    await say(store, "a", "$3", now=8)
    found = await row(store)
    assert (found.parked_at, found.due_at, found.waiting_since) == (6, None, 1)
    assert [lane.room_ref for lane in await take(store, now=100)] == ["b"]
    assert await resume(store)
    found = await row(store)
    assert (found.parked_at, found.due_at, found.acked_sequence) == (None, 50, 0)
    assert not await resume(store)


async def test_a_room_without_a_lane_cannot_be_parked(store: Database) -> None:
    assert not await park(store)
    await say(store, "a", "$1", now=1)
    assert not await store.write(parking.park, ("t2", "e"), "t1", "a", now=6)
    assert not await store.write(parking.park, KEY, "t2", "a", now=6)
    assert (await row(store)).parked_at is None


async def test_an_idle_room_that_is_parked_keeps_what_comes_in(store: Database) -> None:
    await say(store, "a", "$1", now=1)
    [lane] = await take(store, now=5)
    await store.write(lanes.taken, lane, last=1, now=5)
    assert await park(store)
    assert (await store.read(lanes.backlog)).waiting == 0
    await say(store, "a", "$2", now=8)
    await say(store, "a", "$3", now=9)
    found = await row(store)
    assert (found.parked_at, found.due_at, found.waiting_since) == (6, None, 8)
    assert await resume(store)
    assert (await row(store)).due_at == 50


@pytest.mark.parametrize("how", ["room", "endpoint"])
async def test_an_idle_room_is_resumed_to_be_idle(store: Database, how: str) -> None:
    await say(store, "a", "$1", now=1)
    [lane] = await take(store, now=5)
    await store.write(lanes.taken, lane, last=1, now=5)
    await park(store)
    if how == "room":
        assert await resume(store)
    else:
        await store.write(lanes.try_again, KEY, now=50)
    found = await row(store)
    assert (found.parked_at, found.due_at) == (None, None)
    await say(store, "a", "$2", now=60)
    assert (await row(store)).due_at == 60


async def ends(store: Database, lane: Any, how: str) -> bool:
    if how == "taken":
        return await store.write(lanes.taken, lane, last=1, now=8)
    if how == "fail":
        return await store.write(lanes.fail, lane, retry_at=500)
    if how == "park":
        return await store.write(lanes.park, lane, now=8)
    if how == "narrow":
        return await store.write(lanes.narrow, lane, most=1, through=2, now=8)
    if how == "give_back":
        return await store.write(lanes.give_back, lane, due_at=8)
    return await store.write(lanes.release_all, now=8) == 1


@pytest.mark.parametrize("how", ["taken", "fail", "park", "narrow", "give_back", "release_all"])
async def test_a_room_parked_during_a_try_stays_so_however_it_ends(store: Database, how: str) -> None:
    await say(store, "a", "$1", now=1)
    await say(store, "a", "$2", now=2)
    [lane] = await take(store, now=5)
    assert await park(store)
    assert await ends(store, lane, how)
    found = await row(store)
    assert (found.parked_at, found.due_at, found.lease_until) == (6, None, None)
    assert await take(store, now=10**6) == []
    assert await resume(store)
    [again] = await take(store, now=50)
    assert again.acked == (1 if how == "taken" else 0)
    assert again.attempts == 0
