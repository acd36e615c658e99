from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.domain.entitlement import may_chat
from openmeet_appservice.domain.kinds import (
    DEFAULT_CHAT_STATUSES,
    DEFAULT_POWER_LEVELS,
    DEFAULT_ROLE,
    ROLES,
    STATUSES,
    Access,
    AttendeeStatus,
    EntityKind,
    EntityStatus,
    Visibility,
    Wanted,
)
from openmeet_appservice.domain.rooms import (
    DesiredMember,
    DesiredRoom,
    EntityFacts,
    MemberFacts,
    RoomSettings,
    desired_room,
    shortened,
)

BOT = "@bot:hs.test"
ALIAS = "#event-games-t1:hs.test"
EVENT = EntityFacts(
    kind=EntityKind.EVENT,
    name="Board games",
    status=EntityStatus.PUBLISHED,
    visibility=Visibility.PUBLIC,
    alias=ALIAS,
)
SETTINGS = RoomSettings(
    alias="{kind}-{slug}-{tenant}",
    private_alias=False,
    version=None,
    federate=False,
    access=Access.MEMBERS,
    power_levels=DEFAULT_POWER_LEVELS,
    chat_statuses=DEFAULT_CHAT_STATUSES,
)


def derive(entity: EntityFacts, *members: MemberFacts, settings: RoomSettings = SETTINGS) -> DesiredRoom:
    return desired_room(entity, members, settings, bot=BOT, default_version="12")


@pytest.mark.parametrize(
    ("visibility", "access", "join_rule", "listed", "alias", "private"),
    [
        (Visibility.PUBLIC, Access.ANYONE, "public", True, ALIAS, False),
        (Visibility.PUBLIC, Access.MEMBERS, "invite", True, ALIAS, False),
        (Visibility.UNLISTED, Access.ANYONE, "public", False, ALIAS, False),
        (Visibility.UNLISTED, Access.MEMBERS, "invite", False, ALIAS, False),
        (Visibility.PRIVATE, Access.MEMBERS, "invite", False, None, True),
        (Visibility.PRIVATE, Access.ANYONE, "invite", False, None, True),
    ],
)
def test_who_may_be_inside(
    visibility: Visibility,
    access: Access,
    join_rule: str,
    listed: bool,
    alias: str | None,
    private: bool,
) -> None:
    by_entity = derive(replace(EVENT, visibility=visibility, access=access))
    by_settings = derive(replace(EVENT, visibility=visibility), settings=replace(SETTINGS, access=access))
    for room in (by_entity, by_settings):
        assert (room.join_rule, room.listed, room.alias, room.private) == (
            join_rule,
            listed,
            alias,
            private,
        )


def test_the_entity_says_more_than_the_settings() -> None:
    open_settings = replace(SETTINGS, access=Access.ANYONE)
    room = derive(replace(EVENT, access=Access.MEMBERS), settings=open_settings)
    assert room.join_rule == "invite"


def test_private_alias() -> None:
    private = replace(EVENT, visibility=Visibility.PRIVATE)
    assert derive(private, settings=replace(SETTINGS, private_alias=True)).alias == ALIAS


@pytest.mark.parametrize(
    ("status", "archived", "has_room", "wanted"),
    [
        ("draft", False, False, "none"),
        ("pending", False, False, "none"),
        ("draft", False, True, "closed"),
        ("pending", False, True, "closed"),
        ("published", False, False, "open"),
        ("published", False, True, "open"),
        ("cancelled", False, True, "open"),
        ("published", True, True, "closed"),
        ("published", True, False, "none"),
    ],
)
def test_what_is_wanted(status: str, archived: bool, has_room: bool, wanted: str) -> None:
    facts = replace(EVENT, status=EntityStatus(status), archived=archived, has_room=has_room)
    room = derive(facts, MemberFacts("@ada:hs.test", "host"))
    assert room.wanted == Wanted(wanted)
    if room.wanted is not Wanted.OPEN:
        assert (room.alias, room.listed, room.join_rule, room.members) == (None, False, "invite", ())


def test_version() -> None:
    assert derive(EVENT).version == "12"
    assert derive(EVENT, settings=replace(SETTINGS, version="11")).version == "11"


def test_members_and_their_power() -> None:
    room = derive(
        EVENT,
        MemberFacts("@h:x", "host"),
        MemberFacts("@s:x", "speaker", AttendeeStatus.ATTENDED),
        MemberFacts("@p:x", "participant"),
        MemberFacts("@w:x", "host", AttendeeStatus.WAITLIST),
    )
    assert room.members == (
        DesiredMember("@h:x", 100),
        DesiredMember("@s:x", 25),
        DesiredMember("@p:x", 0),
    )


@pytest.mark.parametrize(
    ("entity", "topic"),
    [
        (replace(EVENT), ""),
        (replace(EVENT, topic="Dice", description="Every Friday"), "Dice"),
        (replace(EVENT, topic="", description=" Every Friday\n"), "Every Friday"),
        (replace(EVENT, status=EntityStatus.CANCELLED), "Cancelled."),
        (replace(EVENT, status=EntityStatus.CANCELLED, topic="Dice"), "Cancelled. Dice"),
    ],
)
def test_topic(entity: EntityFacts, topic: str) -> None:
    assert derive(entity).topic == topic


def test_long_and_untidy_texts() -> None:
    room = derive(replace(EVENT, name="Board\n games \t" + "ü" * 200, description="d" * 5000))
    assert room.name.startswith("Board games üü")
    assert room.name.endswith("ü…")
    assert 253 <= len(room.name.encode()) <= 255
    assert room.topic == "d" * 1997 + "…"


@given(text=st.text(), limit=st.integers(3, 40))
def test_shortened(text: str, limit: int) -> None:
    short = shortened(text, limit)
    assert len(short.encode()) <= limit
    assert short == text or (short.endswith("…") and text.startswith(short[:-1]))


@pytest.mark.parametrize("status", [None, *AttendeeStatus])
def test_events_go_by_status(status: AttendeeStatus | None) -> None:
    expected = status in {None, "confirmed", "attended", "cancelled"}
    for role in ROLES[EntityKind.EVENT]:
        assert may_chat(EntityKind.EVENT, role, status, DEFAULT_CHAT_STATUSES) is expected


def test_chat_statuses_are_the_tenants_choice() -> None:
    chosen = frozenset({AttendeeStatus.MAYBE})
    assert may_chat(EntityKind.EVENT, "guest", AttendeeStatus.MAYBE, chosen)
    assert not may_chat(EntityKind.EVENT, "host", None, chosen)


@pytest.mark.parametrize("status", [None, *AttendeeStatus])
def test_groups_go_by_role(status: AttendeeStatus | None) -> None:
    for role in ROLES[EntityKind.GROUP]:
        expected = role != "guest"
        assert may_chat(EntityKind.GROUP, role, status, DEFAULT_CHAT_STATUSES) is expected


def test_words() -> None:
    assert EntityStatus.CANCELLED in STATUSES[EntityKind.EVENT]
    assert EntityStatus.CANCELLED not in STATUSES[EntityKind.GROUP]
    for kind in EntityKind:
        assert DEFAULT_ROLE[kind] in ROLES[kind]
    assert set(DEFAULT_POWER_LEVELS) <= {role for roles in ROLES.values() for role in roles}
