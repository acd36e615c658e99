"""Single members of whom it is to be seen whether they are inside as they should be.

A change of a few members of a large room must not cost a reading of the whole room. So who changed is noted
here, with what the user was when Synapse last agreed: from that it is known how the room is, as long as
nobody but this service changes it, and what the homeserver refuses shows where it is not so. ::

    members change  ──▶ noted, with what they were ─┐
    somebody moves in the room ──▶ noted, unknown ──┴─▶ compared alone ──Synapse agrees──▶ forgotten
                                                            └─ anything odd ─▶ the whole is compared

Each row carries the number of the touch (`store.sync`) that it came with, so that a run forgets what it began
with and nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import astuple
from typing import Any

import orjson
from sqlalchemy import Connection, delete
from sqlalchemy.dialects import postgresql, sqlite

from openmeet_appservice.store import sync
from openmeet_appservice.store.member_tables import member_checks
from openmeet_appservice.store.members import Standing
from openmeet_appservice.store.sync import Lease


def note(
    connection: Connection, tenant: str, entity_ref: str, were: Mapping[str, Standing | None], touch: int
) -> None:
    """Note who changed, by user id (Matrix), and what each was before; None: no member.

    Of somebody noted already, what was known then stays.
    """
    written = {user_id: None if was is None else astuple(was) for user_id, was in were.items()}
    _insert(
        connection,
        tenant,
        entity_ref,
        {user_id: orjson.dumps(was).decode() for user_id, was in written.items()},
        touch,
        {},
    )


def look_at(
    connection: Connection, tenant: str, entity_ref: str, user_ids: Collection[str], *, now: int
) -> None:
    """Have these, whose membership has changed by whatever hand, compared with what is wanted of them."""
    touch = sync.poke_members(connection, tenant, entity_ref, now=now)
    if touch is not None:
        _insert(connection, tenant, entity_ref, dict.fromkeys(user_ids), touch, {"was": None})


def forget(connection: Connection, lease: Lease) -> None:
    """Forget those with whom the run that *lease* was for began."""
    connection.execute(
        delete(member_checks).where(
            member_checks.c.tenant == lease.tenant,
            member_checks.c.entity_ref == lease.ref,
            member_checks.c.touch <= lease.touches,
        )
    )


def _insert(
    connection: Connection,
    tenant: str,
    entity_ref: str,
    were: Mapping[str, str | None],
    touch: int,
    also: Mapping[str, Any],
) -> None:
    if not were:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    connection.execute(
        dialect.insert(member_checks).on_conflict_do_update(
            index_elements=["tenant", "entity_ref", "user_id"], set_={"touch": touch, **also}
        ),
        [
            {"tenant": tenant, "entity_ref": entity_ref, "user_id": user_id, "was": was, "touch": touch}
            for user_id, was in were.items()
        ],
    )
