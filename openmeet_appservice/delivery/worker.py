"""The delivery worker: takes due lanes, sends their batches, records what came of it.

The database decides everything; the worker only holds leases. It may be killed at any moment: its lanes
come back when their leases end, and the same bytes are sent again under the same ``webhook-id``. Several
workers share one PostgreSQL database without knowing of each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Protocol, TypeVar

from openmeet_appservice import errors, metrics
from openmeet_appservice.delivery import report
from openmeet_appservice.delivery.claim import Claimed, Job, claim
from openmeet_appservice.delivery.policy import Try, decide
from openmeet_appservice.delivery.recorder import Recorder, Write
from openmeet_appservice.delivery.results import Result, judge, record, says_nothing_new
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.outbound.signing import webhook_headers
from openmeet_appservice.store import lanes
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoints import unseal
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.lanes import Lane
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.wakeups import Wakeups
from openmeet_appservice.web import context

UNREADABLE_WAIT = 60_000
"""Milliseconds until a lane is looked at again whose endpoint's secret cannot be read."""

T = TypeVar("T")

log = logging.getLogger(__name__)


class Poster(Protocol):
    """Sends a body and returns what came of it; `openmeet_appservice.outbound.client.GuardedClient`."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer | NoAnswer:
        """Send *body* to *url*, raising nothing but cancellation."""


class DeliveryWorker:
    """Delivers until it is stopped.

    Parameters
    ----------
    client
        What sends.
    secrets
        Opens the endpoints' secrets.
    now
        The clock.
    random
        Returns at least 0 and below 1: the jitter of retries.
    new_id
        Makes the ids of webhooks.
    sleep
        Waits that many seconds when the database is away.
    """

    def __init__(
        self,
        database: Database,
        client: Poster,
        secrets: SecretBox,
        wakeups: Wakeups,
        settings: DeliverySettings,
        *,
        now: Now,
        random: Callable[[], float],
        new_id: NewId,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._recorder = Recorder(database)
        self._client = client
        self._secrets = secrets
        self._wakeups = wakeups
        self._settings = settings
        self._now = now
        self._random = random
        self._new_id = new_id
        self._sleep = sleep
        self._shares = Shares(settings.concurrency)
        self._under_way: dict[asyncio.Task[None], Job] = {}
        self._stirred = asyncio.Event()
        self._stopping = False
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to deliver."""
        self._loop = asyncio.create_task(self._run(), name="delivery")

    async def stop(self, grace: float) -> None:
        """Take nothing more, and let what is on its way end within *grace* seconds.

        What has not ended by then is broken off and its lanes are given back, so that another process
        goes on at once, with the same batches.
        """
        deadline = asyncio.get_running_loop().time() + grace
        self._stopping = True
        self._stirred.set()
        if self._loop is not None:
            await _end([self._loop], deadline)
        left = dict(self._under_way)
        await _end(left, deadline)
        for job in left.values():
            # Where the result was recorded there is no lease any more, and nothing happens.
            try:
                await self._database.write(lanes.give_back, job.lane, due_at=self._now())
            except errors.DatabaseUnavailable as error:
                log.warning("a lane cannot be given back, its lease has to end first: %s", error)

    async def _run(self) -> None:
        while not self._stopping:
            ticket = self._wakeups.ticket("deliver")
            self._stirred.clear()
            claimed = await self._claim()
            for job in claimed.jobs:
                self._begin(job)
            if not claimed.more:
                await self._rest(ticket, claimed.next_due)

    async def _claim(self) -> Claimed:
        """Take what is due. A fault is logged and waited out: nothing stops delivery for good."""
        if not self._shares.free:
            return Claimed((), more=False, next_due=None)
        try:
            return await self._database.write(
                claim, self._shares.copy(), self._settings, now=self._now(), new_id=self._new_id
            )
        except errors.DatabaseUnavailable as error:
            log.warning("delivery waits for the database: %s", error)
        except Exception:
            log.exception("delivery cannot take what is due; it goes on trying")
        await self._sleep(self._settings.pause)
        return Claimed((), more=True, next_due=None)

    async def _rest(self, ticket: int, next_due: int | None) -> None:
        """Wait for new events, a free slot, or the next due moment; at most until the next poll."""
        timeout = self._settings.poll
        if next_due is not None:
            timeout = min(timeout, max(next_due - self._now(), 0) / 1000)
        waits = [
            asyncio.create_task(self._wakeups.wait("deliver", ticket, timeout)),
            asyncio.create_task(self._stirred.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _begin(self, job: Job) -> None:
        self._shares.start(job.lane.endpoint)
        task = asyncio.create_task(self._deliver(job), name=f"deliver {job.batch.webhook_id}")
        self._under_way[task] = job
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._under_way.pop(task)
        self._shares.end(job.lane.endpoint)
        self._stirred.set()

    async def _deliver(self, job: Job) -> None:
        with context.bind(tenant=job.route.tenant_id, room=job.route.room_id):
            try:
                await self._attempt(job)
            except errors.DatabaseUnavailable as error:
                log.error("what came of a webhook could not be recorded, it will be repeated: %s", error)
            except Exception:
                log.exception("a webhook could not be sent; it is tried again when its lease ends")

    async def _attempt(self, job: Job) -> None:
        body = job.batch.body.encode()
        try:
            headers = self._headers(job, body)
        except errors.SecretUnreadable as error:
            log.error("webhook %s cannot be signed: %s", job.endpoint.name, error)
            due_at = self._now() + UNREADABLE_WAIT
            await self._commit(job.lane, partial(lanes.give_back, lane=job.lane, due_at=due_at))
            return
        answer = await self._client.post(job.endpoint.wanted.url, body, headers)
        metrics.DELIVERY_ATTEMPTS.labels(answer.outcome).inc()
        metrics.DELIVERY_SECONDS.observe(answer.seconds)
        await self._settle(self._decided(job, answer))

    def _headers(self, job: Job, body: bytes) -> dict[str, str]:
        """Return the headers of one try, signed now.

        Raises
        ------
        SecretUnreadable
            No key that we have opens the endpoint's secret or its headers.
        """
        unsealed = unseal(job.endpoint, self._secrets, now=self._now())
        return webhook_headers(
            unsealed.secrets,
            job.batch.webhook_id,
            self._now(),
            body,
            tenant_id=job.route.tenant_id,
            static=unsealed.headers,
        )

    def _decided(self, job: Job, answer: Answer | NoAnswer) -> Result:
        wanted, lane, now = job.endpoint.wanted.on_exhausted, job.lane, self._now()
        decision = decide(
            answer,
            Try(job.events, lane.attempts, lane.refusals),
            retry=self._settings.retry,
            skip=self._settings.skip_exhausted if wanted is None else wanted == "skip",
            now=now,
            random=self._random(),
        )
        return Result(job, answer, decision, now)

    async def _settle(self, result: Result) -> None:
        """Record what came of a try: first of the endpoint, so that its lane is not tried once too often."""
        lane = result.job.lane
        if not says_nothing_new(result):
            random = self._random()
            judged = await self._while_held(lane, lambda: self._database.write(judge, result, random=random))
            report.judged(result, judged)
        held = await self._commit(lane, partial(record, result=result, new_id=self._new_id))
        report.recorded(result, held=held)

    async def _commit(self, lane: Lane, do: Write) -> bool:
        return await self._while_held(lane, lambda: self._recorder.write(do))

    async def _while_held(self, lane: Lane, write: Callable[[], Awaitable[T]]) -> T:
        """Write, and while the database is away try again for as long as the lane is held.

        Doing it twice is harmless: a lane whose lease has ended is left as it is.
        """
        while True:
            try:
                return await write()
            except errors.DatabaseUnavailable as error:
                if self._now() >= lane.until:
                    raise
                log.warning("delivery waits for the database: %s", error)
                await self._sleep(self._settings.pause)


async def _end(tasks: Collection[asyncio.Task[None]], deadline: float) -> None:
    """Let the tasks end until *deadline* (of the event loop's clock), then break them off."""
    if tasks:
        await asyncio.wait(tasks, timeout=max(deadline - asyncio.get_running_loop().time(), 0))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
