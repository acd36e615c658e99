"""Who works on what, and what becomes of it when several do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import Connection

from openmeet_appservice.store import sync
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.sync import Lease, SyncError, SyncStatus

ERROR = SyncError("unreachable", "no answer", 100)


async def touch(database: Database, ref: str = "e1", now: int = 0) -> int:
    return await database.write(sync.touch, "t1", "entity", ref, now=now)


async def claim(database: Database, now: int, limit: int = 10) -> list[Lease]:
    return await database.write(sync.claim_due, now=now, lease=1000, limit=limit)


async def status(database: Database, ref: str = "e1") -> SyncStatus:
    found = await database.read(sync.status, "t1", "entity", ref)
    assert found is not None
    return found


async def test_a_touched_row_is_due_and_done_once(database: Database) -> None:
    assert await database.read(sync.status, "t1", "entity", "e1") is None
    assert await touch(database, now=5) == 1
    assert await claim(database, now=4) == []
    [lease] = await claim(database, now=5)
    assert (lease.ref, lease.generation, lease.until) == ("e1", 1, 1005)
    assert await claim(database, now=6) == []
    assert await database.write(sync.finish, lease, observed=1)
    assert await status(database) == SyncStatus(1, 1, 0, None, None)
    assert await claim(database, now=10_000) == []
    assert await database.read(sync.next_due, now=0) is None


async def test_what_is_touched_meanwhile_is_due_again(database: Database) -> None:
    await touch(database)
    [lease] = await claim(database, now=0)
    assert await touch(database, now=3) == 2
    assert await claim(database, now=3) == []
    assert await database.write(sync.finish, lease, observed=1)
    found = await status(database)
    assert (found.generation, found.observed_generation, found.due_at) == (2, 1, 3)
    assert [lease.generation for lease in await claim(database, now=3)] == [2]


async def test_touched_in_the_very_moment_the_lease_ends(database: Database) -> None:
    await touch(database)
    [lease] = await claim(database, now=0)
    await touch(database, now=lease.until)
    assert await database.write(sync.finish, lease, observed=1)
    assert len(await claim(database, now=lease.until)) == 1


async def test_a_poke_has_it_compared_again(database: Database) -> None:
    await touch(database)
    [lease] = await claim(database, now=0)
    await database.write(sync.finish, lease, observed=1)
    await database.write(sync.poke, "t1", "entity", "e1", now=50)
    [lease] = await claim(database, now=50)
    assert lease.generation == 1


async def test_a_failure_waits_for_its_next_attempt(database: Database) -> None:
    await touch(database)
    [lease] = await claim(database, now=0)
    assert await database.write(sync.fail, lease, ERROR, retry_at=700)
    assert await status(database) == SyncStatus(1, 0, 1, 700, ERROR)
    assert await claim(database, now=699) == []
    [lease] = await claim(database, now=700)
    assert lease.attempts == 1
    await database.write(sync.fail, lease, ERROR, retry_at=900)
    assert (await status(database)).attempts == 2
    assert await database.write(sync.retry_failed, now=800) == 1
    assert len(await claim(database, now=800)) == 1


async def test_what_failed_for_another_reason_keeps_waiting(database: Database) -> None:
    for ref, code in (("e1", "unreachable"), ("e2", "unreachable_x"), ("e3", "un_eachable")):
        await touch(database, ref)
        [lease] = await claim(database, now=0)
        await database.write(sync.fail, lease, SyncError(code, "", 0), retry_at=700)
    assert await database.write(sync.retry_failed, now=1, code="unreachable") == 1
    assert [lease.ref for lease in await claim(database, now=1)] == ["e1"]


async def test_a_failure_touched_meanwhile_is_tried_at_once(database: Database) -> None:
    await touch(database)
    [lease] = await claim(database, now=0)
    await touch(database, now=2)
    assert await database.write(sync.fail, lease, ERROR, retry_at=700)
    assert (await status(database)).attempts == 0
    assert len(await claim(database, now=2)) == 1


async def test_a_dead_workers_row_comes_back_and_its_late_results_are_refused(database: Database) -> None:
    await touch(database)
    [dead] = await claim(database, now=0)
    assert await claim(database, now=999) == []
    [lease] = await claim(database, now=1000)
    assert lease.epoch == dead.epoch + 1
    assert not await database.write(sync.finish, dead, observed=1)
    assert not await database.write(sync.fail, dead, ERROR, retry_at=1)
    assert not await database.write(sync.release, dead, now=1)
    assert await database.write(sync.renew, dead, until=5000) is None
    assert (await status(database)).observed_generation == 0


async def test_a_renewed_lease_holds_longer(database: Database) -> None:
    await touch(database)
    [lease] = await claim(database, now=0)
    renewed = await database.write(sync.renew, lease, until=3000)
    assert renewed is not None
    assert await claim(database, now=2999) == []
    assert await database.write(sync.finish, renewed, observed=1)
    assert (await status(database)).due_at is None


async def test_a_renewed_lease_remembers_that_it_was_touched(database: Database) -> None:
    await touch(database)
    [lease] = await claim(database, now=0)
    await touch(database, now=1)
    renewed = await database.write(sync.renew, lease, until=3000)
    assert renewed is not None
    await database.write(sync.finish, renewed, observed=1)
    assert len(await claim(database, now=1)) == 1


async def test_leases_given_back_are_due(database: Database) -> None:
    await touch(database, "e1")
    await touch(database, "e2")
    first, second = await claim(database, now=0)
    assert await database.write(sync.release, first, now=5)
    assert [lease.ref for lease in await claim(database, now=5)] == [first.ref]
    assert await database.write(sync.release_all, now=7) == 2
    assert {lease.ref for lease in await claim(database, now=7)} == {first.ref, second.ref}


async def test_next_due(database: Database) -> None:
    await touch(database, "e1", now=500)
    await touch(database, "e2", now=300)
    assert await database.read(sync.next_due, now=0) == 300
    assert (await database.read(sync.outlook, now=0)).pending == 2
    [lease] = await claim(database, now=300)
    assert await database.read(sync.next_due, now=300) == 500
    # Touched while it is leased: nobody can take it before the lease ends.
    await touch(database, "e2", now=301)
    assert await database.read(sync.next_due, now=301) == 500
    await database.write(sync.finish, lease, observed=1)
    assert await database.read(sync.next_due, now=301) == 301


async def test_the_longest_due_come_first(database: Database) -> None:
    for ref, now in (("e1", 3), ("e2", 1), ("e3", 2)):
        await touch(database, ref, now=now)
    assert [lease.ref for lease in await claim(database, now=9, limit=2)] == ["e2", "e3"]


async def test_two_at_once_make_one_row(database: Database, migrated_url: str) -> None:
    replica = open_database(migrated_url) if database.dialect == "postgresql" else database
    generations = await asyncio.gather(*(touch(one) for one in (database, replica) * 10))
    assert sorted(generations) == list(range(1, 21))
    if replica is not database:
        await replica.close()


async def test_two_workers_never_share_a_row(database: Database, migrated_url: str) -> None:
    replica = open_database(migrated_url) if database.dialect == "postgresql" else database
    refs = [f"e{number}" for number in range(40)]
    for ref in refs:
        await touch(database, ref)
    taken: list[str] = []

    async def work(one: Database) -> None:
        while leases := await claim(one, now=1, limit=3):
            taken.extend(lease.ref for lease in leases)

    await asyncio.gather(*(work(one) for one in (database, replica) * 2))
    # Who finds everything locked by others stops early; what is left is nobody's, not two's.
    taken.extend(lease.ref for lease in await claim(database, now=1, limit=100))
    assert sorted(taken) == sorted(refs)
    if replica is not database:
        await replica.close()


async def test_what_has_to_be_compared(database: Database) -> None:
    async def claimed() -> Lease:
        [lease] = await claim(database, now=1000)
        return lease

    await touch(database)
    lease = await claimed()
    assert lease.whole
    await database.write(sync.finish, lease, observed=1)
    await database.write(sync.change, "t1", "entity", "e1", now=1000, whole=False)
    lease = await claimed()
    assert not lease.whole
    # A homeserver that is away says nothing about the room.
    await database.write(sync.fail, lease, ERROR, retry_at=1000, whole=False)
    lease = await claimed()
    assert not lease.whole
    # While it is worked on somebody asks for more.
    await database.write(sync.poke, "t1", "entity", "e1", now=1000)
    await database.write(sync.finish, lease, observed=2)
    lease = await claimed()
    assert lease.whole
    await database.write(sync.finish, lease, observed=2)
    assert await database.write(sync.poke_members, "t1", "e1", now=1000) == 4
    lease = await claimed()
    assert not lease.whole
    await database.write(sync.fail, lease, ERROR, retry_at=1000)
    assert (await claimed()).whole
    assert await database.write(sync.poke_members, "t1", "unknown", now=1000) is None


@pytest.mark.parametrize(
    "again",
    [
        lambda c: sync.poke(c, "t1", "entity", "e1", now=1000),
        # Due before, so that only what is compared changes.
        lambda c: sync.poke_by(c, "t1", "entity", "e1", at=5000),
        lambda c: sync.retry_failed(c, now=1000),
    ],
    ids=["poke", "poke_by", "retry_failed"],
)
async def test_what_is_due_without_a_change_of_members_is_compared_as_a_whole(
    database: Database, again: Callable[[Connection], object]
) -> None:
    await touch(database)
    [lease] = await claim(database, now=0)
    await database.write(sync.finish, lease, observed=1)
    await database.write(sync.change, "t1", "entity", "e1", now=1000, whole=False)
    [lease] = await claim(database, now=1000)
    await database.write(sync.fail, lease, ERROR, retry_at=1001, whole=False)
    await database.write(again)
    [lease] = await claim(database, now=1001)
    assert lease.whole
