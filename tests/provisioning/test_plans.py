"""What would be done and why, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from openmeet_appservice.domain.drift import AS_DESIGNED, Bans, Drift, DriftPolicy
from openmeet_appservice.domain.explanation import Explanation
from openmeet_appservice.domain.kinds import EntityKind, Wanted
from openmeet_appservice.domain.plan import plan
from openmeet_appservice.domain.rooms import ActualRoom, DesiredMember, DesiredRoom
from openmeet_appservice.domain.verdict import Memory, judge

from .conftest import BOT, EXPLAINED, Api

SPEC = {"name": "Games", "visibility": "unlisted", "status": "published"}
DESIRED = DesiredRoom(Wanted.OPEN, BOT, name="Games")


def explained(desired: DesiredRoom, actual: ActualRoom, policy: DriftPolicy = AS_DESIGNED) -> Explanation:
    """Return what is said of a room that was brought to *desired* once."""
    right = replace(actual, members={BOT: "join"})
    memory = judge(plan(desired, right), desired, right, Memory("r"), policy, now=0).settled(refused=False)
    return Explanation(desired, actual, judge(plan(desired, actual), desired, actual, memory, policy, now=1))


@pytest.fixture(autouse=True)
def nothing_explained() -> Iterator[None]:
    EXPLAINED.clear()
    yield
    EXPLAINED.clear()


async def test_what_would_be_done_is_told_with_its_reason(api: Api) -> None:
    await api.put("/tenants/t1/events/games", SPEC)
    actual = ActualRoom("!room", "12", {BOT: "join"}, {"m.room.name": {"name": "Party"}})
    EXPLAINED["t1", EntityKind.EVENT, "games"] = explained(DESIRED, actual)
    answer = await api.get("/tenants/t1/events/games/plan")
    assert answer.status == 200
    actions: list[dict[str, Any]] = answer.json["actions"]
    named = next(one for one in actions if one.get("event_type") == "m.room.name")
    assert named == {
        "action": "set_state",
        "event_type": "m.room.name",
        "content": {"name": "Games"},
        "state_key": "",
        "reason": "name differs: 'Party' on Matrix, 'Games' wanted by OpenMeet",
    }
    assert all(one["reason"] for one in actions)
    assert (answer.json["accepted"], answer.json["held"], answer.json["notes"]) == ([], None, [])


async def test_what_is_left_as_it_is_is_told_with_its_reason(api: Api) -> None:
    await api.put("/tenants/t1/groups/club", {**SPEC, "name": "Club"})
    desired = replace(
        DESIRED, members=(DesiredMember("@ada:hs.test"), *(DesiredMember(f"@m{n}:hs.test") for n in range(2)))
    )
    crowd = {f"@x{number}:hs.test": "join" for number in range(30)}
    actual = ActualRoom(
        "!room",
        "12",
        {BOT: "join", "@ada:hs.test": "ban", **crowd},
        {"m.room.name": {"name": "Party"}},
    )
    policy = DriftPolicy(name=Drift.ACCEPT)
    EXPLAINED["t1", EntityKind.GROUP, "club"] = explained(desired, actual, policy)
    answer = (await api.get("/tenants/t1/groups/club/plan")).json
    why = "accepted by rooms.drift.name: name differs: 'Party' on Matrix, 'Games' wanted by OpenMeet"
    assert answer["accepted"] == [{"field": "name", "reason": why}]
    assert answer["held"]["code"] == "mass_removal_held"
    assert (len(answer["held"]["users"]), answer["held"]["members"]) == (30, 30)
    assert [(one["code"], one["subject"]) for one in answer["notes"]] == [("member_banned", "@ada:hs.test")]
    tolerant = replace(policy, bans=Bans.ACCEPT)
    EXPLAINED["t1", EntityKind.GROUP, "club"] = explained(desired, actual, tolerant)
    answer = (await api.get("/tenants/t1/groups/club/plan")).json
    assert answer["notes"] == []
    assert any(one["reason"].startswith("accepted by rooms.drift.bans") for one in answer["accepted"])


async def test_what_is_not_there_has_no_plan(api: Api, admin: Api) -> None:
    assert (await api.get("/tenants/t1/events/nothing/plan")).code == "event_not_found"
    assert (await api.get("/tenants/t1/groups/nothing/plan")).code == "group_not_found"
    assert (await admin.get("/tenants/nobody/events/games/plan")).code == "tenant_not_found"
    await admin.put("/tenants/t2", {"name": "Two"})
    assert (await api.get("/tenants/t2/events/games/plan")).status == 404, "another tenant's"
