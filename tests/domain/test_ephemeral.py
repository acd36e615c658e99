"""Typing and receipts: the newest of each, within limits, whatever comes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.domain import ephemeral
from openmeet_appservice.domain.ephemeral import Receipt, RoomUpdate, Updates

ADA, BOB = "@ada:example.org", "@bob:example.org"


def typing(room: str, *users: Any) -> dict[str, Any]:
    return {"type": "m.typing", "room_id": room, "content": {"user_ids": list(users)}}


def receipt(
    room: str, event: str, user: str, ts: Any = 1, kind: str = "m.read", **more: Any
) -> dict[str, Any]:
    content = {event: {kind: {user: {"ts": ts, **more}}}}
    return {"type": "m.receipt", "room_id": room, "content": content}


def read(*elements: Any) -> dict[str, RoomUpdate]:
    updates = Updates()
    updates.read(elements)
    return dict(updates.items())


def test_the_newest_typing_state_of_each_room_is_kept() -> None:
    found = read(typing("!a", ADA), typing("!b", BOB), typing("!a", ADA, BOB), typing("!b"))
    assert {room: update.typing for room, update in found.items()} == {"!a": (ADA, BOB), "!b": ()}


def test_the_newest_receipt_of_each_person_type_and_thread_is_kept() -> None:
    found = read(
        receipt("!a", "$1", ADA, 1),
        receipt("!a", "$2", ADA, 2),
        # Late, and older.
        receipt("!a", "$0", ADA, 0),
        receipt("!a", "$1", BOB, 1),
        receipt("!a", "$3", ADA, 3, "m.read.private"),
        receipt("!a", "$4", ADA, 4, thread_id="$thread"),
    )
    assert list(found["!a"].receipts.values()) == [
        Receipt("$2", "m.read", ADA, 2, None),
        Receipt("$1", "m.read", BOB, 1, None),
        Receipt("$3", "m.read.private", ADA, 3, None),
        Receipt("$4", "m.read", ADA, 4, "$thread"),
    ]
    assert found["!a"].typing is None


def test_one_event_may_hold_many_receipts() -> None:
    content = {
        "$1": {"m.read": {ADA: {"ts": 1}, BOB: {"ts": 2}}, "m.read.private": {ADA: {"ts": 3}}},
        "$2": {"m.read": {BOB: {"ts": 9}}},
    }
    found = read({"type": "m.receipt", "room_id": "!a", "content": content})
    assert [(r.event_id, r.receipt_type, r.user_id) for r in found["!a"].receipts.values()] == [
        ("$1", "m.read", ADA),
        ("$1", "m.read.private", ADA),
        ("$2", "m.read", BOB),
    ]


@pytest.mark.parametrize(
    "element",
    [
        None,
        7,
        [],
        {},
        {"type": "m.presence", "sender": ADA, "content": {"presence": "online"}},
        {"type": "m.typing", "content": {"user_ids": [ADA]}},
        {"type": "m.typing", "room_id": 5, "content": {"user_ids": [ADA]}},
        {"type": "m.typing", "room_id": "!a"},
        {"type": "m.typing", "room_id": "!a", "content": []},
        {"type": "m.typing", "room_id": "!a", "content": {"user_ids": ADA}},
        {"type": "m.typing", "room_id": "!\0", "content": {"user_ids": [ADA]}},
        {"type": "m.typing", "room_id": "!\ud800", "content": {"user_ids": [ADA]}},
        {"type": "m.typing", "room_id": "!" + "x" * 255, "content": {"user_ids": [ADA]}},
        {"type": "m.receipt", "room_id": "!a", "content": {"$1": []}},
        {"type": "m.receipt", "room_id": "!a", "content": {"$1": {"m.read": 7}}},
        {"type": "m.receipt", "room_id": "!a", "content": {"$1": {"m.read": {ADA: 7}}}},
        receipt("!a", "$1", ADA, None),
        receipt("!a", "$1", ADA, "1"),
        receipt("!a", "$1", ADA, True),
        receipt("!a", "$1", ADA, -1),
        receipt("!a", "$1", ADA, 2**80),
        receipt("!a", "", ADA, 1),
        receipt("!a", "$1", "\udcff", 1),
    ],
)
def test_nonsense_is_passed_over_and_what_follows_is_read(element: Any) -> None:
    assert list(read(element, typing("!b", ADA))) == ["!b"]


def test_among_people_typing_only_nonsense_is_passed_over() -> None:
    assert read(typing("!a", 7, ADA, None, {}, BOB))["!a"].typing == (ADA, BOB)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "room_id", "content", "user_ids", "ts", "m.read", "$1", ADA]), inner
        )
    ),
    max_leaves=12,
)


@given(st.lists(ANYTHING, max_size=4), st.sampled_from(["m.typing", "m.receipt"]), ANYTHING)
def test_nothing_that_json_can_hold_is_too_strange(elements: list[Any], kind: str, content: Any) -> None:
    read(*elements, {"type": kind, "room_id": "!a", "content": content})


def test_a_room_s_update_stays_small() -> None:
    users = [f"@u{n}:example.org" for n in range(ephemeral.MOST_IN_ROOM + 5)]
    found = read(typing("!a", *users), *(receipt("!a", "$1", user) for user in users))["!a"]
    assert len(found.typing or ()) == ephemeral.MOST_IN_ROOM
    # The newest stay.
    assert [r.user_id for r in found.receipts.values()] == users[5:]


def test_beyond_the_limit_the_oldest_rooms_go_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ephemeral, "MOST_KEPT", 10)
    updates = Updates()
    updates.read([typing(f"!{n}", ADA) for n in range(7)])
    assert [room for room, _ in updates.items()] == ["!2", "!3", "!4", "!5", "!6"]
    assert updates.dropped == 2
    updates.read([typing("!2", ADA, BOB)])
    assert [room for room, _ in updates.items()] == ["!3", "!4", "!5", "!6"]
