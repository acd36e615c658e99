"""The delivery worker: takes due lanes, sends their batches, records what came of it.

The database decides everything; the worker only holds leases. It may be killed at any moment: its lanes
come back when their leases end, and the same bytes are sent again under the same ``webhook-id``. Several
workers share one PostgreSQL database without knowing of each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from openmeet_appservice import errors
from openmeet_appservice.delivery import report
from openmeet_appservice.delivery.claim import Job, claim
from openmeet_appservice.delivery.judging import Tried, is_failure, judge, says_nothing_new
from openmeet_appservice.delivery.loop import Claimed, Loop
from openmeet_appservice.delivery.policy import Refused, Skip, Try, decide
from openmeet_appservice.delivery.posting import Poster, Posting
from openmeet_appservice.delivery.recorder import Recorder, Write, while_held
from openmeet_appservice.delivery.results import Result, record
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.store import lanes
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.lanes import Lane
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.wakeups import Wakeups

UNREADABLE_WAIT = 60_000
"""Milliseconds until a lane is looked at again whose endpoint's secret cannot be read."""

T = TypeVar("T")

log = logging.getLogger(__name__)


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
        self._posting = Posting(client, secrets, now)
        self._wakeups = wakeups
        self._settings = settings
        self._now = now
        self._random = random
        self._new_id = new_id
        self._sleep = sleep
        self._failed: set[EndpointKey] = set()
        self._loop = Loop(
            "delivery",
            self._take,
            self._deliver,
            wakeups,
            topic="deliver",
            slots=settings.concurrency,
            poll=settings.poll,
            pause=settings.pause,
            now=now,
            sleep=sleep,
            # What is claimed from then on is told of failures by the database.
            idle=self._failed.discard,
        )

    def start(self) -> None:
        """Begin to deliver."""
        self._loop.start()

    async def stop(self, grace: float) -> None:
        """Take nothing more, and let what is on its way end within *grace* seconds.

        What has not ended by then is broken off and its lanes are given back, so that another process
        goes on at once, with the same batches.
        """
        for job in await self._loop.stop(grace):
            # Where the result was recorded there is no lease any more, and nothing happens.
            try:
                await self._database.write(lanes.give_back, job.lane, due_at=self._now())
            except errors.DatabaseUnavailable as error:
                log.warning("a lane cannot be given back, its lease has to end first: %s", error)

    async def _take(self, shares: Shares) -> Claimed[Job]:
        return await self._database.write(claim, shares, self._settings, now=self._now(), new_id=self._new_id)

    async def _deliver(self, job: Job) -> None:
        body = job.batch.body.encode()
        try:
            answer = await self._posting.post(job.endpoint, job.batch.webhook_id, body, job.route.tenant_id)
        except errors.SecretUnreadable as error:
            log.error("webhook %s cannot be signed: %s", job.endpoint.name, error)
            due_at = self._now() + UNREADABLE_WAIT
            await self._commit(job.lane, partial(lanes.give_back, lane=job.lane, due_at=due_at))
            return
        report.tried(answer)
        await self._settle(self._decided(job, answer))

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
        lane, tried = result.job.lane, result.tried
        if tried.endpoint.key in self._failed or not says_nothing_new(tried):
            await self._judge(lane, tried)
        held = await self._commit(lane, partial(record, result=result, new_id=self._new_id))
        report.recorded(result, held=held)
        if held and isinstance(result.decision, Refused | Skip):
            self._wakeups.wake("notify")

    async def _judge(self, lane: Lane, tried: Tried) -> None:
        """Record what the try says of the endpoint.

        A batch that was claimed before a failure does not know of it. So failures are kept in mind while
        anything is under way: the next success has to be written down, or what fails now and then would
        look like what always fails.
        """
        random, new_id = self._random(), self._new_id
        self._failed.discard(tried.endpoint.key)
        judged = await self._while_held(
            lane, lambda: self._database.write(judge, tried, random=random, new_id=new_id)
        )
        report.judged(tried, judged)
        if is_failure(tried):
            self._failed.add(tried.endpoint.key)
        if judged.disabled or judged.closed:
            # The others are told; what else waits for it may go.
            self._wakeups.wake("notify")

    async def _commit(self, lane: Lane, do: Write) -> bool:
        return await self._while_held(lane, lambda: self._recorder.write(do))

    async def _while_held(self, lane: Lane, write: Callable[[], Awaitable[T]]) -> T:
        return await while_held(
            lane.until, write, now=self._now, sleep=self._sleep, pause=self._settings.pause
        )
