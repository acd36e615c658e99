"""The loop that all delivery goes by: take what is due, as far as there are slots, and work on it.

The database decides everything; whoever takes from it only holds leases.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from openmeet_appservice import errors
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.wakeups import Topic, Wakeups
from openmeet_appservice.web import context

log = logging.getLogger(__name__)


class Job(Protocol):
    """Something to send, leased."""

    @property
    def key(self) -> EndpointKey:
        """Where to."""

    @property
    def context(self) -> Mapping[str, str]:
        """What the log says with every line about it."""


J = TypeVar("J", bound=Job)
J_co = TypeVar("J_co", bound=Job, covariant=True)


@dataclass(frozen=True, slots=True)
class Claimed(Generic[J_co]):
    """What was taken.

    *more* tells that there may be more to take at once; *next_due* is when something else will be due
    (milliseconds since the epoch), None when nothing will.
    """

    jobs: tuple[J_co, ...]
    more: bool
    next_due: int | None


class Loop(Generic[J]):
    """Takes and works until it is stopped.

    Parameters
    ----------
    name
        What is done here, for the log.
    take
        Takes what is due, no more than the shares that it is given allow.
    work
        Works on one job, and records what came of it.
    topic
        What wakes it.
    slots
        How many jobs may be under way at once.
    poll
        Seconds between looks at the database when nothing wakes it.
    pause
        Seconds to wait when the database is away.
    idle
        Told when an endpoint has nothing under way any more.
    """

    def __init__(
        self,
        name: str,
        take: Callable[[Shares], Awaitable[Claimed[J]]],
        work: Callable[[J], Awaitable[None]],
        wakeups: Wakeups,
        *,
        topic: Topic,
        slots: int,
        poll: float,
        pause: float,
        now: Now,
        sleep: Callable[[float], Awaitable[None]],
        idle: Callable[[EndpointKey], None] = lambda key: None,
    ) -> None:
        self._name = name
        self._take = take
        self._work = work
        self._wakeups = wakeups
        self._topic = topic
        self._poll = poll
        self._pause = pause
        self._now = now
        self._sleep = sleep
        self._idle = idle
        self._shares = Shares(slots)
        self._under_way: dict[asyncio.Task[None], J] = {}
        self._stirred = asyncio.Event()
        self._stopping = False
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._loop = asyncio.create_task(self._run(), name=self._name)

    async def stop(self, grace: float) -> list[J]:
        """Take nothing more, and let what is under way end within *grace* seconds.

        Returns what was under way. What of it has not ended by then is broken off, and its lease is the
        caller's to give back.
        """
        deadline = asyncio.get_running_loop().time() + grace
        self._stopping = True
        self._stirred.set()
        if self._loop is not None:
            await _end([self._loop], deadline)
        left = dict(self._under_way)
        await _end(left, deadline)
        return list(left.values())

    async def _run(self) -> None:
        while not self._stopping:
            ticket = self._wakeups.ticket(self._topic)
            self._stirred.clear()
            claimed = await self._claim()
            for job in claimed.jobs:
                self._begin(job)
            if not claimed.more:
                await self._rest(ticket, claimed.next_due)

    async def _claim(self) -> Claimed[J]:
        """Take what is due. A fault is logged and waited out: nothing stops delivery for good."""
        if not self._shares.free:
            return Claimed((), more=False, next_due=None)
        try:
            return await self._take(self._shares.copy())
        except errors.DatabaseUnavailable as error:
            log.warning("%s waits for the database: %s", self._name, error)
        except Exception:
            log.exception("%s cannot take what is due; it goes on trying", self._name)
        await self._sleep(self._pause)
        return Claimed((), more=True, next_due=None)

    async def _rest(self, ticket: int, next_due: int | None) -> None:
        """Wait for something new, a free slot, or the next due moment; at most until the next poll."""
        timeout = self._poll
        if next_due is not None:
            timeout = min(timeout, max(next_due - self._now(), 0) / 1000)
        waits = [
            asyncio.create_task(self._wakeups.wait(self._topic, ticket, timeout)),
            asyncio.create_task(self._stirred.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    def _begin(self, job: J) -> None:
        self._shares.start(job.key)
        task = asyncio.create_task(self._guarded(job), name=f"{self._name}: a webhook")
        self._under_way[task] = job
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._under_way.pop(task)
        self._shares.end(job.key)
        if not self._shares.has(job.key):
            self._idle(job.key)
        self._stirred.set()

    async def _guarded(self, job: J) -> None:
        with context.bind(**job.context):
            try:
                await self._work(job)
            except errors.DatabaseUnavailable as error:
                log.error("what came of a webhook could not be recorded, it will be repeated: %s", error)
            except Exception:
                log.exception("a webhook could not be sent; it is tried again when its lease ends")


async def _end(tasks: Collection[asyncio.Task[None]], deadline: float) -> None:
    """Let the tasks end until *deadline* (of the event loop's clock), then break them off."""
    if tasks:
        await asyncio.wait(tasks, timeout=max(deadline - asyncio.get_running_loop().time(), 0))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
