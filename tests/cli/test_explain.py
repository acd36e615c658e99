"""`explain`: what it prints and what it ends with."""

from __future__ import annotations

from typing import Any

import pytest

from openmeet_appservice.cli.explaining import lines, needs_hand
from openmeet_appservice.domain.explain_member import Membership
from openmeet_appservice.provisioning.explaining import MemberExplanation

from .conftest import Cli
from .test_admin_commands import add_event, in_database

AT = "2026-11-22T19:00:00.000Z"


def explanation(**more: Any) -> MemberExplanation:
    return MemberExplanation.model_validate(
        {
            "tenant": "t1",
            "kind": "event",
            "slug": "games",
            "user": "ada",
            "entitled": True,
            "reason": "member",
            "why": "ada is listed as host, and may chat.",
            "joins": "at_once",
            "identity": {"kind": "puppet", "user_id": "@ada:x", "registered": False},
            "room_id": "!room",
            "membership": {
                "state": "leave",
                "by": "@mod:x",
                "at": "2026-11-22T19:00:00.000Z",
                "reason": "spam",
            },
            "last_invitation": None,
            "last_error": {"code": "member_refused", "detail": "No", "at": AT},
            "advice": ["Wait."],
            **more,
        }
    )


def test_everything_is_in_its_lines() -> None:
    assert lines(explanation()) == [
        "entitled    yes (member)",
        "why         ada is listed as host, and may chat.",
        "identity    puppet @ada:x, whose account is not made yet",
        "joins       at once",
        "room        !room",
        "membership  leave by @mod:x at 2026-11-22T19:00:00.000Z (spam)",
        "last error  member_refused at 2026-11-22T19:00:00.000Z: No",
        "to do       Wait.",
    ]
    assert lines(explanation(identity=None, advice=[]))[2] == "identity    none"
    assert lines(explanation(advice=[]))[-1] == "to do       nothing"


@pytest.mark.parametrize(
    ("entitled", "joins", "state", "expected"),
    [
        (True, "at_once", Membership.JOIN, False),
        (True, "at_once", Membership.UNKNOWN, True),
        (True, "at_once", Membership.BAN, True),
        (True, "when_speaking", Membership.NONE, False),
        (False, None, Membership.NONE, False),
        (False, None, Membership.JOIN, True),
    ],
)
def test_when_somebody_has_to_do_something(
    entitled: bool, joins: str | None, state: Membership, expected: bool
) -> None:
    membership = {"state": state, "by": None, "at": None, "reason": None}
    assert needs_hand(explanation(entitled=entitled, joins=joins, membership=membership)) is expected


def test_of_an_event_in_the_database(migrated: Cli) -> None:
    migrated("tenant", "add", "t1")
    in_database(migrated, add_event)
    shown = migrated("explain", "T1", "event", "board-games", "nobody", "--json")
    assert (shown.code, shown.json["reason"], shown.json["room_id"]) == (0, "unknown_user", None)
    text = migrated("explain", "t1", "event", "BOARD-GAMES", "nobody")
    assert (text.code, text.out.splitlines()[0]) == (0, "entitled    no (unknown_user)")


def test_what_does_not_exist_is_wrong_usage(migrated: Cli) -> None:
    assert migrated("explain", "t1", "event", "e1", "ada").code == 2
    migrated("tenant", "add", "t1")
    ran = migrated("explain", "t1", "event", "e1", "ada")
    assert (ran.code, ran.out) == (2, "")
    assert "event" in ran.err
    assert migrated("explain", "t1", "meeting", "e1", "ada").code == 2
    assert migrated("explain", "--help").code == 0
