"""``PUT /transactions/{txnId}``: what happens in the rooms, written to the event log, then acknowledged.

Nothing but the storing stands between a transaction and its answer: as long as Synapse waits, it sends
nobody on this service anything else, and what it holds in memory meanwhile is lost when it restarts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from openmeet_appservice.domain.arrival import EVENT_CLASSES, Arrival, Junk, Transaction, read_transaction
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.errors import ApiError, BadRequest, StoreError, Unavailable
from openmeet_appservice.intake.answers import json_answer
from openmeet_appservice.intake.suspicion import Suspicion
from openmeet_appservice.intake.tokens import HomeserverTokens
from openmeet_appservice.metrics import (
    DRIFT_NOTICED,
    EVENTS_INGESTED,
    EVENTS_QUARANTINED,
    TRANSACTION_SECONDS,
    TRANSACTIONS,
)
from openmeet_appservice.store import event_log, invitations, sync, uninvited
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.event_log import Appended
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.wakeups import Wakeups
from openmeet_appservice.web.middleware import read_body

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024 * 1024
"""The largest transaction in bytes. Synapse sends at most 100 events of 64 KiB."""

_RESULTS = {
    result: TRANSACTIONS.labels(result)
    for result in ("stored", "storage_failed", "refused", "failed", "cut_off")
}
_CLASSES = {name: EVENTS_INGESTED.labels(name) for name in EVENT_CLASSES}

_FEW = 10
"""For up to so many events the event loop may wait on the spot; more take longer than that is worth."""

_LARGE = 1024 * 1024
"""From so many bytes on, a body is read in a thread, so that the others need not wait."""


@dataclass(frozen=True, slots=True)
class Transactions:
    """Stores what Synapse pushes.

    Parameters
    ----------
    tokens
        Tell whether it is Synapse.
    bot
        The bot's user id.
    rooms
        The room settings of tenants that chose nothing themselves.
    read_seconds
        How long a body may take to arrive.
    storage_failed
        Told when a transaction could not be stored.
    ephemeral
        Given the ephemeral elements of those that were, whatever they are.
    suspicion
        Told whatever suggests that Synapse has lost events.
    now, clock
        Milliseconds since the epoch; seconds that never go back.
    """

    tokens: HomeserverTokens
    database: Database
    wakeups: Wakeups
    bot: str
    rooms: RoomSettings
    read_seconds: float
    storage_failed: Callable[[], None]
    ephemeral: Callable[[list[Any]], None]
    suspicion: Suspicion
    now: Now
    clock: Callable[[], float]

    async def put(self, request: web.Request) -> web.Response:
        """Answer ``{}`` once everything is committed."""
        started, result = self.clock(), "cut_off"
        try:
            await self._take(request)
            result = "stored"
        except Unavailable:
            result = "storage_failed"
            self.suspicion.suspect("not_stored")
            raise
        except ApiError:
            result = "refused"
            raise
        except Exception:
            result = "failed"
            self.suspicion.suspect("not_stored")
            raise
        finally:
            _RESULTS[result].inc()
            TRANSACTION_SECONDS.observe(self.clock() - started)
        return json_answer({})

    async def _take(self, request: web.Request) -> None:
        self.tokens.check(request)
        try:
            await self._take_from_synapse(request)
        finally:
            if request.transport is None or request.transport.is_closing():
                # Synapse hangs up when it ends, and when it has waited a minute.
                self.suspicion.suspect("hung_up")

    async def _take_from_synapse(self, request: web.Request) -> None:
        if request.content.is_eof():
            # All there already: nothing to wait for, and nothing to limit.
            body = await request.read()
        else:
            body = await read_body(request, self.read_seconds)
        transaction = await _transaction(body)
        del body
        arrivals = [element for element in transaction.elements if isinstance(element, Arrival)]
        junk = [element for element in transaction.elements if isinstance(element, Junk)]
        txn_id = request.match_info["txn_id"]
        done = await self._store(txn_id, arrivals, junk)
        # After the answer: Synapse waits for nothing but the storing.
        asyncio.get_running_loop().call_soon(self._taken, txn_id, arrivals, transaction.ephemeral, done)

    def _taken(self, txn_id: str, arrivals: list[Arrival], ephemeral: list[Any], done: Appended) -> None:
        """Tell everybody else of a transaction that was stored."""
        self.suspicion.transaction(txn_id, arrivals)
        if done.stored or done.recorded:
            self.wakeups.wake("deliver")
        if done.recorded or done.drifted or done.outside or done.uninvited:
            self.wakeups.wake("reconcile")
        _count(done)
        _log(txn_id, done)
        if ephemeral:
            self.ephemeral(ephemeral)

    async def _store(self, txn_id: str, arrivals: list[Arrival], junk: list[Junk]) -> Appended:
        if not arrivals and not junk:
            return Appended()
        try:
            write = self.database.write_promptly if len(arrivals) <= _FEW else self.database.write
            return await write(_append, arrivals, junk, now=self.now(), bot=self.bot, rooms=self.rooms)
        except (StoreError, SQLAlchemyError) as error:
            # Not the error's own text: SQLAlchemy puts into it what people wrote.
            log.error("transaction %s was not stored, Synapse will repeat it: %s", txn_id, _cause(error))
            self.storage_failed()
            raise Unavailable("The events could not be stored; send them again.") from None


def _append(
    connection: Connection,
    arrivals: list[Arrival],
    junk: list[Junk],
    *,
    now: int,
    bot: str,
    rooms: RoomSettings,
) -> Appended:
    done = event_log.append(connection, arrivals, junk, now=now, bot=bot)
    joined = {(arrival.room_id, arrival.sender) for arrival in arrivals if arrival.joins}
    done.uninvited = uninvited.look_at(connection, joined, now=now, defaults=rooms)
    for tenant, entity_ref in done.recorded:
        sync.poke(connection, tenant, "entity", entity_ref, now=now)
    if done.outside:
        invitations.note(connection, done.outside, bot=bot, now=now, new_id=new_id)
    return done


async def _transaction(body: bytes) -> Transaction:
    try:
        if len(body) < _LARGE:
            transaction = read_transaction(body)
        else:
            transaction = await asyncio.to_thread(read_transaction, body)
    except ValueError:
        raise BadRequest("The body is not JSON.", code="M_NOT_JSON") from None
    if transaction is None:
        raise BadRequest("The body must be an object that holds the list `events`.", code="M_BAD_JSON")
    return transaction


def _count(done: Appended) -> None:
    for event_class, number in done.stored.items():
        _CLASSES[event_class].inc(number)
    for changed, number in done.drift.items():
        DRIFT_NOTICED.labels(changed).inc(number)
    if done.quarantined:
        EVENTS_QUARANTINED.inc(done.quarantined)


def _log(txn_id: str, done: Appended) -> None:
    level = logging.WARNING if done.quarantined else logging.DEBUG
    if log.isEnabledFor(level):
        log.log(
            level,
            "transaction %s: stored %d, held %d, known %d, passed over %d, quarantined %d",
            txn_id,
            done.stored.total(),
            done.held,
            done.repeated,
            done.ignored,
            done.quarantined,
        )


def _cause(error: Exception) -> str:
    if isinstance(error, DBAPIError):
        return f"{type(error.orig).__name__}: {str(error.orig).partition(chr(10))[0]}"
    return str(error) if isinstance(error, StoreError) else type(error).__name__
