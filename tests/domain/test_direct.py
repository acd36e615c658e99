"""Direct rooms: slugs, what is done when, and ``m.direct``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.domain.actions import (
    CreateRoom,
    DeleteAlias,
    Invite,
    Join,
    Leave,
    MarkDirect,
    SetState,
)
from openmeet_appservice.domain.direct import desired_direct, direct_slug, with_marks
from openmeet_appservice.domain.entitlement import may_chat
from openmeet_appservice.domain.findings import Note
from openmeet_appservice.domain.kinds import Access, EntityKind, EntityStatus, Visibility, Wanted
from openmeet_appservice.domain.plan import Plan, plan
from openmeet_appservice.domain.rooms import (
    ActualRoom,
    DesiredRoom,
    EntityFacts,
    MemberFacts,
    RoomSettings,
)

BOT, ADA, BOB = "@bot:hs.test", "@ada:hs.test", "@bob:hs.test"
SETTINGS = RoomSettings(
    alias="",
    private_alias=True,
    version=None,
    federate=False,
    access=Access.ANYONE,
    power_levels={},
    chat_statuses=frozenset(),
)
PAIR = EntityFacts(EntityKind.DIRECT, "", EntityStatus.PUBLISHED, Visibility.PRIVATE, None)
WHOLE: dict[str, Mapping[str, Any]] = {
    "m.room.power_levels": {"users": {}},
    "m.room.join_rules": {"join_rule": "invite"},
    "m.room.history_visibility": {"history_visibility": "shared"},
    "m.room.guest_access": {"guest_access": "forbidden"},
}


def desired(
    *puppets: str, entity: EntityFacts = PAIR, version: str = "12", settings: RoomSettings = SETTINGS
) -> DesiredRoom:
    both = [MemberFacts(BOB, "member"), MemberFacts(ADA, "member")]
    return desired_direct(entity, both, puppets, settings, bot=BOT, default_version=version)


def actual(ada: str | None = "join", bob: str | None = "join", **more: Any) -> ActualRoom:
    members = {user: how for user, how in ((ADA, ada), (BOB, bob)) if how is not None}
    room = ActualRoom("!r", version="12", members=members, state=WHOLE, marked=frozenset({ADA, BOB}))
    return replace(room, **more)


slugs = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,8}", fullmatch=True)


@given(slugs, slugs)
def test_the_slug_is_the_same_in_either_order_and_case(one: str, other: str) -> None:
    slug = direct_slug(one, other)
    assert direct_slug(other.upper(), one.lower()).lower() == slug.lower()
    assert sorted(slug.split("~")) == sorted([one, other])


def test_the_slug_is_sorted_without_regard_to_case() -> None:
    assert direct_slug("bob", "Ada") == direct_slug("Ada", "bob") == "Ada~bob"
    assert direct_slug("Zoe", "al_x") == "al_x~Zoe"
    assert direct_slug("ada-2", "ada") == "ada~ada-2"


def test_nothing_but_their_being_the_two_decides_who_may_chat() -> None:
    assert may_chat(EntityKind.DIRECT, "member", None, frozenset())


@pytest.mark.parametrize("version", ["11", "12"])
def test_the_first_puppet_makes_the_room_and_both_own_it(version: str) -> None:
    [create] = plan(desired(BOB, ADA, version=version), None).actions
    assert isinstance(create, CreateRoom)
    assert (create.as_user, create.alias_localpart) == (ADA, None)
    request = create.request("c" * 16)
    assert request["is_direct"] is True
    assert (request["invite"], request["visibility"]) == ([BOB], "private")
    assert "name" not in request
    assert "topic" not in request
    levels = request["power_level_content_override"]["users"]
    if version == "12":
        assert request["creation_content"]["additional_creators"] == [BOB]
        assert levels == {}
    else:
        assert "additional_creators" not in request["creation_content"]
        assert levels == {ADA: 100, BOB: 100}
    state = {event["type"]: event["content"] for event in request["initial_state"]}
    assert state["m.room.join_rules"] == {"join_rule": "invite"}
    assert state["m.room.canonical_alias"] == {}
    assert "m.room.encryption" not in state


def test_the_puppet_makes_the_room_when_the_other_has_an_account_of_its_own() -> None:
    [create] = plan(desired(BOB), None).actions
    assert isinstance(create, CreateRoom)
    assert (create.as_user, create.content["invite"]) == (BOB, [ADA])


def test_without_a_puppet_nothing_can_be_done() -> None:
    for room in (None, actual()):
        found = plan(desired(), room)
        assert found.actions == ()
        assert [note.code for note in found.notes] == ["direct_needs_puppet"]


def test_encryption_follows_the_tenant_unless_the_room_says_otherwise() -> None:
    by_default = replace(SETTINGS, encrypted=True)
    assert desired(ADA, settings=by_default).encrypted
    assert not desired(ADA, settings=by_default, entity=replace(PAIR, encrypted=False)).encrypted
    assert desired(ADA, entity=replace(PAIR, encrypted=True)).encrypted


def test_a_whole_room_needs_nothing_and_what_its_owners_made_of_it_stays() -> None:
    assert plan(desired(ADA, BOB), actual()) == Plan()
    theirs = {
        **WHOLE,
        "m.room.name": {"name": "Us"},
        "m.room.join_rules": {"join_rule": "knock"},
        "m.room.power_levels": {"users": {"@friend:x": 100}},
    }
    assert plan(desired(ADA, BOB), actual(state=theirs)) == Plan()


def test_what_synapse_left_half_made_is_finished() -> None:
    room = actual(
        bob=None,
        state={"m.room.create": {}},
        marked=frozenset(),
        version="11",
        aliases=frozenset({"#_openmeet_c:hs.test"}),
    )
    found = plan(desired(ADA, BOB, entity=replace(PAIR, encrypted=True)), room)
    assert found.actions == (
        DeleteAlias("#_openmeet_c:hs.test"),
        SetState("m.room.power_levels", {"users": {ADA: 100, BOB: 100}, "invite": 50}, as_user=ADA),
        SetState("m.room.join_rules", {"join_rule": "invite"}, as_user=ADA),
        SetState("m.room.history_visibility", {"history_visibility": "shared"}, as_user=ADA),
        SetState("m.room.guest_access", {"guest_access": "forbidden"}, as_user=ADA),
        SetState("m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}, as_user=ADA),
        Invite(BOB, by=ADA),
        Join(BOB),
        MarkDirect(ADA, marked=True),
        MarkDirect(BOB, marked=True),
    )


@pytest.mark.parametrize(
    ("ada", "bob", "actions"),
    [
        ("join", "invite", (Join(BOB),)),
        ("join", "leave", (Invite(BOB, by=ADA), Join(BOB))),
        ("leave", "join", (Invite(ADA, by=BOB), Join(ADA))),
        ("leave", "leave", (Join(ADA), Join(BOB))),
        (None, None, (Join(ADA), Join(BOB))),
    ],
)
def test_both_puppets_stay_inside(ada: str | None, bob: str | None, actions: tuple[Any, ...]) -> None:
    assert plan(desired(ADA, BOB), actual(ada, bob)).actions == actions


@pytest.mark.parametrize(
    ("ada", "actions"), [(None, (Invite(ADA, by=BOB),)), ("invite", ()), ("leave", ()), ("join", ())]
)
def test_who_has_an_account_is_invited_once_and_may_leave(ada: str | None, actions: tuple[Any, ...]) -> None:
    assert plan(desired(BOB), actual(ada, marked=frozenset({BOB}))).actions == actions


def test_whoever_the_other_banned_is_reported() -> None:
    found = plan(desired(ADA, BOB), actual(bob="ban"))
    assert found.actions == ()
    assert found.notes == (Note("member_banned", "belongs into the room but is banned from it", BOB),)


def test_an_archived_room_is_left_the_invited_first() -> None:
    archived = desired(ADA, BOB, entity=replace(PAIR, archived=True, has_room=True))
    assert archived.wanted is Wanted.CLOSED
    room = actual(ada="join", bob="invite", marked=frozenset({ADA}))
    assert plan(archived, room).actions == (MarkDirect(ADA, marked=False), Leave(BOB), Leave(ADA))
    assert plan(archived, actual("leave", "leave", marked=frozenset())) == Plan()
    assert plan(desired(ADA, entity=replace(PAIR, archived=True)), None) == Plan()


def test_m_direct_is_merged() -> None:
    before = {"@x:y": ["!1"], BOB: ["!old", "!theirs"], "odd": 3, "@empty:y": []}
    merged = with_marks(before, {BOB: {"!new"}}, {"!old"})
    assert merged == {"@x:y": ["!1"], BOB: ["!theirs", "!new"], "odd": 3, "@empty:y": []}
    assert with_marks(merged, {BOB: {"!new"}}, {"!old"}) == merged
    assert with_marks({BOB: ["!old"]}, {}, {"!old"}) == {}
    assert with_marks({BOB: "odd"}, {BOB: {"!new"}}, set()) == {BOB: ["!new"]}


rooms = st.lists(st.sampled_from([f"!{n}" for n in range(6)]), unique=True)
people = st.sampled_from([f"@{name}:x" for name in "abc"])


@given(st.dictionaries(people, rooms), st.dictionaries(people, rooms), rooms)
def test_nothing_of_others_is_ever_lost_from_m_direct(
    before: dict[str, list[str]], wanted: dict[str, list[str]], gone: list[str]
) -> None:
    gone = [room for room in gone if not any(room in listed for listed in wanted.values())]
    merged = with_marks(before, wanted, gone)
    for user, listed in before.items():
        assert set(listed) - set(gone) <= set(merged.get(user, []))
    for user, listed in wanted.items():
        assert set(listed) <= set(merged.get(user, []))
    assert not any(room in gone for listed in merged.values() for room in listed)
    assert with_marks(merged, wanted, gone) == merged
