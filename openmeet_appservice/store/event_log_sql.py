"""The event log's statements as text, for both dialects, and the shortest way to run them.

Only these are text: they run for every transaction from Synapse, where building a statement costs more
than running it, and on SQLite so does all that stands between us and the driver. A list of ids is one
parameter, so that each statement is prepared once: a JSON array on SQLite, a PostgreSQL array there.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from openmeet_appservice.store.endpoint_key import EPOCHS


@dataclass(frozen=True, slots=True)
class Statements:
    """One dialect's texts.

    *rooms* reads each room and its tenant, and what ``lock_…`` reads stays as it is until the transaction
    ends; they are None where *rooms* does that already. *room* and *is_stored* are *rooms* and *stored* for
    a single id; *room_for_event* is both in one, None where rows have to be locked in between. ``…_many`` are
    run with `Log.many`, on SQLite a single row with `Log.run` as well.
    """

    room: str
    room_for_event: str | None
    rooms: str
    lock_tenants: str | None
    lock_rooms: str | None
    is_stored: str
    stored: str
    hold: str
    insert_events_many: str
    set_last_position: str
    set_last_sequence_many: str
    raise_lanes_many: str
    message_senders: str
    message_sent_many: str
    puppets: str


_ROOMS = """
SELECT rooms.room_id, rooms.tenant, rooms.id, rooms.last_sequence, tenants.last_position,
    CASE WHEN rooms.state = 'open' THEN rooms.entity_ref END
FROM rooms JOIN tenants ON tenants.tenant = rooms.tenant WHERE rooms.room_id {listed}
"""

_INSERT_EVENTS = """
INSERT INTO room_events
    (tenant, position, room_ref, sequence, event_id, type, sender, origin, received_at, body)
{rows}
"""

_HOLD = """
INSERT INTO held_events (room_id, event_id, received_at, body) VALUES ({0}, {1}, {2}, {3})
ON CONFLICT (room_id, event_id) DO NOTHING RETURNING 1
"""

# Only an idle lane is written: one that is due already, now or for its next try, is not hurried, and one that
# is parked stays so, but learns that now something waits. How far the room has come stands in its own row.
_RAISE_LANES = """
INSERT INTO lanes
    (tenant, endpoint_ref, room_ref, owner, began_after, acked_sequence, due_at, attempts, refusals,
     waiting_since, lease_epoch)
{rows}
ON CONFLICT (tenant, endpoint_ref, room_ref) DO UPDATE SET
    due_at = CASE WHEN lanes.parked_at IS NULL THEN excluded.due_at END,
    waiting_since = excluded.waiting_since
    WHERE lanes.due_at IS NULL AND (lanes.parked_at IS NULL OR lanes.waiting_since IS NULL)
"""

# A lane for each of the tenant's own endpoints, and of the platform's that get this tenant's events.
_LANES = """
SELECT {tenant}, endpoints.id, {room}, endpoints.tenant, {acked}, {acked}, {at}, 0, 0, {at},
    endpoints.revision * {epochs}
FROM {source}
WHERE endpoints.takes_events AND endpoints.tenant IN ({tenant}, '')
AND (endpoints.tenant <> '' OR endpoints.every_tenant OR EXISTS (
    SELECT 1 FROM endpoint_tenants
    WHERE endpoint_tenants.tenant = {tenant} AND endpoint_tenants.endpoint_ref = endpoints.id))
"""

_MESSAGE_SENDERS = """
SELECT messages.id, users.user_id FROM messages
JOIN users ON users.tenant = messages.tenant AND users.id = messages.user_ref
WHERE messages.tenant = {tenant} AND messages.id {listed}
"""

_IS_STORED = "SELECT event_id FROM room_events WHERE tenant = {tenant} AND event_id = {event_id}"

_ROOM_FOR_EVENT = """
SELECT rooms.tenant, rooms.id, rooms.last_sequence, tenants.last_position,
    EXISTS (SELECT 1 FROM room_events WHERE room_events.tenant = rooms.tenant AND event_id = ?2)
FROM rooms JOIN tenants ON tenants.tenant = rooms.tenant WHERE rooms.room_id = ?1
"""

SQLITE = Statements(
    room=_ROOMS.format(listed="= ?1"),
    room_for_event=_ROOM_FOR_EVENT,
    rooms=_ROOMS.format(listed="IN (SELECT value FROM json_each(?1))"),
    # BEGIN IMMEDIATE has locked everything already.
    lock_tenants=None,
    lock_rooms=None,
    is_stored=_IS_STORED.format(tenant="?1", event_id="?2"),
    stored="SELECT event_id FROM room_events WHERE tenant = ?1 "
    "AND event_id IN (SELECT value FROM json_each(?2))",
    hold=_HOLD.format("?1", "?2", "?3", "?4"),
    insert_events_many=_INSERT_EVENTS.format(rows="VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"),
    set_last_position="UPDATE tenants SET last_position = ?1 WHERE tenant = ?2",
    set_last_sequence_many="UPDATE rooms SET last_sequence = ?3, last_event_at = ?4 "
    "WHERE tenant = ?1 AND id = ?2",
    raise_lanes_many=_RAISE_LANES.format(
        rows=_LANES.format(epochs=EPOCHS, tenant="?1", room="?2", acked="?3", at="?4", source="endpoints")
    ),
    message_senders=_MESSAGE_SENDERS.format(tenant="?1", listed="IN (SELECT value FROM json_each(?2))"),
    message_sent_many="UPDATE messages SET event_id = ?3, content = NULL WHERE tenant = ?1 AND id = ?2",
    puppets="SELECT user_id FROM users WHERE tenant = ?1 AND user_id IN (SELECT value FROM json_each(?2))",
)

POSTGRESQL = Statements(
    room=_ROOMS.format(listed="= $1"),
    room_for_event=None,
    rooms=_ROOMS.format(listed="= ANY($1::text[])"),
    lock_tenants="SELECT tenant, last_position FROM tenants WHERE tenant = ANY($1::text[]) "
    "ORDER BY tenant FOR UPDATE",
    lock_rooms="SELECT room_id, last_sequence FROM rooms WHERE room_id = ANY($1::text[]) "
    "ORDER BY tenant, id FOR UPDATE",
    is_stored=_IS_STORED.format(tenant="$1", event_id="$2"),
    stored="SELECT event_id FROM room_events WHERE tenant = $1 AND event_id = ANY($2::text[])",
    hold=_HOLD.format("$1", "$2", "$3", "$4"),
    insert_events_many=_INSERT_EVENTS.format(
        rows="SELECT * FROM unnest($1::text[], $2::bigint[], $3::text[], $4::bigint[], $5::text[],"
        " $6::text[], $7::text[], $8::text[], $9::bigint[], $10::text[])"
    ),
    set_last_position="UPDATE tenants SET last_position = $1 WHERE tenant = $2",
    set_last_sequence_many="UPDATE rooms SET last_sequence = new.last_sequence, last_event_at = new.at "
    "FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[]) AS new (tenant, id, last_sequence, at) "
    "WHERE rooms.tenant = new.tenant AND rooms.id = new.id",
    raise_lanes_many=_RAISE_LANES.format(
        rows=_LANES.format(
            epochs=EPOCHS,
            tenant="new.tenant",
            room="new.room_ref",
            acked="new.acked",
            at="new.at",
            source="endpoints, unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[])"
            " AS new (tenant, room_ref, acked, at)",
        )
    ),
    message_senders=_MESSAGE_SENDERS.format(tenant="$1", listed="= ANY($2::text[])"),
    message_sent_many="UPDATE messages SET event_id = sent.event_id, content = NULL "
    "FROM unnest($1::text[], $2::text[], $3::text[]) AS sent (tenant, id, event_id) "
    "WHERE messages.tenant = sent.tenant AND messages.id = sent.id",
    puppets="SELECT user_id FROM users WHERE tenant = $1 AND user_id = ANY($2::text[])",
)


class Log(ABC):
    """Runs statements on a connection, inside its transaction.

    Errors are SQLAlchemy's, without parameters: those hold what people wrote.
    """

    statements: Statements

    @abstractmethod
    def fetch(self, statement: str, *parameters: Any) -> Sequence[tuple[Any, ...]]:
        """Run *statement* and return its rows."""

    @abstractmethod
    def run(self, statement: str, *parameters: Any) -> None:
        """Run *statement*, which returns none."""

    @abstractmethod
    def many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a ``…_many`` statement for all *rows*, of which there is at least one."""

    @abstractmethod
    def listed(self, values: Collection[str]) -> Any:
        """Return *values* as the one parameter that stands for a list."""


def log_of(connection: Connection) -> Log:
    """Return what runs the event log's statements on *connection*."""
    return _PostgreSQLLog(connection) if connection.dialect.name == "postgresql" else _SQLiteLog(connection)


class _SQLiteLog(Log):
    statements = SQLITE

    def __init__(self, connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        self._driver = driver

    def fetch(self, statement: str, *parameters: Any) -> Sequence[tuple[Any, ...]]:
        try:
            return self._driver.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise _wrapped(statement, error) from error

    def run(self, statement: str, *parameters: Any) -> None:
        try:
            self._driver.execute(statement, parameters)
        except sqlite3.Error as error:
            raise _wrapped(statement, error) from error

    def many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        try:
            self._driver.executemany(statement, rows)
        except sqlite3.Error as error:
            raise _wrapped(statement, error) from error

    def listed(self, values: Collection[str]) -> Any:
        return orjson.dumps(list(values)).decode()


class _PostgreSQLLog(Log):
    statements = POSTGRESQL

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def fetch(self, statement: str, *parameters: Any) -> Sequence[tuple[Any, ...]]:
        return self._connection.exec_driver_sql(statement, parameters).all()

    def run(self, statement: str, *parameters: Any) -> None:
        self._connection.exec_driver_sql(statement, parameters)

    def many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        # One array for each column: a single round trip, however many rows there are.
        self._connection.exec_driver_sql(statement, tuple(list(column) for column in zip(*rows, strict=True)))

    def listed(self, values: Collection[str]) -> Any:
        return list(values)


def _wrapped(statement: str, error: sqlite3.Error) -> Exception:
    wrapped: Exception = DBAPIError.instance(statement, None, error, sqlite3.Error)
    return wrapped
