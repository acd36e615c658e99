"""``delivery``: how the outgoing side stands, what was given up, and stopping and going on by hand.

Sending again, ``redrive`` and ``replay``, is in `openmeet_appservice.cli.replaying`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import Any

from sqlalchemy import Connection

from openmeet_appservice import errors, wiring
from openmeet_appservice.cli import replaying
from openmeet_appservice.cli.output import (
    DONE,
    add_command,
    add_group,
    configuration,
    positive,
    print_json,
    print_table,
)
from openmeet_appservice.cli.stored import (
    add_endpoint,
    add_room,
    all_tenants,
    require_endpoint,
    require_room,
    require_tenant,
    served_tenant,
    with_database,
)
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.store import (
    attempts,
    dead_letters,
    endpoints,
    lanes,
    parking,
    replay_queue,
    rooms,
    waiting,
)
from openmeet_appservice.store.attempts import Attempt
from openmeet_appservice.store.dead_letters import DeadLetter
from openmeet_appservice.store.endpoint_row import Endpoint
from openmeet_appservice.store.wakeups import notify

OneRoom = Callable[[Connection, Endpoint, str, str], None]
AllRooms = Callable[[Connection, Endpoint, int], Endpoint]

LAST_ATTEMPTS = 5
"""How many attempts ``stats`` shows as JSON; people see the last one."""


def add_commands(commands: Any) -> None:
    """Add these commands to the parser."""
    group = add_group(commands, "delivery", "look at and repair what goes to OpenMeet")
    stats = add_command(
        group, "stats", run_stats, "show what waits for each endpoint, and how it answers", json=True
    )
    stats.add_argument("endpoint", metavar="ENDPOINT", nargs="?", help="its name (default: all)")
    stats.add_argument(
        "--tenant", help="a tenant's endpoints (default: everybody's; of a name, the platform's)"
    )

    letters = add_command(
        group,
        "dead-letters",
        run_dead_letters,
        "list the events that were given up, the newest first",
        json=True,
    )
    add_endpoint(letters)
    letters.add_argument("--limit", type=positive, default=50, help="how many at most (default: %(default)s)")

    replaying.add_commands(group)

    for name, run, summary in (
        ("park", run_park, "send nothing more, to an endpoint or of one room; what comes in is kept"),
        ("resume", run_resume, "send again, whyever nothing was sent, to an endpoint or of one room"),
    ):
        command = add_command(group, name, run, summary, json=True)
        add_endpoint(command)
        add_room(command)


def run_stats(asked: argparse.Namespace) -> int:
    """Carry out ``delivery stats``."""

    def read(connection: Connection) -> list[dict[str, Any]]:
        ids = {tenant.tenant: tenant.tenant_id for tenant in all_tenants(connection)}
        return [
            _stats(connection, one, ids.get(one.owner))
            for one in _meant(connection, asked.tenant, asked.endpoint)
        ]

    found = with_database(configuration(asked), lambda database: database.read(read))
    if asked.json:
        print_json(found)
    elif not found:
        print("There is no webhook endpoint.")
    else:
        print_table(_STATS, map(_stats_row, found))
    return DONE


def _meant(connection: Connection, tenant_id: str | None, name: str | None) -> Iterable[Endpoint]:
    if name is not None:
        return [require_endpoint(connection, tenant_id, name)]
    if tenant_id is None:
        return endpoints.list_all(connection)
    owner = require_tenant(connection, tenant_id).tenant
    return [one for one in endpoints.list_all(connection) if one.owner == owner]


def _stats(connection: Connection, endpoint: Endpoint, tenant_id: str | None) -> dict[str, Any]:
    backlog = lanes.backlog(connection, endpoint.key)
    now = wiring.now()
    return {
        "tenant": tenant_id,
        "endpoint": endpoint.name,
        "state": endpoint.state,
        "breaker": {
            "state": endpoint.breaker,
            "failures": endpoint.breaker_failures,
            "until": _moment(endpoint.breaker_until),
        },
        "waiting_rooms": backlog.waiting,
        "waiting_events": waiting.all_events(connection, endpoint.key),
        "parked_rooms": backlog.parked,
        "oldest_age_seconds": None if backlog.oldest is None else max(0, now - backlog.oldest) // 1000,
        "dead_letters": dead_letters.count(connection, endpoint.key),
        "replay_events": replay_queue.queued_events(connection, endpoint.key),
        "last_attempts": [
            _attempt(one) for one in attempts.list_page(connection, endpoint.key, limit=LAST_ATTEMPTS)
        ],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": to_rfc3339(attempt.at),
        "type": attempt.type,
        "outcome": attempt.outcome,
        "status": attempt.status,
        "milliseconds": attempt.milliseconds,
    }


_STATS = ("ENDPOINT", "STATE", "ROOMS", "EVENTS", "PARKED", "OLDEST", "DEAD", "REPLAY", "LAST ATTEMPT")


def _stats_row(stats: dict[str, Any]) -> tuple[object, ...]:
    state = stats["state"]
    if state == "breaker_open":
        state = f"breaker {stats['breaker']['state']}"
    age, last = stats["oldest_age_seconds"], stats["last_attempts"][:1]
    return (
        f"{stats['tenant'] or 'platform'}/{stats['endpoint']}",
        state,
        stats["waiting_rooms"],
        stats["waiting_events"],
        stats["parked_rooms"],
        "-" if age is None else _age(age),
        stats["dead_letters"],
        stats["replay_events"],
        f"{last[0]['outcome']} {last[0]['at']}" if last else "-",
    )


def _age(seconds: int) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def run_dead_letters(asked: argparse.Namespace) -> int:
    """Carry out ``delivery dead-letters``."""

    def read(connection: Connection) -> list[dict[str, Any]]:
        endpoint = require_endpoint(connection, asked.tenant, asked.endpoint)
        found = dead_letters.list_page(connection, endpoint.key, limit=asked.limit)
        ids = {tenant.tenant: tenant.tenant_id for tenant in all_tenants(connection)}
        room_ids = {
            tenant: rooms.room_ids(
                connection, tenant, {one.room_ref for one in found if one.tenant == tenant}
            )
            for tenant in {one.tenant for one in found}
        }
        return [
            _letter(one, ids.get(one.tenant, one.tenant), room_ids[one.tenant].get(one.room_ref))
            for one in found
        ]

    found = with_database(configuration(asked), lambda database: database.read(read))
    if asked.json:
        print_json(found)
    elif not found:
        print("There are no dead letters.")
    else:
        rows = [
            (
                one["at"],
                one["tenant"],
                one["room_id"] or "-",
                f"{one['first_sequence']}-{one['last_sequence']}",
                one["reason"],
                one["detail"],
            )
            for one in found
        ]
        print_table(("AT", "TENANT", "ROOM", "EVENTS", "REASON", "DETAIL"), rows)
    return DONE


def _letter(letter: DeadLetter, tenant_id: str, room_id: str | None) -> dict[str, Any]:
    return {
        "id": letter.id,
        "at": to_rfc3339(letter.at),
        "tenant": tenant_id,
        "room_id": room_id,
        "first_sequence": letter.first,
        "last_sequence": letter.last,
        "reason": letter.reason.value,
        "detail": letter.detail,
    }


def run_park(asked: argparse.Namespace) -> int:
    """Carry out ``delivery park``."""

    def park(connection: Connection, endpoint: Endpoint, tenant: str, room_ref: str) -> None:
        if not parking.park(connection, endpoint.key, tenant, room_ref, now=wiring.now()):
            raise errors.UsageError(
                f"--room: nothing of that room has come in for {endpoint.name} yet: there is nothing to stop."
            )

    return _stop_or_go(asked, "parked", park, lambda c, endpoint, now: endpoints.pause(c, endpoint, now=now))


def run_resume(asked: argparse.Namespace) -> int:
    """Carry out ``delivery resume``."""

    def resume(connection: Connection, endpoint: Endpoint, tenant: str, room_ref: str) -> None:
        if not parking.resume(connection, endpoint.key, tenant, room_ref, now=wiring.now()):
            raise errors.UsageError("--room: that room is not parked.")

    return _stop_or_go(
        asked, "resumed", resume, lambda c, endpoint, now: endpoints.resume(c, endpoint, now=now)
    )


def _stop_or_go(asked: argparse.Namespace, done: str, one_room: OneRoom, all_rooms: AllRooms) -> int:
    """Do something to one room's delivery, or to the whole endpoint, and say that it is *done*."""
    if asked.of_tenant is not None and asked.room is None:
        raise errors.UsageError("--of-tenant: say which room with --room.")

    def write(connection: Connection) -> None:
        endpoints.lock(connection, require_endpoint(connection, asked.tenant, asked.endpoint).owner)
        endpoint = require_endpoint(connection, asked.tenant, asked.endpoint)
        if asked.room is None:
            all_rooms(connection, endpoint, wiring.now())
        else:
            tenant = served_tenant(connection, endpoint, asked.of_tenant)
            room = require_room(connection, tenant, asked.room)
            one_room(connection, endpoint, room.tenant, room.ref)
        notify(connection, "deliver")

    with_database(configuration(asked), lambda database: database.write(write))
    if asked.json:
        print_json({done: asked.endpoint, "tenant": asked.tenant, "room": asked.room})
    elif asked.room is None:
        print(f"Endpoint {asked.endpoint} is {done}.")
    else:
        print(f"The room of {asked.room} is {done} for endpoint {asked.endpoint}.")
    return DONE


def _moment(at: int | None) -> str | None:
    return None if at is None else to_rfc3339(at)
