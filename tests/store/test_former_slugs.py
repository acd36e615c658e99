"""Slugs of before a renaming."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import entities, event_log, former_slugs, rooms, tenants, wanted
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.entities import Entity
from openmeet_appservice.store.former_slugs import FormerAlias
from openmeet_appservice.store.ids import new_id

SPEC: dict[str, Any] = {"name": "Games", "visibility": "public", "status": "published"}


def _alias(slug: str) -> str:
    return f"#event-{slug}-t1:hs.test"


def _make(connection: Connection, slug: str) -> Entity:
    tenants.create(connection, "t1", name="One", settings={}, now=1)
    made = entities.create(
        connection,
        "t1",
        EntityKind.EVENT,
        slug,
        alias=_alias(slug),
        spec=SPEC,
        external_id=None,
        as_of=None,
        now=1,
        new_id=new_id,
    )
    assert made is not None
    return made


def _rename(connection: Connection, entity: Entity, slug: str) -> Entity:
    return entities.rename(connection, entity, slug=slug, alias=_alias(slug), as_of=None, now=2)


async def test_every_former_alias_is_kept_until_it_is_the_present_one_again(database: Database) -> None:
    def story(connection: Connection) -> tuple[list[FormerAlias], list[FormerAlias]]:
        entity = _rename(connection, _rename(connection, _make(connection, "a"), "b"), "c")
        kept = former_slugs.of_entity(connection, "t1", entity.ref)
        _rename(connection, entity, "a")
        return kept, former_slugs.of_entity(connection, "t1", entity.ref)

    kept, after = await database.write(story)
    assert kept == [FormerAlias(_alias("a"), True), FormerAlias(_alias("b"), True)]
    assert after == [FormerAlias(_alias("b"), True), FormerAlias(_alias("c"), True)]


async def test_a_room_in_use_gives_up_only_what_its_entity_does_not_keep(database: Database) -> None:
    def story(connection: Connection) -> None:
        entity = _make(connection, "a")
        claimed = rooms.claim(
            connection, "t1", entity.ref, claim="c" * 16, lock_alias=_alias("a"), now=1, new_id=new_id
        )
        event_log.record_room_id(connection, "t1", claimed.ref, "!room", "12", now=1, bot="@bot:hs.test")

        def may_lose(slug: str) -> bool:
            return wanted.may_lose_alias(connection, "t1", "!room", _alias(slug)) is not None

        assert not may_lose("a")
        entity = _rename(connection, entity, "b")
        assert not may_lose("a"), "it is kept"
        assert not may_lose("b")
        former_slugs.release(connection, "t1", EntityKind.EVENT, "a")
        assert may_lose("a")
        assert wanted.may_lose_alias(connection, "t2", "!room", _alias("a")) is None
        entities.archive(connection, entity, as_of=None, now=3)
        assert may_lose("b")

    await database.write(story)


async def test_what_is_lost_is_known_until_it_is_taken_off(database: Database) -> None:
    def story(connection: Connection) -> None:
        entity = _rename(connection, _make(connection, "a"), "b")
        assert former_slugs.holder(connection, "t1", EntityKind.EVENT, "A") == entity.ref
        assert former_slugs.holder(connection, "t1", EntityKind.GROUP, "a") is None
        assert former_slugs.holder(connection, "t2", EntityKind.EVENT, "a") is None
        assert not entities.alias_is_free(connection, _alias("a"))
        former_slugs.forget_lost(connection, "t1", entity.ref, _alias("a"))
        assert former_slugs.holder(connection, "t1", EntityKind.EVENT, "a") == entity.ref, "it is kept"
        assert former_slugs.release(connection, "t1", EntityKind.EVENT, "a") == entity.ref
        assert former_slugs.release(connection, "t1", EntityKind.EVENT, "a") is None
        assert entities.alias_is_free(connection, _alias("a"))
        assert former_slugs.of_entity(connection, "t1", entity.ref) == [FormerAlias(_alias("a"), False)]
        former_slugs.forget_lost(connection, "t1", entity.ref, _alias("a"))
        assert former_slugs.of_entity(connection, "t1", entity.ref) == []

    await database.write(story)
