"""Hints: taken, coalesced, followed by asking OpenMeet, never lost."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook

from openmeet_appservice.metrics import REGISTRY
from openmeet_appservice.ops.gauges import read_gauges
from openmeet_appservice.provisioning.lookup import tenant_secret
from openmeet_appservice.provisioning.parts import NO_LOOKUPS, Parts
from openmeet_appservice.provisioning.routes import routes
from openmeet_appservice.store import tenants

from .conftest import LOOKUP_SECRET, Api, Clock, application
from .lookups import NOBODY, SPEC, OpenMeet, World, answer, build, member

PATH = "/tenants/t1/changes"
GAMES = {"spec": SPEC, "members": [member("ada", "host"), member("bob")]}
HOUR = 3_600_000


@pytest.fixture
def openmeet() -> OpenMeet:
    """OpenMeet, which knows nothing yet."""
    return OpenMeet()


@pytest.fixture
def world(parts: Parts, clock: Clock, openmeet: OpenMeet, api: Api) -> World:
    """What asks it, with the tenant ``t1``."""
    return build(parts, clock, openmeet)


async def hint(api: Api, *changes: dict[str, Any]) -> None:
    """Hint at some changes."""
    taken = await api.post(PATH, {"changes": list(changes)})
    assert (taken.status, taken.json) == (202, {"accepted": len(changes)})


async def test_a_hint_makes_what_openmeet_knows_the_desired_state(api: Api, world: World) -> None:
    world.openmeet.things["event", "games"] = {
        "spec": SPEC,
        "members": [member("ada", "host"), member("bob")],
    }
    await hint(api, {"kind": "event", "slug": "games"})
    assert world.openmeet.asked == []
    await world.follow()
    assert world.openmeet.asked == [{"tenant": "t1", "kind": "event", "slug": "games"}]
    shown = await api.get("/tenants/t1/events/games")
    assert (shown.json["spec"]["name"], shown.json["sync"]["phase"]) == ("Games", "pending")
    assert (await world.state())["event games"]["members"] == {"ada": "host", "bob": "participant"}
    assert await world.waiting() == 0
    assert api.parts.wakeups.ticket("reconcile") > 0


async def test_the_question_is_signed_as_a_webhook_is(api: Api, world: World) -> None:
    await hint(api, {"kind": "group", "slug": "Chess"})
    await world.follow()
    (headers,) = world.openmeet.headers
    assert headers["x-tenant-id"] == "t1"
    body = json.dumps({"tenant": "t1", "kind": "group", "slug": "Chess"}, separators=(",", ":"))
    shown = {name: headers[name] for name in headers if name.startswith("webhook-")}
    # The clock of the test stands still, so the library is told when it is.
    signed = Webhook(LOOKUP_SECRET).sign(shown["webhook-id"], _moment(world.clock.ms), body)
    assert shown["webhook-signature"] == signed


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


async def test_hints_coalesce_however_many_there_are(api: Api, world: World) -> None:
    world.openmeet.things["event", "games"] = {"spec": SPEC, "members": []}
    for _ in range(5):
        await hint(api, {"kind": "event", "slug": "games"}, {"kind": "event", "slug": "GAMES"})
        await hint(api, {"kind": "event", "slug": "games", "user": "ada"})
    assert await world.waiting() == 2
    world.clock.ms += 1
    await world.follow()
    # All of it was read after the hint at one member, which so is followed with it.
    assert world.openmeet.asked == [{"tenant": "t1", "kind": "event", "slug": "GAMES"}]
    assert await world.waiting() == 0


async def test_a_hint_at_one_member_touches_nobody_else(api: Api, world: World) -> None:
    await api.put("/tenants/t1/events/games", {**SPEC, "members": [member("ada", "host"), member("bob")]})
    # OpenMeet has other changes as well, which this hint is not about.
    world.openmeet.things["event", "games"] = {
        "spec": SPEC,
        "members": [member("ada"), member("bob", "speaker"), member("eve")],
    }
    await hint(api, {"kind": "event", "slug": "games", "user": "BOB"})
    await world.follow()
    assert world.openmeet.asked == [{"tenant": "t1", "kind": "event", "slug": "games", "user": "BOB"}]
    assert (await world.state())["event games"]["members"] == {"ada": "host", "bob": "speaker"}
    world.openmeet.things["event", "games"]["members"] = []
    world.clock.ms += 1
    await hint(api, {"kind": "event", "slug": "games", "user": "bob"})
    await world.follow()
    assert (await world.state())["event games"]["members"] == {"ada": "host"}


async def test_a_member_of_something_unknown_has_all_of_it_looked_up(api: Api, world: World) -> None:
    world.openmeet.things["event", "games"] = {
        "spec": SPEC,
        "members": [member("ada", "host"), member("bob")],
    }
    await hint(api, {"kind": "event", "slug": "games", "user": "bob"})
    await world.follow()
    assert world.openmeet.asked == [{"tenant": "t1", "kind": "event", "slug": "games"}]
    assert len((await world.state())["event games"]["members"]) == 2


async def test_members_of_many_pages_are_taken_whole(api: Api, world: World) -> None:
    world.openmeet.page = 7
    everybody = [member(f"u{number}") for number in range(50)]
    world.openmeet.things["event", "games"] = {"spec": SPEC, "members": everybody}
    await hint(api, {"kind": "event", "slug": "games"})
    await world.follow()
    assert len(world.openmeet.asked) == 8
    assert world.openmeet.asked[1]["members_page_token"] == "7"
    assert len((await world.state())["event games"]["members"]) == 50


async def test_users_are_looked_up_too(api: Api, world: World) -> None:
    world.openmeet.things["user", "ada"] = {"spec": {"display_name": "Ada Lovelace"}}
    await hint(api, {"kind": "user", "slug": "ada"})
    await world.follow()
    shown = (await api.get("/tenants/t1/users/ada")).json
    assert (shown["spec"]["display_name"], shown["placeholder"]) == ("Ada Lovelace", False)


async def test_a_deleted_user_has_his_places_looked_up(api: Api, world: World) -> None:
    for slug in ("games", "chess"):
        await api.put(f"/tenants/t1/events/{slug}", {**SPEC, "members": [member("ada"), member("bob")]})
        world.openmeet.things["event", slug] = {"spec": SPEC, "members": [member("bob")]}
    await hint(api, {"kind": "user", "slug": "ada"})
    await world.follow()
    # One wrong answer removes nobody.
    assert len(world.openmeet.asked) == 1
    await hint(api, {"kind": "user", "slug": "ada", "deleted": True})
    await world.follow()
    assert [set(one["members"]) for one in (await world.state()).values()] == [{"bob"}, {"bob"}]


async def test_fault_47_a_hint_is_tried_until_openmeet_answers(api: Api, world: World) -> None:
    world.openmeet.things["event", "games"] = {"spec": SPEC}
    down = True
    world.openmeet.says = lambda _: NOBODY if down else None
    await hint(api, {"kind": "event", "slug": "games"})
    await world.follow()
    for _ in range(30):
        await world.later(400_000)
    assert await world.waiting() == 1
    asked = len(world.openmeet.asked)
    assert 15 < asked <= 31
    down = False
    await world.later(400_000)
    assert (await world.state())["event games"]["spec"]["name"] == "Games"
    assert await world.waiting() == 0


async def test_while_openmeet_is_down_it_is_left_alone_whatever_waits(api: Api, world: World) -> None:
    world.openmeet.says = lambda _: answer(503, retry_after="60")
    await hint(api, *({"kind": "event", "slug": f"e{number}"} for number in range(100)))
    await world.follow()
    assert len(world.openmeet.asked) <= 4
    asked = len(world.openmeet.asked)
    await world.later(59_000)
    assert len(world.openmeet.asked) == asked
    await world.later(2_000)
    # One tries it; nobody else, for it is still down.
    assert len(world.openmeet.asked) == asked + 1
    assert await world.waiting() == 100
    world.openmeet.says = None
    for _ in range(10):
        await world.later(300_000)
    assert await world.waiting() == 0


async def test_one_tenant_whose_endpoint_is_down_holds_up_no_other(
    api: Api, admin: Api, world: World
) -> None:
    await admin.put("/tenants/t2", {"name": "Two"})
    world.openmeet.says = lambda asked: NOBODY if asked["tenant"] == "t1" else None
    world.openmeet.things["event", "games"] = {"spec": SPEC}
    await hint(api, *({"kind": "event", "slug": f"e{number}"} for number in range(50)))
    await admin.post("/tenants/t2/changes", {"changes": [{"kind": "event", "slug": "games"}]})
    await world.follow()
    assert {asked["tenant"] for asked in world.openmeet.asked} == {"t1", "t2"}
    assert list(await world.state()) == ["event games"]


async def test_a_hint_that_comes_while_it_is_asked_is_asked_again(api: Api, world: World) -> None:
    world.openmeet.things["event", "games"] = {"spec": SPEC}
    hinted = asyncio.Event()

    async def slow(url: str, body: bytes, headers: dict[str, str]) -> Any:
        reply = await world.openmeet(url, body, headers)
        if not hinted.is_set():
            hinted.set()
            world.openmeet.things["event", "games"] = {"spec": {**SPEC, "name": "Newer"}}
            await hint(api, {"kind": "event", "slug": "games"})
        return reply

    work = world.worker.work
    world.worker.work = dataclasses.replace(work, lookup=dataclasses.replace(work.lookup, post=slow))
    await hint(api, {"kind": "event", "slug": "games"})
    await world.follow()
    world.clock.ms += 1
    await world.follow()
    assert (await world.state())["event games"]["spec"]["name"] == "Newer"


@pytest.mark.parametrize("as_of", ["", "?as_of=2026-11-22T19:00:01Z"])
@pytest.mark.parametrize("what", ["spec", "members", "deleted"])
async def test_what_openmeet_writes_while_it_is_asked_is_not_undone(
    api: Api, world: World, as_of: str, what: str
) -> None:
    old = {"spec": SPEC, "members": [member("ada")]}
    await api.put("/tenants/t1/events/games", {**SPEC, "members": [member("ada")]})
    writes = 0

    async def slow(url: str, body: bytes, headers: dict[str, str]) -> Any:
        nonlocal writes
        reply = await world.openmeet(url, body, headers)
        writes += 1
        if writes == 1:
            path = "/tenants/t1/events/games"
            if what == "spec":
                await api.put(f"{path}{as_of}", {**SPEC, "name": "Newer"})
                world.openmeet.things["event", "games"] = {**old, "spec": {**SPEC, "name": "Newer"}}
            elif what == "members":
                await api.put(f"{path}/members{as_of}", {"members": [member("bob")]})
                world.openmeet.things["event", "games"] = {"spec": SPEC, "members": [member("bob")]}
            else:
                await api.delete(f"{path}{as_of}")
                del world.openmeet.things["event", "games"]
        return reply

    world.openmeet.things["event", "games"] = old
    work = world.worker.work
    world.worker.work = dataclasses.replace(work, lookup=dataclasses.replace(work.lookup, post=slow))
    await hint(api, {"kind": "event", "slug": "games"})
    await world.follow()
    state = (await world.state()).get("event games")
    expected = {"spec": ("Newer", {"ada"}), "members": ("Games", {"bob"}), "deleted": None}[what]
    assert (None if state is None else (state["spec"]["name"], set(state["members"]))) == expected
    # And it is asked again, for the answer might have held something else that is new.
    await world.later(2_000)
    assert len(world.openmeet.asked) == 2
    assert await world.waiting() == 0
    state = (await world.state()).get("event games")
    assert (None if state is None else (state["spec"]["name"], set(state["members"]))) == expected


async def test_a_hint_on_its_way_is_due_again_when_the_service_stops(api: Api, world: World) -> None:
    asked = asyncio.Event()

    async def never(url: str, body: bytes, headers: dict[str, str]) -> Any:
        asked.set()
        await asyncio.Event().wait()

    work = world.worker.work
    world.worker.work = dataclasses.replace(work, lookup=dataclasses.replace(work.lookup, post=never))
    await hint(api, {"kind": "event", "slug": "games"})
    running = asyncio.create_task(world.worker.run())
    await asyncio.wait_for(asked.wait(), timeout=30)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await world.turns() == {"games": world.clock.ms}
    world.worker.work = work
    world.openmeet.things["event", "games"] = {"spec": SPEC}
    await world.follow()
    assert set(await world.state()) == {"event games"}


async def test_what_waits_and_what_came_of_it_is_counted(api: Api, world: World) -> None:
    def counted(result: str) -> float:
        labels = {"reason": "hint", "result": result}
        return REGISTRY.get_sample_value("openmeet_as_lookups_total", labels) or 0.0

    before = {result: counted(result) for result in ("found", "absent", "invalid", "failed", "no_answer")}
    said: dict[str, Any] = {
        "a": answer(200, {"spec": SPEC}),
        "b": answer(404),
        "c": answer(200),
        "d": answer(500),
        "e": NOBODY,
    }
    world.openmeet.says = lambda asked: said[asked["slug"]]
    for slug in said:
        await hint(api, {"kind": "event", "slug": slug})
    await read_gauges(api.database, world.clock)
    assert REGISTRY.get_sample_value("openmeet_as_hints_waiting") == 5
    world.clock.ms += 2000
    await read_gauges(api.database, world.clock)
    assert REGISTRY.get_sample_value("openmeet_as_hints_oldest_age_seconds") == 2
    await world.follow()
    for _ in range(3):
        await world.later(10_000)
    assert {result for result in before if counted(result) > before[result]} == set(before)
    await read_gauges(api.database, world.clock)
    assert REGISTRY.get_sample_value("openmeet_as_hints_waiting") == 3


async def test_everything_in_use_is_asked_about_in_its_turn(api: Api, world: World) -> None:
    """A hint that was lost costs `resync_interval`, no more."""
    for number in range(20):
        await api.put(f"/tenants/t1/events/e{number}", {**SPEC, "members": []})
        world.openmeet.things["event", f"e{number}"] = {"spec": {**SPEC, "name": "Newer"}, "members": []}
    await api.delete("/tenants/t1/events/e0")
    await world.worker._enrol_all()
    assert len(await world.turns()) == 19
    await world.later(6 * HOUR)
    assert {one["spec"]["name"] for one in (await world.state()).values()} == {"Newer"}
    assert len(world.openmeet.asked) == 19
    # And again, after as long.
    assert set((await world.turns()).values()) == {world.clock.ms + 6 * HOUR}
    await world.later(6 * HOUR - 1)
    assert len(world.openmeet.asked) == 19
    await world.later(1)
    assert len(world.openmeet.asked) == 38


async def test_turns_are_spread_over_the_interval(api: Api, world: World) -> None:
    for number in range(10):
        await api.put(f"/tenants/t1/events/e{number}", SPEC)
    randoms = iter(number / 10 for number in range(100))
    world.worker.work = dataclasses.replace(world.worker.work, random=lambda: next(randoms))
    await world.worker._enrol_all()
    due = sorted(at - world.clock.ms for at in (await world.turns()).values())
    assert due == [number * 6 * HOUR // 10 for number in range(10)]


async def test_turns_come_at_a_limited_rate_and_after_hints(api: Api, world: World) -> None:
    for number in range(5):
        await api.put(f"/tenants/t1/events/e{number}", SPEC)
        world.openmeet.things["event", f"e{number}"] = {"spec": SPEC}
    await world.worker._enrol_all()
    world.clock.ms += 6 * HOUR
    await hint(api, {"kind": "event", "slug": "hinted"})
    look = await world.worker._look()
    first = await world.worker._take(look, turns=True)
    second = await world.worker._take(await world.worker._look(), turns=True)
    assert [one.slug for one in first] == ["hinted"]
    assert second[0].hinted_at is None
    # The next turn may not be taken at once.
    assert world.worker._next_turn == pytest.approx(world.clock.ms / 1000 + 0.2)


async def test_a_hint_at_one_member_does_not_wait_for_the_turn_of_the_whole(api: Api, world: World) -> None:
    await api.put("/tenants/t1/events/games", SPEC)
    world.openmeet.things["event", "games"] = GAMES
    await world.worker._enrol_all()
    world.clock.ms += 6 * HOUR
    await hint(api, {"kind": "event", "slug": "games", "user": "bob"})
    due = await world.worker._look()
    assert due.turn is not None
    assert due.turn <= world.clock.ms
    (taken,) = await world.worker._take(due, turns=False)
    assert taken.user == "bob"


async def test_an_answer_without_members_leaves_the_hints_at_single_ones(api: Api, world: World) -> None:
    await api.put("/tenants/t1/events/games", {**SPEC, "members": [member("bob")]})
    world.openmeet.says = lambda asked: None if "user" in asked else answer(200, {"spec": SPEC})
    world.openmeet.things["event", "games"] = {"spec": SPEC, "members": [member("bob", "speaker")]}
    await hint(api, {"kind": "event", "slug": "games"}, {"kind": "event", "slug": "games", "user": "bob"})
    world.clock.ms += 1
    await world.follow()
    assert [("user" in asked) for asked in world.openmeet.asked] == [False, True]
    assert (await world.state())["event games"]["members"] == {"bob": "speaker"}


async def test_what_is_archived_loses_its_turn(api: Api, world: World) -> None:
    await api.put("/tenants/t1/events/games", SPEC)
    await world.worker._enrol_all()
    await api.delete("/tenants/t1/events/games")
    await world.later(6 * HOUR)
    assert (world.openmeet.asked, await world.turns()) == ([], {})


async def test_hints_are_refused_where_nobody_can_be_asked(
    parts: Parts, clock: Clock, aiohttp_client: Any
) -> None:
    parts = dataclasses.replace(parts, lookups=NO_LOOKUPS)
    client = await aiohttp_client(application(parts, routes(parts)))
    api = Api(client, parts.database, parts, clock, [])
    await api.put("/tenants/t1", {"name": "One"})
    refused = await api.post(PATH, {"changes": [{"kind": "event", "slug": "games"}]})
    assert (refused.status, refused.code) == (409, "no_lookup")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ([], "/changes"),
        ([{"kind": "room", "slug": "x"}], "/changes/0/kind"),
        ([{"kind": "event"}], "/changes/0/slug"),
        ([{"kind": "event", "slug": "-x"}], "/changes/0/slug"),
        ([{"kind": "event", "slug": "x", "user": ""}], "/changes/0/user"),
        ([{"kind": "event", "slug": "x", "name": "Games"}], "/changes/0/name"),
        ([{"kind": "user", "slug": "x", "user": "y"}], "/changes/0"),
        ([{"kind": "user", "slug": "x", "previous_slug": "y"}], "/changes/0"),
        ([{"kind": "event", "slug": f"e{number}"} for number in range(501)], "/changes"),
    ],
)
async def test_wrong_hints_are_named(api: Api, changes: list[Any], pointer: str) -> None:
    refused = await api.post(PATH, {"changes": changes})
    assert (refused.status, refused.pointers) == (422, [pointer])


async def test_hints_of_another_tenant_are_not_taken(api: Api, admin: Api) -> None:
    await admin.put("/tenants/t2", {"name": "Two"})
    refused = await api.post("/tenants/t2/changes", {"changes": [{"kind": "event", "slug": "games"}]})
    assert refused.status == 404


async def test_a_tenants_own_endpoint_has_a_secret_of_its_own(api: Api, admin: Api, world: World) -> None:
    settings = {"lookup": {"url": "https://one.test/lookup", "timeout": "5s", "resync_interval": "60m"}}
    put = await admin.put("/tenants/t1", {"name": "One", "settings": settings})
    secret = put.json["lookup_secret"]
    assert secret.startswith("whsec_")
    assert secret != LOOKUP_SECRET
    assert put.json["settings"]["lookup"]["resync_interval"] == "1h"
    # Shown once.
    again = await admin.put("/tenants/t1", {"name": "One", "settings": settings})
    assert again.json["lookup_secret"] is None
    assert "secret" not in str((await admin.get("/tenants/t1")).json)
    await hint(api, {"kind": "event", "slug": "games"})
    await world.follow()
    assert world.openmeet.urls == ["https://one.test/lookup"]
    tenant = await api.database.read(tenants.get, "t1")
    assert tenant is not None
    assert tenant_secret(LOOKUP_SECRET, tenant) == secret
    body = json.dumps({"tenant": "t1", "kind": "event", "slug": "games"}, separators=(",", ":"))
    headers = world.openmeet.headers[0]
    signed = Webhook(secret).sign(headers["webhook-id"], _moment(world.clock.ms), body)
    assert headers["webhook-signature"] == signed


@pytest.mark.parametrize(
    ("lookup", "pointer"),
    [
        ({"url": "http://one.test/"}, "/settings/lookup/url"),
        ({"url": "https://127.0.0.1/"}, "/settings/lookup/url"),
        ({"url": "https://169.254.169.254/latest"}, "/settings/lookup/url"),
        ({"url": "ftp://one.test/"}, "/settings/lookup/url"),
        ({"timeout": "6m"}, "/settings/lookup/timeout"),
        ({"timeout": 15}, "/settings/lookup/timeout"),
        ({"alias_timeout": "31s"}, "/settings/lookup/alias_timeout"),
        ({"resync_interval": "9m"}, "/settings/lookup/resync_interval"),
        ({"secret": "whsec_x"}, "/settings/lookup/secret"),
    ],
)
async def test_wrong_settings_of_look_ups_are_named(admin: Api, lookup: Any, pointer: str) -> None:
    refused = await admin.put("/tenants/t1", {"name": "One", "settings": {"lookup": lookup}})
    assert (refused.status, refused.pointers) == (422, [pointer])


async def test_secrets_of_before_and_after_both_sign_while_they_are_changed(api: Api, world: World) -> None:
    work = world.worker.work
    secrets = ("whsec_" + "B" * 32, LOOKUP_SECRET)
    world.worker.work = dataclasses.replace(work, lookup=dataclasses.replace(work.lookup, secrets=secrets))
    await hint(api, {"kind": "event", "slug": "games"})
    await world.follow()
    assert world.openmeet.headers[0]["webhook-signature"].count("v1,") == 2
