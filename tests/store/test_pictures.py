"""Whose picture is fetched when, and what is remembered of it, on both databases."""

from __future__ import annotations

import asyncio
from typing import Any

from openmeet_appservice.store import pictures, sync
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.pictures import Fetched, Job, Picture
from openmeet_appservice.store.sync import SyncError

A, B = "https://img.test/a.png", "https://img.test/b.png"
FETCHED = Fetched("mxc://hs.test/a", "a" * 64, '"v1"', None)
ERROR = SyncError("image_unavailable", "HTTP 404", 7)


async def use(database: Database, ref: str, url: str | None, *, tenant: str = "t1", now: int = 0) -> None:
    await database.write(sync.touch, tenant, "entity", ref, now=0)
    await database.write(pictures.use, tenant, "entity", ref, url, now=now)


async def of(database: Database, ref: str, url: str | None, *, tenant: str = "t1") -> Picture:
    return await database.read(pictures.of, tenant, "entity", ref, url)


async def claim(database: Database, now: int = 0, **more: Any) -> Job | None:
    return await database.write(pictures.claim, now=now, lease=1000, **more)


async def claimed(database: Database, now: int = 0) -> Job:
    job = await claim(database, now)
    assert job is not None
    return job


async def settle(database: Database) -> None:
    """Have all rows of `sync` done, so that a poke shows."""
    for lease in await database.write(sync.claim_due, now=10**9, lease=1, limit=99):
        await database.write(sync.finish, lease, observed=lease.generation)


async def poked(database: Database) -> set[str]:
    return {lease.ref for lease in await database.write(sync.claim_due, now=10**9, lease=1, limit=99)}


async def test_a_picture_is_fetched_once_for_all_who_use_it(database: Database) -> None:
    assert await of(database, "e1", A) == Picture(A, is_used=False)
    await use(database, "e1", A)
    assert await of(database, "e1", A) == Picture(A, is_used=True)
    assert (await of(database, "e1", A)).is_awaited
    await use(database, "e2", A, now=5)
    job = await claimed(database)
    assert (job.url, job.mxc, job.attempts) == (A, None, 0)
    assert await claim(database, 999) is None
    await settle(database)
    assert await database.write(pictures.taken, job, FETCHED, now=9)
    assert await poked(database) == {"e1", "e2"}
    for ref in ("e1", "e2"):
        assert await of(database, ref, A) == Picture(A, is_used=True, mxc=FETCHED.mxc)
    await use(database, "e3", A, now=9)
    assert (await of(database, "e3", A)).avatar == FETCHED.mxc
    assert await claim(database, 10**9) is None, "what is known is not fetched again"
    assert await database.read(pictures.next_due, now=0) is None


async def test_another_url_and_none(database: Database) -> None:
    await use(database, "e1", A)
    await database.write(pictures.taken, await claimed(database), FETCHED, now=0)
    assert await of(database, "e1", B) == Picture(B, is_used=False)
    await use(database, "e1", B)
    assert (await claimed(database)).url == B
    assert await of(database, "e1", A) == Picture(A, is_used=False, mxc=FETCHED.mxc), "it is remembered"
    assert await of(database, "e1", None) == Picture(None, is_used=False)
    await use(database, "e1", None)
    assert await of(database, "e1", None) == Picture(None, is_used=True)
    assert (await of(database, "e1", None)).avatar == ""


async def test_tenants_share_nothing(database: Database) -> None:
    await use(database, "e1", A)
    await use(database, "e1", A, tenant="t2", now=1)
    await database.write(pictures.taken, await claimed(database, 1), FETCHED, now=1)
    assert (await of(database, "e1", A, tenant="t2")).mxc is None
    assert await database.read(pictures.mxc_of, "t2", FETCHED.content_hash) is None
    assert await database.read(pictures.mxc_of, "t1", FETCHED.content_hash) == FETCHED.mxc
    assert await claim(database, 1, without=["t2"]) is None
    assert await database.read(pictures.next_due, now=1, without=["t2"]) is None
    job = await claimed(database, 1)
    assert job.tenant == "t2"


async def test_a_failure_keeps_what_there_was_and_is_tried_again(database: Database) -> None:
    await use(database, "e1", A)
    await database.write(pictures.taken, await claimed(database), FETCHED, now=0)
    await database.write(pictures.recheck, "t1", "entity", "e1", now=10)
    job = await claimed(database, 10)
    assert (job.mxc, job.content_hash, job.etag) == (FETCHED.mxc, FETCHED.content_hash, FETCHED.etag)
    await settle(database)
    assert await database.write(pictures.failed, job, ERROR, retry_at=500, now=11)
    assert await poked(database) == {"e1"}
    known = await of(database, "e1", A)
    assert (known.avatar, known.is_awaited) == (FETCHED.mxc, False)
    assert known.error == SyncError(ERROR.code, ERROR.detail, ERROR.at, attempts=1, next_at=500)
    assert await claim(database, 499) is None
    again = await claimed(database, 500)
    assert again.attempts == 1
    assert await database.write(pictures.taken, again, None, now=501)
    assert await of(database, "e1", A) == Picture(A, is_used=True, mxc=FETCHED.mxc)


async def test_a_dead_worker_s_picture_comes_back_and_its_late_result_counts_for_nothing(
    database: Database,
) -> None:
    await use(database, "e1", A)
    dead = await claimed(database)
    assert await database.read(pictures.next_due, now=1) == 1000
    job = await claimed(database, 1000)
    assert not await database.write(pictures.taken, dead, FETCHED, now=1001)
    assert not await database.write(pictures.failed, dead, ERROR, retry_at=5, now=1001)
    await database.write(pictures.release, dead, now=1001)
    assert await claim(database, 1500) is None
    assert (await of(database, "e1", A)).is_awaited
    await database.write(pictures.release, job, now=1500)
    await claimed(database, 1500)
    await database.write(pictures.release_all, now=1600)
    await claimed(database, 1600)


async def test_what_is_to_be_looked_at_again_meanwhile_is(database: Database) -> None:
    await use(database, "e1", A)
    job = await claimed(database)
    await database.write(pictures.recheck, "t1", "entity", "e1", now=5)
    assert await claim(database, 5) is None
    await database.write(pictures.taken, job, FETCHED, now=6)
    assert (await claimed(database, 6)).mxc == FETCHED.mxc


async def test_what_nobody_uses_is_forgotten_after_a_time(database: Database) -> None:
    await use(database, "e1", A, now=1)
    await use(database, "e2", B, now=1)
    await use(database, "e2", None, now=1)
    assert await database.write(pictures.forget, before=1) == 0
    assert await database.write(pictures.forget, before=2) == 1
    assert {job.url for job in [await claimed(database, 1)]} == {A}


async def test_a_result_and_a_new_use_wait_for_one_another(migrated_url: str) -> None:
    """Whoever begins to use a picture just now either reads its result afterwards or is poked by it."""
    databases = [open_database(migrated_url) for _ in range(2)]
    ours, theirs = databases
    try:
        for round_ in range(20):
            url, ref = f"{A}?{round_}", f"new{round_}"
            await use(ours, f"old{round_}", url)
            await ours.write(sync.touch, "t1", "entity", ref, now=0)
            job = await claimed(ours)
            await settle(ours)

            async def begin(url: str = url, ref: str = ref) -> Picture:
                await ours.write(pictures.use, "t1", "entity", ref, url, now=1)
                return await of(ours, ref, url)

            known, _ = await asyncio.gather(begin(), theirs.write(pictures.taken, job, FETCHED, now=2))
            assert known.mxc == FETCHED.mxc or ref in await poked(ours)
            await settle(ours)
    finally:
        for database in databases:
            await database.close()
