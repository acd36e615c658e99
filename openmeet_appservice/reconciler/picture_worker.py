"""The picture worker: fetches what is due, uploads what is new, and writes down what came of it.

The bytes decide: what was uploaded before, under this URL or another of the same tenant, is not uploaded
again. That an upload has succeeded is known only once it is recorded, so where this process dies in between,
or no answer comes, the same picture is uploaded once more; nobody ever sees the first.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.pictures import LONGEST_WAIT_MS, MAX_BYTES, MEDIA_TYPES, wait_ms
from openmeet_appservice.errors import DatabaseUnavailable, HomeserverError, HomeserverLimited
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.metrics import PICTURES
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.reconciler import failures
from openmeet_appservice.reconciler.picture_answers import Image, NoImage, Unchanged, judge
from openmeet_appservice.store import pictures
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.pictures import Fetched, Job
from openmeet_appservice.store.sync import SyncError
from openmeet_appservice.store.wakeups import Wakeups
from openmeet_appservice.web.context import bind

logger = logging.getLogger(__name__)

SLOTS = 4
"""How many pictures are fetched at once: each may take 5 MiB of memory."""

SLOTS_OF_A_TENANT = 2
"""How many of one tenant's, so that its slow servers hold up nobody else."""

LEASE_MS = 5 * 60_000
"""For how long a picture is taken: longer than fetching and uploading may take together."""

POLL_SECONDS = 60.0
"""Whoever wants a picture wakes the worker; this is for wake-ups that were lost."""

PAUSE_SECONDS = 5.0


class Client(Protocol):
    """What asks for pictures; see `outbound.client.GuardedClient`."""

    async def get(self, url: str, headers: Mapping[str, str], *, limit: int) -> Answer | NoAnswer:
        """Return what came of it."""


class PictureWorker:
    """Works on due pictures until it is stopped.

    Parameters
    ----------
    client
        Guarded, for anybody may have named the URLs.
    now
        The clock: milliseconds since the epoch.
    sleep, random_number
        Wait some seconds; a number in [0, 1).
    """

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        client: Client,
        wakeups: Wakeups,
        *,
        now: Now,
        sleep: Callable[[float], Awaitable[None]],
        random_number: Callable[[], float],
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._client = client
        self._wakeups = wakeups
        self._now = now
        self._sleep = sleep
        self._random = random_number
        self._under_way: dict[asyncio.Task[None], Job] = {}
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Fetch pictures until cancelled; what is under way then is given back undone."""
        try:
            if self._database.dialect == "sqlite":
                # What a former process held: on SQLite there is never another one.
                await self._insist(pictures.release_all)
            while True:
                ticket = self._wakeups.ticket("pictures")
                self._ended.clear()
                await self._rest(ticket, await self._insist_on_taking())
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.gather(*self._under_way, return_exceptions=True)

    async def _insist(self, do: Callable[..., None]) -> None:
        while True:
            try:
                await self._database.write(do, now=self._now())
                return
            except DatabaseUnavailable as error:
                logger.warning("pictures wait for the database: %s", error)
            await self._sleep(PAUSE_SECONDS)

    async def _insist_on_taking(self) -> int | None:
        """Begin with what is due, as far as there are slots; return when something else will be."""
        while True:
            try:
                return await self._take()
            except DatabaseUnavailable as error:
                logger.warning("pictures wait for the database: %s", error)
            except Exception:
                logger.exception("the pictures that are due cannot be taken; it is tried on")
            await self._sleep(PAUSE_SECONDS)

    async def _take(self) -> int | None:
        while len(self._under_way) < SLOTS:
            busy = Counter(job.tenant for job in self._under_way.values())
            without = [tenant for tenant, number in busy.items() if number >= SLOTS_OF_A_TENANT]
            # While nothing is due this is one query.
            due_at = await self._database.read(pictures.next_due, now=self._now(), without=without)
            if due_at is None or due_at > self._now():
                return due_at
            job = await self._database.write(pictures.claim, now=self._now(), lease=LEASE_MS, without=without)
            if job is None:
                # Another replica was faster.
                return due_at + int(PAUSE_SECONDS * 1000)
            task = asyncio.create_task(self._work(job), name="picture")
            self._under_way[task] = job
            task.add_done_callback(self._forget)
        return None

    def _forget(self, task: asyncio.Task[None]) -> None:
        del self._under_way[task]
        self._ended.set()

    async def _rest(self, ticket: int, due_at: int | None) -> None:
        """Wait for something new, a free slot, or the next due moment."""
        timeout = POLL_SECONDS
        if due_at is not None:
            timeout = min(timeout, max(0, due_at - self._now()) / 1000)
        waits = [
            asyncio.create_task(self._wakeups.wait("pictures", ticket, timeout)),
            asyncio.create_task(self._ended.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _work(self, job: Job) -> None:
        with bind(tenant=job.tenant):
            try:
                outcome = await self._once(job)
            except DatabaseUnavailable as error:
                logger.warning("what came of a picture could not be recorded, it is repeated: %s", error)
                return
            except asyncio.CancelledError:
                await self._database.write(pictures.release, job, now=self._now())
                raise
            except Exception:
                logger.exception("a picture could not be fetched; it is tried again when its lease ends")
                outcome = "internal_error"
            PICTURES.labels(outcome).inc()
            self._wakeups.wake("reconcile")

    async def _once(self, job: Job) -> str:
        """Fetch one picture and record what came of it; return that in a word."""
        answer = await self._client.get(job.url, _headers(job), limit=MAX_BYTES + 1)
        match judge(answer, now=self._now()):
            case NoImage() as none:
                return await self._fail(job, none)
            case Unchanged() if job.mxc is None:
                return await self._fail(job, NoImage("image_unavailable", "The answer was HTTP 304."))
            case Unchanged():
                await self._database.write(pictures.taken, job, None, now=self._now())
                return "unchanged"
            case Image() as image:
                return await self._keep(job, image)

    async def _keep(self, job: Job, image: Image) -> str:
        digest = hashlib.sha256(image.content).hexdigest()
        outcome = "unchanged" if job.content_hash == digest else "known"
        mxc = job.mxc if job.content_hash == digest else None
        mxc = mxc or await self._database.read(pictures.mxc_of, job.tenant, digest)
        if mxc is None:
            try:
                mxc = await self._homeserver.upload(image.content, image.media_type)
            except HomeserverError as error:
                wait = error.retry_after if isinstance(error, HomeserverLimited) else None
                none = NoImage(failures.code_of(error), str(error), round((wait or 0) * 1000))
                return await self._fail(job, none, longest=failures.LONGEST_WAIT_MS)
            outcome = "uploaded"
        found = Fetched(mxc, digest, image.etag, image.last_modified)
        await self._database.write(pictures.taken, job, found, now=self._now())
        return outcome

    async def _fail(self, job: Job, none: NoImage, *, longest: int = LONGEST_WAIT_MS) -> str:
        now = self._now()
        wait = max(none.wait_ms, wait_ms(job.attempts, self._random, longest=longest))
        error = SyncError(none.code, f"Its picture: {none.detail}", now)
        await self._database.write(pictures.failed, job, error, retry_at=now + wait, now=now)
        logger.warning("a picture failed, again in %.0f s: %s: %s", wait / 1000, none.code, none.detail)
        return none.code


def _headers(job: Job) -> dict[str, str]:
    """Return what to ask with: only for another version, where one is known already."""
    headers = {"Accept": ", ".join(MEDIA_TYPES)}
    if job.mxc is not None and job.etag is not None:
        headers["If-None-Match"] = job.etag
    elif job.mxc is not None and job.last_modified is not None:
        headers["If-Modified-Since"] = job.last_modified
    return headers
