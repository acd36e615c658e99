"""What Synapse has kept to push later, read from its database."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from .conftest import Stage


def waiting_events(stage: Stage) -> set[str]:
    """Return the ids of the events that Synapse has in its database, to be pushed later."""
    found = _read(stage, "SELECT event_ids FROM application_services_txns")
    return {event_id for (event_ids,) in found for event_id in json.loads(event_ids)}


def has_caught_up(stage: Stage) -> bool:
    """Tell whether Synapse has pushed all it had kept, and pushes at once again.

    While it catches up it keeps what is new as well, and what it keeps at the very end of that it does not
    push before its next outage: no time for a test to make what it waits for.
    """
    down = _read(stage, "SELECT 1 FROM application_services_state WHERE state = 'down'")
    return not down and not waiting_events(stage)


def _read(stage: Stage, query: str) -> list[tuple[str, ...]]:
    file = stage.synapse.settings.folder / "homeserver.db"
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return database.execute(query).fetchall()
