"""`import` and `adopt` as commands: what they print, how they end, and what a kill leaves."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
from sqlalchemy import Connection, func, select

from openmeet_appservice import wiring
from openmeet_appservice.config import load_config
from openmeet_appservice.store.tables import import_refusals, imports, users

from .conftest import Cli

T = TypeVar("T")
EVENT = {"name": "Games", "visibility": "public", "status": "published"}
LINES: list[Any] = [
    {"op": "put", "kind": "user", "slug": "ada", "spec": {"display_name": "Ada"}},
    {"op": "put", "kind": "event", "slug": "games", "spec": EVENT},
    {"op": "put", "kind": "event", "slug": "bad", "spec": {"name": "Bad"}},
    {
        "op": "put",
        "kind": "event_members",
        "slug": "games",
        "spec": {"members": [{"user": "ada", "role": "host"}]},
    },
]


def in_database(cli: Cli, do: Callable[[Connection], T]) -> T:
    async def run() -> T:
        database = wiring.open_database(load_config(cli.folder / "config.yaml", {}))
        try:
            return await database.read(do)
        finally:
            await database.close()

    return asyncio.run(run())


def count(cli: Cli, table: Any) -> int:
    return in_database(
        cli, lambda connection: connection.execute(select(func.count()).select_from(table)).scalar_one()
    )


def write(cli: Cli, lines: Iterable[Any], name: str = "file.ndjson") -> Path:
    path = cli.folder / name
    path.write_bytes(b"".join(orjson.dumps(line) + b"\n" for line in lines))
    return path


@pytest.fixture
def tenant(migrated: Cli) -> Cli:
    assert migrated("tenant", "add", "t1").code == 0
    return migrated


def test_the_report(tenant: Cli) -> None:
    file = str(write(tenant, LINES))
    ran = tenant("import", file, "--tenant", "T1")
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "line 3 refused: invalid: The request is not valid. /spec/visibility It is required. "
        "/spec/status It is required.",
        "event: 1 created, 1 refused",
        "event_members: 1 changed",
        "user: 1 created",
        "4 lines read.",
    ]
    assert (count(tenant, imports), count(tenant, import_refusals)) == (0, 0)
    again = tenant("import", file, "--tenant", "t1", "--json")
    assert again.code == 1
    assert again.json["counts"]["event"] == {
        "created": 0,
        "changed": 0,
        "unchanged": 1,
        "archived": 0,
        "superseded": 0,
        "refused": 1,
    }
    assert [(one["line"], one["code"]) for one in again.json["refused"]] == [(3, "invalid")]
    assert again.json["lines"] == 4
    assert again.json["continued_after_line"] is None
    assert tenant("import", str(write(tenant, LINES[:2])), "--tenant", "t1").code == 0


def test_a_dry_run_writes_nothing(tenant: Cli) -> None:
    file = str(write(tenant, LINES))
    tried = tenant("import", file, "--tenant", "t1", "--dry-run")
    assert (tried.code, tried.out.splitlines()[-1]) == (1, "This was a dry run: nothing was changed.")
    assert (count(tenant, users), count(tenant, imports)) == (0, 0)
    as_json = tenant("import", file, "--tenant", "t1", "--dry-run", "--json").json
    assert as_json["dry_run"] is True
    real = tenant("import", file, "--tenant", "t1", "--json").json
    assert (as_json["counts"], as_json["refused"]) == (real["counts"], real["refused"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["none.ndjson"], "none.ndjson"),
        (["."], "Is a directory"),
        (["file.ndjson", "--tenant", "none"], "no tenant none"),
        (["file.ndjson", "--as-of", "yesterday"], "--as-of"),
        (["file.ndjson", "--as-of", "2999-01-01T00:00:00Z"], "in the future"),
        ([], "FILE.ndjson"),
    ],
)
def test_wrong_usage(tenant: Cli, words: list[str], told: str) -> None:
    write(tenant, LINES)
    ran = tenant("import", *words)
    assert ran.code == 2
    assert told in ran.err
    assert count(tenant, users) == 0


def test_many_refusals_are_all_told_in_both_forms(tenant: Cli) -> None:
    file = str(write(tenant, [{"op": "put", "kind": "user", "slug": "-"}] * 1203))
    text = tenant("import", file, "--tenant", "t1")
    assert [line.split()[1] for line in text.out.splitlines()[:1203]] == [str(n) for n in range(1, 1204)]
    as_json = tenant("import", file, "--tenant", "t1", "--json").json
    assert [one["line"] for one in as_json["refused"]] == list(range(1, 1204))


def test_killed_and_run_again_it_tells_all_of_it(tenant: Cli) -> None:
    """The very process is killed (SIGKILL) in the middle; the next one goes on and reports the whole."""
    lines = [
        {"op": "put", "kind": "user", "slug": f"u{n}", "spec": {"display_name": "U"} if n % 100 else {}}
        for n in range(3_000)
    ]
    file = str(write(tenant, lines))
    words = [sys.executable, "-m", "openmeet_appservice", "import", file, "--tenant", "t1"]
    process = subprocess.Popen(words, cwd=tenant.folder, stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while count(tenant, imports) == 0 or count(tenant, users) < 300:
            assert time.monotonic() < end
            assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.kill()
        process.wait()
    before = in_database(tenant, lambda connection: connection.execute(select(imports)).one())
    assert 0 < before.line < len(lines)
    ran = tenant("import", file, "--tenant", "t1", "--json")
    assert ran.code == 1
    assert ran.json["continued_after_line"] == before.line
    assert ran.json["lines"] == len(lines)
    assert ran.json["counts"]["user"]["created"] == 2_970
    assert ran.json["counts"]["user"]["unchanged"] == 0
    assert [one["line"] for one in ran.json["refused"]] == list(range(1, 3_000, 100))
    assert count(tenant, users) == 2_970


def test_adopt_without_a_homeserver(tenant: Cli) -> None:
    write(tenant, LINES)
    tenant("import", "file.ndjson", "--tenant", "t1")
    for words in ([], ["--dry-run"]):
        ran = tenant("adopt", *words)
        assert (ran.code, ran.out) == (1, "")
        assert "error:" in ran.err


def test_adopt_with_nothing_to_adopt(tenant: Cli) -> None:
    ran = tenant("adopt", "--json")
    assert ran.code == 0
    assert ran.json == {
        "dry_run": False,
        "adopted": [],
        "refused": [],
        "gone": [],
        "enforced": [],
        "waiting": [],
        "without_room": 0,
    }
