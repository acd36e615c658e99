"""`tenant`, `keys`, `room`: what they print, what they leave in the database, and what they refuse."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from openmeet_appservice import wiring
from openmeet_appservice.config import Config, load_config
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import endpoints, entities, sync
from openmeet_appservice.store.ids import new_id
from openmeet_appservice.store.keys import by_digest as find_key
from openmeet_appservice.store.secretbox import SecretBox
from openmeet_appservice.web.auth import digest

from .conftest import Cli

T = TypeVar("T")
SHOWN_KEY = re.compile(r"omk_[a-z]+_[0-9A-Za-z_-]{32,}")
SHOWN_SECRET = re.compile(r"whsec_\S+")


def config_of(cli: Cli) -> Config:
    return load_config(cli.folder / "config.yaml", {})


def in_database(cli: Cli, do: Callable[[Connection], T]) -> T:
    async def run() -> T:
        database = wiring.open_database(config_of(cli))
        try:
            return await database.write(do)
        finally:
            await database.close()

    return asyncio.run(run())


def only(pattern: re.Pattern[str], text: str) -> str:
    (found,) = pattern.findall(text)
    return str(found)


@pytest.mark.parametrize(
    "arguments",
    [
        ["tenant", "list"],
        ["tenant", "add", "t1"],
        ["tenant", "show", "t1"],
        ["keys", "list"],
        ["keys", "add"],
        ["keys", "revoke", "k1"],
        ["room", "show", "t1", "event", "e1"],
        ["room", "plan", "t1", "event", "e1"],
        ["room", "resync", "t1", "event", "e1"],
    ],
)
def test_before_the_database_is_made(installed: Cli, arguments: list[str]) -> None:
    ran = installed(*arguments)
    assert (ran.code, ran.out) == (1, "")
    assert "migrate" in ran.err


def test_a_tenant_with_a_webhook(migrated: Cli) -> None:
    ran = migrated("tenant", "add", "Demo", "--name", "Démo", "--webhook-url", "https://openmeet.example/w")
    assert (ran.code, ran.err) == (0, "")
    shown, secret = only(SHOWN_KEY, ran.out), only(SHOWN_SECRET, ran.out)
    found = in_database(migrated, lambda connection: find_key(connection, digest(shown)))
    assert found is not None
    assert (found.tenant, found.scope) == ("demo", "tenant")
    endpoint = in_database(migrated, lambda connection: endpoints.list_page(connection, "demo", limit=2)[0])
    assert (endpoint.name, endpoint.wanted.url) == ("main", "https://openmeet.example/w")
    assert SecretBox(config_of(migrated).security.keys).open(endpoint.secret) == secret

    shown_tenant = migrated("tenant", "show", "DEMO", "--json").json
    assert shown_tenant["tenant"] == "Demo"
    assert shown_tenant["name"] == "Démo"
    assert shown_tenant["webhooks"] == [{"name": "main", "url": "https://openmeet.example/w"}]
    assert [held["name"] for held in shown_tenant["keys"]] == ["first"]
    text = migrated("tenant", "show", "demo").out
    for words in ("Démo", "https://openmeet.example/w", found.id):
        assert words in text
    assert shown not in text
    assert secret not in text


def test_json_of_a_new_tenant(migrated: Cli) -> None:
    made = migrated("tenant", "add", "t1", "--json").json
    assert set(made) == {"tenant", "api_key"}
    assert made["tenant"] == "t1"
    assert SHOWN_KEY.fullmatch(made["api_key"])


def test_a_list_of_tenants(migrated: Cli) -> None:
    assert migrated("tenant", "list").out == ""
    assert migrated("tenant", "list", "--json").json == []
    for tenant in ("b", "A"):
        migrated("tenant", "add", tenant)
    assert migrated("tenant", "list").out == "A\tA\nb\tb\n"
    assert migrated("tenant", "list", "--json").json == [
        {"tenant": "A", "name": "A"},
        {"tenant": "b", "name": "b"},
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no good"], "TENANT"),
        (["t1", "--webhook-url", "http://openmeet.example/w"], "--webhook-url"),
        (["t1", "--webhook-url", "https://user:secret@openmeet.example/w"], "--webhook-url"),
        (["t1", "--webhook-url", "nonsense"], "--webhook-url"),
    ],
)
def test_a_tenant_that_cannot_be_added(migrated: Cli, arguments: list[str], words: str) -> None:
    ran = migrated("tenant", "add", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert migrated("tenant", "list").out == ""


def test_a_tenant_that_is_there(migrated: Cli) -> None:
    migrated("tenant", "add", "Demo")
    ran = migrated("tenant", "add", "demo", "--webhook-url", "https://openmeet.example/w")
    assert (ran.code, ran.out) == (2, "")
    assert "there already" in ran.err
    shown = migrated("tenant", "show", "demo", "--json").json
    assert (len(shown["keys"]), shown["webhooks"]) == (1, [])


def test_keys_come_and_go(migrated: Cli) -> None:
    migrated("tenant", "add", "t1")
    made = migrated("keys", "add", "--tenant", "T1", "--name", "second", "--json").json
    platform = migrated("keys", "add")
    platform_key = only(SHOWN_KEY, platform.out)
    assert made["api_key"].startswith("omk_tenant_")
    assert platform_key.startswith("omk_platform_")

    listed = migrated("keys", "list", "--tenant", "t1", "--json").json
    assert {held["name"] for held in listed} == {"first", "second"}
    assert made["key_id"] in {held["key_id"] for held in listed}
    (held,) = migrated("keys", "list", "--json").json
    assert held["key_id"] in platform.out
    assert not SHOWN_KEY.findall(
        migrated("keys", "list").out + migrated("keys", "list", "--tenant", "t1").out
    )

    ran = migrated("keys", "revoke", made["key_id"])
    assert ran.code == 2, "it is not a platform key"
    assert in_database(migrated, lambda connection: find_key(connection, digest(made["api_key"])))
    assert migrated("keys", "revoke", made["key_id"], "--tenant", "t1").code == 0
    assert not in_database(migrated, lambda connection: find_key(connection, digest(made["api_key"])))
    ran = migrated("keys", "revoke", made["key_id"], "--tenant", "t1", "--json")
    assert ran.code == 2
    assert made["key_id"] in ran.err
    assert migrated("keys", "revoke", held["key_id"], "--json").json == {"revoked": held["key_id"]}


@pytest.mark.parametrize(
    "arguments",
    [
        ["tenant", "show", "nobody"],
        ["keys", "list", "--tenant", "nobody"],
        ["keys", "add", "--tenant", "nobody"],
        ["keys", "revoke", "k", "--tenant", "nobody"],
        ["room", "show", "nobody", "event", "e1"],
        ["room", "plan", "nobody", "event", "e1"],
        ["room", "resync", "nobody", "event", "e1"],
    ],
)
def test_an_unknown_tenant(migrated: Cli, arguments: list[str]) -> None:
    ran = migrated(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert "nobody" in ran.err


def test_an_unknown_event(migrated: Cli) -> None:
    migrated("tenant", "add", "t1")
    for command in ("show", "plan", "resync"):
        ran = migrated("room", command, "t1", "event", "board-games")
        assert (ran.code, ran.out) == (2, "")
        assert "board-games" in ran.err
    assert migrated("room", "show", "t1", "meeting", "board-games").code == 2


def add_event(connection: Connection) -> None:
    spec = {"name": "Board games", "topic": None, "visibility": "public", "access": None}
    entity = entities.create(
        connection,
        "t1",
        EntityKind.EVENT,
        "Board-Games",
        alias="#event-board-games-t1:example.org",
        spec={**spec, "status": "published"},
        external_id=None,
        as_of=None,
        now=1000,
        new_id=new_id,
    )
    assert entity is not None
    sync.touch(connection, "t1", "entity", entity.ref, now=1000)


def test_the_room_of_an_event(migrated: Cli) -> None:
    migrated("tenant", "add", "t1")
    in_database(migrated, add_event)
    shown = migrated("room", "show", "T1", "event", "board-games", "--json").json
    assert shown["slug"] == "Board-Games"
    assert shown["spec"]["name"] == "Board games"
    assert shown["sync"]["phase"] == "pending"
    assert shown["matrix"]["room_id"] is None
    assert (shown["desired"], shown["actual"]) == (None, None)
    assert shown["not_compared"], "nobody answers for the homeserver"
    text = migrated("room", "show", "t1", "event", "BOARD-GAMES")
    assert text.code == 0
    assert "  name: Board games" in text.out
    assert "  phase: pending" in text.out


def test_a_plan_needs_the_homeserver(migrated: Cli) -> None:
    migrated("tenant", "add", "t1")
    in_database(migrated, add_event)
    ran = migrated("room", "plan", "t1", "event", "board-games")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error: ")
