"""Whatever happens in whatever order, in the end every room is as OpenMeet wants it."""

from __future__ import annotations

import pprint
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial

import pytest

from openmeet_appservice.store.database import Database

from .inline_database import InlineDatabase
from .on_the_model import OnTheModel
from .program import Step, draw, shorten
from .virtual_time import VirtualLoop

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


def player(loop: VirtualLoop, open_empty: Callable[[], Database]) -> Play:
    """Return what plays a run on a database of its own."""

    def play(seed: int, steps: Sequence[Step]) -> None:
        async def run() -> None:
            await OnTheModel(open_empty(), loop, seed).play(steps)

        loop.run_until_complete(run())

    return play


@pytest.fixture
def on_sqlite(loop: VirtualLoop) -> Play:
    """Plays a run on SQLite in memory."""
    template = InlineDatabase()
    return player(loop, lambda: InlineDatabase(template))


def test_every_room_comes_right(on_sqlite: Play) -> None:
    search(range(150), 25, on_sqlite)


@pytest.mark.long
def test_every_room_comes_right_in_thousands_of_runs(on_sqlite: Play) -> None:
    search(range(1000, 5000), 40, on_sqlite)
