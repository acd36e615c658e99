"""Renaming events and groups."""

from __future__ import annotations

import asyncio

from .conftest import Api

OLD = "/tenants/t1/events/Board-Games"
NEW = "/tenants/t1/events/Card-Games"
GROUP = "/tenants/t1/groups/Board-Games"
SPEC = {"name": "Board Games", "visibility": "public", "status": "published"}


async def test_a_renamed_event_is_found_by_its_new_slug_only(api: Api) -> None:
    made = (await api.put(OLD, SPEC)).json
    await api.settle()
    renamed = await api.post(f"{OLD}/rename", {"slug": "Card-Games"})
    assert (renamed.status, renamed.json["slug"]) == (202, "Card-Games")
    assert renamed.json["sync"]["phase"] == "pending"
    assert renamed.json["etag"] != made["etag"]
    await api.settle()
    read = (await api.get(NEW)).json
    assert (read["slug"], read["sync"]["phase"], read["spec"]["name"]) == (
        "Card-Games",
        "ready",
        "Board Games",
    )
    for method in ("GET", "DELETE"):
        gone = await api.call(method, OLD)
        assert (gone.status, gone.code) == (404, "event_not_found")
        assert gone.json["detail"] == "This event is called Card-Games now."
    for path in ("", "/members"):
        assert (await api.get(OLD + path)).json["detail"] == "This event is called Card-Games now."
    listed = await api.get("/tenants/t1/events")
    assert [item["slug"] for item in listed.json["items"]] == ["Card-Games"]
    assert (await api.get(GROUP)).json["detail"] == "There is no such group."


async def test_a_group_is_renamed_apart_from_events(api: Api) -> None:
    await api.put(GROUP, SPEC)
    await api.put(OLD, SPEC)
    renamed = await api.post(f"{GROUP}/rename", {"slug": "Chess"})
    assert (renamed.status, renamed.json["kind"], renamed.json["slug"]) == (202, "group", "Chess")
    assert (await api.get(GROUP)).json["detail"] == "This group is called Chess now."
    assert (await api.get(OLD)).status == 200
    # The event's wish for that name is nothing to the group, and takes nothing from it.
    await api.put("/tenants/t1/events/Chess", SPEC)
    alias = "/tenants/t1/resolve?alias=%23group-board-games-t1:example.org"
    assert (await api.get(alias)).json["slug"] == "Chess"


async def test_a_slug_in_use_is_refused_and_nothing_changes(api: Api) -> None:
    await api.put(OLD, SPEC)
    await api.put(NEW, {**SPEC, "name": "Cards"})
    refused = await api.post(f"{OLD}/rename", {"slug": "CARD-games"})
    assert (refused.status, refused.code) == (409, "slug_taken")
    assert (await api.get(OLD)).json["spec"]["name"] == "Board Games"
    # Another kind's slugs are others, and an archived one is free.
    await api.put(GROUP.replace("Board", "Poker"), SPEC)
    assert (await api.post(f"{OLD}/rename", {"slug": "Poker-Games"})).status == 202
    await api.delete(NEW)
    again = await api.post("/tenants/t1/events/poker-games/rename", {"slug": "Card-Games"})
    assert (again.status, again.json["spec"]["name"]) == (202, "Board Games")


async def test_what_cannot_be_renamed(api: Api) -> None:
    unknown = await api.post(f"{OLD}/rename", {"slug": "x"})
    assert (unknown.status, unknown.code) == (404, "event_not_found")
    await api.put(OLD, SPEC)
    for wrong in ({"slug": "a.b"}, {}, {"slug": "a", "name": "b"}):
        assert (await api.post(f"{OLD}/rename", wrong)).status == 422
    stale = await api.call("POST", f"{OLD}/rename", {"slug": "x"}, {"If-Match": '"other"'})
    assert stale.status == 412
    await api.delete(OLD)
    archived = await api.post(f"{OLD}/rename", {"slug": "x"})
    assert (archived.status, archived.code) == (409, "archived")


async def test_the_same_slug_changes_nothing_and_its_case_only_the_slug(api: Api) -> None:
    await api.put(OLD, SPEC)
    await api.settle()
    before = (await api.get(OLD)).json
    same = await api.post(f"{OLD}/rename", {"slug": "Board-Games"})
    assert (same.status, same.json["etag"]) == (200, before["etag"])
    cased = await api.post(f"{OLD}/rename", {"slug": "board-GAMES"})
    assert (cased.status, cased.json["slug"], cased.json["sync"]["generation"]) == (200, "board-GAMES", 1)
    assert cased.json["matrix"] == before["matrix"]
    assert (await api.get(OLD)).json["slug"] == "board-GAMES"


async def test_a_renaming_whose_answer_was_lost_can_be_repeated(api: Api) -> None:
    await api.put(OLD, SPEC)
    body = {"slug": "Card-Games"}
    first = await api.post(f"{OLD}/rename", body, Idempotency_Key="k1")
    assert first.status == 202
    assert (await api.post(f"{OLD}/rename", body, Idempotency_Key="k1")).json == first.json
    # Without a key the new slug, and that the old one is free, tell that it was done.
    again = await api.post(f"{OLD}/rename", body)
    assert (again.status, again.json["sync"]["generation"]) == (202, 2)
    await api.put(OLD, {**SPEC, "name": "Another"})
    other = await api.post(f"{OLD}/rename", body)
    assert (other.status, other.code) == (409, "slug_taken")


async def test_an_older_renaming_is_superseded(api: Api) -> None:
    await api.put(f"{OLD}?as_of=2026-11-22T18:00:00Z", SPEC)
    late = await api.post(f"{OLD}/rename?as_of=2026-11-22T17:00:00Z", {"slug": "Card-Games"})
    assert (late.status, late.json["superseded"], late.json["slug"]) == (200, True, "Board-Games")
    newer = await api.post(f"{OLD}/rename?as_of=2026-11-22T18:30:00Z", {"slug": "Card-Games"})
    assert newer.json["slug"] == "Card-Games"
    # What OpenMeet wrote of the old slug before it renamed it makes no new room.
    straggler = await api.put(f"{OLD}?as_of=2026-11-22T18:15:00Z", {**SPEC, "name": "Stale"})
    assert (straggler.status, straggler.json["superseded"], straggler.json["slug"]) == (
        200,
        True,
        "Card-Games",
    )
    assert straggler.json["spec"]["name"] == "Board Games"


async def test_the_renamed_one_itself_does_not_come_back_under_its_old_slug(api: Api) -> None:
    await api.put(OLD, {**SPEC, "external_id": "e1"})
    await api.post(f"{OLD}/rename", {"slug": "Card-Games"})
    stale = await api.put(OLD, {**SPEC, "external_id": "e1"})
    assert (stale.status, stale.code) == (409, "renamed")
    assert (await api.put(OLD, {**SPEC, "external_id": "e2"})).status == 202


async def test_an_alias_of_before_leads_to_the_renamed_one_until_the_slug_is_taken(api: Api) -> None:
    await api.put(OLD, SPEC)
    await api.post(f"{OLD}/rename", {"slug": "Card-Games"})
    alias = "/tenants/t1/resolve?alias=%23event-board-games-t1:example.org"
    assert (await api.get(alias)).json["slug"] == "Card-Games"
    await api.settle()
    await api.put(OLD, {**SPEC, "name": "Another"})
    assert await api.settle() == 2, "the renamed one has to give its alias up"
    assert (await api.get(alias)).json["slug"] == "Board-Games"
    assert (await api.get(OLD)).json["spec"]["name"] == "Another"
    assert (await api.get(NEW)).json["spec"]["name"] == "Board Games"


async def test_there_and_back_again(api: Api) -> None:
    await api.put(OLD, SPEC)
    await api.post(f"{OLD}/rename", {"slug": "Card-Games"})
    back = await api.post(f"{NEW}/rename", {"slug": "Board-Games"})
    assert (back.status, back.json["slug"]) == (202, "Board-Games")
    assert (await api.get(NEW)).json["detail"] == "This event is called Board-Games now."
    assert (await api.delete(OLD)).status == 202
    # What is deleted keeps no slug.
    assert (await api.get(NEW)).json["detail"] == "There is no such event."


async def test_of_two_that_want_one_slug_at_once_one_gets_it(api: Api) -> None:
    others = [f"/tenants/t1/events/e{number}" for number in range(4)]
    for path in others:
        await api.put(path, SPEC)
    answers = await asyncio.gather(
        *(api.post(f"{path}/rename", {"slug": "wanted"}) for path in others),
        api.put("/tenants/t1/events/wanted", {**SPEC, "external_id": "e1"}),
    )
    renamed = [answer.status for answer in answers[:-1]]
    assert answers[-1].status in (202, 200)
    assert sorted(renamed) in ([202, 409, 409, 409], [409] * 4)
    listed = [item["slug"] for item in (await api.get("/tenants/t1/events")).json["items"]]
    assert len(listed) == len(set(listed)) == len(others) + (0 if 202 in renamed else 1)
    assert "wanted" in listed


async def test_two_that_change_slugs_with_one_another_are_refused_without_a_deadlock(api: Api) -> None:
    await api.put(OLD, SPEC)
    await api.put(NEW, SPEC)
    answers = await asyncio.gather(
        api.post(f"{OLD}/rename", {"slug": "Card-Games"}), api.post(f"{NEW}/rename", {"slug": "Board-Games"})
    )
    assert [answer.code for answer in answers] == ["slug_taken"] * 2
    # By a third slug it can be done.
    await api.post(f"{OLD}/rename", {"slug": "aside"})
    await api.post(f"{NEW}/rename", {"slug": "Board-Games"})
    last = await api.post("/tenants/t1/events/aside/rename", {"slug": "Card-Games"})
    assert last.status == 202


async def test_another_tenants_events_are_not_seen(api: Api, admin: Api) -> None:
    await api.put(OLD, SPEC)
    await api.post(f"{OLD}/rename", {"slug": "Card-Games"})
    await admin.put("/tenants/t2", {"name": "Two"})
    other = "/tenants/t2/events/Board-Games"
    assert (await admin.get(other)).json["detail"] == "There is no such event."
    assert (await admin.put(other, SPEC)).status == 202
    assert (await api.get(OLD)).json["detail"] == "This event is called Card-Games now."
    assert (await api.post(f"{other}/rename", {"slug": "x"})).status == 404
