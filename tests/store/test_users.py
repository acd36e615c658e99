"""Users, and the placeholders for those that only a list of members has named."""

from __future__ import annotations

import asyncio

from openmeet_appservice.store import sync, users
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.users import User


def user_id(slug: str) -> str:
    return f"@{slug.lower()}:example.org"


async def create(database: Database, slug: str, tenant: str = "t1", name: str = "Ada") -> User | None:
    return await database.write(
        users.create,
        tenant,
        slug,
        user_id=f"@{tenant}_{slug.lower()}:example.org",
        spec={"display_name": name},
        external_id="7",
        as_of=5,
        now=10,
        new_id=new_id,
    )


async def test_a_slug_is_one_user_in_any_case(database: Database) -> None:
    made = await create(database, "Ada")
    assert made is not None
    assert (made.slug, made.slug_key, made.placeholder, made.revision) == ("Ada", "ada", False, 1)
    assert await create(database, "aDA") is None
    assert await database.read(users.find, "t1", "ADA") == made
    assert await database.read(users.get, "t1", made.ref) == made
    assert await database.read(users.find, "t2", "ada") is None
    assert await database.read(users.get, "t2", made.ref) is None


async def test_a_user_id_is_one_users(database: Database) -> None:
    made = await create(database, "Ada")
    assert await database.read(users.by_user_id, "@t1_ada:example.org") == made
    assert await database.read(users.by_user_id, "@t1_ada:example.org", "t2") is None
    other = await database.write(
        users.create,
        "t2",
        "x",
        user_id="@t1_ada:example.org",
        spec={},
        external_id=None,
        as_of=None,
        now=10,
        new_id=new_id,
    )
    assert other is None


async def test_a_name_is_never_blank(database: Database) -> None:
    for name in ("", "  "):
        made = await create(database, f"Ada{len(name)}", name=name)
        assert made is not None
        assert made.display_name == made.slug


async def test_strangers_become_placeholders_once(database: Database) -> None:
    made = await create(database, "Ada")
    assert made is not None
    slugs = ["aDA", *(f"U{n}" for n in range(3000))]
    answers = await asyncio.gather(
        *(
            database.write(users.ensure, "t1", order, user_id=user_id, now=1, new_id=new_id)
            for order in (slugs, slugs[::-1])
        )
    )
    assert answers[0] == answers[1]
    assert answers[0]["ada"] == made.ref
    assert len(answers[0]) == 3001
    found = await database.read(users.find, "t1", "u7")
    assert found is not None
    assert (found.slug, found.placeholder, found.display_name) == ("U7", True, "U7")
    view = await database.read(users.view, "t1", "u7")
    assert view is not None
    assert view.sync is None
    assert await database.read(sync.next_due, now=1) is None


async def test_a_stranger_whose_user_id_is_anothers_is_left_out(database: Database) -> None:
    await create(database, "Ada")
    refs = await database.write(
        users.ensure,
        "t2",
        ["x", "y"],
        user_id=lambda slug: "@t1_ada:example.org" if slug == "x" else user_id(slug),
        now=1,
        new_id=new_id,
    )
    assert list(refs) == ["y"]
