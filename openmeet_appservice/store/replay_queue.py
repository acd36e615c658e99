"""Replays, the writing half: what is meant of some rooms becomes ranges that their lanes send again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Connection,
    Executable,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from openmeet_appservice.domain.ranges import Range, size
from openmeet_appservice.domain.replay import Again, Asked, Counts, Letter, Standing, again
from openmeet_appservice.store import endpoints
from openmeet_appservice.store.bulk import among
from openmeet_appservice.store.endpoint_key import EPOCHS, EndpointKey, is_endpoint
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.replay_pages import Page, takes
from openmeet_appservice.store.tables import dead_letters, lanes, replays, rooms
from openmeet_appservice.store.tables import endpoints as endpoint_rows


@dataclass(frozen=True, slots=True)
class _Decided:
    """What is to be done for a room; *newest* is its last sequence, *lane* whether it has one."""

    again: Again
    newest: int
    lane: bool


def count_page(connection: Connection, endpoint: EndpointKey, asked: Asked, page: Page) -> Counts:
    """Return what `queue_page` would queue."""
    if not takes(connection, endpoint, page.tenant):
        return Counts()
    return _counts(_decided(connection, endpoint, asked, page).values())


def queue_page(
    connection: Connection, endpoint: EndpointKey, asked: Asked, page: Page, *, now: int, new_id: NewId
) -> Counts:
    """Queue what is asked for of these rooms; return what that was.

    A lane that is idle becomes due; one that is parked, or waits for its next try, stays as it is. A room
    without a lane gets one.
    """
    endpoints.lock(connection, endpoint[0])
    if not page.windows or not takes(connection, endpoint, page.tenant):
        return Counts()
    # As whoever stores an event and whoever records a try does: the rooms first, in order, then the lanes.
    # So neither the lanes nor the dead letters of these rooms change any more.
    connection.execute(
        select(rooms.c.id)
        .where(rooms.c.tenant == page.tenant, among(connection, rooms.c.id, page.windows))
        .order_by(rooms.c.id)
        .with_for_update()
    )
    decided = _decided(connection, endpoint, asked, page)
    _queue(connection, endpoint, page.tenant, decided, now, new_id)
    return _counts(decided.values())


def queued_events(connection: Connection, endpoint: EndpointKey | None = None) -> int:
    """Return how many events are to be sent again, to one endpoint or to all."""
    query = select(func.coalesce(func.sum(replays.c.last_sequence - replays.c.next_sequence + 1), 0))
    if endpoint is not None:
        query = query.where(replays.c.owner == endpoint[0], replays.c.endpoint_ref == endpoint[1])
    return int(connection.execute(query).scalar_one())


def _decided(connection: Connection, endpoint: EndpointKey, asked: Asked, page: Page) -> dict[str, _Decided]:
    """Decide for each room of the page."""
    letters = _letters(connection, endpoint, asked, page)
    queued = _queued(connection, endpoint, page)
    its_lane = and_(
        lanes.c.tenant == rooms.c.tenant,
        lanes.c.endpoint_ref == endpoint[1],
        lanes.c.room_ref == rooms.c.id,
    )
    rows = connection.execute(
        select(rooms.c.id, rooms.c.last_sequence, lanes.c.began_after, lanes.c.acked_sequence)
        .outerjoin_from(rooms, lanes, its_lane)
        .where(rooms.c.tenant == page.tenant, among(connection, rooms.c.id, page.windows))
    )
    decided = {}
    for ref, newest, began_after, acked in rows:
        window = page.windows[ref]
        standing = Standing(
            oldest=window.oldest,
            acked=newest if acked is None else acked,
            began_after=newest if began_after is None else began_after,
            letters=letters.get(ref, ()),
            queued=queued.get(ref, ()),
        )
        decided[ref] = _Decided(again(standing, window.events, asked.only), newest, lane=acked is not None)
    return decided


def _letters(
    connection: Connection, endpoint: EndpointKey, asked: Asked, page: Page
) -> dict[str, list[Letter]]:
    columns = dead_letters.c
    query = select(
        columns.room_ref, columns.at, columns.id, columns.first_sequence, columns.last_sequence
    ).where(
        columns.owner == endpoint[0],
        columns.endpoint_ref == endpoint[1],
        columns.tenant == page.tenant,
        among(connection, columns.room_ref, page.windows),
    )
    if asked.letters is not None:
        query = query.where(among(connection, columns.id, asked.letters))
    found: dict[str, list[Letter]] = {}
    for ref, at, id_, first, last in connection.execute(query):
        found.setdefault(ref, []).append(Letter(at, id_, (first, last)))
    return found


def _queued(connection: Connection, endpoint: EndpointKey, page: Page) -> dict[str, list[Range]]:
    query = select(replays.c.room_ref, replays.c.next_sequence, replays.c.last_sequence).where(
        replays.c.tenant == page.tenant,
        replays.c.endpoint_ref == endpoint[1],
        among(connection, replays.c.room_ref, page.windows),
    )
    found: dict[str, list[Range]] = {}
    for ref, first, last in connection.execute(query):
        found.setdefault(ref, []).append((first, last))
    return found


def _queue(
    connection: Connection,
    endpoint: EndpointKey,
    tenant: str,
    decided: Mapping[str, _Decided],
    now: int,
    new_id: NewId,
) -> None:
    owner, endpoint_ref = endpoint
    to_do = {ref: one for ref, one in decided.items() if one.again.ranges}
    of_lane = {"tenant": tenant, "endpoint_ref": endpoint_ref, "owner": owner}
    revision = connection.execute(select(endpoint_rows.c.revision).where(is_endpoint(endpoint))).scalar_one()
    _many(
        connection,
        insert(lanes),
        [
            of_lane
            | {
                "room_ref": ref,
                "began_after": one.newest,
                "acked_sequence": one.newest,
                "attempts": 0,
                "refusals": 0,
                "lease_epoch": revision * EPOCHS,
            }
            for ref, one in to_do.items()
            if not one.lane
        ],
    )
    _many(
        connection,
        insert(replays),
        [
            of_lane
            | {
                "room_ref": ref,
                "id": new_id("replay"),
                "next_sequence": first,
                "last_sequence": last,
                "created_at": now,
            }
            for ref, one in to_do.items()
            for first, last in one.again.ranges
        ],
    )
    theirs = and_(lanes.c.tenant == tenant, lanes.c.endpoint_ref == endpoint_ref)
    connection.execute(
        update(lanes)
        .where(theirs, among(connection, lanes.c.room_ref, to_do))
        # As when an event comes in: one that is parked stays so, but learns that now something waits.
        .where(lanes.c.due_at.is_(None), or_(lanes.c.parked_at.is_(None), lanes.c.waiting_since.is_(None)))
        .values(due_at=case((lanes.c.parked_at.is_(None), now)), waiting_since=now)
    )
    _many(
        connection,
        update(lanes)
        .where(theirs, lanes.c.room_ref == bindparam("_ref"), lanes.c.began_after > bindparam("_began"))
        .values(began_after=bindparam("_began")),
        [{"_ref": ref, "_began": one.again.began_after} for ref, one in decided.items()],
    )
    columns = dead_letters.c
    _many(
        connection,
        delete(dead_letters).where(
            columns.owner == owner,
            columns.endpoint_ref == endpoint_ref,
            columns.at == bindparam("_at"),
            columns.id == bindparam("_id"),
        ),
        [{"_at": letter.at, "_id": letter.id} for one in decided.values() for letter in one.again.letters],
    )


def _many(connection: Connection, statement: Executable, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _counts(decided: Iterable[_Decided]) -> Counts:
    ranges = [one.again.ranges for one in decided if one.again.ranges]
    return Counts(len(ranges), sum(size(some) for some in ranges))
