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
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, insert, select, text, update

from openmeet_appservice.domain.arrival import Arrival, Junk, loads, read_event
from openmeet_appservice.store.event_log_sql import listed, statements
from openmeet_appservice.store.tables import held_events, messages, quarantine, rooms, users


@dataclass(slots=True)
class Appended:
    """What `append` did: how many events it stored, held, knew already, or passed over on purpose.

    *recorded* holds ``(tenant, entity_ref)`` of each room whose id came with this transaction.
    """

    stored: int = 0
    held: int = 0
    repeated: int = 0
    ignored: int = 0
    recorded: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Room:
    tenant: str
    ref: str
    first_new: int = 0
    last_sequence: int = 0


def append(
    connection: Connection,
    arrivals: Sequence[Arrival],
    junk: Sequence[Junk] = (),
    *,
    now: int,
    bot: str,
    silent_room: str | None = None,
) -> Appended:
    """Write one transaction's events to the log.

    Parameters
    ----------
    bot
        The bot's user id: what it sends has origin ``openmeet``, and only a room that it made is claimed
        by its ``m.room.create``.
    silent_room
        The room whose events are neither logged nor delivered: the control room.
    """
    done = Appended()
    if junk:
        connection.execute(
            insert(quarantine), [{"received_at": now, "reason": j.reason, "body": j.body} for j in junk]
        )
    wanted = [arrival for arrival in arrivals if arrival.room_id != silent_room]
    done.ignored = len(arrivals) - len(wanted)
    room_ids = {arrival.room_id for arrival in wanted}
    known = _known_rooms(connection, room_ids)
    if len(known) < len(room_ids):
        lock_room_ids(connection, room_ids - known.keys())
        for arrival in wanted:
            if arrival.room_id not in known and arrival.claim and arrival.sender == bot:
                _record_by_create(connection, arrival, now, bot, done)
        known = _known_rooms(connection, room_ids)
        _hold(connection, [a for a in wanted if a.room_id not in known], now, done)
    _append_known(connection, [a for a in wanted if a.room_id in known], known, now, bot, done)
    return done


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

    Returns False, having changed nothing, where the claim has a room id already: then *room_id* is that
    one, or a second room made for the same claim.
    """
    lock_room_ids(connection, [room_id])
    found = connection.execute(
        update(rooms)
        .where(rooms.c.tenant == tenant, rooms.c.id == room_ref, rooms.c.room_id.is_(None))
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
    events = [read_event(loads(body)) for body in held.scalars()]
    arrivals = [event for event in events if isinstance(event, Arrival)]
    if arrivals:
        connection.execute(delete(held_events).where(held_events.c.room_id == room_id))
        known = _known_rooms(connection, [room_id])
        _append_known(connection, arrivals, known, now, bot, Appended())
    return len(arrivals)


def forget_held(connection: Connection, *, before: int) -> int:
    """Drop the events of rooms that nobody claimed since *before*; return how many."""
    return connection.execute(delete(held_events).where(held_events.c.received_at < before)).rowcount


def forget_quarantined(connection: Connection, *, before: int) -> int:
    """Drop what was quarantined before *before*; return how many."""
    return connection.execute(delete(quarantine).where(quarantine.c.received_at < before)).rowcount


def _known_rooms(connection: Connection, room_ids: Collection[str]) -> dict[str, _Room]:
    if not room_ids:
        return {}
    rows = connection.exec_driver_sql(statements(connection).rooms, (listed(connection, room_ids),))
    return {room_id: _Room(tenant, ref) for room_id, tenant, ref in rows}


def _record_by_create(connection: Connection, create: Arrival, now: int, bot: str, done: Appended) -> None:
    claimed = connection.execute(
        select(rooms.c.tenant, rooms.c.id, rooms.c.entity_ref).where(rooms.c.claim == create.claim)
    ).first()
    if claimed is not None and record_room_id(
        connection,
        claimed.tenant,
        claimed.id,
        create.room_id,
        create.room_version or "1",
        now=now,
        bot=bot,
    ):
        done.recorded.append((claimed.tenant, claimed.entity_ref))


def _hold(connection: Connection, arrivals: Sequence[Arrival], now: int, done: Appended) -> None:
    for arrival in arrivals:
        already = connection.execute(
            select(held_events.c.id).where(
                held_events.c.room_id == arrival.room_id, held_events.c.event_id == arrival.event_id
            )
        ).first()
        if already is not None:
            done.repeated += 1
            continue
        connection.execute(
            insert(held_events).values(
                room_id=arrival.room_id,
                event_id=arrival.event_id,
                received_at=now,
                body=arrival.body,
            )
        )
        done.held += 1


def _append_known(
    connection: Connection,
    arrivals: Sequence[Arrival],
    known: Mapping[str, _Room],
    now: int,
    bot: str,
    done: Appended,
) -> None:
    by_tenant: dict[str, list[Arrival]] = {}
    for arrival in arrivals:
        by_tenant.setdefault(known[arrival.room_id].tenant, []).append(arrival)
    if not by_tenant:
        return
    sql = statements(connection)
    positions: dict[str, int] = dict(
        connection.exec_driver_sql(sql.tenants_locked, (listed(connection, sorted(by_tenant)),))
        .tuples()
        .all()
    )
    room_ids = {arrival.room_id for arrival in arrivals}
    for room_id, last in connection.exec_driver_sql(sql.rooms_locked, (listed(connection, room_ids),)):
        known[room_id].last_sequence = last
        known[room_id].first_new = last + 1
    for tenant, theirs in by_tenant.items():
        new = _new_ones(connection, tenant, theirs, done)
        if new:
            _insert(connection, tenant, new, known, positions[tenant], now, bot)
            done.stored += len(new)


def _new_ones(
    connection: Connection, tenant: str, arrivals: Sequence[Arrival], done: Appended
) -> list[Arrival]:
    event_ids = listed(connection, [arrival.event_id for arrival in arrivals])
    seen = set(connection.exec_driver_sql(statements(connection).stored, (tenant, event_ids)).scalars())
    new = []
    for arrival in arrivals:
        if arrival.event_id not in seen:
            seen.add(arrival.event_id)
            new.append(arrival)
    done.repeated += len(arrivals) - len(new)
    return new


def _insert(
    connection: Connection,
    tenant: str,
    arrivals: Sequence[Arrival],
    known: Mapping[str, _Room],
    position: int,
    now: int,
    bot: str,
) -> None:
    ours = _sent_by_us(connection, tenant, arrivals)
    rows = []
    for arrival in arrivals:
        room = known[arrival.room_id]
        position += 1
        room.last_sequence += 1
        origin = "openmeet" if arrival.sender == bot or arrival.event_id in ours else "matrix"
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
    sql = statements(connection)
    connection.exec_driver_sql(sql.insert_event, rows)
    connection.exec_driver_sql(sql.set_last_position, (position, tenant))
    for room_id in sorted({arrival.room_id for arrival in arrivals}):
        room = known[room_id]
        connection.exec_driver_sql(sql.set_last_sequence, (room.last_sequence, tenant, room.ref))
        connection.exec_driver_sql(
            sql.raise_lanes, (room.ref, room.first_new - 1, room.last_sequence, now, tenant)
        )


def _sent_by_us(connection: Connection, tenant: str, arrivals: Sequence[Arrival]) -> set[str]:
    """Return the event ids of what this service did as one of its puppets.

    A message is ours when a row of ours is named by its mark and was sent as that puppet; the row then
    learns its event id. A puppet's own membership is ours, since nobody else acts for a puppet.
    """
    ours = set()
    marks = {arrival.mark for arrival in arrivals if arrival.mark}
    if marks:
        rows = connection.execute(
            select(messages.c.id, users.c.user_id)
            .join(users, (users.c.tenant == messages.c.tenant) & (users.c.id == messages.c.user_ref))
            .where(messages.c.tenant == tenant, messages.c.id.in_(marks))
        )
        senders = dict(rows.tuples().all())
        for arrival in arrivals:
            # Anybody can copy a mark into a message of their own; only the sender tells the original.
            if arrival.mark is not None and senders.get(arrival.mark) == arrival.sender:
                ours.add(arrival.event_id)
                connection.execute(
                    update(messages)
                    .where(messages.c.tenant == tenant, messages.c.id == arrival.mark)
                    .values(event_id=arrival.event_id, content=None)
                )
    own = {arrival.sender for arrival in arrivals if arrival.target == arrival.sender}
    if own:
        puppets = set(
            connection.execute(
                select(users.c.user_id).where(users.c.tenant == tenant, users.c.user_id.in_(own))
            ).scalars()
        )
        ours |= {a.event_id for a in arrivals if a.target == a.sender and a.sender in puppets}
    return ours
