"""``delivery redrive`` and ``delivery replay``: having an endpoint sent again what it has passed."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from openmeet_appservice import errors, wiring
from openmeet_appservice.cli.output import (
    DONE,
    ProgressLine,
    add_command,
    configuration,
    positive,
    print_json,
)
from openmeet_appservice.cli.stored import (
    add_endpoint,
    add_room,
    require_endpoint,
    require_room,
    served_tenant,
    with_database,
)
from openmeet_appservice.domain.durations import parse_duration
from openmeet_appservice.domain.moments import from_rfc3339
from openmeet_appservice.domain.replay import Asked, Counts, Only
from openmeet_appservice.domain.webhook_types import ROOM_EVENTS
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.endpoint_key import EndpointKey
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.replays import Progress, replay
from openmeet_appservice.store.wakeups import notify


def add_commands(group: Any) -> None:
    """Add these commands to those of ``delivery``."""
    redrive = add_command(group, "redrive", run_redrive, "send dead letters again", json=True)
    again = add_command(group, "replay", run_replay, "send events of the log again", json=True)
    for command in (redrive, again):
        add_endpoint(command)
        add_room(command)
        command.add_argument("--dry-run", action="store_true", help="only count; change nothing")
    again.add_argument(
        "--only",
        required=True,
        choices=[only.value for only in Only],
        help="failed: dead letters; missing: these, and what was stored before the endpoint received the "
        "room; all: everything in the log",
    )
    again.add_argument(
        "--since",
        type=_moment,
        metavar="WHEN",
        help="only what was stored then or later: 2026-11-22T19:00:00Z, or 2h for two hours ago",
    )
    again.add_argument("--until", type=_moment, metavar="WHEN", help="only what was stored before then")
    again.add_argument(
        "--from-sequence",
        type=positive,
        metavar="N",
        help="only from this event of the room on (with --room)",
    )


def _moment(text: str) -> int:
    try:
        return from_rfc3339(text)
    except ValueError:
        pass
    try:
        return wiring.now() - int(parse_duration(text).total_seconds() * 1000)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a moment such as 2026-11-22T19:00:00Z nor a time such as 2h"
        ) from None


def run_redrive(asked: argparse.Namespace) -> int:
    """Carry out ``delivery redrive``."""
    return _queue(asked, Asked(Only.FAILED))


def run_replay(asked: argparse.Namespace) -> int:
    """Carry out ``delivery replay``."""
    if asked.from_sequence is not None and asked.room is None:
        raise errors.UsageError("--from-sequence counts the events of one room: say which with --room.")
    if asked.since is not None and asked.until is not None and asked.until <= asked.since:
        raise errors.UsageError("--until is not after --since.")
    return _queue(
        asked,
        Asked(Only(asked.only), since=asked.since, until=asked.until, from_sequence=asked.from_sequence),
    )


def _queue(asked: argparse.Namespace, events: Asked) -> int:
    def find(connection: Connection) -> tuple[EndpointKey, Asked]:
        endpoint = require_endpoint(connection, asked.tenant, asked.endpoint)
        types = endpoint.wanted.types
        if types is not None and ROOM_EVENTS not in types:
            raise errors.UsageError(f"Endpoint {endpoint.name} does not take {ROOM_EVENTS}.")
        tenant = served_tenant(connection, endpoint, asked.of_tenant)
        if asked.room is None:
            return endpoint.key, replace(events, tenant=tenant)
        room = require_room(connection, tenant, asked.room)
        return endpoint.key, replace(events, tenant=room.tenant, room_ref=room.ref)

    async def queue(database: Database) -> Counts:
        endpoint, narrowed = await database.read(find)
        with ProgressLine(wanted=not asked.json) as line:
            counts = await replay(
                database,
                endpoint,
                narrowed,
                now=wiring.now,
                new_id=new_id,
                dry_run=asked.dry_run,
                on_page=lambda progress: line.show(_words(progress)),
            )
        if not asked.dry_run:
            await database.write(notify, "deliver")
        return counts

    counts = with_database(configuration(asked), queue)
    if asked.json:
        print_json({"rooms": counts.rooms, "events": counts.events, "dry_run": asked.dry_run})
    else:
        would = "would be" if asked.dry_run else "are"
        print(f"{counts.events} events of {counts.rooms} rooms {would} queued to be sent again.")
    return DONE


def _words(progress: Progress) -> str:
    share = progress.seen / progress.total if progress.total else 1.0
    bar = "#" * round(20 * min(share, 1.0))
    return (
        f"[{bar:<20}] {progress.seen}/{progress.total} rooms looked at, "
        f"{progress.counts.events} events of {progress.counts.rooms}"
    )
