"""``room resync``: has the running service compare a room with what is wanted, and waits for the outcome."""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

from openmeet_appservice import errors, wiring
from openmeet_appservice.cli.output import DONE, PROBLEM, add_command, configuration, print_json
from openmeet_appservice.cli.stored import with_database
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import key
from openmeet_appservice.provisioning import life_writes
from openmeet_appservice.provisioning.entity_writes import Place
from openmeet_appservice.provisioning.states import SETTLED, SyncState, entity_sync
from openmeet_appservice.provisioning.writes import Write
from openmeet_appservice.store import entities
from openmeet_appservice.store.database import Database

WAIT = 30.0
"""Seconds for which the outcome is waited for, unless ``--wait`` says otherwise."""

LOOK_EVERY = 0.3
"""Seconds between two looks at the database."""


def add_resync(group: Any) -> argparse.ArgumentParser:
    """Add the command to the group ``room``; who calls it adds the words that name the room."""
    command = add_command(
        group,
        "resync",
        run_room_resync,
        "have the running service compare the room with what is wanted, now, and put it right",
        json=True,
    )
    command.add_argument(
        "--confirm-removals",
        action="store_true",
        help="also remove the people whose removal is held (mass_removal_held)",
    )
    command.add_argument(
        "--wait",
        type=_seconds,
        default=WAIT,
        metavar="SECONDS",
        help="how long to wait for the outcome, 0 for not at all (default: %(default)g)",
    )
    return command


def run_room_resync(asked: argparse.Namespace) -> int:
    """Carry out ``room resync``."""
    place = Place(asked.tenant, EntityKind(asked.kind), asked.slug)
    write = Write(now=wiring.now(), as_of=None, if_match=None, confirmed=asked.confirm_removals)

    async def resync(database: Database) -> SyncState:
        done = await database.write(life_writes.resync, place, write)
        end = time.monotonic() + asked.wait
        while True:
            view = await database.read(entities.view_of, key(asked.tenant), done.ref)
            if view is None:
                raise errors.UsageError(f"{asked.kind} {asked.slug} exists no more.")
            state = entity_sync(view)
            tried = view.sync is not None and view.sync.error is not None and view.sync.error.at >= write.now
            left = end - time.monotonic()
            if state.phase in SETTLED or tried or left <= 0:
                return state
            await asyncio.sleep(min(LOOK_EVERY, left))

    try:
        state = with_database(configuration(asked), resync)
    except errors.NotFound as error:
        raise errors.UsageError(f"Tenant {asked.tenant} has no {asked.kind} {asked.slug}.") from error
    if asked.json:
        print_json(state.model_dump(mode="json"))
    else:
        print(_told(state))
    is_done = state.phase in SETTLED or (asked.wait == 0 and state.last_error is None)
    return DONE if is_done else PROBLEM


def _told(state: SyncState) -> str:
    if state.last_error is not None:
        return f"{state.phase}: {state.last_error.code}: {state.last_error.detail}"
    if state.phase in SETTLED:
        return f"{state.phase}: Synapse agrees with what is wanted."
    return f"{state.phase}: asked for; a running service does it at its next look, within seconds."


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"must be a number of seconds from 0 to 3600, not {text!r}")
    return seconds
