"""Synapse's rate limits slow the service down, and lose nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from openmeet_appservice.store import schema
from openmeet_appservice.store.database import Database, open_database

from .conftest import World, running_synapse
from .on_synapse import OnSynapse
from .program import USERS, Step
from .transport import Answer, Asked

# So few a second that they are reached on a slow machine too.
_LIMITS = {
    "rc_room_creation": {"per_second": 0.5, "burst_count": 1},
    "rc_joins": {
        "local": {"per_second": 3, "burst_count": 2},
        "remote": {"per_second": 3, "burst_count": 2},
    },
    "rc_joins_per_room": {"per_second": 0.5, "burst_count": 1},
    "rc_invites": {
        "per_room": {"per_second": 3, "burst_count": 1},
        "per_user": {"per_second": 3, "burst_count": 1},
        "per_issuer": {"per_second": 0.5, "burst_count": 1},
    },
    "rc_registration": {"per_second": 2, "burst_count": 2},
    "rc_profile": {"per_second": 2, "burst_count": 1},
    "rc_message": {"per_second": 5, "burst_count": 1},
}


class Limited(OnSynapse):
    """A run that counts how often Synapse asks for patience, by the last part of the path."""

    patience = 180.0

    def __init__(self, database: Database, world: World, seed: int) -> None:
        super().__init__(database, world, seed)
        self.asked_for_patience: Counter[str] = Counter()

    async def _perform(self, asked: Asked) -> Answer:
        answer = await super()._perform(asked)
        if answer.status == 429:
            self.asked_for_patience[asked.path.rpartition("/")[2]] += 1
        return answer


def _steps() -> list[Step]:
    """Three rooms at once, and changes while they are being made."""
    members = {user: {"role": number % 5} for number, user in enumerate(USERS)}
    places = [("event", "chess"), ("event", "go"), ("group", "club")]
    spec = {"visibility": "public", "status": "published"}
    steps: list[Step] = [
        ("put", {"place": place, "spec": {**spec, "name": place[1]}, "members": members, "seconds": 0})
        for place in places
    ]
    steps += [("put_user", {"user": user, "name": user.title()}) for user in USERS]
    steps += [("patch", {"place": place, "changes": {"name": "Other"}, "seconds": 0}) for place in places]
    steps.append(("put_members", {"place": places[0], "members": {"ada": {"role": 0}}, "seconds": 0.4}))
    return steps


@pytest.mark.asyncio(loop_scope="session")
async def test_limits_slow_everything_down_and_lose_nothing(tmp_path: Path) -> None:
    async with running_synapse(tmp_path, rate_limited=True, extra=_LIMITS) as world:
        database = open_database(f"sqlite:///{tmp_path / 'test.db'}")
        await database.write(schema.migrate)
        run = Limited(database, world, 0)
        await run.play(_steps())
    assert run.asked_for_patience["createRoom"] > 0
    assert run.asked_for_patience["invite"] > 0
    assert run.asked_for_patience["join"] > 0
