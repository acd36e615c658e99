"""The event log: every event of every known room, once, in order.

`append` is the hot path, one call for each transaction from Synapse. Two counters are assigned here,
under row locks taken in the order tenant, then rooms sorted, so that the order of numbers is the order of
commits, also between replicas: ``sequence`` counts the events of one room from 1, ``position`` those of
one tenant.

An event is stored once, by ``(tenant, event_id)``. Transaction ids decide nothing: on a SQLite homeserver
they begin again after a restart, and one event can come in two transactions.

A room that is not known yet may be about to become ours, for the first events of a new room arrive before
the answer to ``createRoom``. Its events are held outside any tenant until the room is recorded::

    unknown room ──event──▶ held ──room recorded──▶ log, in the order of arrival
                              └─────24 h─────▶ dropped and counted

The control room is the one unknown room whose events are not even held.

What others change of what this service sees to in a room in use makes the room's entity due, in the same
transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, select, text, update

from openmeet_appservice.domain.arrival import Arrival, Junk, event_class, read_event_text
from openmeet_appservice.domain.drift import is_drift
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import service, sync
from openmeet_appservice.store.event_log_sql import Log, log_of
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.ids import new_id as fresh_id
from openmeet_appservice.store.tables import (
    entities,
    held_events,
    members,
    quarantine,
    room_events,
    rooms,
    users,
)

CONTROL_ROOM = "control_room"
"""The name under which `store.service` keeps the control room's id."""

_PLAIN = frozenset({"message", "reaction"})
"""The classes of events that change nothing but the log."""

SETTLE_MS = 1_000
"""Milliseconds after which a room is compared that somebody changed: what comes with it is seen at once."""


@dataclass(slots=True)
class Appended:
    """What `append` did.

    Parameters
    ----------
    stored
        How many events it wrote to the log, by class (`domain.arrival.event_class`).
    held, repeated, ignored, quarantined
        How many elements it held, knew already, passed over on purpose, or kept apart as no events.
    recorded
        ``(tenant, entity_ref)`` of each entity of which a room became known with this transaction.
    drifted
        The same of each whose room somebody else has changed, which are due now.
    drift
        How many such events there were, by `domain.drift.Field`.
    outside
        Those of the held events that are about somebody's membership.
    uninvited
        Whether somebody came in who does not belong there; found by `store.uninvited`.
    """

    stored: Counter[str] = field(default_factory=Counter)
    held: int = 0
    repeated: int = 0
    ignored: int = 0
    quarantined: int = 0
    recorded: list[tuple[str, str]] = field(default_factory=list)
    drifted: set[tuple[str, str]] = field(default_factory=set)
    drift: Counter[str] = field(default_factory=Counter)
    outside: list[Arrival] = field(default_factory=list)
    uninvited: bool = False


@dataclass(slots=True)
class _Room:
    tenant: str
    ref: str
    last_sequence: int
    tenant_position: int
    entity_ref: str | None
    """Of the entity that uses the room, None where none does any more."""
    first_new: int = 0


def append(
    connection: Connection,
    arrivals: Sequence[Arrival],
    junk: Sequence[Junk] = (),
    *,
    now: int,
    bot: str,
    new_id: NewId = fresh_id,
) -> Appended:
    """Write one transaction's events to the log.

    Parameters
    ----------
    bot
        The bot's user id: what it sends has origin ``openmeet``, and only a room that it made is claimed
        by its ``m.room.create``, or a direct room that one of its two puppets made.
    """
    done = Appended(quarantined=len(junk))
    if junk:
        connection.execute(
            insert(quarantine), [{"received_at": now, "reason": j.reason, "body": j.body} for j in junk]
        )
    if not arrivals:
        return done
    log = log_of(connection)
    if len(arrivals) == 1 and _append_one(log, arrivals[0], now, bot, done):
        return done
    room_ids = {arrival.room_id for arrival in arrivals}
    known = _known_rooms(log, room_ids)
    if len(known) < len(room_ids):
        unknown = room_ids - known.keys()
        lock_room_ids(connection, unknown)
        creates = [arrival for arrival in arrivals if arrival.claim]
        for create in creates:
            if create.room_id in unknown:
                _record_by_create(connection, create, now, bot, new_id, done)
        known = _known_rooms(log, room_ids)
        _hold(connection, log, [a for a in arrivals if a.room_id not in known], now, done)
        arrivals = [arrival for arrival in arrivals if arrival.room_id in known]
    _append_known(log, arrivals, known, now, bot, done)
    for tenant, entity_ref in sorted(done.drifted):
        sync.poke_by(connection, tenant, "entity", entity_ref, at=now + SETTLE_MS)
    return done


def newest_event_id(connection: Connection, tenant: str, room_ref: str) -> str | None:
    """Return the room's event that was stored last, None for a room without any."""
    return connection.execute(
        select(room_events.c.event_id)
        .where(room_events.c.tenant == tenant, room_events.c.room_ref == room_ref)
        .order_by(room_events.c.sequence.desc())
        .limit(1)
    ).scalar()


def lock_room_ids(connection: Connection, room_ids: Iterable[str]) -> None:
    """Let nobody else hold events of these unknown rooms, or record them, until the transaction ends.

    Without it, one replica could hold an event of a room while another, which does not see that event
    yet, records the room: the event would never be attached.
    """
    if connection.dialect.name == "postgresql":
        for room_id in sorted(room_ids):
            connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended(:room_id, 0))"), {"room_id": room_id}
            )


def record_room_id(
    connection: Connection,
    tenant: str,
    room_ref: str,
    room_id: str,
    room_version: str,
    *,
    now: int,
    bot: str,
) -> bool:
    """Record that the claimed room *room_ref* is *room_id*, and attach what was held of it.

    Returns False, having changed nothing, where the claim has a room id already, or was given up: then
    *room_id* is the recorded one, or an orphan.
    """
    lock_room_ids(connection, [room_id])
    found = connection.execute(
        update(rooms)
        .where(rooms.c.tenant == tenant, rooms.c.id == room_ref)
        .where(rooms.c.room_id.is_(None), rooms.c.state == "claimed")
        .values(room_id=room_id, room_version=room_version, state="open")
    )
    if found.rowcount == 0:
        return False
    attach_held(connection, room_id, now=now, bot=bot)
    return True


def attach_held(connection: Connection, room_id: str, *, now: int, bot: str) -> int:
    """Move the held events of *room_id*, a known room, into the log; return how many there were.

    The caller has taken the lock of `lock_room_ids`.
    """
    held = connection.execute(
        select(held_events.c.body).where(held_events.c.room_id == room_id).order_by(held_events.c.id)
    )
    arrivals = [event for event in map(read_event_text, held.scalars()) if isinstance(event, Arrival)]
    if arrivals:
        drop_held(connection, room_id)
        log = log_of(connection)
        _append_known(log, arrivals, _known_rooms(log, [room_id]), now, bot, Appended())
    return len(arrivals)


def drop_held(connection: Connection, room_id: str) -> None:
    """Drop the held events of one room."""
    connection.execute(delete(held_events).where(held_events.c.room_id == room_id))


def forget_held(connection: Connection, *, before: int) -> int:
    """Drop the events of rooms that nobody claimed since *before*; return how many."""
    return connection.execute(delete(held_events).where(held_events.c.received_at < before)).rowcount


def forget_quarantined(connection: Connection, *, before: int) -> int:
    """Drop what was quarantined before *before*; return how many."""
    return connection.execute(delete(quarantine).where(quarantine.c.received_at < before)).rowcount


def _known_rooms(log: Log, room_ids: Collection[str]) -> dict[str, _Room]:
    if len(room_ids) == 1:
        rows = log.fetch(log.statements.room, *room_ids)
    else:
        rows = log.fetch(log.statements.rooms, log.listed(room_ids))
    return {room_id: _Room(*numbers) for room_id, *numbers in rows}


def _record_by_create(
    connection: Connection, create: Arrival, now: int, bot: str, new_id: NewId, done: Appended
) -> None:
    """Recognize a new room by the claim in its ``m.room.create``.

    It is the claimed room; or, when that has an id already or the claim was given up, a second one that
    was made all the same, and is recorded as an orphan for the reconciler to close.
    """
    claimed = connection.execute(
        # The row without an id first: the claimed one, or a claim that was given up.
        select(rooms).where(rooms.c.claim == create.claim).order_by(rooms.c.room_id.is_not(None)).limit(1)
    ).first()
    if claimed is None or not _may_claim(connection, claimed, create.sender, bot):
        return
    version = create.room_version or "1"
    if not record_room_id(connection, claimed.tenant, claimed.id, create.room_id, version, now=now, bot=bot):
        connection.execute(
            insert(rooms).values(
                tenant=claimed.tenant,
                id=new_id("room"),
                entity_ref=claimed.entity_ref,
                state="orphan",
                claim=claimed.claim,
                lock_alias=claimed.lock_alias,
                room_id=create.room_id,
                room_version=version,
                log_id=new_id("log"),
                last_sequence=0,
                created_at=now,
            )
        )
        attach_held(connection, create.room_id, now=now, bot=bot)
    done.recorded.append((claimed.tenant, claimed.entity_ref))


def _may_claim(connection: Connection, claimed: Row[Any], maker: str, bot: str) -> bool:
    """Tell whether a room for that claim is made by *maker*; anybody can copy a claim into their own."""
    if maker == bot:
        return True
    found = connection.execute(
        select(entities.c.id)
        .join(
            members,
            and_(members.c.tenant == entities.c.tenant, members.c.entity_ref == entities.c.id),
        )
        .join(users, and_(users.c.tenant == members.c.tenant, users.c.id == members.c.user_ref))
        .where(entities.c.tenant == claimed.tenant, entities.c.id == claimed.entity_ref)
        .where(entities.c.kind == EntityKind.DIRECT.value, users.c.user_id == maker)
    )
    return found.first() is not None


def _hold(connection: Connection, log: Log, arrivals: Sequence[Arrival], now: int, done: Appended) -> None:
    if not arrivals:
        return
    control_room = service.get(connection, CONTROL_ROOM)
    for arrival in arrivals:
        if arrival.room_id == control_room:
            done.ignored += 1
        elif log.fetch(log.statements.hold, arrival.room_id, arrival.event_id, now, arrival.body):
            done.held += 1
            if arrival.target is not None:
                done.outside.append(arrival)
        else:
            done.repeated += 1


def _append_one(log: Log, arrival: Arrival, now: int, bot: str, done: Appended) -> bool:
    """Store one plain event in the fewest steps; return False, having done nothing, where it takes more.

    Nearly every transaction of a quiet homeserver is one such event, and what runs once in a while finds
    every cache cold: then each step less counts. Not on PostgreSQL, where rows have to be locked first.
    """
    sql = log.statements
    kind = event_class(arrival.type)
    if sql.room_for_event is None or kind not in _PLAIN or arrival.mark or arrival.touch:
        return False
    found = log.fetch(sql.room_for_event, arrival.room_id, arrival.event_id)
    if not found:
        return False
    tenant, room_ref, last_sequence, last_position, is_stored = found[0]
    if is_stored:
        done.repeated = 1
        return True
    log.run(
        sql.insert_events_many,
        tenant,
        last_position + 1,
        room_ref,
        last_sequence + 1,
        arrival.event_id,
        arrival.type,
        arrival.sender,
        "openmeet" if arrival.sender == bot else "matrix",
        now,
        arrival.body,
    )
    log.run(sql.set_last_position, last_position + 1, tenant)
    log.run(sql.set_last_sequence_many, tenant, room_ref, last_sequence + 1, now)
    log.run(sql.raise_lanes_many, tenant, room_ref, last_sequence, now)
    done.stored[kind] = 1
    return True


def _append_known(
    log: Log,
    arrivals: Sequence[Arrival],
    known: dict[str, _Room],
    now: int,
    bot: str,
    done: Appended,
) -> None:
    by_tenant: dict[str, list[Arrival]] = {}
    positions: dict[str, int] = {}
    for arrival in arrivals:
        room = known[arrival.room_id]
        by_tenant.setdefault(room.tenant, []).append(arrival)
        positions[room.tenant] = room.tenant_position
    if not by_tenant:
        return
    if log.statements.lock_tenants is not None:
        positions.update(log.fetch(log.statements.lock_tenants, log.listed(by_tenant)))
    if log.statements.lock_rooms is not None:
        there = dict(log.fetch(log.statements.lock_rooms, log.listed(known)))
        for room_id, last in there.items():
            known[room_id].last_sequence = last
        if len(there) < len(known):
            # Another transaction has just erased a room; nobody is to keep what is said of it.
            by_tenant = {t: [a for a in theirs if a.room_id in there] for t, theirs in by_tenant.items()}
    for tenant, theirs in by_tenant.items():
        new = _new_ones(log, tenant, theirs)
        done.repeated += len(theirs) - len(new)
        if new:
            _insert(log, tenant, new, known, positions[tenant], now, bot, done)
            done.stored.update(map(event_class, [arrival.type for arrival in new]))


def _new_ones(log: Log, tenant: str, arrivals: Sequence[Arrival]) -> Sequence[Arrival]:
    if len(arrivals) == 1:
        return [] if log.fetch(log.statements.is_stored, tenant, arrivals[0].event_id) else arrivals
    event_ids = log.listed([arrival.event_id for arrival in arrivals])
    seen = {event_id for (event_id,) in log.fetch(log.statements.stored, tenant, event_ids)}
    new = []
    for arrival in arrivals:
        if arrival.event_id not in seen:
            seen.add(arrival.event_id)
            new.append(arrival)
    return new


def _insert(
    log: Log,
    tenant: str,
    arrivals: Sequence[Arrival],
    known: dict[str, _Room],
    position: int,
    now: int,
    bot: str,
    done: Appended,
) -> None:
    ours = _sent_by_us(log, tenant, arrivals)
    touched: dict[str, _Room] = {}
    rows = []
    for arrival in arrivals:
        room = known[arrival.room_id]
        position += 1
        room.last_sequence += 1
        if arrival.room_id not in touched:
            touched[arrival.room_id] = room
            room.first_new = room.last_sequence
        is_ours = arrival.event_id in ours
        origin = "openmeet" if arrival.sender == bot or is_ours else "matrix"
        touch = arrival.touch
        if touch is not None and is_drift(touch, sender=arrival.sender, bot=bot, is_ours=is_ours):
            done.drift[touch.field] += 1
            if room.entity_ref is not None:
                done.drifted.add((tenant, room.entity_ref))
        rows.append(
            (
                tenant,
                position,
                room.ref,
                room.last_sequence,
                arrival.event_id,
                arrival.type,
                arrival.sender,
                origin,
                now,
                arrival.body,
            )
        )
    sql = log.statements
    log.many(sql.insert_events_many, rows)
    log.run(sql.set_last_position, position, tenant)
    raised = touched.values()
    log.many(sql.set_last_sequence_many, [(tenant, room.ref, room.last_sequence, now) for room in raised])
    log.many(
        sql.raise_lanes_many,
        [(tenant, room.ref, room.first_new - 1, now) for room in raised],
    )


def _sent_by_us(log: Log, tenant: str, arrivals: Sequence[Arrival]) -> set[str]:
    """Return the event ids of what this service did as one of its puppets.

    A message is ours when a row of ours is named by its mark and was sent as that puppet; the row then
    learns its event id. A puppet's state is ours, such as its own membership and what it sets up in a direct
    room, since nobody else acts for a puppet.
    """
    sql = log.statements
    ours = set()
    marks = {arrival.mark for arrival in arrivals if arrival.mark}
    if marks:
        senders = dict(log.fetch(sql.message_senders, tenant, log.listed(marks)))
        # Anybody can copy a mark into a message of their own; only the sender tells the original.
        sent = [a for a in arrivals if a.mark is not None and senders.get(a.mark) == a.sender]
        if sent:
            log.many(sql.message_sent_many, [(tenant, a.mark, a.event_id) for a in sent])
        ours |= {arrival.event_id for arrival in sent}
    setting = {arrival.sender for arrival in arrivals if arrival.is_state}
    if setting:
        puppets = {user_id for (user_id,) in log.fetch(sql.puppets, tenant, log.listed(setting))}
        ours |= {a.event_id for a in arrivals if a.is_state and a.sender in puppets}
    return ours
