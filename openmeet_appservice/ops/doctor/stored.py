"""What the database tells about how things stand: read across all tenants, for an admin."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Table, and_, func, select
from sqlalchemy.sql import ColumnElement

from openmeet_appservice.domain.arrival import loads
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.domain.tenant_settings import room_settings
from openmeet_appservice.store import endpoints, event_log, lanes, schema, service
from openmeet_appservice.store.dead_letters import Reason
from openmeet_appservice.store.sync import read_error
from openmeet_appservice.store.tables import (
    dead_letters,
    entities,
    held_events,
    quarantine,
    rooms,
    sync,
    tenants,
    users,
)
from openmeet_appservice.store.tables import lanes as lane_rows

EXAMPLES = 3
"""How many of many are named."""


@dataclass(frozen=True, slots=True)
class Owner:
    """For whom the database was made; None where nobody has used it yet."""

    server_name: str | None
    appservice_id: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook endpoint; *tenant_id* is None for the platform's.

    *secret* and *headers* are encrypted. *parked* counts the rooms that wait for it, *truncated* its dead
    letters because too much waited, *dead* all others.
    *state* is ``active``, ``paused``, ``disabled`` or ``breaker_open``.
    """

    tenant_id: str | None
    name: str
    url: str
    secret: str
    parked: int
    headers: str | None = None
    dead: int = 0
    truncated: int = 0
    state: str = "active"

    @property
    def path(self) -> str:
        """Where the provisioning API has it."""
        place = "/v1" if self.tenant_id is None else f"/v1/tenants/{self.tenant_id}"
        return f"{place}/webhooks/{self.name}"

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.tenant_id or 'platform'}/{self.name}"


@dataclass(frozen=True, slots=True)
class Failing:
    """How many entities and users Synapse does not have as wanted, with some *examples* in words."""

    entities: int
    users: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Aside:
    """How many events are held for rooms not known yet, and how many elements are in quarantine."""

    held: int
    held_rooms: int
    quarantined: int
    reason: str | None


def current_schema(connection: Connection) -> str:
    """Return the schema's revision if this release can use it.

    Raises
    ------
    StoreError
        It cannot: see `schema.check`.
    """
    schema.check(connection)
    return schema.newest_revision()


def owner(connection: Connection) -> Owner:
    """Return for whom the database was made."""
    return Owner(service.get(connection, "server_name"), service.get(connection, "appservice_id"))


def control_room(connection: Connection) -> str | None:
    """Return the id of the bot's control room, None before the first `run`."""
    return service.get(connection, event_log.CONTROL_ROOM)


def newest_plain_rooms(connection: Connection, limit: int, *, defaults: RoomSettings) -> list[str]:
    """Return the ids of the rooms in use that were made last and shall not be encrypted, the newest first.

    Parameters
    ----------
    limit
        Also of those looked at, of which ten times as many are.
    defaults
        The settings of tenants that chose nothing themselves.
    """
    found = connection.execute(
        select(rooms.c.room_id, entities.c.spec, tenants.c.settings)
        .join(entities, and_(entities.c.tenant == rooms.c.tenant, entities.c.id == rooms.c.entity_ref))
        .join(tenants, tenants.c.tenant == rooms.c.tenant)
        .where(rooms.c.state == "open", rooms.c.room_id.is_not(None))
        .order_by(rooms.c.created_at.desc())
        .limit(10 * limit)
    )
    plain = [row.room_id for row in found if not _shall_be_encrypted(row.spec, row.settings, defaults)]
    return plain[:limit]


def _shall_be_encrypted(spec: str, settings: str, defaults: RoomSettings) -> bool:
    own: bool | None = loads(spec).get("encrypted")
    return room_settings(defaults, loads(settings)).encrypted if own is None else own


def targets(connection: Connection) -> list[Target]:
    """Return every webhook endpoint, the platform's first."""
    parked = _by_endpoint(connection, lane_rows, lane_rows.c.parked_at.is_not(None))
    too_many = dead_letters.c.reason == Reason.TRUNCATED.value
    dead = _by_endpoint(connection, dead_letters, ~too_many)
    truncated = _by_endpoint(connection, dead_letters, too_many)
    rows = connection.execute(select(tenants.c.tenant, tenants.c.tenant_id))
    ids = {row.tenant: row.tenant_id for row in rows}
    return [
        Target(
            tenant_id=ids.get(one.owner),
            name=one.name,
            url=one.wanted.url,
            secret=one.secret,
            parked=parked.get(one.key, 0),
            headers=one.wanted.headers,
            dead=dead.get(one.key, 0),
            truncated=truncated.get(one.key, 0),
            state=one.state,
        )
        for one in endpoints.list_all(connection)
    ]


def _by_endpoint(
    connection: Connection, table: Table, *conditions: ColumnElement[bool]
) -> dict[tuple[str, str], int]:
    """Count the rows of each endpoint."""
    key = (table.c.owner, table.c.endpoint_ref)
    rows = connection.execute(select(*key, func.count()).where(*conditions).group_by(*key))
    return {(owner, ref): number for owner, ref, number in rows}


def backlog(connection: Connection) -> lanes.Backlog:
    """Return how much OpenMeet has not taken."""
    return lanes.backlog(connection)


def failing(connection: Connection) -> Failing:
    """Return what the reconciler has not brought about, and why."""
    counts = {
        row.subject: row.number
        for row in connection.execute(
            select(sync.c.subject, func.count().label("number"))
            .where(sync.c.error.is_not(None))
            .group_by(sync.c.subject)
        )
    }
    of_entities = connection.execute(
        select(tenants.c.tenant_id, entities.c.kind, entities.c.slug, sync.c.error)
        .join(tenants, tenants.c.tenant == sync.c.tenant)
        .join(entities, and_(entities.c.tenant == sync.c.tenant, entities.c.id == sync.c.ref))
        .where(sync.c.subject == "entity", sync.c.error.is_not(None))
        .order_by(sync.c.tenant, entities.c.slug_key)
        .limit(EXAMPLES)
    )
    of_users = connection.execute(
        select(tenants.c.tenant_id, users.c.slug, sync.c.error)
        .join(tenants, tenants.c.tenant == sync.c.tenant)
        .join(users, and_(users.c.tenant == sync.c.tenant, users.c.id == sync.c.ref))
        .where(sync.c.subject == "user", sync.c.error.is_not(None))
        .order_by(sync.c.tenant, users.c.slug_key)
        .limit(EXAMPLES)
    )
    named = [f"{row.tenant_id} {row.kind} {row.slug} ({_code(row.error)})" for row in of_entities]
    named += [f"{row.tenant_id} user {row.slug} ({_code(row.error)})" for row in of_users]
    return Failing(counts.get("entity", 0), counts.get("user", 0), tuple(named[:EXAMPLES]))


def aside(connection: Connection) -> Aside:
    """Count what was taken from Synapse but is in no room's log."""
    held = connection.execute(
        select(func.count(), func.count(held_events.c.room_id.distinct())).select_from(held_events)
    ).one()
    quarantined = connection.execute(select(func.count()).select_from(quarantine)).scalar_one()
    reason = connection.execute(
        select(quarantine.c.reason).order_by(quarantine.c.id.desc()).limit(1)
    ).scalar_one_or_none()
    return Aside(held[0], held[1], quarantined, reason)


def _code(stored: str) -> str:
    error = read_error(stored)
    return "" if error is None else error.code
