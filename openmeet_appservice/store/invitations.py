"""Invitations of puppets into rooms that are not ours, from their arrival until they are answered.

An invitation is noted in the transaction that takes its event from Synapse, with a row of ``sync``, by which
the reconciler finds it. Both rows go in the transaction that tells OpenMeet what was answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, delete, select

from openmeet_appservice.domain.arrival import Arrival, loads
from openmeet_appservice.domain.invitations import read_invitation
from openmeet_appservice.store import sync
from openmeet_appservice.store.bulk import among, insert_if_absent
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.tables import invitations, rooms, tenants, users


@dataclass(frozen=True, slots=True)
class Invitation:
    """One that is not answered yet.

    Parameters
    ----------
    user_id, slug, external_id
        Of the user who was invited; *user_ref* is our id of it.
    direct
        Whether the inviter meant a direct chat.
    received_at
        When it came (milliseconds since the epoch).
    settings
        The tenant's own, as stored.
    is_ours
        The room turned out to be one of ours: then it is not for us to answer.
    """

    tenant: str
    ref: str
    user_ref: str
    user_id: str
    slug: str
    external_id: str | None
    room_id: str
    inviter: str
    direct: bool
    received_at: int
    settings: Mapping[str, Any]
    is_ours: bool


def note(connection: Connection, arrivals: Sequence[Arrival], *, bot: str, now: int, new_id: NewId) -> int:
    """Note the invitations of puppets among *arrivals*, events of unknown rooms; return how many are new.

    What the bot or a puppet sends concerns a room of ours that is about to be known.
    """
    found = [one for one in map(read_invitation, arrivals) if one is not None and one.inviter != bot]
    if not found:
        return 0
    names = {one.user_id for one in found} | {one.inviter for one in found}
    rows = connection.execute(
        select(users.c.tenant, users.c.id, users.c.user_id).where(among(connection, users.c.user_id, names))
    )
    ours = {row.user_id: row for row in rows}
    noted = 0
    for one in found:
        user = ours.get(one.user_id)
        if user is None or one.inviter in ours:
            continue
        row = {
            "tenant": user.tenant,
            "id": new_id("invitation"),
            "user_ref": user.id,
            "room_id": one.room_id,
            "inviter": one.inviter,
            "direct": one.direct,
            "received_at": now,
        }
        if insert_if_absent(connection, invitations, row):
            sync.touch(connection, user.tenant, "invite", row["id"], now=now)
            noted += 1
    return noted


def get(connection: Connection, tenant: str, ref: str) -> Invitation | None:
    """Return the invitation of that id of ours, None once it is answered."""
    row = connection.execute(
        select(
            invitations,
            users.c.user_id,
            users.c.slug,
            users.c.external_id,
            tenants.c.settings,
            rooms.c.id.label("our_room"),
        )
        .join(tenants, tenants.c.tenant == invitations.c.tenant)
        .join(users, and_(users.c.tenant == invitations.c.tenant, users.c.id == invitations.c.user_ref))
        .outerjoin(rooms, rooms.c.room_id == invitations.c.room_id)
        .where(invitations.c.tenant == tenant, invitations.c.id == ref)
    ).one_or_none()
    if row is None:
        return None
    return Invitation(
        tenant=row.tenant,
        ref=row.id,
        user_ref=row.user_ref,
        user_id=row.user_id,
        slug=row.slug,
        external_id=row.external_id,
        room_id=row.room_id,
        inviter=row.inviter,
        direct=row.direct,
        received_at=row.received_at,
        settings=loads(row.settings),
        is_ours=row.our_room is not None,
    )


def forget(connection: Connection, tenant: str, ref: str) -> None:
    """Drop the invitation: it is answered, or not ours to answer."""
    connection.execute(delete(invitations).where(invitations.c.tenant == tenant, invitations.c.id == ref))
    sync.forget(connection, tenant, "invite", ref)
