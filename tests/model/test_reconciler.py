"""Whatever happens in whatever order, in the end every room is as OpenMeet wants it."""

from __future__ import annotations

import itertools
import pprint
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import text

from openmeet_appservice.store import schema
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.tables import metadata

from .inline_database import InlineDatabase
from .on_the_model import OnTheModel
from .program import Step, draw, shorten
from .virtual_time import VirtualLoop, WaitedFor

Play = Callable[[int, Sequence[Step]], None]


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    """The loop of all runs of a test."""
    loop = VirtualLoop()
    yield loop
    loop.close()


def search(seeds: Iterable[int], length: int, play: Play) -> None:
    """Try runs of *length* steps; one that fails is shown as short as it still fails."""
    for seed in seeds:
        steps = draw(seed, length)
        try:
            play(seed, steps)
        except Exception as error:
            shown = pprint.pformat(shorten(steps, partial(fails, play, seed)))
            raise AssertionError(f"seed {seed} fails, and so does\n{shown}") from error


def fails(play: Play, seed: int, steps: Sequence[Step]) -> bool:
    """Tell whether a run fails."""
    try:
        play(seed, steps)
    except Exception:
        return True
    return False


def player(loop: VirtualLoop, open_empty: Callable[[], Awaitable[Database]]) -> Play:
    """Return what plays a run on a database of its own."""

    def play(seed: int, steps: Sequence[Step]) -> None:
        async def run() -> None:
            await OnTheModel(await open_empty(), loop, seed).play(steps)

        loop.run_until_complete(run())

    return play


@pytest.fixture
def on_sqlite(loop: VirtualLoop) -> Play:
    """Plays a run on SQLite in memory."""
    template = InlineDatabase()

    async def open_empty() -> Database:
        return InlineDatabase(template)

    return player(loop, open_empty)


@pytest.fixture
def on_sqlite_files(loop: VirtualLoop, tmp_path: Path) -> Play:
    """Plays a run on SQLite as the service has it, on a disk and in threads of its own."""
    names = itertools.count(1)

    async def open_empty() -> Database:
        database = WaitedFor(open_database(f"sqlite:///{tmp_path / f'{next(names)}.db'}"), loop)
        await database.write(schema.migrate)
        return database

    return player(loop, open_empty)


@pytest.fixture
def on_postgresql(loop: VirtualLoop, reused_postgresql: str) -> Play:
    """Plays a run on one PostgreSQL database that is emptied each time."""
    names = ", ".join(f'"{table.name}"' for table in metadata.sorted_tables)

    async def open_empty() -> Database:
        database = WaitedFor(open_database(reused_postgresql), loop)
        empty = text(f"TRUNCATE {names} RESTART IDENTITY")
        await database.write(lambda connection: connection.execute(empty))
        return database

    return player(loop, open_empty)


def test_every_room_comes_right(on_sqlite: Play) -> None:
    search(range(120), 20, on_sqlite)


def test_every_room_comes_right_on_sqlite_files(on_sqlite_files: Play) -> None:
    search(range(400, 404), 20, on_sqlite_files)


def test_every_room_comes_right_on_postgresql(on_postgresql: Play) -> None:
    search(range(500, 506), 25, on_postgresql)


@pytest.mark.parametrize("visibility", ["public", "private"])
@pytest.mark.parametrize("told", [True, False])
def test_a_room_that_takes_minutes_to_make_is_not_given_up_for_another(
    on_sqlite: Play, visibility: str, told: bool
) -> None:
    """Found by the runs above: a process that begins meanwhile finds a room that nobody can enter yet."""
    spec = {"name": "Chess", "visibility": visibility, "status": "published"}
    members = {"ada": {"role": 0}}
    steps: list[Step] = [
        ("pushing", {"held": not told, "loses": False}),
        ("making_takes", {"pause": 30}),
        ("put", {"place": ("event", "chess"), "spec": spec, "members": members, "seconds": 65}),
        ("crash", {"steps": 0, "seconds": 0.5}),
        ("time_passes", {"seconds": 400}),
    ]
    for seed in range(4):
        on_sqlite(seed, steps)


def test_a_second_room_that_nobody_can_enter_yet_is_closed_once_it_is_made(on_sqlite: Play) -> None:
    """Found by the runs above: it was taken for one that Synapse had never finished."""
    place = ("event", "chess")
    spec = {"name": "Chess", "visibility": "public", "access": "anyone", "status": "published"}
    steps: list[Step] = [
        ("making_takes", {"pause": 10}),
        ("put", {"place": place, "spec": spec, "members": {"ada": {"role": 0}}, "seconds": 15}),
        ("change_directory", {"place": place, "what": "delete", "seconds": 0}),
        ("crash", {"steps": 0, "seconds": 0.5}),
        ("time_passes", {"seconds": 5}),
        ("crash", {"steps": 0, "seconds": 6}),
        ("time_passes", {"seconds": 60}),
    ]
    for seed in range(4):
        on_sqlite(seed, steps)


@pytest.mark.long
def test_every_room_comes_right_in_thousands_of_runs(on_sqlite: Play) -> None:
    search(range(1000, 5000), 40, on_sqlite)
