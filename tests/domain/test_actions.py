from __future__ import annotations

import json
from dataclasses import replace
from typing import get_args

import pytest

from openmeet_appservice.domain.actions import (
    Action,
    Ban,
    CreateRoom,
    DeleteAlias,
    Invite,
    Join,
    JoinBot,
    Kick,
    Leave,
    MarkDirect,
    PutAlias,
    SetDirectoryVisibility,
    SetState,
    Unban,
)
from openmeet_appservice.domain.findings import Held, Note
from openmeet_appservice.domain.plan import Plan

CLAIM = "c0ffeec0ffeec0ffee"
CREATE = CreateRoom(
    "event-games-t1",
    {
        "name": "Board games",
        "room_version": "12",
        "creation_content": {"m.federate": False},
        "initial_state": [{"type": "m.room.join_rules", "content": {"join_rule": "invite"}}],
    },
)
ONE_OF_EACH: list[Action] = [
    CREATE,
    JoinBot(),
    SetState("m.room.name", {"name": "Board games"}),
    PutAlias("#a:hs.test"),
    DeleteAlias("#a:hs.test"),
    SetDirectoryVisibility(listed=True),
    Invite("@ada:hs.test"),
    Join("@ada:hs.test"),
    Kick("@ada:hs.test", "because"),
    Ban("@ada:hs.test", "because"),
    Unban("@ada:hs.test"),
    Leave("@ada:hs.test"),
    MarkDirect("@ada:hs.test", marked=True),
]


def test_all_kinds_are_here() -> None:
    assert {type(action) for action in ONE_OF_EACH} == set(get_args(Action))


@pytest.mark.parametrize("action", ONE_OF_EACH, ids=lambda action: action.name)
def test_shown_to_people_and_programs(action: Action) -> None:
    assert json.loads(json.dumps(action.to_json()))["action"] == action.name
    assert "\n" not in action.describe()


def test_request_with_a_public_alias() -> None:
    request = CREATE.request(CLAIM)
    assert request["room_alias_name"] == "event-games-t1"
    assert request["creation_content"] == {"m.federate": False, "net.openmeet.claim": CLAIM}
    assert request["initial_state"] == CREATE.content["initial_state"]


def test_request_without_a_public_alias() -> None:
    request = replace(CREATE, alias_localpart=None).request(CLAIM)
    assert request["room_alias_name"] == f"_openmeet_{CLAIM}"
    assert request["initial_state"][-1] == {
        "type": "m.room.canonical_alias",
        "state_key": "",
        "content": {},
    }


def test_a_request_leaves_the_action_as_it_was() -> None:
    before = json.dumps(CREATE.to_json())
    replace(CREATE, alias_localpart=None).request(CLAIM)
    CREATE.request(CLAIM)
    assert json.dumps(CREATE.to_json()) == before


def test_a_plan_is_shown_whole() -> None:
    shown = Plan(
        (JoinBot(),),
        Held(("@ada:hs.test",), 3),
        (Note("alias_taken", "points to !other", "#a:hs.test"), Note("power_levels_full", "full")),
    )
    assert len(shown.describe()) == 4
    assert json.loads(json.dumps(shown.to_json())) == {
        "actions": [{"action": "join_bot"}],
        "held": {"code": "mass_removal_held", "users": ["@ada:hs.test"], "members": 3},
        "notes": [
            {"code": "alias_taken", "detail": "points to !other", "subject": "#a:hs.test"},
            {"code": "power_levels_full", "detail": "full"},
        ],
    }


def test_a_successor_names_its_predecessor() -> None:
    content = CREATE.request(CLAIM, {"room_id": "!old"})["creation_content"]
    assert content["predecessor"] == {"room_id": "!old"}
    assert "predecessor" not in CREATE.request(CLAIM)["creation_content"]
