"""Importing a file: each line as by itself, cut off anywhere, on both databases."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, select

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.names import Template
from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.provisioning import importing
from openmeet_appservice.provisioning.importing import MAX_LINE, Reading, import_file
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.store import entities, imports, users
from openmeet_appservice.store import scratch as module
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.imports import Progress
from openmeet_appservice.store.inside import at_once
from openmeet_appservice.store.scratch import scratch_copy
from openmeet_appservice.store.tables import metadata

from .conftest import SERVER, Api
from .test_batch import EVENT, STORY, state


class Dies(Exception):
    """The process was killed."""


def write(path: Path, lines: Iterable[Any]) -> Path:
    with path.open("wb") as file:
        for line in lines:
            file.write(line if isinstance(line, bytes) else orjson.dumps(line))
            file.write(b"\n")
    return path


async def run(parts: Parts, reading: Reading) -> Progress:
    return await import_file(parts, reading, reading.digest(), lambda progress: None, no_pause)


async def no_pause() -> None:
    """Begin the next transaction at once."""


async def refusals(parts: Parts, reading: Reading) -> list[tuple[int, str]]:
    found = await parts.database.read(imports.refusals, reading.digest(), after=0, limit=1000)
    return [(one.line, one.code) for one in found]


async def test_what_a_file_says_is_what_a_batch_says(api: Api, tmp_path: Path) -> None:
    reading = Reading(write(tmp_path / "f", STORY), "t1")
    done = await run(api.parts, reading)
    assert done.line == len(STORY)
    assert done.bytes == reading.path.stat().st_size
    assert done.counts == {
        "user created": 1,
        "user changed": 1,
        "group created": 1,
        "event created": 2,
        "event changed": 1,
        "event archived": 1,
        "direct created": 1,
        "event_members changed": 1,
        "group_members changed": 1,
    }
    await api.settle()
    imported = await state(api)
    await api.database.write(_empty)
    await api.post("/tenants/t1/batch", {"items": STORY})
    await api.settle()
    assert imported == await state(api)


def _empty(connection: Connection) -> None:
    for name in ("users", "entities", "members", "sync", "rooms", "imports"):
        connection.execute(metadata.tables[name].delete())


async def test_again_changes_nothing(api: Api, tmp_path: Path) -> None:
    reading = Reading(write(tmp_path / "f", STORY[:5]), "t1")
    await run(api.parts, reading)
    await api.database.write(imports.forget, reading.digest())
    before = await api.database.read(_everything)
    done = await run(api.parts, reading)
    await api.database.write(imports.forget, reading.digest())
    assert {name.partition(" ")[2] for name in done.counts} == {"unchanged"}
    assert await api.database.read(_everything) == before


def _everything(connection: Connection) -> dict[str, list[Any]]:
    return {
        name: sorted(map(tuple, connection.execute(select(table))), key=repr)
        for name, table in metadata.tables.items()
    }


BAD: list[tuple[Any, str]] = [
    (b"{", "not_json"),
    (b'"text"', "invalid"),
    (b'{"op": "put", "kind": "user", "slug": "a\\u0000", "spec": {}}', "invalid"),
    ({"op": "put", "kind": "room", "slug": "x", "spec": {}}, "invalid"),
    ({"op": "put", "kind": "event", "slug": "x", "spec": {"name": "X"}}, "invalid"),
    ({"op": "put", "kind": "event", "slug": "x"}, "invalid"),
    ({"op": "put", "kind": "event", "slug": "-x", "spec": EVENT}, "invalid"),
    ({"op": "put", "kind": "event", "slug": "x", "spec": EVENT, "password": "x"}, "invalid"),
    ({"op": "put", "kind": "event_members", "slug": "x", "spec": {"members": []}}, "event_not_found"),
    ({"op": "put", "kind": "event", "slug": "x", "spec": EVENT, "tenant": "none"}, "tenant_not_found"),
    ({"op": "put", "kind": "event", "slug": "x", "spec": EVENT, "tenant": "a-b"}, "invalid"),
    ({"op": "put", "kind": "event", "slug": "x", "spec": EVENT, "as_of": "now"}, "invalid"),
    ({"op": "put", "kind": "event", "slug": "x", "spec": EVENT, "as_of": "2027-01-01T00:00:00Z"}, "invalid"),
    ({"op": "delete", "kind": "user", "slug": "ada"}, "invalid"),
    ({"op": "put", "kind": "direct", "slug": "ada", "spec": {}}, "invalid"),
    ({"op": "put", "kind": "direct", "slug": "~~", "spec": {}}, "invalid"),
]


async def test_refused_lines_stop_no_other(api: Api, tmp_path: Path) -> None:
    lines = [line for bad, _ in BAD for line in (bad, b"", STORY[0])]
    reading = Reading(write(tmp_path / "f", [*lines, STORY[2]]), "t1")
    done = await run(api.parts, reading)
    assert await refusals(api.parts, reading) == [(1 + 3 * n, code) for n, (_, code) in enumerate(BAD)]
    counted = {name: count for name, count in done.counts.items() if "refused" in name}
    assert sum(counted.values()) == len(BAD)
    assert (await api.get("/tenants/t1/events/games")).status == 200
    assert (await api.get("/tenants/t1/events/x")).status == 404


async def test_a_refused_line_leaves_nothing_behind(admin: Api, tmp_path: Path) -> None:
    """An event with somebody whose user id is taken is refused when it and others were written already."""
    for tenant in ("t1", "t11"):
        await admin.put(f"/tenants/{tenant}", {"name": tenant})
    parts = replace(admin.parts, puppets=Template("om_{tenant}{user}", SERVER))
    members = [{"user": "new", "role": "host"}, {"user": "1x", "role": "guest"}]
    lines = [
        {**STORY[0], "slug": "x", "tenant": "t11"},
        {"op": "put", "kind": "event", "slug": "y", "spec": {**EVENT, "members": members}, "tenant": "t1"},
        {**STORY[0], "slug": "z", "tenant": "t1"},
    ]
    reading = Reading(write(tmp_path / "f", lines))
    await run(parts, reading)
    assert await refusals(parts, reading) == [(2, "user_id_taken")]
    assert [user["slug"] for user in (await admin.get("/tenants/t1/users")).json["items"]] == ["z"]
    assert (await admin.get("/tenants/t1/events/y")).status == 404


async def test_no_value_of_a_line_is_told(api: Api, tmp_path: Path) -> None:
    line = {
        "op": "put",
        "kind": "user",
        "slug": "ada",
        "spec": {"display_name": "\x01geheim", "hash": "geheim"},
    }
    reading = Reading(write(tmp_path / "f", [line, b'{"geheim"']), "t1")
    await run(api.parts, reading)
    found = await api.database.read(imports.refusals, reading.digest(), after=0, limit=10)
    assert len(found) == 2
    assert "/spec/display_name" in found[0].detail
    assert "geheim" not in str(found)


async def test_lines_name_their_tenants(admin: Api, tmp_path: Path) -> None:
    for tenant in ("t1", "T2"):
        await admin.put(f"/tenants/{tenant}", {"name": tenant})
    lines = [{**STORY[0], "tenant": "T1"}, {**STORY[0], "tenant": "t2"}, STORY[0]]
    reading = Reading(write(tmp_path / "f", lines))
    await run(admin.parts, reading)
    for tenant in ("t1", "t2"):
        assert (await admin.get(f"/tenants/{tenant}/users/ada")).status == 200
    (refused,) = await admin.database.read(imports.refusals, reading.digest(), after=0, limit=10)
    assert (refused.line, refused.code) == (3, "invalid")
    assert "--tenant" in refused.detail


async def test_what_openmeet_wrote_later_stands(api: Api, tmp_path: Path) -> None:
    await api.put("/tenants/t1/events/games?as_of=2026-11-22T18:00:00Z", {**EVENT, "name": "Newer"})
    older = api.clock.ms - 2 * 3600 * 1000
    file = write(tmp_path / "f", [STORY[2], {**STORY[2], "as_of": "2026-11-22T18:30:00Z"}])
    done = await run(api.parts, Reading(file, "t1", as_of=older))
    assert done.counts == {"event superseded": 1, "event changed": 1}


async def test_bulk_removals_are_held_unless_confirmed(api: Api, tmp_path: Path) -> None:
    many = [{"user": f"u{n}", "role": "participant"} for n in range(30)]
    file = write(tmp_path / "f", [{**STORY[3], "spec": {"members": []}}])
    for confirmed in (False, True):
        await api.put("/tenants/t1/events/games", {**EVENT, "members": many})
        await api.settle()
        await run(api.parts, Reading(file, "t1", confirmed=confirmed))
        view = await api.database.read(entities.view, "t1", EntityKind.EVENT, "games")
        assert view is not None
        assert view.sync is not None
        assert entities.removals_are_confirmed(view.entity, view.sync) is confirmed
        await api.settle()


async def test_a_former_rooms_alias_is_kept_in_mind(api: Api, tmp_path: Path) -> None:
    await api.put("/tenants/t1/events/known", EVENT)
    await api.settle()
    lines = [
        {**STORY[2], "slug": "Games"},
        {**STORY[1], "slug": "x" * 250},
        {**STORY[2], "slug": "known", "spec": {**EVENT, "name": "Other"}},
        STORY[0],
    ]
    await run(api.parts, Reading(write(tmp_path / "f", lines), "T1"))

    def aliases(connection: Connection) -> dict[str, str | None]:
        table = metadata.tables["entities"]
        return {row.slug[:5]: row.former_alias for row in connection.execute(select(table))}

    assert await api.database.read(aliases) == {
        "Games": f"#event-Games-T1:{SERVER}",
        "x" * 5: None,
        "known": None,
    }


@pytest.mark.parametrize("kills", [1, 2, 5])
async def test_killed_anywhere_it_goes_on_where_it_was(
    api: Api, tmp_path: Path, kills: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each transaction remembers what it did: what is repeated is nothing, what is left out is nothing."""
    monkeypatch.setattr(importing, "LINES", 3)
    lines: list[Any] = [
        *STORY,
        {**STORY[8], "op": "patch", "spec": {"name": "Gone"}},
        *STORY[8:10],
        b"{",
        *STORY[:2],
    ]
    reading = Reading(write(tmp_path / "f", lines), "t1")
    digest = reading.digest()
    done: list[int] = []

    def killed(progress: Progress) -> None:
        done.append(progress.line)
        if len(done) <= kills:
            raise Dies

    for _ in range(kills):
        with pytest.raises(Dies):
            await import_file(api.parts, reading, digest, killed, no_pause)
    last = await import_file(api.parts, reading, digest, killed, no_pause)
    assert done == sorted(set(done))
    assert last.line == len(lines)
    assert sum(last.counts.values()) == len(lines)
    assert await refusals(api.parts, reading) == [(11, "archived"), (14, "not_json")]
    # Deleted and made again in the file: once each, so there are exactly two that are archived.
    assert await api.database.read(_archived) == 2


def _archived(connection: Connection) -> int:
    table = metadata.tables["entities"]
    return len(connection.execute(select(table).where(table.c.archived_at.is_not(None))).all())


async def test_killed_within_a_transaction_nothing_of_it_is_left(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = Reading(write(tmp_path / "f", STORY), "t1")

    def dies(*_: object, **__: object) -> None:
        raise Dies

    with monkeypatch.context() as patched:
        patched.setattr(imports, "advance", dies)
        with pytest.raises(Dies):
            await run(api.parts, reading)
    assert (await api.get("/tenants/t1/users")).json["items"] == []
    assert await api.database.read(imports.get, reading.digest()) == Progress()
    assert (await run(api.parts, reading)).line == len(STORY)


def test_another_file_or_reading_is_another_import(tmp_path: Path) -> None:
    one, other = write(tmp_path / "1", STORY), write(tmp_path / "2", STORY[1:])
    readings = [
        Reading(one),
        Reading(other),
        Reading(one, "t1"),
        Reading(one, "t1", as_of=1),
        Reading(one, "t1", confirmed=True),
    ]
    assert len({reading.digest() for reading in readings}) == len(readings)
    assert Reading(one, "T1").digest() == Reading(one, "t1").digest()


async def test_a_line_may_be_long_but_not_endless(api: Api, tmp_path: Path) -> None:
    many = [{"user": f"user-number-{n}", "role": "participant"} for n in range(2000)]
    endless = b"[" + b" " * (2 * MAX_LINE) + b"]"
    lines: list[Any] = [STORY[2], endless, {**STORY[3], "spec": {"members": many}}, STORY[0]]
    path = write(tmp_path / "f", lines)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    reading = Reading(path, "t1")
    done = await run(api.parts, reading)
    assert (done.line, done.bytes) == (4, path.stat().st_size)
    assert await refusals(api.parts, reading) == [(2, "too_large")]
    assert (await api.put("/tenants/t1/events/games/members", {"members": many})).json["changed"] == 0


async def test_an_empty_file(api: Api, tmp_path: Path) -> None:
    for content in (b"", b"\n\n"):
        path = tmp_path / "f"
        path.write_bytes(content)
        done = await run(api.parts, Reading(path, "t1"))
        assert done.counts == {}


async def test_a_dry_run_tells_the_same_and_only_reads(api: Api, tmp_path: Path) -> None:
    await api.put("/tenants/t1/events/games", {**EVENT, "members": [{"user": "zoe", "role": "host"}]})
    await api.settle()
    before = await api.database.read(_everything)
    reading = Reading(write(tmp_path / "f", [*STORY, b"{"]), "t1")
    async with scratch_copy(api.database) as scratch:
        tried = await run(replace(api.parts, database=scratch), reading)
        told = await refusals(replace(api.parts, database=scratch), reading)
    assert await api.database.read(_everything) == before
    done = await run(api.parts, reading)
    assert (tried.counts, told) == (done.counts, await refusals(api.parts, reading))


async def test_the_copy_holds_every_row(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 7)
    many = [{"user": f"u{n}", "role": "participant"} for n in range(50)]
    for name in ("a", "b"):
        await api.put(f"/tenants/t1/events/{name}", {**EVENT, "members": many})
    await api.settle()
    original = await api.database.read(_everything)
    async with scratch_copy(api.database) as scratch:
        copied = await scratch.read(_everything)
    for table in module.COPIED:
        assert copied[table.name] == original[table.name], table.name
        assert copied[table.name]


class Slow(Database):
    """A database that is away."""

    dialect = "sqlite"

    async def write(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        raise DatabaseUnavailable("away")

    async def read(self, do: Any, *args: Any, **kwargs: Any) -> Any:
        raise DatabaseUnavailable("away")

    async def close(self) -> None:
        """Do nothing."""


async def test_the_database_is_away(api: Api, tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable):
        await run(replace(api.parts, database=Slow()), Reading(write(tmp_path / "f", STORY), "t1"))


async def test_memory_does_not_grow_with_the_file(api: Api, tmp_path: Path) -> None:
    """Ten times as many lines, half of them refused, take as much memory at the peak."""

    def lines(count: int) -> Iterable[Any]:
        for n in range(count):
            yield {"op": "put", "kind": "user", "slug": f"u{n}", "spec": {"display_name": f"U {n}"}}
            yield {"op": "put", "kind": "user", "slug": f"u{n}", "spec": {"display_name": 1}}

    peaks = []
    for count in (300, 300, 3000):
        reading = Reading(write(tmp_path / "f", lines(count)), "t1", as_of=count)
        tracemalloc.start()
        await run(api.parts, reading)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1] + 1_000_000


async def test_a_line_that_would_have_to_wait_is_a_fault() -> None:
    with pytest.raises(RuntimeError, match="wait"):
        at_once(asyncio.sleep(1))


async def test_users_that_are_only_placeholders_are_made(api: Api, tmp_path: Path) -> None:
    await api.put("/tenants/t1/events/games", {**EVENT, "members": [{"user": "ada", "role": "host"}]})
    done = await run(api.parts, Reading(write(tmp_path / "f", [STORY[0]]), "t1"))
    assert done.counts == {"user created": 1}
    found = await api.database.read(users.find, "t1", "ada")
    assert found is not None
    assert not found.placeholder
