"""Members: exact lists and deltas of any size, in few statements."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, event

from openmeet_appservice.domain.kinds import AttendeeStatus, EntityKind
from openmeet_appservice.domain.rooms import MemberFacts
from openmeet_appservice.store import entities, members, users
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.members import Change, Standing

GUEST, HOST = Standing("guest", "confirmed"), Standing("host", "confirmed")


@pytest.fixture
async def entity(database: Database) -> Entity:
    made = await database.write(
        entities.create,
        "t1",
        EntityKind.EVENT,
        "games",
        alias="#a:example.org",
        spec={},
        external_id=None,
        as_of=None,
        now=1,
        new_id=new_id,
    )
    assert made is not None
    return made


async def refs(database: Database, count: int) -> list[str]:
    slugs = [f"U{n}" for n in range(count)]
    found = await database.write(
        users.ensure, "t1", slugs, user_id=lambda slug: f"@{slug}:example.org", now=1, new_id=new_id
    )
    return [found[slug.lower()] for slug in slugs]


async def test_an_exact_list(database: Database, entity: Entity) -> None:
    a, b, c = await refs(database, 3)
    assert await database.write(members.replace, entity, {a: HOST, b: GUEST}) == Change(2, 0, 0, 0)
    assert not await database.write(members.replace, entity, {b: GUEST, a: HOST})
    change = await database.write(members.replace, entity, {b: HOST, c: GUEST})
    assert change == Change(added=1, changed=1, removed=1, before=2)
    assert (change.after, change.may_lose) == (2, 2)
    assert await database.read(members.of_entity, entity) == {b: HOST, c: GUEST}
    assert await database.read(members.one, entity, b) == HOST
    assert await database.read(members.one, entity, a) is None


async def test_a_delta_leaves_others_alone(database: Database, entity: Entity) -> None:
    a, b, c, d = await refs(database, 4)
    await database.write(members.replace, entity, {a: HOST, b: GUEST})
    change = await database.write(members.merge, entity, {b: HOST, c: GUEST}, [d])
    assert change == Change(added=1, changed=1, removed=0, before=2)
    assert await database.write(members.merge, entity, {}, [a, d]) == Change(0, 0, 1, 3)
    assert await database.read(members.of_entity, entity) == {b: HOST, c: GUEST}


async def test_a_change_says_what_each_was_before(database: Database, entity: Entity) -> None:
    a, b, c, d = await refs(database, 4)
    await database.write(members.replace, entity, {a: HOST, b: GUEST})
    change = await database.write(members.merge, entity, {a: HOST, b: HOST, c: GUEST}, [d])
    assert change.were == {"@U1:example.org": GUEST, "@U2:example.org": None}
    change = await database.write(members.replace, entity, {a: HOST, c: GUEST})
    assert change.were == {"@U1:example.org": HOST}
    assert (await database.write(members.replace, entity, {a: HOST, c: GUEST})).were == {}
    crowd = dict.fromkeys(await refs(database, members.FEW + 3), GUEST)
    assert (await database.write(members.replace, entity, crowd)).were is None


async def test_facts_are_what_the_domain_wants(database: Database, entity: Entity) -> None:
    a, b = await refs(database, 2)
    await database.write(members.replace, entity, {a: Standing("host", "maybe"), b: Standing("owner")})
    found = await database.read(members.facts, entity)
    assert sorted(found, key=lambda fact: fact.user_id) == [
        MemberFacts("@U0:example.org", "host", AttendeeStatus.MAYBE),
        MemberFacts("@U1:example.org", "owner", None),
    ]


async def test_pages_cover_everybody_once(database: Database, entity: Entity) -> None:
    everybody = await refs(database, 7)
    await database.write(members.replace, entity, dict.fromkeys(everybody, GUEST))
    seen: list[str] = []
    after = None
    while page := await database.read(members.list_page, entity, after=after, limit=3):
        seen += [member.user for member in page]
        after = page[-1].user_ref
    assert sorted(seen) == [f"U{n}" for n in range(7)]


async def test_the_number_of_statements_does_not_grow(database: Database, entity: Entity) -> None:
    people = await refs(database, 5000)

    def counted(connection: Connection) -> int:
        count = 0

        def before(*_: object) -> None:
            nonlocal count
            count += 1

        event.listen(connection, "before_cursor_execute", before)
        try:
            members.replace(connection, entity, dict.fromkeys(people, GUEST))
            members.replace(connection, entity, dict.fromkeys(people[:2500], HOST))
        finally:
            event.remove(connection, "before_cursor_execute", before)
        return count

    assert await database.write(counted) <= 10
