"""Members: exact lists, deltas, single ones, and what may be removed in bulk."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.store import entities, sync

from .conftest import Api

EVENT = "/tenants/t1/events/games"
MEMBERS = f"{EVENT}/members"
SPEC = {"name": "Games", "visibility": "public", "status": "published"}


def attendees(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"user": f"u{n}", "role": "participant"} for n in range(start, start + count)]


@pytest.fixture
async def event(api: Api) -> Api:
    await api.put(EVENT, SPEC)
    await api.settle()
    return api


async def roles(api: Api) -> dict[str, str]:
    return {item["user"]: item["role"] for item in await api.all(MEMBERS, 500)}


async def is_confirmed(api: Api) -> bool:
    view = await api.database.read(entities.view, "t1", EntityKind.EVENT, "games")
    assert view is not None
    assert view.sync is not None
    return entities.removals_are_confirmed(view.entity, view.sync)


async def test_an_exact_list(event: Api) -> None:
    listed = [{"user": "Ada", "role": "host"}, {"user": "bob", "role": "participant", "status": "waitlist"}]
    put = await event.put(MEMBERS, {"members": listed})
    assert put.status == 202
    assert put.json == {
        "tenant": "t1",
        "kind": "event",
        "slug": "games",
        "members": 2,
        "added": 2,
        "changed": 0,
        "removed": 0,
        "sync": {"phase": "pending", "generation": 2, "observed_generation": 1, "last_error": None},
        "etag": put.json["etag"],
        "superseded": False,
    }
    await event.settle()
    again = await event.put(MEMBERS, {"members": listed[::-1]})
    assert (again.status, again.json["etag"]) == (200, put.json["etag"])
    other = await event.put(MEMBERS, {"members": [{"user": "aDA", "role": "speaker"}]})
    assert (other.json["changed"], other.json["removed"], other.json["members"]) == (1, 1, 1)
    assert await roles(event) == {"Ada": "speaker"}
    assert (await event.put(MEMBERS, {})).pointers == ["/members"]
    assert (await event.put("/tenants/t1/events/none/members", {"members": []})).code == "event_not_found"


async def test_a_delta(event: Api) -> None:
    await event.put(MEMBERS, {"members": attendees(3)})
    await event.settle()
    delta = {"upsert": [{"user": "U1", "role": "host"}, {"user": "new", "role": "guest"}], "remove": ["u2"]}
    patched = await event.patch(MEMBERS, delta)
    assert patched.status == 202
    counts = [patched.json[name] for name in ("members", "added", "changed", "removed")]
    assert counts == [3, 1, 1, 1]
    assert await roles(event) == {"u0": "participant", "u1": "host", "new": "guest"}
    await event.settle()
    again = await event.patch(MEMBERS, delta)
    assert (again.status, again.json["etag"]) == (200, patched.json["etag"])
    assert (await event.patch(MEMBERS, {"remove": ["never-seen"]})).status == 200
    assert (await event.patch(MEMBERS, {})).status == 200


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"upsert": [{"user": "a", "role": "guest"}], "remove": ["A"]}, ["/remove/0"]),
    ({"remove": ["a", "b", "A"]}, ["/remove/2"]),
    ({"upsert": [{"user": "a", "role": "guest"}] * 2}, ["/upsert/1/user"]),
    ({"upsert": [{"user": "a", "role": "king"}]}, ["/upsert/0/role"]),
    ({"upsert": [{"user": "a", "role": "guest", "muted": "yes"}]}, ["/upsert/0/muted"]),
    ({"remove": ["a b"]}, ["/remove/0"]),
    ({"remove": None}, ["/remove"]),
]


async def test_a_wrong_delta_is_named(event: Api) -> None:
    for delta, pointers in WRONG:
        wrong = await event.patch(MEMBERS, delta)
        assert (wrong.status, wrong.pointers) == (422, pointers), delta


async def test_bans_and_mutes_are_part_of_what_a_member_is(event: Api) -> None:
    one = f"{MEMBERS}/ada"
    await event.put(one, {"role": "guest"})
    await event.settle()
    banned = await event.put(one, {"role": "guest", "banned": True})
    assert (banned.status, banned.json["changed"]) == (202, 1)
    muted = await event.patch(MEMBERS, {"upsert": [{"user": "ada", "role": "guest", "muted": True}]})
    assert muted.json["changed"] == 1
    assert await event.all(MEMBERS, 10) == [
        {"user": "ada", "role": "guest", "status": "confirmed", "banned": False, "muted": True}
    ]


async def test_one_member(event: Api) -> None:
    one = f"{MEMBERS}/Ada"
    added = await event.put(one, {"role": "host"})
    assert (added.status, added.json["added"]) == (202, 1)
    await event.settle()
    assert (await event.put(one.lower(), {"role": "host", "status": "confirmed"})).status == 200
    changed = await event.put(one, {"role": "host", "status": "attended"})
    assert (changed.status, changed.json["changed"]) == (202, 1)
    assert (await event.put(one, {"role": "owner"})).pointers == ["/role"]
    removed = await event.delete(one)
    assert (removed.status, removed.json["removed"], removed.json["members"]) == (202, 1, 0)
    await event.settle()
    nobody = await event.delete(one)
    assert (nobody.status, nobody.json["removed"], nobody.json["sync"]["phase"]) == (202, 0, "ready")
    draft = "/tenants/t1/groups/draft"
    await event.put(draft, {**SPEC, "status": "draft"})
    assert (await event.put(f"{draft}/members/ada", {"role": "owner"})).status == 201
    assert (await event.put(f"{draft}/members/ada", {"role": "owner", "status": "maybe"})).pointers == [
        "/status"
    ]


async def test_a_stranger_becomes_a_placeholder_and_then_a_user(event: Api) -> None:
    await event.put(f"{MEMBERS}/Ada", {"role": "host"})
    user = "/tenants/t1/users/ada"
    read = (await event.get(user)).json
    assert read["placeholder"] is True
    assert read["slug"] == "Ada"
    assert read["spec"] == {"display_name": "Ada", "external_id": None}
    assert read["matrix"] == {"user_id": "@openmeet_t1_ada:example.org"}
    assert read["sync"] == {"phase": "none", "generation": 0, "observed_generation": 0, "last_error": None}
    made = await event.put(user, {"display_name": "Ada"})
    assert (made.status, made.json["placeholder"]) == (202, False)
    assert made.json["sync"]["generation"] == 1
    await event.settle()
    assert (await event.get(user)).json["sync"]["phase"] == "ready"
    assert await roles(event) == {"Ada": "host"}


async def test_members_have_their_own_age(event: Api) -> None:
    await event.put(f"{MEMBERS}?as_of=2026-11-22T18:00:00Z", {"members": attendees(1)})
    for method, path, body in (
        ("PUT", MEMBERS, {"members": []}),
        ("PATCH", MEMBERS, {"remove": ["u0"]}),
        ("PUT", f"{MEMBERS}/u5", {"role": "host"}),
        ("DELETE", f"{MEMBERS}/u0", None),
    ):
        old = await event.call(method, f"{path}?as_of=2026-11-22T17:00:00Z", body)
        assert (old.status, old.json["superseded"], old.json["members"]) == (200, True, 1)
    # The spec is not older for it.
    newer = await event.put(f"{EVENT}?as_of=2026-11-22T17:30:00Z", {**SPEC, "name": "B"})
    assert newer.json["superseded"] is False
    assert (await event.delete(f"{MEMBERS}/u0?as_of=2026-11-22T18:00:00Z")).status == 202


async def test_twenty_thousand_in_one_call(event: Api) -> None:
    put = await event.put(MEMBERS, {"members": attendees(20_000)})
    assert (put.status, put.json["added"], put.json["members"]) == (202, 20_000, 20_000)
    await event.settle()
    assert len(await roles(event)) == 20_000
    other = await event.put(MEMBERS, {"members": attendees(20_000, start=10_000)})
    assert (other.json["added"], other.json["removed"]) == (10_000, 10_000)
    delta = {"upsert": [{**m, "role": "speaker"} for m in attendees(15_000, start=10_000)]}
    assert (await event.patch(MEMBERS, delta)).json["changed"] == 15_000


async def test_lists_written_at_once_take_turns(event: Api) -> None:
    lists = [attendees(50, start=n * 10) for n in range(6)]
    answers = await asyncio.gather(
        *(
            event.put(MEMBERS, {"members": listed if n % 2 else listed[::-1]})
            for n, listed in enumerate(lists)
        )
    )
    assert {answer.status for answer in answers} == {202}
    last = max(answers, key=lambda answer: int(answer.json["etag"].rpartition("m")[2]))
    expected = lists[answers.index(last)]
    assert await roles(event) == {member["user"]: "participant" for member in expected}
    assert len(await event.all("/tenants/t1/users", 500)) == 100


async def test_only_members_are_asked_for_again(event: Api) -> None:
    """A change of members touches the room, never the users."""
    await event.put("/tenants/t1/users/u0", {"display_name": "U"})
    await event.settle()
    await event.put(MEMBERS, {"members": attendees(2)})
    assert await event.settle() == 1


async def test_platform_roles_give_no_power(event: Api) -> None:
    """Power comes from the role in this event or group; nobody can say that a user is an admin at large."""
    for body in ({"display_name": "Ada", "role": "admin"}, {"display_name": "Ada", "roles": ["superadmin"]}):
        wrong = await event.put("/tenants/t1/users/ada", body)
        assert wrong.status == 422
    assert (await event.put(f"{MEMBERS}/ada", {"role": "admin"})).pointers == ["/role"]
    await event.put(f"{MEMBERS}/ada", {"role": "participant"})
    assert (await event.patch(MEMBERS, {"upsert": [{"user": "ada", "role": "platform_admin"}]})).status == 422
    assert await roles(event) == {"ada": "participant"}


async def whole_is_compared(api: Api) -> bool:
    """Whether the next run compares the whole room, not only single members."""
    [lease] = await api.database.write(sync.claim_due, now=api.clock.ms, lease=1000, limit=9)
    await api.database.write(sync.release, lease, now=api.clock.ms)
    return lease.whole


async def test_few_who_change_are_compared_alone_and_many_with_the_whole_room(event: Api) -> None:
    await event.put(MEMBERS, {"members": attendees(100)})
    assert await whole_is_compared(event)
    await event.settle()
    await event.put(f"{MEMBERS}/u1", {"role": "host"})
    await event.patch(MEMBERS, {"remove": ["u2"], "upsert": [{"user": "u3", "role": "speaker"}]})
    await event.put(MEMBERS, {"members": attendees(98, start=2)})
    assert not await whole_is_compared(event)
    await event.settle()
    # So many removals at once are held back, and for that the whole room has to be seen.
    await event.patch(MEMBERS, {"remove": [f"u{n}" for n in range(10, 31)]})
    assert await whole_is_compared(event)
    await event.settle()
    await event.put(f"{MEMBERS}/u3", {"role": "host"})
    await event.patch(EVENT, {"name": "Other"})
    assert await whole_is_compared(event)
    await event.settle()
    # What went wrong with one of them says that the room is not as was thought.
    await event.put(f"{MEMBERS}/u3", {"role": "speaker"})
    await event.fail("homeserver_refused")
    event.clock.ms += 5000
    assert await whole_is_compared(event)


class TestConfirmedRemovals:
    """`store.entities` says when a bulk removal is confirmed."""

    async def test_a_bulk_removal_needs_it(self, event: Api) -> None:
        await event.put(MEMBERS, {"members": attendees(100)})
        await event.settle()
        await event.put(MEMBERS, {"members": []})
        assert not await is_confirmed(event)
        await event.fail("mass_removal_held")
        confirmed = await event.put(f"{MEMBERS}?confirm_removals=true", {"members": []})
        assert confirmed.status == 202
        assert await is_confirmed(event)

    async def test_it_is_used_up(self, event: Api) -> None:
        await event.put(f"{EVENT}?confirm_removals=true", {**SPEC, "members": attendees(100)})
        assert await is_confirmed(event)
        await event.settle()
        assert not await is_confirmed(event)
        # There is nothing left to confirm.
        same = await event.put(f"{EVENT}?confirm_removals=true", {**SPEC, "members": attendees(100)})
        assert same.status == 200
        await event.patch(EVENT, {"name": "Other"})
        assert not await is_confirmed(event)

    async def test_small_changes_carry_it_on_and_large_ones_end_it(self, event: Api) -> None:
        await event.put(MEMBERS, {"members": attendees(200)})
        await event.settle()
        await event.put(f"{MEMBERS}?confirm_removals=true", {"members": attendees(100)})
        await event.patch(EVENT, {"name": "Other"})
        await event.patch(MEMBERS, {"remove": ["u1", "u2"]})
        assert await is_confirmed(event)
        await event.patch(MEMBERS, {"remove": [f"u{n}" for n in range(10, 60)]})
        assert not await is_confirmed(event)
        await event.patch(EVENT, {"name": "Third"})
        assert not await is_confirmed(event)

    async def test_taking_the_right_to_chat_from_many_ends_it(self, event: Api) -> None:
        await event.put(MEMBERS, {"members": attendees(100)})
        await event.settle()
        await event.put(f"{MEMBERS}?confirm_removals=true", {"members": attendees(60)})
        rejected = [{**member, "status": "rejected"} for member in attendees(60)]
        await event.patch(MEMBERS, {"upsert": rejected})
        assert not await is_confirmed(event)

    async def test_single_removals_are_meant(self, event: Api) -> None:
        await event.put(MEMBERS, {"members": attendees(30)})
        await event.settle()
        for n in range(25):
            await event.delete(f"{MEMBERS}/u{n}")
        assert await is_confirmed(event)

    async def test_a_single_removal_confirms_no_other(self, event: Api) -> None:
        await event.put(MEMBERS, {"members": attendees(100)})
        await event.settle()
        await event.put(MEMBERS, {"members": attendees(10)})
        await event.delete(f"{MEMBERS}/u1")
        assert not await is_confirmed(event)

    async def test_an_archived_one_is_followed_at_once(self, event: Api) -> None:
        await event.put(MEMBERS, {"members": attendees(100)})
        await event.settle()
        await event.delete(EVENT)
        status = await event.database.read(entities.view, "t1", EntityKind.EVENT, "games")
        assert status is not None
        assert status.sync is not None
        assert await event.database.read(sync.next_due, now=event.clock.ms) == event.clock.ms
