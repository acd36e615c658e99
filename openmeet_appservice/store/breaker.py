"""Whether an endpoint is to be called at all: paused, disabled, resting, or cut off by its breaker.

All of it stands in the endpoint's row, so replicas agree. The breaker spares a dead endpoint the tries, and
everybody else the slots they would take::

    closed ──FAILURES failures, each from another room than the last──▶ open
      ▲                                                                 │ breaker_until has passed
      │                                                                 ▼
      └──────────── the probe is answered ─────────────────────────── half_open: one try, by one replica
                                       open again, for twice as long ◀──┘ it fails, or its lease ends

One room's failures never open it, however many: an endpoint that chokes on one room's events serves the
others. A refusal of what was sent (400, 413, 422) is no failure: somebody is there.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, case, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.store.endpoint_key import EndpointKey, is_endpoint
from openmeet_appservice.store.tables import endpoints

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"

FAILURES = 5
"""How many failures open it."""

FIRST_MS = 30_000
LONGEST_MS = 600_000
"""How long it stays open: doubled from the first to the longest."""

JITTER = 0.2
"""So much longer or shorter, that what failed together is not tried together."""


def available_at() -> ColumnElement[int]:
    """Return from when on an endpoint that is neither paused nor disabled may be called, as SQL.

    Milliseconds since the epoch; 0 where nothing speaks against it.
    """
    rest = func.coalesce(endpoints.c.rest_until, 0)
    breaker = case((endpoints.c.breaker != CLOSED, func.coalesce(endpoints.c.breaker_until, 0)), else_=0)
    return case((rest > breaker, rest), else_=breaker)


def in_service() -> ColumnElement[bool]:
    """Return whether an endpoint is neither paused nor disabled, as SQL."""
    return and_(endpoints.c.paused_at.is_(None), endpoints.c.disabled_at.is_(None))


def begin_probe(connection: Connection, endpoint: EndpointKey, *, now: int, until: int) -> bool:
    """Take the one try that an open breaker allows; False when somebody else has it.

    Parameters
    ----------
    until
        When the try is over at the latest, and another may be made (milliseconds since the epoch).
    """
    begun = connection.execute(
        update(endpoints)
        .where(is_endpoint(endpoint), endpoints.c.breaker != CLOSED, endpoints.c.breaker_until <= now)
        .values(breaker=HALF_OPEN, breaker_until=until)
    )
    return begun.rowcount > 0


def succeeded(connection: Connection, endpoint: EndpointKey) -> bool:
    """Record that the endpoint answered sensibly; True when that closed the breaker."""
    # Read first: nearly always there is nothing to write.
    found = connection.execute(
        select(endpoints.c.breaker).where(
            is_endpoint(endpoint), or_(endpoints.c.breaker_failures > 0, endpoints.c.breaker != CLOSED)
        )
    ).scalar_one_or_none()
    if found is None:
        return False
    connection.execute(update(endpoints).where(is_endpoint(endpoint)).values(**_SOUND))
    return bool(found != CLOSED)


def failed(
    connection: Connection, endpoint: EndpointKey, room_ref: str, *, now: int, random: float
) -> int | None:
    """Record that the endpoint did not answer sensibly.

    Returns until when the breaker is open, if this opened it (milliseconds since the epoch).

    Parameters
    ----------
    room_ref
        The room whose events were sent.
    random
        At least 0 and below 1.
    """
    row = connection.execute(
        select(
            endpoints.c.breaker,
            endpoints.c.breaker_failures,
            endpoints.c.breaker_room,
            endpoints.c.breaker_opens,
        )
        .where(is_endpoint(endpoint))
        # Not against whoever stores a notice for it, who has the row locked against deletion only.
        .with_for_update(key_share=True)
    ).first()
    if row is None or row.breaker == OPEN:
        # What was under way when it opened says nothing new.
        return None
    if row.breaker == CLOSED and row.breaker_room == room_ref:
        return None
    failures = row.breaker_failures + 1
    values: dict[str, object] = {"breaker_failures": failures, "breaker_room": room_ref}
    until = None
    if row.breaker == HALF_OPEN or failures >= FAILURES:
        until = now + _open_for(int(row.breaker_opens), random)
        values |= {"breaker": OPEN, "breaker_until": until, "breaker_opens": row.breaker_opens + 1}
    connection.execute(update(endpoints).where(is_endpoint(endpoint)).values(values))
    return until


def rest(connection: Connection, endpoint: EndpointKey, *, until: int) -> None:
    """Leave the endpoint alone until *until* (milliseconds since the epoch), as it asked for."""
    connection.execute(update(endpoints).where(is_endpoint(endpoint)).values(rest_until=until))


def disable(connection: Connection, endpoint: EndpointKey, *, now: int) -> bool:
    """Call the endpoint no more, because it said that it is gone; False when it is disabled already."""
    disabled = connection.execute(
        update(endpoints)
        .where(is_endpoint(endpoint), endpoints.c.disabled_at.is_(None))
        .values(disabled_at=now)
    )
    return disabled.rowcount > 0


def reset(connection: Connection, endpoint: EndpointKey) -> None:
    """Forget everything that speaks against calling the endpoint, except that it is paused."""
    connection.execute(
        update(endpoints).where(is_endpoint(endpoint)).values(disabled_at=None, rest_until=None, **_SOUND)
    )


_SOUND = {
    "breaker": CLOSED,
    "breaker_failures": 0,
    "breaker_room": None,
    "breaker_until": None,
    "breaker_opens": 0,
}


def _open_for(opens: int, random: float) -> int:
    # The exponent is bounded, lest a number grows with the years of an outage.
    wait = min(FIRST_MS * (1 << min(opens, 10)), LONGEST_MS)
    return round(wait * (1 - JITTER + 2 * JITTER * random))
