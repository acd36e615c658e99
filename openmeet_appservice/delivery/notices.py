"""The worker that sends notices, the operational webhooks: beside the lanes, with a few slots of its own.

A notice is signed, tried, retried and judged as a batch of one event is; see `delivery.policy`. There is no
order to keep, so none is ever parked: what is refused for good or outlives the schedule is given up, which
the log and a metric tell, but no other notice.

A receiver may choke on types of webhooks that it does not know. That must not cut it off from what is said in
its rooms, so all answers to one type count as one room's for the breaker.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection

from openmeet_appservice import errors, metrics
from openmeet_appservice.delivery import report
from openmeet_appservice.delivery.judging import Tried, attempt, judge, says_nothing_new
from openmeet_appservice.delivery.loop import Claimed, Loop
from openmeet_appservice.delivery.policy import (
    Decision,
    Disable,
    Refused,
    Retry,
    Skip,
    Taken,
    Try,
    decide,
    describe,
)
from openmeet_appservice.delivery.posting import Poster, Posting
from openmeet_appservice.delivery.recorder import Recorder, Write, while_held
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.delivery.taking import take
from openmeet_appservice.delivery.worker import UNREADABLE_WAIT
from openmeet_appservice.domain.moments import Now, to_rfc3339
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.store import attempts, endpoints, notices
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.notices import Notice
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.wakeups import Wakeups

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NoticeJob:
    """A notice to send now, that is ours for a while."""

    notice: Notice
    endpoint: Endpoint

    @property
    def key(self) -> EndpointKey:
        """The endpoint."""
        return self.notice.endpoint

    @property
    def context(self) -> Mapping[str, str]:
        """What the log says with every line about it."""
        return {"tenant": self.notice.tenant_id} if self.notice.tenant_id else {}


@dataclass(frozen=True, slots=True)
class NoticeResult:
    """What came of sending it, and what follows."""

    job: NoticeJob
    tried: Tried
    decision: Decision


class NoticeWorker:
    """Sends notices until it is stopped. It may be killed at any moment: their leases end.

    Parameters
    ----------
    client, secrets, now, random, new_id, sleep
        As for `delivery.worker.DeliveryWorker`.
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
        self._loop = Loop(
            "notices",
            self._take,
            self._send,
            wakeups,
            topic="notify",
            slots=settings.notice_concurrency,
            poll=settings.poll,
            pause=settings.pause,
            now=now,
            sleep=sleep,
        )

    def start(self) -> None:
        """Begin."""
        self._loop.start()

    async def stop(self, grace: float) -> None:
        """Take nothing more, let what is on its way end within *grace* seconds, and give the rest back."""
        for job in await self._loop.stop(grace):
            try:
                await self._database.write(notices.give_back, job.notice, due_at=self._now())
            except errors.DatabaseUnavailable as error:
                log.warning("a notice cannot be given back, its lease has to end first: %s", error)

    async def _take(self, shares: Shares) -> Claimed[NoticeJob]:
        # Nearly always there is nothing, and looking costs less than a transaction that may write.
        now = self._now()
        idle = await self._database.read(_look, now=now)
        if idle is not None:
            return idle
        return await self._database.write(claim, shares, now=now, until=now + self._settings.lease)

    async def _send(self, job: NoticeJob) -> None:
        notice, endpoint = job.notice, job.endpoint
        try:
            answer = await self._posting.post(endpoint, notice.id, notice.body.encode(), notice.tenant_id)
        except errors.SecretUnreadable as error:
            log.error("webhook %s cannot be signed: %s", endpoint.name, error)
            due_at = self._now() + UNREADABLE_WAIT
            await self._commit(notice, partial(notices.give_back, notice=notice, due_at=due_at))
            return
        report.tried(answer)
        await self._settle(self._decided(job, answer))

    def _decided(self, job: NoticeJob, answer: Answer | NoAnswer) -> NoticeResult:
        now = self._now()
        decision = decide(
            answer,
            Try(events=1, attempts=job.notice.attempts, refusals=0),
            retry=self._settings.retry,
            skip=True,
            now=now,
            random=self._random(),
        )
        source = job.notice.type if isinstance(answer, Answer) else job.notice.id
        return NoticeResult(job, Tried(job.endpoint, source, answer, now), decision)

    async def _settle(self, result: NoticeResult) -> None:
        """Record what came of a try: first of the endpoint, so that it is not tried once too often."""
        notice, tried = result.job.notice, result.tried
        if not says_nothing_new(tried):
            random, new_id = self._random(), self._new_id
            judged = await self._while_held(
                notice, lambda: self._database.write(judge, tried, random=random, new_id=new_id)
            )
            report.judged(tried, judged)
            if judged.disabled:
                self._wakeups.wake("notify")
            if judged.closed:
                self._wakeups.wake("deliver")
        held = await self._commit(notice, partial(record, result=result, new_id=self._new_id))
        _report(result, held=held)

    async def _commit(self, notice: Notice, do: Write) -> bool:
        return await self._while_held(notice, lambda: self._recorder.write(do))

    async def _while_held(self, notice: Notice, write: Callable[[], Awaitable[T]]) -> T:
        return await while_held(
            notice.until, write, now=self._now, sleep=self._sleep, pause=self._settings.pause
        )


def claim(connection: Connection, shares: Shares, *, now: int, until: int) -> Claimed[NoticeJob]:
    """Lease due notices as far as *shares* allows, until *until* (milliseconds since the epoch)."""
    free = shares.free
    leased = take(connection, notices, shares, now=now, until=until, most=free)
    known: dict[EndpointKey, Endpoint | None] = {}
    jobs = []
    for notice in leased:
        key = notice.endpoint
        if key not in known:
            known[key] = endpoints.by_key(connection, key)
        if (endpoint := known[key]) is not None:
            jobs.append(NoticeJob(notice, endpoint))
    return Claimed(tuple(jobs), more=False, next_due=notices.next_due(connection, now=now))


def record(connection: Connection, result: NoticeResult, *, new_id: NewId) -> bool:
    """Record a try and what follows; False when the lease was lost, and nothing is recorded."""
    notice = result.job.notice
    if not _follow(connection, result):
        return False
    attempts.record(
        connection,
        attempt(result.tried, tenant=notice.tenant, webhook_id=notice.id, type=notice.type, new_id=new_id),
    )
    return True


def _look(connection: Connection, *, now: int) -> Claimed[NoticeJob] | None:
    """Return None where something is due, else when something will be."""
    if notices.endpoints_due(connection, now=now):
        return None
    return Claimed((), more=False, next_due=notices.next_due(connection, now=now))


def _follow(connection: Connection, result: NoticeResult) -> bool:
    notice = result.job.notice
    match result.decision:
        case Taken() | Refused() | Skip():
            return notices.drop(connection, notice)
        case Retry(at):
            return notices.fail(connection, notice, retry_at=at)
        case Disable():
            return notices.give_back(connection, notice, due_at=result.tried.now)
        case _:
            raise AssertionError(f"one notice alone is neither split nor parked: {result.decision}")


def _report(result: NoticeResult, *, held: bool) -> None:
    name, notice = result.job.endpoint.name, result.job.notice
    why = describe(result.tried.answer)
    if not held:
        log.warning("webhook %s: the result for %s came too late", name, notice.type)
        return
    match result.decision:
        case Retry(at):
            log.warning("webhook %s did not take %s: %s; next try %s", name, notice.type, why, to_rfc3339(at))
        case Refused():
            metrics.NOTICES_DROPPED.labels("refused").inc()
            log.error("webhook %s will not take %s: %s; it is dropped", name, notice.type, why)
        case Skip():
            metrics.NOTICES_DROPPED.labels("exhausted").inc()
            log.error(
                "webhook %s did not take %s in %d tries: %s; it is dropped",
                name,
                notice.type,
                notice.attempts + 1,
                why,
            )
        case _:
            log.debug("webhook %s: %s, %s", name, notice.type, type(result.decision).__name__)
