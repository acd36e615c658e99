"""What is in the database before a benchmark begins: a tenant with people, rooms and a webhook."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, insert

from benchmarks.pushing import PEOPLE, SERVER, TENANT, puppet, room_id
from openmeet_appservice.store.tables import (
    endpoints,
    entities,
    lanes,
    members,
    room_events,
    rooms,
    tenants,
    users,
)

DAY_MS = 24 * 3600 * 1000
ENDPOINT = "endpoint_1"
AT_ONCE = 5000
"""How many rows are inserted with one statement."""


@dataclass(frozen=True, slots=True)
class Provisioned:
    """What there is.

    Parameters
    ----------
    rooms
        How many rooms events come from.
    idle
        How many rooms there are besides, each with an event that was delivered.
    url, secret
        The webhook's; the secret as it is stored, encrypted.
    """

    rooms: int
    idle: int = 0
    url: str = "https://openmeet.example/hook"
    secret: str = ""

    def into(self, connection: Connection) -> None:
        """Write it into an empty database."""
        connection.execute(
            insert(tenants).values(
                tenant=TENANT,
                tenant_id=TENANT,
                name=TENANT,
                settings="{}",
                revision=1,
                last_position=self.idle,
                created_at=0,
                updated_at=0,
            )
        )
        connection.execute(
            insert(endpoints).values(
                tenant=TENANT,
                id=ENDPOINT,
                name="main",
                url=self.url,
                secret=self.secret,
                revision=1,
                created_at=0,
                updated_at=0,
            )
        )
        every = range(self.rooms + self.idle)
        idle = range(self.rooms, self.rooms + self.idle)
        _insert(connection, users, range(PEOPLE), _user)
        _insert(connection, entities, every, _entity)
        _insert(connection, members, range(self.rooms * PEOPLE), _member)
        _insert(connection, rooms, every, lambda number: _room(number, idle=number >= self.rooms))
        _insert(connection, room_events, idle, lambda number: _event(number, number - self.rooms + 1))
        _insert(connection, lanes, idle, _lane)


def _insert(
    connection: Connection, table: Table, numbers: Iterable[int], row: Callable[[int], dict[str, Any]]
) -> None:
    some: list[dict[str, Any]] = []
    for number in numbers:
        some.append(row(number))
        if len(some) == AT_ONCE:
            connection.execute(insert(table), some)
            some = []
    if some:
        connection.execute(insert(table), some)


def _user(number: int) -> dict[str, Any]:
    slug = f"person{number}"
    return {
        "tenant": TENANT,
        "id": f"user_{number}",
        "slug": slug,
        "slug_key": slug,
        "placeholder": False,
        "spec": "{}",
        "revision": 1,
        "user_id": puppet(number),
        "registered_at": 0,
        "created_at": 0,
        "updated_at": 0,
    }


def _entity(number: int) -> dict[str, Any]:
    slug = f"event-{number}"
    return {
        "tenant": TENANT,
        "id": f"entity_{number}",
        "kind": "event",
        "slug": slug,
        "slug_key": slug,
        "alias": f"#{slug}:{SERVER}",
        "spec": "{}",
        "revision": 1,
        "members_revision": 1,
        "removals_confirmed": 0,
        "created_at": 0,
        "updated_at": 0,
    }


def _member(number: int) -> dict[str, Any]:
    """Everybody belongs into every room that events come from."""
    return {
        "tenant": TENANT,
        "entity_ref": f"entity_{number // PEOPLE}",
        "user_ref": f"user_{number % PEOPLE}",
        "role": "participant",
        "status": "confirmed",
        "banned": False,
        "muted": False,
    }


def _room(number: int, *, idle: bool) -> dict[str, Any]:
    return {
        "tenant": TENANT,
        "id": f"room_{number}",
        "entity_ref": f"entity_{number}",
        "state": "open",
        "claim": f"claim{number}",
        "lock_alias": f"#room{number}:{SERVER}",
        "alias": f"#event-{number}:{SERVER}",
        "room_id": room_id(number),
        "room_version": "12",
        "log_id": f"log_{number}",
        "last_sequence": int(idle),
        # As long after a start: gap repair has looked at every room, and goes on in its slow round.
        "checked_at": _now() + DAY_MS,
        "created_at": 0,
    }


def _event(number: int, position: int) -> dict[str, Any]:
    event_id = f"$idle{number}".ljust(44, "i")
    return {
        "tenant": TENANT,
        "position": position,
        "room_ref": f"room_{number}",
        "sequence": 1,
        "event_id": event_id,
        "type": "m.room.message",
        "sender": puppet(number % PEOPLE),
        "origin": "matrix",
        # Young, or the service would be busy with letting them go.
        "received_at": _now(),
        "body": f'{{"type":"m.room.message","event_id":"{event_id}","content":{{"body":"{"x" * 300}"}}}}',
    }


def _now() -> int:
    return time.time_ns() // 1_000_000


def _lane(number: int) -> dict[str, Any]:
    return {
        "tenant": TENANT,
        "endpoint_ref": ENDPOINT,
        "room_ref": f"room_{number}",
        "owner": TENANT,
        "began_after": 0,
        "acked_sequence": 1,
        "attempts": 0,
        "refusals": 0,
        "lease_epoch": 1,
    }
