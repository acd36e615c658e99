"""The event log's statements as text, for both dialects.

Only these are text: they run for every transaction from Synapse, where building a statement costs more
than running it. A list of ids is one parameter, so that each statement is prepared once: a JSON array on
SQLite, a PostgreSQL array there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class Statements:
    """One dialect's texts. What ``…_locked`` reads stays as it is until the transaction ends."""

    rooms: str
    tenants_locked: str
    rooms_locked: str
    stored: str
    insert_event: str
    set_last_position: str
    set_last_sequence: str
    raise_lanes: str


_INSERT_EVENT = """
INSERT INTO room_events
    (tenant, position, room_ref, sequence, event_id, type, sender, origin, received_at, body)
VALUES ({0}, {1}, {2}, {3}, {4}, {5}, {6}, {7}, {8}, {9})
"""

_RAISE_LANES = """
INSERT INTO lanes
    (tenant, endpoint_ref, room_ref, acked_sequence, head_sequence,
     due_at, attempts, waiting_since, lease_epoch)
SELECT tenant, id, {0}, {1}, {2}, {3}, 0, {3}, 0 FROM endpoints WHERE tenant = {4}
ON CONFLICT (tenant, endpoint_ref, room_ref) DO UPDATE SET
    head_sequence = excluded.head_sequence,
    due_at = CASE WHEN lanes.parked_at IS NULL THEN COALESCE(lanes.due_at, excluded.due_at) END,
    waiting_since = COALESCE(lanes.waiting_since, excluded.waiting_since)
"""

SQLITE = Statements(
    rooms="SELECT room_id, tenant, id FROM rooms WHERE room_id IN (SELECT value FROM json_each(?1))",
    # BEGIN IMMEDIATE has locked everything already.
    tenants_locked="SELECT tenant, last_position FROM tenants "
    "WHERE tenant IN (SELECT value FROM json_each(?1))",
    rooms_locked="SELECT room_id, last_sequence FROM rooms "
    "WHERE room_id IN (SELECT value FROM json_each(?1))",
    stored="SELECT event_id FROM room_events WHERE tenant = ?1 "
    "AND event_id IN (SELECT value FROM json_each(?2))",
    insert_event=_INSERT_EVENT.format(*["?"] * 10),
    set_last_position="UPDATE tenants SET last_position = ?1 WHERE tenant = ?2",
    set_last_sequence="UPDATE rooms SET last_sequence = ?1 WHERE tenant = ?2 AND id = ?3",
    raise_lanes=_RAISE_LANES.format("?1", "?2", "?3", "?4", "?5"),
)

POSTGRESQL = Statements(
    rooms="SELECT room_id, tenant, id FROM rooms WHERE room_id = ANY($1::text[])",
    tenants_locked="SELECT tenant, last_position FROM tenants WHERE tenant = ANY($1::text[]) "
    "ORDER BY tenant FOR UPDATE",
    rooms_locked="SELECT room_id, last_sequence FROM rooms WHERE room_id = ANY($1::text[]) "
    "ORDER BY tenant, id FOR UPDATE",
    stored="SELECT event_id FROM room_events WHERE tenant = $1 AND event_id = ANY($2::text[])",
    insert_event=_INSERT_EVENT.format(*[f"${n}" for n in range(1, 11)]),
    set_last_position="UPDATE tenants SET last_position = $1 WHERE tenant = $2",
    set_last_sequence="UPDATE rooms SET last_sequence = $1 WHERE tenant = $2 AND id = $3",
    raise_lanes=_RAISE_LANES.format("$1::text", "$2::bigint", "$3::bigint", "$4::bigint", "$5::text"),
)


def statements(connection: Connection) -> Statements:
    """Return the texts for this connection's dialect."""
    return POSTGRESQL if connection.dialect.name == "postgresql" else SQLITE


def listed(connection: Connection, values: Collection[str]) -> Any:
    """Return *values* as the one parameter that stands for a list."""
    if connection.dialect.name == "postgresql":
        return list(values)
    return orjson.dumps(list(values)).decode()
