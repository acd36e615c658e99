"""Adopted rooms: whatever is wanted, nobody is removed and nobody has less power than before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from openmeet_appservice.domain.actions import Ban, Kick, SetState
from openmeet_appservice.domain.adoption import power_of
from openmeet_appservice.domain.guarded import raised_levels
from openmeet_appservice.domain.plan import plan
from openmeet_appservice.domain.power_levels import MAX_USERS_BYTES
from openmeet_appservice.domain.rooms import ActualRoom, DesiredRoom

from .conftest import Apply
from .test_plan_properties import BOT, USERS, actual_rooms, desired_rooms

POWER = "m.room.power_levels"


@given(desired=desired_rooms(), actual=actual_rooms())
@settings(deadline=None)
def test_nobody_is_removed_or_lowered(desired: DesiredRoom, actual: ActualRoom) -> None:
    guarded = replace(desired, guarded=True, banned=frozenset(USERS[:3]))
    found = plan(guarded, actual)
    before = actual.content(POWER)
    assert found.held is None
    for action in found.actions:
        assert not isinstance(action, Kick | Ban)
        if isinstance(action, SetState) and action.event_type == POWER:
            for user in USERS:
                assert power_of(user, action.content) >= power_of(user, before)
            rest = {name: value for name, value in action.content.items() if name != "users"}
            assert rest == {name: value for name, value in before.items() if name != "users"}


@given(desired=desired_rooms(), actual=actual_rooms())
@settings(deadline=None)
def test_it_ends(desired: DesiredRoom, actual: ActualRoom, apply: Apply) -> None:
    guarded = replace(desired, guarded=True)
    # No room is adopted in which the bot has no power.
    levels = {"users": {BOT: 100} if actual.version == "11" else {}}
    target = "!room" if guarded.alias in actual.aliases else None
    room: ActualRoom | None = replace(actual, alias_target=target, state={POWER: levels, **actual.state})
    for _ in range(4):
        for action in plan(guarded, room).actions:
            room = apply(room, action, guarded)
    assert plan(guarded, room).actions == ()


def room(content: dict[str, Any], version: str = "11") -> ActualRoom:
    return ActualRoom("!room", version=version, state={POWER: content})


def test_only_who_is_to_have_more_is_raised() -> None:
    content = {"users": {"@bot": 100, "@a": 50, "@b": 10, "@odd": "50"}, "users_default": 5, "kick": 1}
    found = raised_levels(room(content), {"@a": 25, "@b": 50, "@c": 0, "@d": -1, "@e": 100})
    assert found.content == {
        "users": {"@bot": 100, "@a": 50, "@b": 50, "@odd": "50", "@e": 99},
        "users_default": 5,
        "kick": 1,
    }
    assert found.left_out == ()
    assert raised_levels(room(content), {"@a": 25, "@c": 5}).content is None
    assert raised_levels(room({}), {"@a": 0}).content is None


@given(st.integers(1000, 3000))
@settings(deadline=None, max_examples=5)
def test_the_event_never_becomes_too_large(number: int) -> None:
    levels = {f"@user-with-a-long-name-{n}:hs.test": 50 for n in range(number)} | {"@host": 99}
    found = raised_levels(room({"users": {"@bot": 100}}), levels)
    assert found.content is not None
    assert len(str(found.content["users"])) <= MAX_USERS_BYTES + 2
    assert found.content["users"]["@host"] == 99
    assert len(found.left_out) + len(found.content["users"]) == number + 2
