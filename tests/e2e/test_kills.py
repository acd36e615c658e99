"""Killed at any moment while Synapse pushes, the service loses nothing and mixes nothing up."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from .conftest import Stage
from .openmeet import OpenMeet, event
from .service import Installation, Process
from .talk import Talk
from .waiting import LONG

ROOMS = 4
SEED = 20261122


async def talk_in_rooms(stage: Stage, openmeet: OpenMeet) -> Talk:
    """Make the rooms, and let an ordinary person join them."""
    for number in range(ROOMS):
        await openmeet.put(f"/events/e{number}", event(f"Event {number}", {}, access="anyone"))
    made = [await openmeet.ready(f"/events/e{number}") for number in range(ROOMS)]
    person = await stage.person()
    rooms = [await person.join(each["matrix"]["alias"]) for each in made]
    return Talk(person, rooms)


async def kill_and_start(
    stage: Stage, installation: Installation, service: Process, chance: random.Random
) -> Process:
    """Kill the service at a random moment, of its start or of its work, and start it again."""
    if chance.random() < 0.6:
        await service.ready(stage.session)
    # No waiting for anything: the moment is to be a random one.
    await asyncio.sleep(chance.uniform(0, 1))
    service.kill()
    following = installation.process()
    following.launch()
    return following


async def everything_arrives(stage: Stage, talk: Talk) -> None:
    """Check that the receiver has what was said, each room's in its order, and nothing it must not.

    What Synapse kept while we were down it sends one event at a time, some dozens a second.
    """
    await stage.receiver.has(talk.event_ids, limit=LONG + len(talk.event_ids) / 10)
    for room_id, said in talk.said.items():
        assert stage.receiver.texts(room_id) == said
    stage.receiver.check()


async def run_rounds(stage: Stage, database_url: str, rounds: int) -> None:
    installation = stage.install(database_url)
    service = await stage.start(installation)
    talk = await talk_in_rooms(stage, await stage.openmeet(installation))
    chance = random.Random(SEED)
    talk.begin()
    for _ in range(rounds):
        service = await kill_and_start(stage, installation, service, chance)
    await service.ready(stage.session)
    await talk.end()
    await everything_arrives(stage, talk)
    assert len(talk.said) == ROOMS
    assert len(installation.processes) == rounds + 1


async def test_killed_while_synapse_pushes(stage: Stage, database_url: str) -> None:
    await run_rounds(stage, database_url, 5)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_killed_fifty_times(stage: Stage, database_url: str) -> None:
    await run_rounds(stage, database_url, 50)


async def run_rounds_with_synapse(stage: Stage, database_url: str, rounds: int) -> None:
    gate = await stage.gate_to_service()
    installation = stage.install(database_url, APPSERVICE__LISTEN=stage.behind)
    service = await stage.start(installation)
    talk = await talk_in_rooms(stage, await stage.openmeet(installation))
    chance = random.Random(SEED)
    for _ in range(rounds):
        talk.begin()
        service = await kill_and_start(stage, installation, service, chance)
        await service.ready(stage.session)
        await talk.end()
        # What Synapse still held in memory it would forget.
        await everything_arrives(stage, talk)
        await stage.synapse.stop()
        await stage.synapse.start()
    talk.begin()
    service = await kill_and_start(stage, installation, service, chance)
    await service.ready(stage.session)
    await talk.end()
    await everything_arrives(stage, talk)
    sent = [each.path for each in gate.passed if each.method == "PUT" and "/transactions/" in each.path]
    ids = [int(path.rpartition("/")[2]) for path in sent]
    begun_again = sum(after < before for before, after in itertools.pairwise(ids))
    # Not after every restart: they go on where a transaction was still waiting to be sent.
    assert begun_again, "Synapse's transaction ids never began again: nothing was tested"


async def test_synapse_restarted_and_the_service_killed(stage: Stage) -> None:
    await run_rounds_with_synapse(stage, f"sqlite:///{stage.folder / 'test.db'}", 2)


@pytest.mark.long
@pytest.mark.timeout(1200)
async def test_synapse_restarted_ten_times(stage: Stage, database_url: str) -> None:
    await run_rounds_with_synapse(stage, database_url, 10)
