"""What is known of a room without asking, and what follows for a few of its members."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.domain.actions import Action, SetState
from openmeet_appservice.domain.drift import Drift, DriftPolicy
from openmeet_appservice.domain.kinds import (
    DEFAULT_CHAT_STATUSES,
    DEFAULT_POWER_LEVELS,
    Access,
    AttendeeStatus,
    EntityKind,
    EntityStatus,
    JoinPolicy,
    Visibility,
)
from openmeet_appservice.domain.part import POWER, Check, Expected, expect, plan_part
from openmeet_appservice.domain.plan import plan
from openmeet_appservice.domain.rooms import (
    ActualRoom,
    DesiredRoom,
    EntityFacts,
    MemberFacts,
    RoomSettings,
    belongs,
    desired_room,
)

from .conftest import apply_action

BOT = "@bot:hs.test"
SETTINGS = RoomSettings(
    alias="{kind}-{slug}-{tenant}",
    private_alias=False,
    version=None,
    federate=False,
    access=Access.MEMBERS,
    power_levels=DEFAULT_POWER_LEVELS,
    chat_statuses=DEFAULT_CHAT_STATUSES,
)
LAZY = replace(SETTINGS, join=JoinPolicy.LAZY)


def member(role: str | None, *, banned: bool = False) -> MemberFacts | None:
    return None if role is None else MemberFacts("@ada:hs.test", role, banned=banned)


@pytest.mark.parametrize(
    ("was", "now", "settings", "membership", "asked", "levels"),
    [
        (None, "participant", SETTINGS, "leave", False, False),
        (None, "host", SETTINGS, "leave", False, True),
        ("participant", None, SETTINGS, "join", False, False),
        ("moderator", None, SETTINGS, "join", False, True),
        ("participant", "host", SETTINGS, "join", False, True),
        ("host", "owner", SETTINGS, "join", False, False),
        # Nobody knows whether a lazy member came to speak; mostly nobody has to.
        (None, "participant", LAZY, "leave", False, False),
        ("participant", "guest", LAZY, None, False, False),
        ("participant", None, LAZY, None, True, False),
        ("participant", "host", LAZY, None, True, True),
        ("host", "participant", LAZY, "join", False, True),
    ],
)
def test_what_is_known_of_one(
    was: str | None,
    now: str | None,
    settings: RoomSettings,
    membership: str | None,
    asked: bool,
    levels: bool,
) -> None:
    check = Check("@ada:hs.test", member(was), member(now), is_known=True)
    memberships = {} if membership is None else {"@ada:hs.test": membership}
    ask = ("@ada:hs.test",) if asked else ()
    assert expect(EntityKind.EVENT, [check], settings, 9) == Expected(memberships, ask, levels)


def test_of_whom_nothing_is_known_is_asked_for() -> None:
    check = Check("@ada:hs.test", None, member("participant"), is_known=False)
    found = expect(EntityKind.EVENT, [check], SETTINGS, 9)
    assert found == Expected({}, ("@ada:hs.test",), ask_levels=True)


def test_who_was_banned_is_asked_for() -> None:
    check = Check("@ada:hs.test", member("participant", banned=True), member("participant"), is_known=True)
    found = expect(EntityKind.EVENT, [check], SETTINGS, 9)
    assert found is not None
    assert found.ask == ("@ada:hs.test",)


@pytest.mark.parametrize(("limit", "whole"), [(8, False), (9, True), (10, False)])
def test_when_so_few_are_left_that_all_join_the_whole_is_compared(limit: int, whole: bool) -> None:
    check = Check("@ada:hs.test", member("participant"), None, is_known=True)
    settings = replace(SETTINGS, join_auto_limit=limit)
    assert (expect(EntityKind.EVENT, [check], settings, 9) is None) is whole


def test_where_people_may_change_levels_it_is_the_whole_that_tells_whose_change_it_is() -> None:
    accepting = replace(SETTINGS, drift=DriftPolicy(power_levels=Drift.ACCEPT))
    promoted = Check("@ada:hs.test", member("participant"), member("host"), is_known=True)
    assert expect(EntityKind.EVENT, [promoted], accepting, 9) is None
    added = Check("@ada:hs.test", None, member("participant"), is_known=True)
    assert expect(EntityKind.EVENT, [added], accepting, 9) is not None


def test_other_people_s_levels_and_the_rest_of_the_event_stay() -> None:
    desired = _desired([MemberFacts("@ada:hs.test", "speaker")], LAZY)
    levels = {"users": {"@zoe:hs.test": 100, BOT: 100}, "ban": 50, "odd": 7}
    actual = ActualRoom("!r", "11", {"@ada:hs.test": "join"}, {POWER: levels})
    found = plan_part(desired, actual)
    assert found is not None
    assert found.actions == (
        SetState(POWER, {**levels, "users": {"@zoe:hs.test": 100, "@ada:hs.test": 25, BOT: 100}}),
    )


def _desired(members: list[MemberFacts], settings: RoomSettings, entitled: int | None = None) -> DesiredRoom:
    facts = EntityFacts(
        EntityKind.EVENT, "Games", EntityStatus.PUBLISHED, Visibility.PUBLIC, "#a:hs.test", has_room=True
    )
    return desired_room(facts, members, settings, bot=BOT, default_version="12", entitled=entitled)


standings = st.builds(
    lambda role, status, banned, muted: (role, status, banned, muted),
    st.sampled_from(["host", "moderator", "speaker", "participant"]),
    st.sampled_from([None, AttendeeStatus.CONFIRMED, AttendeeStatus.WAITLIST]),
    st.booleans(),
    st.booleans(),
)
lists = st.dictionaries(st.sampled_from([f"@u{n}:hs.test" for n in range(8)]), standings)


@given(
    before=lists,
    after=lists,
    policy=st.sampled_from(JoinPolicy),
    limit=st.integers(0, 8),
    spoken=st.frozensets(st.sampled_from([f"@u{n}:hs.test" for n in range(8)])),
    access=st.sampled_from(Access),
)
def test_comparing_the_changed_does_as_much_as_comparing_all(
    before: dict[str, tuple[str, AttendeeStatus | None, bool, bool]],
    after: dict[str, tuple[str, AttendeeStatus | None, bool, bool]],
    policy: JoinPolicy,
    limit: int,
    spoken: frozenset[str],
    access: Access,
) -> None:
    settings = replace(SETTINGS, join=policy, join_auto_limit=limit, access=access)
    was = {user: MemberFacts(user, *standing) for user, standing in before.items()}
    now = {user: MemberFacts(user, *standing) for user, standing in after.items()}
    first = _desired(list(was.values()), settings)
    room = _made(first)
    for user in spoken & {m.user_id for m in first.members}:
        if room.members.get(user) != "join":
            room = replace(room, members={**room.members, user: "join"})
    checks = [
        Check(user, was.get(user), now.get(user), is_known=True)
        for user in sorted(was.keys() | now.keys())
        if was.get(user) != now.get(user)
    ]
    entitled = sum(belongs(EntityKind.EVENT, m, settings) for m in now.values())
    expected = expect(EntityKind.EVENT, checks, settings, entitled)
    if expected is None:
        return
    for user, membership in expected.memberships.items():
        assert room.members.get(user, "leave") == membership
    changed = [check.now for check in checks if check.now is not None]
    seen = replace(
        room,
        members={**expected.memberships, **{u: room.members.get(u, "leave") for u in expected.ask}},
        state={POWER: room.state[POWER]} if expected.ask_levels else {},
    )
    steps = plan_part(_desired(changed, settings, entitled), seen)
    assert steps is not None
    whole = _desired(list(now.values()), settings)
    room = _applied(room, steps.actions, whole)
    assert plan(whole, room).actions == ()


def _made(desired: DesiredRoom) -> ActualRoom:
    room = None
    for _ in range(2):
        for action in plan(desired, room).actions:
            room = apply_action(room, action, desired)
    assert room is not None
    everybody = [f"@u{n}:hs.test" for n in range(8)]
    return replace(room, ours=frozenset(everybody))


def _applied(room: ActualRoom, actions: tuple[Action, ...], desired: DesiredRoom) -> ActualRoom:
    for action in actions:
        room = apply_action(room, action, desired)
    return room
