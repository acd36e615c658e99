"""The same runs on a real Synapse."""

from __future__ import annotations

from pathlib import Path

import pytest

from openmeet_appservice.store import schema
from openmeet_appservice.store.database import open_database

from .conftest import World
from .on_synapse import OnSynapse
from .program import draw

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def _play(world: World, file: Path, seed: int, length: int) -> None:
    database = open_database(f"sqlite:///{file}")
    await database.write(schema.migrate)
    await OnSynapse(database, world, seed).play(draw(seed, length))


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_room_comes_right_on_synapse(world: World, tmp_path: Path, seed: int) -> None:
    await _play(world, tmp_path / "test.db", seed, 15)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 120))
async def test_every_room_comes_right_on_synapse_with_twenty_seeds(
    world: World, tmp_path: Path, seed: int
) -> None:
    await _play(world, tmp_path / "test.db", seed, 40)
