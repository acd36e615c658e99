"""Replacing an encryption key, on both databases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Connection, insert, select, update

from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.store import resealing
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.resealing import COLUMNS, reseal, standing
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.store.tables import endpoints, tenants

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
MANY = 2 * resealing.PAGE + 30


def plain(number: int, column: str) -> str:
    return f"{column} {number}"


def fill(connection: Connection, number: int, box: SecretBox) -> None:
    """Make endpoints: one of the platform's, the rest of two tenants; every third has all columns."""
    for tenant in ("t1", "t2"):
        connection.execute(
            insert(tenants).values(
                tenant=tenant, tenant_id=tenant.upper(), name="", settings="{}", revision=1,
                last_position=0, created_at=0, updated_at=0,
            )
        )  # fmt: skip
    for n in range(number):
        connection.execute(
            insert(endpoints).values(
                tenant="" if n == 0 else f"t{1 + n % 2}",
                id=f"e{n:04}",
                name=f"n{n}",
                url="https://example.org",
                secret=box.seal(plain(n, "secret")),
                old_secret=box.seal(plain(n, "old_secret")) if n % 3 == 0 else None,
                headers=box.seal(plain(n, "headers")) if n % 3 == 0 else None,
                revision=1,
                created_at=0,
                updated_at=0,
            )
        )


def rows(connection: Connection) -> list[Any]:
    return list(connection.execute(select(endpoints).order_by(endpoints.c.id)))


async def opened(database: Database, box: SecretBox) -> dict[str, str | None]:
    """Return everything that is stored, in the open."""
    return {
        f"{row.id} {column}": None if text is None else box.open(text)
        for row in await database.read(rows)
        for column in COLUMNS
        for text in (getattr(row, column),)
    }


async def test_everything_comes_under_the_first_key(database: Database) -> None:
    await database.write(fill, MANY, SecretBox([OLD]))
    before = await opened(database, SecretBox([OLD]))
    others = select(*(column for column in endpoints.c if column.name not in COLUMNS))
    others = others.order_by(endpoints.c.id)
    kept = await database.read(lambda connection: list(connection.execute(others)))
    texts = sum(1 for text in before.values() if text is not None)
    both = SecretBox([NEW, OLD])
    assert (await standing(database, both)).older == texts
    assert await reseal(database, both) == texts
    assert await opened(database, SecretBox([NEW])) == before
    assert await standing(database, both) == resealing.Standing(texts, 0, ())
    assert await database.read(lambda connection: list(connection.execute(others))) == kept


async def test_what_is_under_the_first_key_is_left_alone(database: Database) -> None:
    await database.write(fill, 5, SecretBox([NEW]))
    before = await database.read(rows)
    assert await reseal(database, SecretBox([NEW, OLD])) == 0
    assert await database.read(rows) == before


class Between:
    """A database in which something happens before the first write."""

    def __init__(self, database: Database, happens: Callable[[Connection], None]) -> None:
        self._database = database
        self._happens: Callable[[Connection], None] | None = happens

    async def read(self, *arguments: Any, **more: Any) -> Any:
        return await self._database.read(*arguments, **more)

    async def write(self, *arguments: Any, **more: Any) -> Any:
        if self._happens is not None:
            happens, self._happens = self._happens, None
            await self._database.write(happens)
        return await self._database.write(*arguments, **more)


async def test_a_secret_written_meanwhile_is_kept(database: Database) -> None:
    await database.write(fill, 3, SecretBox([OLD]))
    fresh = SecretBox([NEW, OLD]).seal("fresh")

    def put(connection: Connection) -> None:
        connection.execute(update(endpoints).where(endpoints.c.id == "e0001").values(secret=fresh))
        connection.execute(update(endpoints).where(endpoints.c.id == "e0000").values(old_secret=None))

    between: Any = Between(database, put)
    assert await reseal(between, SecretBox([NEW, OLD])) == 3
    found = await opened(database, SecretBox([NEW]))
    assert (found["e0001 secret"], found["e0000 old_secret"]) == ("fresh", None)
    assert found["e0002 secret"] == plain(2, "secret")


class Failing:
    """A database that is gone after some writes, as for a process that was killed."""

    def __init__(self, database: Database, writes: int) -> None:
        self._database = database
        self._left = writes

    async def read(self, *arguments: Any, **more: Any) -> Any:
        return await self._database.read(*arguments, **more)

    async def write(self, *arguments: Any, **more: Any) -> Any:
        if self._left == 0:
            raise DatabaseUnavailable("gone")
        self._left -= 1
        return await self._database.write(*arguments, **more)


async def test_cut_off_half_way_it_goes_on_where_it_was(database: Database) -> None:
    await database.write(fill, MANY, SecretBox([OLD]))
    before = await opened(database, SecretBox([OLD]))
    both = SecretBox([NEW, OLD])
    failing: Any = Failing(database, 1)
    with pytest.raises(DatabaseUnavailable):
        await reseal(failing, both)
    half = await standing(database, both)
    assert 0 < half.older < half.texts
    assert await opened(database, both) == before, "both keys together open everything at any moment"
    assert await reseal(database, both) == half.older
    assert await opened(database, SecretBox([NEW])) == before


async def test_what_no_key_opens_is_named_and_left_alone(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await database.write(fill, 3, SecretBox([OLD]))
    lost = SecretBox([OTHER]).seal("lost")

    def spoil(connection: Connection) -> None:
        connection.execute(update(endpoints).where(endpoints.c.id == "e0000").values(headers=lost))
        connection.execute(update(endpoints).where(endpoints.c.id == "e0001").values(secret=lost))

    await database.write(spoil)
    both = SecretBox([NEW, OLD])
    assert await reseal(database, both) == 3
    found = {row.id: row for row in await database.read(rows)}
    assert (found["e0000"].headers, found["e0001"].secret) == (lost, lost)
    assert await standing(database, both) == resealing.Standing(5, 0, (("", "n0"), ("T2", "n1")))
    assert "headers of the webhook endpoint n0 of the platform" in caplog.text
    assert "secret of the webhook endpoint n1 of T2" in caplog.text
    assert lost not in caplog.text
