"""Telling a part of the service that rows of interest have changed, so that it need not poll often.

A wake-up carries nothing and may be lost: whoever waits looks at the database by itself every few seconds
as well. A waiter takes a ticket before it looks, so that no change falls between looking and waiting::

    ticket = wakeups.ticket("reconcile")
    work = await database.write(sync.claim_due, …)
    if not work:
        await wakeups.wait("reconcile", ticket, timeout=5)

On PostgreSQL wake-ups also reach the other replicas, through ``LISTEN`` and ``NOTIFY`` on one connection
kept for it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Literal, get_args

import asyncpg
from sqlalchemy import Connection, text

Topic = Literal["reconcile", "reconciled", "deliver", "notify", "pictures", "look_up", "looked_up"]
"""``reconcile``: desired state changed. ``reconciled``: some of it was applied. ``deliver``: new events.
``notify``: new notices. ``pictures``: new pictures to fetch. ``look_up``: OpenMeet is to be asked about
something. ``looked_up``: it was."""

CHANNEL = "openmeet_appservice"
RECONNECT_AFTER = 5.0
"""Seconds between attempts to listen again after the connection broke."""

CLIENT_ERRORS = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg says of a connection that has ended; the second while it is just ending."""

log = logging.getLogger(__name__)


def notify(connection: Connection, topic: Topic) -> None:
    """Wake everyone who waits for *topic* in other processes, once the transaction is committed.

    For commands, which end at once. On SQLite nobody can be woken: the service sees it at its next poll.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_notify(:channel, :topic)"), {"channel": CHANNEL, "topic": topic})


class Wakeups:
    """Wake-ups within this process."""

    def __init__(self) -> None:
        self._counts: dict[Topic, int] = {}
        self._changed: dict[Topic, asyncio.Event] = {}

    def wake(self, topic: Topic) -> None:
        """Wake everyone who waits for *topic*."""
        self._counts[topic] = self.ticket(topic) + 1
        waited_for = self._changed.pop(topic, None)
        if waited_for is not None:
            waited_for.set()

    def ticket(self, topic: Topic) -> int:
        """Return a ticket that is used up by the next wake-up of *topic*."""
        return self._counts.get(topic, 0)

    async def wait(self, topic: Topic, ticket: int, timeout: float) -> bool:
        """Wait until *topic* was woken since *ticket* was taken, at most *timeout* seconds.

        Returns whether it was woken.
        """
        if self.ticket(topic) != ticket:
            return True
        changed = self._changed.setdefault(topic, asyncio.Event())
        try:
            async with asyncio.timeout(timeout):
                await changed.wait()
        except TimeoutError:
            return False
        return True

    async def start(self) -> None:
        """Begin to hear from other processes."""

    async def stop(self) -> None:
        """Stop hearing from other processes."""


class PostgreSQLWakeups(Wakeups):
    """Wake-ups between all processes that use one PostgreSQL database. *url* is asyncpg's."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._listener: asyncio.Task[None] | None = None
        self._unsent: set[Topic] = set()
        self._something = asyncio.Event()

    def wake(self, topic: Topic) -> None:
        super().wake(topic)
        self._unsent.add(topic)
        self._something.set()

    async def start(self) -> None:
        self._listener = asyncio.create_task(self._run(), name="wakeups")

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
            self._listener = None

    async def _run(self) -> None:
        while True:
            try:
                await self._listen()
            except (OSError, TimeoutError, asyncpg.PostgresError, *CLIENT_ERRORS) as error:
                log.warning("wake-ups between replicas are down, polling goes on: %s", error)
            await asyncio.sleep(RECONNECT_AFTER)

    async def _listen(self) -> None:
        connection = await asyncpg.connect(self._url, timeout=10)
        own = connection.get_server_pid()

        def heard(_: object, sender: int, channel: str, payload: object) -> None:
            if sender != own:
                self._heard(payload)

        try:
            # Without this a connection that the server ends goes unnoticed while there is nothing to send.
            connection.add_termination_listener(lambda _: self._something.set())
            await connection.add_listener(CHANNEL, heard)
            while True:
                await self._something.wait()
                self._something.clear()
                if connection.is_closed():
                    raise ConnectionResetError("the connection was closed")
                while self._unsent:
                    # Forgotten only once it is sent; a wake-up that comes twice does no harm.
                    topic = min(self._unsent)
                    await connection.execute("SELECT pg_notify($1, $2)", CHANNEL, topic)
                    self._unsent.discard(topic)
        finally:
            connection.terminate()

    def _heard(self, payload: object) -> None:
        for topic in get_args(Topic):
            if payload == topic:
                super().wake(topic)
