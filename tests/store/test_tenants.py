"""Tenants and the keys to them."""

from __future__ import annotations

from openmeet_appservice.store import keys, tenants
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.keys import PLATFORM


async def test_a_tenant_is_one_in_any_case(database: Database) -> None:
    made = await database.write(tenants.create, "Abc", name="A", settings={"rooms": {}}, now=5)
    assert made is not None
    assert (made.tenant, made.tenant_id, made.revision) == ("abc", "Abc", 1)
    assert await database.write(tenants.create, "aBC", name="B", settings={}, now=6) is None
    assert await database.read(tenants.get, "ABC") == made
    changed = await database.write(tenants.update_tenant, made, name="B", settings={}, now=7)
    assert (changed.name, changed.revision, changed.created_at, changed.updated_at) == ("B", 2, 5, 7)
    await database.write(tenants.create, "b", name="B", settings={}, now=6)
    page = await database.read(tenants.list_page, after="abc", limit=5)
    assert [tenant.tenant for tenant in page] == ["b"]


async def test_a_key_opens_one_thing_until_it_is_revoked(database: Database) -> None:
    made = await database.write(keys.add, "t1", name="a", digest="d1", now=5, new_id=new_id)
    assert made is not None
    assert await database.read(keys.by_digest, "d1") == made
    assert await database.read(keys.by_digest, "d2") is None
    assert await database.write(keys.add, PLATFORM, name="b", digest="d1", now=5, new_id=new_id) is None
    platform = await database.write(keys.add, PLATFORM, name="b", digest="d2", now=5, new_id=new_id)
    assert platform is not None
    assert (made.scope, platform.scope) == ("tenant", "platform")
    assert await database.read(keys.list_page, PLATFORM, after=None, limit=5) == [platform]
    assert not await database.write(keys.revoke, PLATFORM, made.id)
    assert await database.write(keys.revoke, "t1", made.id)
    assert await database.read(keys.by_digest, "d1") is None
