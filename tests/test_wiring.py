"""What the composition root derives from the configuration."""

from __future__ import annotations

from openmeet_appservice.store.database import open_database
from openmeet_appservice.wiring import database_answers


async def test_a_database_without_our_tables_answers(database_url: str) -> None:
    """`/ready` asks while the first migration is still to come."""
    database = open_database(database_url)
    assert await database_answers(database)
    await database.close()
