"""Aliases that nobody has provisioned: asked about, briefly, seldom, and only for tenants that there are."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import select

from openmeet_appservice.domain.tenant_settings import LookupSettings
from openmeet_appservice.intake.alias_lookups import BURST, Allowance
from openmeet_appservice.store import alias_lookups
from openmeet_appservice.store.alias_lookups import REMEMBERED, AliasLookup
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.lookup_tables import alias_lookups as rows_
from openmeet_appservice.store.tables import tenants
from openmeet_appservice.store.wakeups import Wakeups

ALIAS = "#event-games-t1:hs.test"
LOOKUPS = LookupSettings("https://openmeet.test/", alias_timeout=30.0, timeout=15.0, resync_interval=21600.0)
SPEC = json.dumps({"name": "Games", "visibility": "public", "status": "published"})


async def ask(intake: Any, alias: str = ALIAS) -> int:
    """Ask about *alias*; return the status."""
    status, body = await intake.request("GET", f"/_matrix/app/v1/rooms/{quote(alias, safe='')}")
    assert status == 200 or body["errcode"] == "M_NOT_FOUND"
    return int(status)


async def asked(database: Database) -> list[AliasLookup]:
    """Everything that is being asked."""
    found = await database.read(lambda c: c.execute(select(rows_)).all())
    return [AliasLookup(row.tenant, row.kind, row.slug_key) for row in found]


class Answering:
    """Answers look-ups as the worker of look-ups does, once it is told how."""

    def __init__(self, intake: Any, rows: Any) -> None:
        self.intake, self.rows = intake, rows
        self.seen: list[AliasLookup] = []
        self.now = 1_790_000_000_000

    async def next(self) -> AliasLookup:
        """Wait for the next one."""
        while True:
            ticket = self.intake.wakeups.ticket("look_up")
            found = await self.intake.database.write(
                alias_lookups.claim, now=self.now, until=self.now + 5000, limit=1
            )
            if found:
                self.seen += found
                return found[0]  # type: ignore[no-any-return]
            await self.intake.wakeups.wait("look_up", ticket, timeout=30)

    async def found(self, one: AliasLookup, ref: str = "e1") -> None:
        """Make the event and its room."""
        await self.intake.database.write(self.rows.entity, ref, ALIAS, SPEC)
        await self.intake.database.write(alias_lookups.over, one)
        self.intake.wakeups.wake("looked_up")
        await self.intake.database.write(self.rows.room, "r", "!r", entity=ref, alias=ALIAS)
        self.intake.wakeups.wake("reconciled")

    async def absent(self, one: AliasLookup) -> None:
        """Say that OpenMeet does not know it."""
        await self.intake.database.write(alias_lookups.absent, one, now=self.now)
        self.intake.wakeups.wake("looked_up")


@pytest.fixture
async def asking(database: Database, rows: Any, start_intake: Any) -> Any:
    """A listener with look-ups, over a database with the tenant ``t1``."""
    await database.write(rows.tenant)
    return await start_intake(database, Wakeups(), lookups=LOOKUPS, alias_wait_seconds=30.0)


@pytest.fixture
def answering(asking: Any, rows: Any) -> Answering:
    """What answers it."""
    return Answering(asking, rows)


async def test_what_openmeet_knows_is_waited_for_with_its_room(asking: Any, answering: Answering) -> None:
    query = asyncio.create_task(ask(asking))
    one = await answering.next()
    assert (one.tenant, one.kind, one.slug) == ("t1", "event", "games")
    await answering.found(one)
    assert await query == 200


async def test_two_queries_at_once_are_one_question(asking: Any, answering: Answering) -> None:
    queries = [asyncio.create_task(ask(asking)) for _ in range(5)]
    one = await answering.next()
    async with asyncio.timeout(20):
        while asking.wakeups.ticket("look_up") < 5:
            await asyncio.sleep(0.01)
    await answering.found(one)
    assert set(await asyncio.gather(*queries)) == {200}
    assert len(answering.seen) == 1


async def test_what_somebody_provisions_meanwhile_is_taken(
    asking: Any, answering: Answering, rows: Any
) -> None:
    query = asyncio.create_task(ask(asking))
    await answering.next()
    await asking.database.write(rows.entity, "e1", ALIAS, SPEC)
    await asking.database.write(rows.room, "r", "!r", entity="e1", alias=ALIAS)
    asking.wakeups.wake("looked_up")
    assert await query == 200


async def test_what_openmeet_does_not_know_is_remembered(
    asking: Any, answering: Answering, start_intake: Any
) -> None:
    query = asyncio.create_task(ask(asking))
    await answering.absent(await answering.next())
    assert await query == 404
    for _ in range(3):
        assert await ask(asking) == 404
    assert len(answering.seen) == 1
    # A minute later it is asked again.
    answering.now -= REMEMBERED
    await asking.database.write(alias_lookups.absent, answering.seen[0], now=answering.now)
    query = asyncio.create_task(ask(asking))
    answering.now += REMEMBERED
    await answering.absent(await answering.next())
    assert await query == 404
    assert len(answering.seen) == 2


async def test_where_nobody_can_tell_the_answer_is_no_and_nothing_is_remembered(
    asking: Any, answering: Answering
) -> None:
    query = asyncio.create_task(ask(asking))
    await asking.database.write(alias_lookups.over, await answering.next())
    asking.wakeups.wake("looked_up")
    assert await query == 404
    assert await asked(asking.database) == []


async def test_nobody_waits_longer_than_configured(database: Database, rows: Any, start_intake: Any) -> None:
    await database.write(rows.tenant, settings=json.dumps({"lookup": {"alias_timeout": "50ms"}}))
    intake = await start_intake(database, lookups=LOOKUPS, alias_wait_seconds=3600.0)
    assert await asyncio.wait_for(ask(intake), timeout=20) == 404


@pytest.mark.parametrize(
    "alias",
    [
        "#event-games-t9:hs.test",
        "#event-games-information_schema:hs.test",
        "#event-x'); DROP SCHEMA public; --t1:hs.test",
        "#event-games:hs.test",
        "#dm-ada-bob-t1:hs.test",
        "#Event-games-t1:hs.test",
        "#event-games-T1:hs.test",
        "#event-games-t1:other.test",
        "#_openmeet_control:hs.test",
    ],
)
async def test_fault_13_an_alias_of_no_tenant_leaves_nothing_behind(asking: Any, alias: str) -> None:
    assert await ask(asking, alias) == 404
    assert await asked(asking.database) == []
    assert asking.wakeups.ticket("look_up") == 0
    found = await asking.database.read(lambda c: c.execute(select(tenants.c.tenant)).scalars().all())
    assert found == ["t1"]


async def test_fault_12_and_19_the_tenant_is_the_one_that_the_alias_names(
    asking: Any, answering: Answering, rows: Any
) -> None:
    await asking.database.write(rows.tenant, "t2")
    query = asyncio.create_task(ask(asking, "#group-chess-t1-club-t2:hs.test"))
    one = await answering.next()
    assert (one.tenant, one.kind, one.slug) == ("t2", "group", "chess-t1-club")
    await answering.absent(one)
    assert await query == 404


async def test_without_a_url_nothing_is_asked(database: Database, rows: Any, start_intake: Any) -> None:
    await database.write(rows.tenant)
    intake = await start_intake(database)
    assert await ask(intake) == 404
    assert await asked(database) == []


async def test_a_tenants_own_url_is_enough(database: Database, rows: Any, start_intake: Any) -> None:
    own = {"lookup": {"url": "https://one.test/", "alias_timeout": "50ms"}}
    await database.write(rows.tenant, settings=json.dumps(own))
    intake = await start_intake(database)
    assert await ask(intake) == 404
    assert len(await asked(database)) == 1


async def test_strangers_cannot_have_openmeet_asked_without_end(
    database: Database, rows: Any, start_intake: Any
) -> None:
    await database.write(rows.tenant, settings=json.dumps({"lookup": {"alias_timeout": "500ms"}}))
    intake = await start_intake(database, lookups=LOOKUPS)
    aliases = [f"#event-games{number}-t1:hs.test" for number in range(BURST * 6)]
    assert set(await asyncio.gather(*(ask(intake, alias) for alias in aliases))) == {404}
    assert BURST <= len(await asked(database)) < len(aliases)


def test_an_allowance_grows_again_and_is_each_tenants_own() -> None:
    seconds = 0.0
    allowance = Allowance(lambda: seconds)
    assert [allowance.take("t1") for _ in range(BURST + 2)] == [True] * BURST + [False] * 2
    assert allowance.take("t2")
    seconds = 1.0
    assert [allowance.take("t1") for _ in range(3)] == [True, True, False]
    seconds = 10_000.0
    assert [allowance.take("t1") for _ in range(BURST + 1)].count(True) == BURST
