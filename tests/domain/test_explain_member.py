"""What is said of one person and one room, case by case."""

from __future__ import annotations

from dataclasses import replace

import pytest

from openmeet_appservice.domain.entitlement import may_chat
from openmeet_appservice.domain.explain_member import Case, Membership, Reason, Seen, Trouble, advice, why
from openmeet_appservice.domain.kinds import DEFAULT_CHAT_STATUSES, ROLES, AttendeeStatus, EntityKind, Wanted
from openmeet_appservice.domain.people import CAME_BACK
from openmeet_appservice.domain.rooms import MemberFacts

BOT, ADA = "@bot:x", "@ada:x"
INSIDE = Case(
    kind=EntityKind.EVENT,
    slug="games",
    user="ada",
    wanted=Wanted.OPEN,
    has_room=True,
    user_id=ADA,
    registered=True,
    member=MemberFacts(ADA, "participant"),
    joins=True,
    chat_statuses=DEFAULT_CHAT_STATUSES,
    seen=Seen(Membership.JOIN),
    settled=True,
    trouble=None,
    room_trouble=None,
    bot=BOT,
)
OUTSIDE = replace(INSIDE, seen=Seen(Membership.NONE))


def test_all_is_well() -> None:
    assert (INSIDE.reason, advice(INSIDE)) == (Reason.MEMBER, ())
    assert why(INSIDE) == "ada is listed as participant with the status confirmed, and may chat."


@pytest.mark.parametrize("kind", EntityKind)
@pytest.mark.parametrize("status", [None, *AttendeeStatus])
def test_it_says_what_the_rule_says(kind: EntityKind, status: AttendeeStatus | None) -> None:
    for role in ROLES[kind]:
        case = replace(INSIDE, kind=kind, member=MemberFacts(ADA, role, status))
        allowed = may_chat(kind, role, status, DEFAULT_CHAT_STATUSES)
        assert (case.reason is Reason.MEMBER) is allowed


@pytest.mark.parametrize(
    ("case", "reason", "words", "to_do"),
    [
        (
            replace(OUTSIDE, user_id=None, member=None),
            "unknown_user",
            "never named",
            "whether the slug is right",
        ),
        (replace(OUTSIDE, member=None), "not_listed", "not on the event's list", "PUT the member"),
        (
            replace(OUTSIDE, member=MemberFacts(ADA, "host", banned=True)),
            "banned",
            "as banned",
            "banned false",
        ),
        (
            replace(OUTSIDE, member=MemberFacts(ADA, "host", AttendeeStatus.PENDING)),
            "status_may_not_chat",
            "the status pending; those who may chat: attended, cancelled, confirmed",
            "a status that may chat",
        ),
        (
            replace(OUTSIDE, kind=EntityKind.GROUP, member=MemberFacts(ADA, "guest")),
            "role_may_not_chat",
            "the role guest",
            "another role",
        ),
        (replace(OUTSIDE, wanted=Wanted.NONE), "no_room_wanted", "not published", "Publish the event"),
        (replace(INSIDE, member=None), "not_listed", "not on", "will be removed"),
    ],
)
def test_who_does_not_belong_there(case: Case, reason: str, words: str, to_do: str) -> None:
    assert case.reason == reason
    assert words in why(case)
    assert to_do in " ".join(advice(case))


@pytest.mark.parametrize(
    ("case", "to_do"),
    [
        (replace(OUTSIDE, has_room=False), "not made yet"),
        (replace(OUTSIDE, joins=False), "joins with the first message"),
        (replace(OUTSIDE, settled=False), "Wait"),
        (OUTSIDE, "compared again"),
        (replace(OUTSIDE, seen=Seen(Membership.UNKNOWN)), "did not say"),
        (replace(OUTSIDE, seen=Seen(Membership.BAN, by="@mod:x")), "A moderator (@mod:x)"),
        (replace(OUTSIDE, seen=Seen(Membership.BAN, by=BOT, reason=CAME_BACK)), "coming back"),
        (replace(OUTSIDE, seen=Seen(Membership.BAN, by=BOT)), "for OpenMeet"),
        (replace(INSIDE, member=MemberFacts(ADA, "host", muted=True)), "may only read"),
        (replace(OUTSIDE, trouble=Trouble("member_refused", "no", 1)), "refused about this user"),
        (replace(OUTSIDE, room_trouble=Trouble("alias_taken", "no", 1)), "degraded (alias_taken)"),
    ],
)
def test_what_to_do_for_who_belongs_there(case: Case, to_do: str) -> None:
    assert case.reason is Reason.MEMBER
    assert to_do in " ".join(advice(case))
