"""What OpenMeet's own chat code gets wrong about members, fault by fault: none of it may happen here.

The numbers are those of the list of faults that this service was built from.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from openmeet_appservice.domain.actions import Action, Invite, Join, Kick, SetState
from openmeet_appservice.domain.entitlement import may_chat
from openmeet_appservice.domain.kinds import (
    DEFAULT_CHAT_STATUSES,
    DEFAULT_POWER_LEVELS,
    Access,
    AttendeeStatus,
    EntityKind,
    EntityStatus,
    Visibility,
)
from openmeet_appservice.domain.part import POWER, Check, expect, plan_part
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

BOT, ADA, BEN, EVE = "@bot:x", "@ada:x", "@ben:x", "@eve:x"
SETTINGS = RoomSettings(
    alias="{kind}-{slug}-{tenant}",
    private_alias=False,
    version=None,
    federate=False,
    access=Access.MEMBERS,
    power_levels=DEFAULT_POWER_LEVELS,
    chat_statuses=DEFAULT_CHAT_STATUSES,
)
HOST = MemberFacts(ADA, "host")


def desired(*members: MemberFacts, kind: EntityKind = EntityKind.EVENT) -> DesiredRoom:
    facts = EntityFacts(kind, "Games", EntityStatus.PUBLISHED, Visibility.PUBLIC, "#a:x", has_room=True)
    return desired_room(facts, members, SETTINGS, bot=BOT, default_version="12")


def made(wanted: DesiredRoom) -> ActualRoom:
    room = None
    for _ in range(2):
        for action in plan(wanted, room).actions:
            room = apply_action(room, action, wanted)
    assert room is not None
    return room


def changed(before: DesiredRoom, after: DesiredRoom) -> tuple[Action, ...]:
    return plan(after, made(before)).actions


def power(users: dict[str, int], actions: tuple[Action, ...]) -> bool:
    """Whether *actions* write the power levels once, with these users."""
    written = [a for a in actions if isinstance(a, SetState) and a.event_type == POWER]
    return [action.content["users"] for action in written] == [users]


def test_fault_23_who_joins_without_the_right_to_is_removed() -> None:
    room = made(desired(HOST))
    room = replace(room, members={**room.members, EVE: "join"})
    [action] = plan(desired(HOST), room).actions
    assert isinstance(action, Kick)
    assert (action.user_id, action.reason) == (EVE, "Not a member on OpenMeet (any more)")


@pytest.mark.parametrize("after", [None, MemberFacts(BEN, "moderator", AttendeeStatus.REJECTED)])
def test_fault_24_who_leaves_or_is_rejected_loses_place_and_power(after: MemberFacts | None) -> None:
    before = desired(HOST, MemberFacts(BEN, "moderator"))
    actions = changed(before, desired(HOST, *([after] if after else [])))
    assert power({ADA: 100}, actions)
    assert [action.user_id for action in actions if isinstance(action, Kick)] == [BEN]


def test_fault_24_who_is_demoted_loses_the_power() -> None:
    actions = changed(desired(HOST, MemberFacts(BEN, "moderator")), desired(HOST, MemberFacts(BEN, "guest")))
    assert power({ADA: 100}, actions)
    assert len(actions) == 1


@pytest.mark.parametrize("status", AttendeeStatus)
def test_fault_26_only_the_statuses_that_may_chat_come_in_and_have_power(status: AttendeeStatus) -> None:
    actions = changed(desired(HOST), desired(HOST, MemberFacts(BEN, "moderator", status)))
    if status in DEFAULT_CHAT_STATUSES:
        assert power({ADA: 100, BEN: 50}, actions)
        assert actions[1:] == (Invite(BEN), Join(BEN))
    else:
        assert actions == ()


def test_fault_27_who_only_applied_to_a_group_is_not_invited() -> None:
    group = EntityKind.GROUP
    owner = MemberFacts(ADA, "owner")
    assert changed(desired(owner, kind=group), desired(owner, MemberFacts(BEN, "guest"), kind=group)) == ()


def test_fault_35_who_had_access_already_is_not_invited_again() -> None:
    was, now = (MemberFacts(BEN, "participant", AttendeeStatus(one)) for one in ("confirmed", "attended"))
    assert changed(desired(HOST, was), desired(HOST, now)) == ()
    check = Check(BEN, was, now, is_known=True)
    expected = expect(EntityKind.EVENT, [check], SETTINGS, 2)
    assert expected is not None
    assert (expected.ask, expected.ask_levels) == ((), False)
    room = ActualRoom("!r", "12", expected.memberships)
    found = plan_part(desired(now), room)
    assert found is not None
    assert found.actions == ()


@pytest.mark.parametrize("allowed", [True, False])
def test_fault_36_one_rule_decides_whether_an_answer_of_no_may_chat_on(allowed: bool) -> None:
    statuses = DEFAULT_CHAT_STATUSES if allowed else DEFAULT_CHAT_STATUSES - {AttendeeStatus.CANCELLED}
    settings = replace(SETTINGS, chat_statuses=statuses)
    said_no = MemberFacts(BEN, "participant", AttendeeStatus.CANCELLED)
    facts = EntityFacts(
        EntityKind.EVENT, "Games", EntityStatus.PUBLISHED, Visibility.PUBLIC, "#a:x", has_room=True
    )
    after = desired_room(facts, [HOST, said_no], settings, bot=BOT, default_version="12")
    actions = changed(desired(HOST, MemberFacts(BEN, "participant")), after)
    assert [type(action) for action in actions] == ([] if allowed else [Kick])
    assert plan(after, made(after)).actions == ()


@pytest.mark.parametrize("status", [None, *AttendeeStatus])
def test_fault_37_the_statuses_that_may_chat_are_the_same_everywhere(status: AttendeeStatus | None) -> None:
    member = MemberFacts(BEN, "participant", status)
    allowed = may_chat(EntityKind.EVENT, member.role, status, SETTINGS.chat_statuses)
    assert belongs(EntityKind.EVENT, member, SETTINGS) is allowed
    assert bool(desired(member).members) is allowed
    expected = expect(EntityKind.EVENT, [Check(BEN, member, None, is_known=True)], SETTINGS, 0)
    assert expected is not None
    assert expected.memberships == {BEN: "join" if allowed else "leave"}


def test_fault_38_whom_an_organiser_approves_comes_in() -> None:
    asked, approved = (MemberFacts(BEN, "participant", AttendeeStatus(s)) for s in ("pending", "confirmed"))
    assert changed(desired(HOST, asked), desired(HOST, approved)) == (Invite(BEN), Join(BEN))
    # The group's creator, and whoever becomes its owner, are members like any other.
    group = EntityKind.GROUP
    owners = MemberFacts(ADA, "member"), MemberFacts(BEN, "owner")
    actions = changed(desired(MemberFacts(ADA, "owner"), kind=group), desired(*owners, kind=group))
    assert power({BEN: 100}, actions)
    assert actions[1:] == (Invite(BEN), Join(BEN))


def test_fault_39_a_role_that_changes_changes_the_power_at_once_and_in_one_event() -> None:
    before = desired(HOST, MemberFacts(BEN, "participant"), MemberFacts(EVE, "moderator"))
    after = desired(HOST, MemberFacts(BEN, "moderator"), MemberFacts(EVE, "participant"))
    actions = changed(before, after)
    assert len(actions) == 1
    assert power({ADA: 100, BEN: 50}, actions)


def test_fault_53_one_more_participant_leaves_the_power_levels_alone() -> None:
    assert changed(desired(HOST), desired(HOST, MemberFacts(BEN, "participant"))) == (Invite(BEN), Join(BEN))
    check = Check(BEN, None, MemberFacts(BEN, "participant"), is_known=True)
    expected = expect(EntityKind.EVENT, [check], SETTINGS, 10_000)
    assert expected is not None
    assert not expected.ask_levels, "they are not even read"
