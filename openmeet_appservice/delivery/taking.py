"""Leasing what is due, from whichever table, without giving one endpoint more than its share."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.store import breaker
from openmeet_appservice.store.due_endpoints import DueEndpoint
from openmeet_appservice.store.endpoint_key import EndpointKey

T = TypeVar("T")


class Waiting(Protocol[T]):
    """What waits for endpoints; `store.lanes` and `store.notices`."""

    def endpoints_due(
        self, connection: Connection, *, now: int, but: Collection[EndpointKey] = ()
    ) -> list[DueEndpoint]:
        """Return the endpoints that may be called and have something due."""

    def due(
        self,
        connection: Connection,
        endpoint: EndpointKey,
        *,
        now: int,
        limit: int,
        untried_first: bool = False,
    ) -> list[T]:
        """Return and lock what is due for one endpoint."""

    def lease(self, connection: Connection, found: Sequence[T], *, until: int) -> list[T]:
        """Take what `due` returned."""


def take(
    connection: Connection, waiting: Waiting[T], shares: Shares, *, now: int, until: int, most: int
) -> list[T]:
    """Lease what is due, for the endpoint that waits longest first, for none beyond its share.

    Parameters
    ----------
    shares
        Who has how much under way; changed here.
    until
        The end of the leases (milliseconds since the epoch).
    most
        How much to take at once.
    """
    taken: list[T] = []
    for due in waiting.endpoints_due(connection, now=now, but=shares.full()):
        allowed = shares.allowance(due.key, most=1 if due.probing else most - len(taken))
        if not allowed:
            continue
        found = waiting.due(connection, due.key, now=now, limit=allowed, untried_first=due.probing)
        if not found:
            # Another replica has them.
            continue
        if due.probing and not breaker.begin_probe(connection, due.key, now=now, until=until):
            continue
        taken += waiting.lease(connection, found, until=until)
        for _ in found:
            shares.start(due.key)
        if len(taken) == most:
            break
    return taken
