"""Puppets that came in by themselves: only those who do not belong there are looked at."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import Connection, select

from openmeet_appservice.domain.kinds import (
    DEFAULT_CHAT_STATUSES,
    DEFAULT_POWER_LEVELS,
    Access,
    AttendeeStatus,
    EntityKind,
)
from openmeet_appservice.domain.rooms import RoomSettings
from openmeet_appservice.store import entities, event_log, members, rooms, sync, tenants, uninvited, users
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.member_tables import member_checks
from openmeet_appservice.store.members import Standing

ROOM = "!room"
DEFAULTS = RoomSettings(
    alias="{kind}-{slug}-{tenant}",
    private_alias=False,
    version=None,
    federate=False,
    access=Access.MEMBERS,
    power_levels=DEFAULT_POWER_LEVELS,
    chat_statuses=DEFAULT_CHAT_STATUSES,
)


def _fill(connection: Connection) -> None:
    for tenant in ("t1", "t2"):
        tenants.create(connection, tenant, name="", settings={}, now=1)
    entity = entities.create(
        connection,
        "t1",
        EntityKind.EVENT,
        "games",
        alias="#a:x",
        spec={},
        external_id=None,
        as_of=None,
        now=1,
        new_id=new_id,
    )
    assert entity is not None
    sync.touch(connection, "t1", "entity", entity.ref, now=1)
    names = ["member", "maybe", "banned", "gone"]
    refs = users.ensure(connection, "t1", names, user_id=lambda slug: f"@{slug}:x", now=1, new_id=new_id)
    users.ensure(connection, "t2", ["other"], user_id=lambda slug: f"@{slug}:x", now=1, new_id=new_id)
    standings = {
        refs["member"]: Standing("participant"),
        refs["maybe"]: Standing("participant", "maybe"),
        refs["banned"]: Standing("participant", banned=True),
    }
    members.merge(connection, entity, standings, [])
    claimed = rooms.claim(connection, "t1", entity.ref, claim="c", lock_alias="#a:x", now=1, new_id=new_id)
    event_log.record_room_id(connection, "t1", claimed.ref, ROOM, "12", now=1, bot="@bot:x")


@pytest.mark.parametrize(
    ("who", "is_looked_at"),
    [
        ("member", False),
        ("maybe", True),
        ("banned", True),
        ("gone", True),
        ("other", False),
        ("nobody", False),
    ],
)
async def test_who_is_looked_at(database: Database, who: str, is_looked_at: bool) -> None:
    await database.write(_fill)
    [lease] = await database.write(sync.claim_due, now=1, lease=10, limit=9)
    await database.write(sync.finish, lease, observed=1)
    joined = {(ROOM, f"@{who}:x"), ("!elsewhere", "@gone:x")}
    found = await database.write(uninvited.look_at, joined, now=5, defaults=DEFAULTS)
    assert found is is_looked_at
    noted = await database.read(lambda c: list(c.execute(select(member_checks.c.user_id)).scalars()))
    assert noted == ([f"@{who}:x"] if is_looked_at else [])
    due = await database.write(sync.claim_due, now=5, lease=10, limit=9)
    assert [one.whole for one in due] == ([False] if is_looked_at else [])


async def test_the_tenant_decides_which_statuses_may_chat(database: Database) -> None:
    await database.write(_fill)
    defaults = replace(DEFAULTS, chat_statuses=frozenset({AttendeeStatus.MAYBE}))
    joined = {(ROOM, "@maybe:x")}
    assert not await database.write(uninvited.look_at, joined, now=5, defaults=defaults)
