"""A look-up endpoint that is slow, wrong, down or lying changes nothing that it should not."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from typing import Any

import pytest
from sqlalchemy import Connection

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.outbound.client import Answer, NoAnswer, Reason
from openmeet_appservice.provisioning import lookup
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.store import entities
from openmeet_appservice.store.lookup_tables import metadata

from .conftest import Api, Clock
from .lookups import NOBODY, SPEC, Json, OpenMeet, World, answer, build, member

HOUR = 3_600_000
BEFORE = {"games": ("Games", {"ada": "host", "bob": "participant"})}


@pytest.fixture
def world(parts: Parts, clock: Clock, api: Api) -> World:
    """What asks, with the tenant ``t1``."""
    return build(parts, clock, OpenMeet())


async def provision(api: Api) -> None:
    """Make one event."""
    body = {**SPEC, "members": [member("ada", "host"), member("bob")], "external_id": "01"}
    assert (await api.put("/tenants/t1/events/games", body)).status == 202


async def hint(api: Api, **more: Any) -> None:
    """Hint at it."""
    taken = await api.post("/tenants/t1/changes", {"changes": [{"kind": "event", "slug": "games", **more}]})
    assert taken.status == 202


async def seen(world: World) -> dict[str, tuple[str, dict[str, str]]]:
    """Name and members of every event in use."""
    state = await world.state()
    return {kind.removeprefix("event "): (one["spec"]["name"], one["members"]) for kind, one in state.items()}


NEW: Json = {**SPEC, "name": "New"}
ADA = member("ada")
UNKNOWN: list[Answer | NoAnswer] = [
    NOBODY,
    NoAnswer(Reason.ADDRESS_REFUSED, "It is not public.", 0.0),
    NoAnswer(Reason.CUT_OFF, "The connection broke.", 1.0),
    answer(500),
    answer(502, b"<html>Bad gateway</html>"),
    answer(503, retry_after="30"),
    answer(429, retry_after="not a number"),
    answer(301, location="https://elsewhere.test/"),
    answer(401, {"message": "Unauthorized"}),
    answer(403),
    answer(410),
    answer(204),
    answer(201, {"spec": NEW}),
    answer(200),
    answer(200, b"null"),
    answer(200, b"{"),
    answer(200, b"\xff\xfe"),
    answer(200, b"[" * 5000),
    answer(200, b"<html>Welcome to nginx</html>"),
    answer(200, []),
    answer(200, {}),
    answer(200, {"spec": None}),
    answer(200, {"spec": NEW, "members": None, "next_members_page_token": "x"}),
    answer(200, {"spec": {**NEW, "visibility": "secret"}}),
    answer(200, {"spec": {**NEW, "name": ""}}),
    answer(200, {"spec": {**NEW, "name": "a\0b"}}),
    answer(200, {"spec": {**NEW, "name": 5}}),
    answer(200, {"spec": {"display_name": "Ada"}}),
    answer(200, {"spec": NEW, "members": {"ada": "host"}}),
    answer(200, {"spec": NEW, "members": [{**ADA, "role": "king"}]}),
    answer(200, {"spec": NEW, "members": [{**ADA, "role": "owner"}]}),
    answer(200, {"spec": NEW, "members": [ADA, member("ADA", "host")]}),
    answer(200, {"spec": NEW, "members": ["ada"]}),
    answer(200, {"spec": NEW, "members": [{"role": "host"}]}),
    # Unknown fields, such as OpenMeet's own objects have.
    answer(200, {"spec": {**NEW, "password": "$2a$10$hash"}}),
    answer(200, {"spec": NEW, "members": [{**ADA, "email": "ada@example.org"}]}),
    answer(200, {"spec": NEW, "members": [], "user": {"password": "$2a$10$hash"}}),
    answer(200, b'{"spec": {}}' + b" " * lookup.MAX_ANSWER),
]


@pytest.mark.parametrize("said", UNKNOWN, ids=lambda said: f"{said.outcome}-{str(said)[:60]}")
async def test_an_answer_that_says_nothing_changes_nothing(api: Api, world: World, said: Any) -> None:
    await provision(api)
    shown = (await api.get("/tenants/t1/events/games")).json
    world.openmeet.says = lambda _: said
    await hint(api, deleted=True)
    await world.follow()
    await world.later(2 * HOUR)
    assert world.openmeet.asked
    assert await seen(world) == BEFORE
    assert (await api.get("/tenants/t1/events/games")).json == shown
    # The hint is kept, and followed once the endpoint has come to its senses.
    assert await world.waiting() == 1
    right = {"spec": NEW | {"external_id": "01"}, "members": [ADA]}
    world.openmeet.says = lambda _: answer(200, right)
    await world.later(2 * HOUR)
    assert await seen(world) == {"games": ("New", {"ada": "participant"})}
    assert await world.waiting() == 0


async def test_fault_31b_what_is_refused_is_neither_stored_nor_logged(
    api: Api, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await provision(api)
    hash_, mail = "$2a$10$Zq0vC", "ada.l@example.org"
    secrets: Json = {"password": hash_, "email": mail, "preferences": {mail: True}, mail: 1}
    caplog.set_level(logging.DEBUG)
    bodies: list[Json] = [
        {"spec": {**NEW, **secrets}},
        {"spec": NEW, "members": [{**ADA, **secrets}]},
        {"spec": NEW} | secrets,
        {"spec": {**NEW, "description": {"text": hash_}}},
        {"spec": {**NEW, "status": mail}},
    ]
    said = iter(bodies)
    world.openmeet.says = lambda _: answer(200, next(said))
    for _ in bodies:
        await hint(api)
        await world.follow()
    assert list(said) == []
    assert await seen(world) == BEFORE
    assert "password: unknown_field" in caplog.text
    assert hash_ not in caplog.text
    assert mail not in caplog.text

    def stored(connection: Connection) -> str:
        return str([connection.execute(table.select()).all() for table in metadata.sorted_tables])

    everything = await api.database.read(stored)
    assert hash_ not in everything
    assert mail not in everything


@pytest.mark.parametrize(
    ("pages", "asked"),
    [
        # The same token again.
        ([{"members": [ADA], "next_members_page_token": "a"}] * 3, 2),
        # Round in a circle.
        (
            [
                {"members": [ADA], "next_members_page_token": "a"},
                {"members": [member("bob")], "next_members_page_token": "b"},
                {"members": [member("eve")], "next_members_page_token": "a"},
            ],
            3,
        ),
        # Somebody on two pages.
        (
            [{"members": [ADA], "next_members_page_token": "a"}, {"members": [member("Ada", "host")]}],
            2,
        ),
        # The rest is missing.
        ([{"members": [ADA], "next_members_page_token": "a"}, {}], 2),
        ([{"members": [ADA], "next_members_page_token": "a"}, answer(404)], 2),
        ([{"members": [ADA], "next_members_page_token": "a"}, answer(500)], 2),
        ([{"members": [ADA], "next_members_page_token": "a"}, NOBODY], 2),
        ([{"members": [ADA], "next_members_page_token": "a"}, {"members": [{"user": "x"}]}], 2),
        ([{"members": [ADA], "next_members_page_token": "a" * 2049}], 1),
    ],
)
async def test_members_are_taken_whole_or_not_at_all(
    api: Api, world: World, pages: list[Any], asked: int
) -> None:
    await provision(api)
    said = iter(pages)

    def says(_: Json) -> Any:
        page = next(said)
        return page if isinstance(page, Answer | NoAnswer) else answer(200, {"spec": NEW} | page)

    world.openmeet.says = says
    await hint(api)
    await world.follow()
    assert len(world.openmeet.asked) == asked
    assert await seen(world) == BEFORE
    assert await world.waiting() == 1


async def test_pages_that_never_end_are_given_up(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await provision(api)
    monkeypatch.setattr(lookup, "MAX_PAGES", 20)

    def says(request: Json) -> Any:
        number = int(request.get("members_page_token", 0)) + 1
        members = [member(f"u{number}")]
        return answer(200, {"spec": NEW, "members": members, "next_members_page_token": str(number)})

    world.openmeet.says = says
    await hint(api)
    await world.follow()
    assert len(world.openmeet.asked) == 20
    assert await seen(world) == BEFORE


async def test_more_members_than_any_room_has_are_given_up(
    api: Api, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await provision(api)
    monkeypatch.setattr(lookup, "MAX_MEMBERS", 10)
    world.openmeet.page = 4
    members = [member(f"u{number}") for number in range(100)]
    world.openmeet.things["event", "games"] = {"spec": NEW, "members": members}
    await hint(api)
    await world.follow()
    assert len(world.openmeet.asked) == 3
    assert await seen(world) == BEFORE


@pytest.mark.parametrize(
    "members",
    [[member("eve")], [ADA, member("bob", "speaker")], [member("bob"), member("bob")]],
)
async def test_asked_about_one_member_an_answer_about_others_counts_for_nothing(
    api: Api, world: World, members: list[Json]
) -> None:
    await provision(api)
    world.openmeet.says = lambda _: answer(200, {"spec": NEW, "members": members})
    await hint(api, user="bob")
    await world.follow()
    assert await seen(world) == BEFORE


async def test_asked_about_one_member_an_answer_without_members_leaves_him(api: Api, world: World) -> None:
    await provision(api)
    world.openmeet.says = lambda _: answer(200, {"spec": NEW})
    await hint(api, user="bob")
    await world.follow()
    assert await seen(world) == {"games": ("New", BEFORE["games"][1])}


async def test_an_answer_that_never_comes_is_not_waited_for(api: Api, world: World, parts: Parts) -> None:
    await provision(api)

    async def never(url: str, body: bytes, headers: dict[str, str]) -> Any:
        await asyncio.Event().wait()

    work = world.worker.work
    defaults = dataclasses.replace(parts.lookups, timeout=0.01)
    asking = dataclasses.replace(work.lookup, post=never, defaults=defaults)
    world.worker.work = dataclasses.replace(work, lookup=asking)
    await hint(api)
    await asyncio.wait_for(world.follow(), timeout=30)
    assert await seen(world) == BEFORE
    assert await world.waiting() == 1


async def test_mass_removals_by_look_up_are_held_like_those_of_a_write(api: Api, world: World) -> None:
    everybody = [member(f"u{number}") for number in range(100)]
    body = {**SPEC, "members": everybody}
    await api.put("/tenants/t1/events/games", body)
    await api.settle()
    world.openmeet.things["event", "games"] = {"spec": SPEC, "members": []}
    world.clock.ms += 1
    await hint(api)
    await world.follow()
    # Nobody has confirmed it, so the reconciler holds it; a write that confirms goes through.
    status = await api.get("/tenants/t1/events/games")
    assert status.json["sync"]["phase"] == "pending"
    entity = await _entity(api)
    assert entity.removals_confirmed == 0
    confirmed = await api.put("/tenants/t1/events/games/members?confirm_removals=true", {"members": []})
    assert confirmed.status == 202
    assert (await _entity(api)).removals_confirmed == status.json["sync"]["generation"] + 1


async def _entity(api: Api) -> Any:
    return await api.database.read(entities.find, "t1", EntityKind.EVENT, "games")
