"""Which events are noticed, and which never."""

from __future__ import annotations

from typing import Any

import pytest

from openmeet_appservice.domain.drift import DriftPolicy, Field, Touch, is_drift, touch_of

BOT = "@bot:hs.test"
ADA = "@ada:hs.test"


def member(membership: str, before: str | None = None, **unsigned: Any) -> dict[str, Any]:
    event: dict[str, Any] = {
        "type": "m.room.member",
        "state_key": ADA,
        "content": {"membership": membership},
    }
    if before is not None:
        event["unsigned"] = {"prev_content": {"membership": before}, **unsigned}
    return event


@pytest.mark.parametrize(
    ("event_type", "field"),
    [
        ("m.room.name", Field.NAME),
        ("m.room.topic", Field.TOPIC),
        ("m.room.avatar", Field.AVATAR),
        ("m.room.canonical_alias", Field.ALIASES),
        ("m.room.join_rules", Field.JOIN_RULE),
        ("m.room.power_levels", Field.POWER_LEVELS),
        ("m.room.history_visibility", Field.HISTORY),
        ("m.room.guest_access", Field.GUESTS),
        ("m.room.encryption", Field.ENCRYPTION),
        ("m.room.tombstone", Field.TOMBSTONE),
    ],
)
def test_state_that_is_seen_to_is_noticed(event_type: str, field: Field) -> None:
    assert touch_of({"type": event_type, "state_key": "", "content": {}}) == Touch(field)


@pytest.mark.parametrize(
    "event",
    [
        {"type": "m.room.message", "content": {"body": "hello"}},
        {"type": "m.room.name", "content": {"name": "no state event"}},
        {"type": "m.room.name", "state_key": "other", "content": {"name": "not the room's"}},
        {"type": "m.room.name", "state_key": 7},
        {"type": 7, "state_key": ""},
        {"type": "m.room.pinned_events", "state_key": "", "content": {}},
        {"type": "m.room.member", "content": {"membership": "join"}},
        {},
    ],
)
def test_the_rest_is_not(event: dict[str, Any]) -> None:
    assert touch_of(event) is None


@pytest.mark.parametrize(
    ("before", "now", "touch"),
    [
        (None, "join", Touch(Field.MEMBERS, joins=True)),
        ("leave", "join", Touch(Field.MEMBERS, joins=True)),
        ("join", "join", None),
        ("join", "leave", Touch(Field.MEMBERS)),
        (None, "invite", Touch(Field.MEMBERS)),
        ("join", "ban", Touch(Field.BANS)),
        ("ban", "leave", Touch(Field.BANS)),
        ("ban", "ban", None),
    ],
)
def test_members_who_come_and_go_are_noticed_and_new_names_are_not(
    before: str | None, now: str, touch: Touch | None
) -> None:
    assert touch_of(member(now, before)) == touch


def test_what_was_before_stands_in_either_place() -> None:
    older = {**member("join"), "prev_content": {"membership": "join"}}
    assert touch_of(older) is None
    assert touch_of({**member("join"), "unsigned": 7, "prev_content": "odd"}) is not None


def test_what_the_bot_sends_is_no_drift() -> None:
    assert not is_drift(Touch(Field.NAME), sender=BOT, bot=BOT, is_ours=False)
    assert is_drift(Touch(Field.NAME), sender=ADA, bot=BOT, is_ours=False)


def test_a_puppet_that_comes_in_is_no_drift_and_one_that_goes_is() -> None:
    came, went = Touch(Field.MEMBERS, joins=True), Touch(Field.MEMBERS)
    assert not is_drift(came, sender=ADA, bot=BOT, is_ours=True)
    assert is_drift(went, sender=ADA, bot=BOT, is_ours=True)


def test_an_invitation_of_ours_that_is_taken_up_is_no_drift() -> None:
    taken = touch_of(member("join", "invite", prev_sender=BOT))
    assert taken is not None
    assert not is_drift(taken, sender=ADA, bot=BOT, is_ours=False)
    others = touch_of(member("join", "invite", prev_sender="@eve:hs.test"))
    assert others is not None
    assert is_drift(others, sender=ADA, bot=BOT, is_ours=False)
    turned_down = touch_of(member("leave", "invite", prev_sender=BOT))
    assert turned_down is not None
    assert is_drift(turned_down, sender=ADA, bot=BOT, is_ours=False)


def test_what_has_no_setting_is_always_set_right() -> None:
    policy = DriftPolicy()
    assert not any(policy.accepts(field) for field in Field)
