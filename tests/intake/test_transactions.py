"""``PUT /transactions/{txnId}``: committed, then answered; refused only for what is no transaction."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, text

from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.metrics import REGISTRY
from openmeet_appservice.store import schema, sync
from openmeet_appservice.store.database import Database, open_database
from openmeet_appservice.store.tables import held_events, quarantine

BASE = "/_matrix/app/v1"
TOKEN = "the-hs-token"
BOT = "@openmeet-bot:hs.test"
MIB = 1024 * 1024


def event(event_id: str, room_id: str = "!a", **more: Any) -> dict[str, Any]:
    content = {"msgtype": "m.text", "body": f"secret words of {event_id}"}
    plain = {"type": "m.room.message", "sender": "@ada:hs.test", "content": content}
    return {"event_id": event_id, "room_id": room_id, **plain, **more}


async def count(database: Database, table: Any) -> int:
    query = select(func.count()).select_from(table)
    return await database.read(lambda connection: connection.execute(query).scalar_one())


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"openmeet_as_{name}", labels) or 0.0


async def test_events_are_stored_and_workers_woken(intake: Any) -> None:
    tickets = {topic: intake.wakeups.ticket(topic) for topic in ("deliver", "reconcile")}
    before = metric("events_ingested_total", event_class="message")
    stored = metric("transactions_total", result="stored")
    assert await intake.push("1", event("$1"), event("$2")) == (200, {})
    assert await intake.logged() == ["$1", "$2"]
    assert intake.wakeups.ticket("deliver") == tickets["deliver"] + 1
    assert intake.wakeups.ticket("reconcile") == tickets["reconcile"]
    assert metric("events_ingested_total", event_class="message") == before + 2
    assert metric("transactions_total", result="stored") == stored + 1


async def test_transaction_ids_decide_nothing(intake: Any) -> None:
    """A SQLite homeserver counts from 1 again after a restart; and what is repeated comes as another."""
    await intake.push("1", event("$1"))
    await intake.push("1", event("$2"))
    await intake.push("7", event("$1"), event("$3"))
    assert await intake.logged() == ["$1", "$2", "$3"]


async def test_ten_concurrent_copies_of_one_transaction(intake: Any) -> None:
    events = [event(f"${number}") for number in range(20)]
    answers = await asyncio.gather(*(intake.push("1", *events) for _ in range(10)))
    assert answers == [(200, {})] * 10
    assert await intake.logged() == [f"${number}" for number in range(20)]


async def test_a_room_whose_create_comes_is_recorded_and_its_entity_woken(intake: Any, rows: Any) -> None:
    def fill(connection: Connection) -> None:
        rows.entity(connection, "e1", "#e1:hs.test", "{}")
        rows.room(connection, "new", None, state="claimed", entity="e1", claim="c1")
        rest = sync.claim_due(connection, now=1, lease=1000, limit=10)
        sync.finish(connection, rest[0], observed=1)

    await intake.database.write(fill)
    ticket = intake.wakeups.ticket("reconcile")
    content = {"net.openmeet.claim": "c1", "room_version": "12"}
    create = event("$create", "!new", type="m.room.create", sender=BOT, content=content)
    assert await intake.push("1", create) == (200, {})
    assert await intake.logged() == ["$create"]
    assert intake.wakeups.ticket("reconcile") == ticket + 1
    status = await intake.database.read(sync.status, "t1", "entity", "e1")
    assert status.due_at == 1_790_000_000_000


async def test_elements_that_are_no_events_do_not_refuse_a_transaction(intake: Any) -> None:
    before = metric("events_quarantined_total")
    assert await intake.push("1", None, 7, "x", [], {}, {"event_id": "$y"}, event("$1")) == (200, {})
    assert await intake.logged() == ["$1"]
    assert await count(intake.database, quarantine) == 6
    assert metric("events_quarantined_total") == before + 6


async def test_events_of_unknown_rooms_are_held(intake: Any) -> None:
    assert await intake.push("1", event("$1", "!unknown")) == (200, {})
    assert await count(intake.database, held_events) == 1


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"ephemeral": [{"type": "m.typing"}]},
        {"de.sorunome.msc2409.ephemeral": [None], "ephemeral": 7, "de.sorunome.msc2409.to_device": []},
        {"org.matrix.msc3202.device_lists": {"changed": []}, "x": [[[]]]},
    ],
)
async def test_what_is_not_events_is_passed_over(intake: Any, more: dict[str, Any]) -> None:
    path = f"{BASE}/transactions/1"
    assert await intake.request("PUT", path, json={"events": [event("$1")], **more}) == (200, {})
    assert await intake.logged() == ["$1"]


async def test_an_empty_transaction_needs_no_database(light_intake: Any) -> None:
    assert await light_intake.push("1") == (200, {})


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        (b"", "M_NOT_JSON"),
        (b"{", "M_NOT_JSON"),
        (b"hello", "M_NOT_JSON"),
        (b'{"events": [1 2]}', "M_NOT_JSON"),
        (b'{"events": [NaN]}', "M_NOT_JSON"),
        (b'{"events": []} more', "M_NOT_JSON"),
        (b'{"events": ["\xff"]}', "M_NOT_JSON"),
        (b"[" * 100_000, "M_NOT_JSON"),
        (b"[" * MIB * 2, "M_NOT_JSON"),
        (b"{}", "M_BAD_JSON"),
        (b"[]", "M_BAD_JSON"),
        (b"null", "M_BAD_JSON"),
        (b'{"events": null}', "M_BAD_JSON"),
        (b'{"events": {"a": 1}}', "M_BAD_JSON"),
    ],
)
async def test_what_is_no_transaction_is_refused(light_intake: Any, body: bytes, errcode: str) -> None:
    status, answer = await light_intake.request("PUT", f"{BASE}/transactions/1", data=body)
    assert (status, answer["errcode"]) == (400, errcode)


def large_body(size: int) -> bytes:
    """A transaction of *size* bytes."""
    padding = "x" * 60_000
    number, events = 0, []
    length = len('{"events":[]}')
    while length < size - 70_000:
        text = json.dumps(event(f"${number}", content={"body": padding}))
        events.append(text)
        length += len(text) + 1
        number += 1
    last = json.dumps(event("$last", content={"body": ""}))
    filler = "y" * (size - length - len(last))
    events.append(last.replace('"body": ""', f'"body": "{filler}"'))
    body = ('{"events":[' + ",".join(events) + "]}").encode()
    assert len(body) == size
    return body


async def test_sixty_mebibytes_are_taken(intake: Any) -> None:
    body = large_body(60 * MIB)
    assert await intake.request("PUT", f"{BASE}/transactions/1", data=body) == (200, {})
    assert (await intake.logged())[-1] == "$last"


async def in_chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), MIB):
        yield body[start : start + MIB]


@pytest.mark.parametrize("chunked", [False, True])
async def test_more_than_sixty_four_mebibytes_are_refused(light_intake: Any, chunked: bool) -> None:
    body = b'{"events":["' + b"x" * (65 * MIB) + b'"]}'
    data: Any = in_chunks(body) if chunked else body
    status, answer = await light_intake.request("PUT", f"{BASE}/transactions/1", data=data)
    assert (status, answer["errcode"]) == (413, "M_TOO_LARGE")


async def raw(intake: Any, request: bytes) -> bytes:
    """Send *request* as it is and return what comes back, until the server closes or 10 s."""
    host, _, port = intake.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    await writer.drain()
    async with asyncio.timeout(10):
        answer = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return answer


def head(length: int, token: str = TOKEN, more: str = "") -> bytes:
    lines = f"PUT {BASE}/transactions/1 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{more}"
    return f"{lines}Content-Length: {length}\r\n\r\n".encode()


async def test_a_too_large_body_is_refused_before_it_comes(light_intake: Any) -> None:
    assert b" 413 " in await raw(light_intake, head(65 * MIB))
    expecting = head(65 * MIB, more="Expect: 100-continue\r\n")
    assert b" 413 " in await raw(light_intake, expecting)


async def test_the_token_is_checked_before_the_body_is_read(light_intake: Any) -> None:
    assert b" 403 " in await raw(light_intake, head(MIB, token="wrong"))
    expecting = head(MIB, token="wrong", more="Expect: 100-continue\r\n")
    assert b" 403 " in await raw(light_intake, expecting)


async def test_who_waits_for_continue_gets_it(light_intake: Any) -> None:
    expecting = head(13, more="Expect: 100-continue\r\n")
    assert (await raw(light_intake, expecting)).startswith(b"HTTP/1.1 100 ")


async def test_a_body_that_does_not_come_is_not_waited_for(light_intake: Any, start_intake: Any) -> None:
    intake = await start_intake(light_intake.database, read_seconds=0.05)
    answer = await raw(intake, head(100) + b'{"events"')
    assert b" 408 " in answer


class Breakable(Database):
    """A database that can be taken away."""

    def __init__(self, inner: Database) -> None:
        self.dialect = inner.dialect
        self.inner = inner
        self.error: Exception | None = None
        self.also_commit = False

    async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        if self.error is not None:
            if self.also_commit:
                await self.inner.write(do, *args, **kwargs)
            raise self.error
        return await self.inner.write(do, *args, **kwargs)

    async def read(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        return await self.inner.read(do, *args, **kwargs)

    async def close(self) -> None:
        await self.inner.close()


@pytest.mark.parametrize("also_commit", [False, True])
async def test_what_was_not_stored_is_asked_for_again(
    intake: Any, start_intake: Any, also_commit: bool
) -> None:
    """Also when it was stored after all and only the answer of the commit was lost."""
    breakable = Breakable(intake.database)
    intake = await start_intake(breakable)
    failed = metric("transactions_total", result="storage_failed")
    ticket = intake.wakeups.ticket("deliver")
    breakable.error, breakable.also_commit = DatabaseUnavailable("gone"), also_commit
    status, answer = await intake.push("1", event("$1"))
    assert (status, answer["errcode"]) == (503, "M_UNKNOWN")
    assert len(intake.storage_failures) == 1
    assert metric("transactions_total", result="storage_failed") == failed + 1
    assert intake.wakeups.ticket("deliver") == ticket
    breakable.error = None
    assert await intake.push("1", event("$1")) == (200, {})
    assert await intake.logged() == ["$1"]
    assert len(intake.storage_failures) == 1


async def test_a_statement_that_fails_is_a_failure_of_storage(
    intake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    rename = text("ALTER TABLE room_events RENAME TO away")
    await intake.database.write(lambda connection: connection.execute(rename))
    status, answer = await intake.push("1", event("$1"))
    assert (status, answer["errcode"]) == (503, "M_UNKNOWN")
    assert "was not stored" in caplog.text
    assert "secret words" not in caplog.text
    back = text("ALTER TABLE away RENAME TO room_events")
    await intake.database.write(lambda connection: connection.execute(back))
    assert await intake.push("1", event("$1")) == (200, {})
    assert await intake.logged() == ["$1"]


async def test_a_file_that_is_gone_comes_back(tmp_path: Path, start_intake: Any, rows: Any) -> None:
    """A real outage: the folder of the database is not there for a while."""
    folder, away = tmp_path / "data", tmp_path / "away"
    folder.mkdir()
    database = open_database(f"sqlite:///{folder / 'x.db'}")
    await database.write(schema.migrate)
    await database.write(rows.tenant)
    await database.write(rows.room, "room-a", "!a")
    await database.close()
    folder.rename(away)
    database = open_database(f"sqlite:///{folder / 'x.db'}")
    intake = await start_intake(database)
    assert (await intake.push("1", event("$1")))[0] == 503
    away.rename(folder)
    assert await intake.push("1", event("$1")) == (200, {})
    assert await intake.logged() == ["$1"]
    await database.close()


async def test_the_log_tells_no_words(intake: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    await intake.push("42", event("$1"), {"secret words": 1})
    assert "transaction 42: stored 1" in caplog.text
    assert "secret words" not in caplog.text
    assert TOKEN not in caplog.text


async def test_the_answer_comes_after_the_commit(intake: Any) -> None:
    for number in range(5):
        await intake.push(str(number), event(f"${number}"))
        assert (await intake.logged())[-1] == f"${number}"


async def test_a_host_who_renames_the_room_wakes_the_reconciler(intake: Any) -> None:
    ticket = intake.wakeups.ticket("reconcile")
    before = metric("drift_noticed_total", field="name")
    renamed = event("$1", type="m.room.name", state_key="", content={"name": "Another"})
    assert await intake.push("1", renamed) == (200, {})
    assert intake.wakeups.ticket("reconcile") == ticket + 1
    assert metric("drift_noticed_total", field="name") == before + 1
