"""Which direct rooms a puppet has: what its ``m.direct`` is made from."""

from __future__ import annotations

from sqlalchemy import Connection

from openmeet_appservice.domain.direct import MEMBER, direct_slug
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import direct, entities, event_log, members, rooms, users
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.direct import Chats
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.members import Standing

BOT = "@bot:x"


def user_id(tenant: str, slug: str) -> str:
    return f"@{tenant}_{slug}:x"


def _room(
    connection: Connection, tenant: str, kind: EntityKind, slug: str, room_id: str | None, *who: str
) -> Entity:
    made = entities.create(
        connection,
        tenant,
        kind,
        slug,
        alias=None,
        spec={},
        external_id=None,
        as_of=None,
        now=1,
        new_id=new_id,
    )
    assert made is not None
    refs = users.ensure(
        connection, tenant, who, user_id=lambda slug: user_id(tenant, slug), now=1, new_id=new_id
    )
    members.replace(connection, made, dict.fromkeys(refs.values(), Standing(MEMBER)))
    claimed = rooms.claim(connection, tenant, made.ref, claim=slug, lock_alias=slug, now=1, new_id=new_id)
    if room_id is not None:
        event_log.record_room_id(connection, tenant, claimed.ref, room_id, "12", now=1, bot=BOT)
    return made


def _pair(connection: Connection, tenant: str, one: str, other: str, room_id: str | None) -> Entity:
    slug = direct_slug(one, other)
    return _room(connection, tenant, EntityKind.DIRECT, slug, room_id, one, other)


async def test_all_of_a_puppet_s_direct_rooms_and_nothing_else(database: Database) -> None:
    def fill(connection: Connection) -> str:
        _pair(connection, "t1", "ada", "bob", "!ab")
        _pair(connection, "t1", "cyd", "ada", "!ac")
        _pair(connection, "t1", "ada", "dan", None)
        _pair(connection, "t1", "bob", "cyd", "!bc")
        _pair(connection, "t2", "ada", "bob", "!other")
        _room(connection, "t1", EntityKind.GROUP, "chess", "!chess", "ada", "bob")
        gone = _pair(connection, "t1", "ada", "eve", "!ae")
        entities.archive(connection, gone, as_of=None, now=2)
        left = _pair(connection, "t1", "ada", "fay", "!af1")
        used = rooms.in_use(connection, "t1", left.ref)
        assert used is not None
        rooms.set_state(connection, "t1", used.ref, "former")
        again = rooms.claim(connection, "t1", left.ref, claim="again", lock_alias="x", now=2, new_id=new_id)
        event_log.record_room_id(connection, "t1", again.ref, "!af2", "12", now=2, bot=BOT)
        return again.ref

    ref = await database.write(fill)
    found = await database.read(direct.chats_of, "t1", user_id("t1", "ada"))
    assert found == Chats(
        present={
            user_id("t1", "bob"): frozenset({"!ab"}),
            user_id("t1", "cyd"): frozenset({"!ac"}),
            user_id("t1", "fay"): frozenset({"!af2"}),
        },
        past=frozenset({"!ae", "!af1"}),
    )
    assert await database.read(direct.chats_of, "t2", user_id("t1", "ada")) == Chats({}, frozenset())
    two = await database.read(direct.puppets_of_room, "t1", ref)
    assert two == {user_id("t1", "ada"), user_id("t1", "fay")}
    assert await database.read(direct.puppets_of_room, "t2", ref) == set()
