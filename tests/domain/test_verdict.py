"""What is remembered between comparisons, and in which words it is told what differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openmeet_appservice.domain.actions import (
    Action,
    Ban,
    CreateRoom,
    DeleteAlias,
    Invite,
    JoinBot,
    Kick,
    PutAlias,
    SetDirectoryVisibility,
    SetState,
    Unban,
)
from openmeet_appservice.domain.drift import AS_DESIGNED, Drift, DriftPolicy, Field
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.plan import plan
from openmeet_appservice.domain.reasons import reason
from openmeet_appservice.domain.rooms import ActualRoom, DesiredMember, DesiredRoom
from openmeet_appservice.domain.verdict import MAX_CORRECTIONS, WINDOW_MS, Memory, judge, read_memory

from .conftest import Apply

BOT = "@bot:hs.test"
ADA = "@ada:hs.test"
NOW = 1_790_000_000_000
DESIRED = DesiredRoom(Wanted.OPEN, BOT, name="Board games", alias="#games:hs.test", listed=True)


def made(apply: Apply, desired: DesiredRoom) -> ActualRoom:
    """Return the room as the plan makes it."""
    actual: ActualRoom | None = None
    for _ in range(3):
        for action in plan(desired, actual).actions:
            actual = apply(actual, action, desired)
    assert actual is not None
    return actual


def remembered(desired: DesiredRoom, actual: ActualRoom, *, refused: bool = False) -> Memory:
    verdict = judge(plan(desired, actual), desired, actual, Memory("r"), AS_DESIGNED, now=NOW)
    return verdict.settled(refused=refused)


def renamed(actual: ActualRoom, name: str = "Party") -> ActualRoom:
    return replace(actual, state={**actual.state, "m.room.name": {"name": name}})


def test_a_memory_is_of_one_room() -> None:
    memory = Memory("r", {"name": "x"}, {"topic": "y"}, {"name": (NOW,)})
    assert read_memory(memory.to_text(), "r") == memory
    assert read_memory(memory.to_text(), "another") == Memory("another")
    assert read_memory(None, "r") == Memory("r")


def test_a_room_that_is_closed_is_closed_again_whatever_the_policy(apply: Apply) -> None:
    closed = DesiredRoom(Wanted.CLOSED, BOT)
    actual = made(apply, DESIRED)
    for action in plan(closed, actual).actions:
        actual = apply(actual, action, closed)
    memory = remembered(closed, actual)
    opened = replace(actual, state={**actual.state, "m.room.join_rules": {"join_rule": "public"}})
    policy = DriftPolicy(join_rule=Drift.ACCEPT)
    verdict = judge(plan(closed, opened), closed, opened, memory, policy, now=NOW)
    assert [step.field for step in verdict.steps] == [Field.JOIN_RULE]
    assert verdict.corrected == {Field.JOIN_RULE}


def test_a_fight_rests_after_five_rounds_and_begins_anew_an_hour_later(apply: Apply) -> None:
    actual = made(apply, DESIRED)
    memory, written = remembered(DESIRED, actual), 0
    for minute in range(30):
        other = renamed(actual)
        now = NOW + minute * 60_000
        verdict = judge(plan(DESIRED, other), DESIRED, other, memory, AS_DESIGNED, now=now)
        written += len(verdict.plan.actions)
        memory = verdict.settled(refused=False)
    assert written == MAX_CORRECTIONS
    assert [note.code for note in verdict.plan.notes] == ["drift_contested"]
    later = NOW + WINDOW_MS
    verdict = judge(plan(DESIRED, other), DESIRED, other, memory, AS_DESIGNED, now=later)
    assert len(verdict.plan.actions) == 1, "the first is an hour ago"
    assert verdict.plan.notes == ()


def test_it_is_counted_before_anything_is_done(apply: Apply) -> None:
    actual = made(apply, DESIRED)
    other = renamed(actual)
    memory = remembered(DESIRED, actual)
    verdict = judge(plan(DESIRED, other), DESIRED, other, memory, AS_DESIGNED, now=NOW)
    assert verdict.counted.corrections == {"name": (NOW,)}
    assert verdict.counted.said == memory.said
    calm = judge(plan(DESIRED, actual), DESIRED, actual, memory, AS_DESIGNED, now=NOW)
    assert calm.counted == calm.settled(refused=False) == memory, "nothing is to be stored"


def test_an_accepted_change_is_told_of_once(apply: Apply) -> None:
    actual = made(apply, DESIRED)
    policy = DriftPolicy(name=Drift.ACCEPT)
    memory = remembered(DESIRED, actual)
    told = []
    for name in ("Party", "Party", "Another party", "Another party"):
        other = renamed(actual, name)
        verdict = judge(plan(DESIRED, other), DESIRED, other, memory, policy, now=NOW)
        told.append(set(verdict.newly_accepted))
        memory = verdict.settled(refused=False)
    assert told == [{Field.NAME}, set(), {Field.NAME}, set()]


def test_people_who_could_not_be_let_in_are_no_drift(apply: Apply) -> None:
    desired = replace(DESIRED, members=(DesiredMember(ADA),))
    actual = replace(made(apply, DESIRED), members={BOT: "join", ADA: "leave"})
    memory = remembered(desired, actual, refused=True)
    verdict = judge(plan(desired, actual), desired, actual, memory, AS_DESIGNED, now=NOW)
    assert [step.is_drift for step in verdict.steps] == [False, False]


def test_what_the_bot_had_no_power_for_is_not_said_yet(apply: Apply) -> None:
    desired = replace(DESIRED, version="11", topic="Bring dice")
    actual = made(apply, replace(desired, topic=""))
    levels = {"users": {BOT: 10, ADA: 100}, "events": {}, "state_default": 50}
    actual = replace(actual, state={**actual.state, "m.room.power_levels": levels})
    policy = DriftPolicy(topic=Drift.ACCEPT)
    verdict = judge(plan(desired, actual), desired, actual, Memory("r"), policy, now=NOW)
    assert verdict.plan.actions == ()
    [note] = [note for note in verdict.plan.notes if note.code == "bot_demoted"]
    assert ADA in note.detail
    given_back = replace(actual, state={**actual.state, "m.room.power_levels": {"users": {BOT: 100}}})
    memory = verdict.settled(refused=False)
    verdict = judge(plan(desired, given_back), desired, given_back, memory, policy, now=NOW)
    assert Field.TOPIC in {step.field for step in verdict.steps}, "OpenMeet's word was never brought about"
    assert verdict.accepted == ()


def test_an_alias_that_was_taken_is_not_said_yet(apply: Apply) -> None:
    policy = DriftPolicy(aliases=Drift.ACCEPT)
    bare = made(apply, replace(DESIRED, alias=None))
    taken = replace(bare, aliases=frozenset(), alias_target="!other")
    verdict = judge(plan(DESIRED, taken), DESIRED, taken, Memory("r"), policy, now=NOW)
    memory = verdict.settled(refused=False)
    free = replace(taken, alias_target=None)
    verdict = judge(plan(DESIRED, free), DESIRED, free, memory, policy, now=NOW)
    assert PutAlias("#games:hs.test") in verdict.plan.actions


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (
            SetState("m.room.name", {"name": "Board games"}),
            "name differs: 'Party' on Matrix, 'Board games' wanted by OpenMeet",
        ),
        (
            SetState("m.room.topic", {"topic": "x" * 100}),
            f"topic differs: nothing on Matrix, '{'x' * 78}… wanted by OpenMeet",
        ),
        (
            SetState("m.room.join_rules", {"join_rule": "invite"}),
            "join rule differs: 'public' on Matrix, 'invite' wanted by OpenMeet",
        ),
        (
            SetState("m.room.canonical_alias", {"alias": "#games:hs.test"}),
            "canonical alias differs in alt_aliases",
        ),
        (
            SetState("m.room.power_levels", {"users": {ADA: 100}, "events": {}, "invite": 50}),
            f"power levels differ: {ADA} none instead of 100; @eve:hs.test 50 instead of none; "
            "invite 0 instead of 50",
        ),
        (
            SetState("net.openmeet.odd", {"a": 1}),
            "net.openmeet.odd differs: {} on Matrix, {'a': 1} wanted by OpenMeet",
        ),
        (
            SetDirectoryVisibility(True),
            "directory differs: 'not listed' on Matrix, 'listed' wanted by OpenMeet",
        ),
        (PutAlias("#games:hs.test"), "wanted by OpenMeet, and leads nowhere on Matrix"),
        (DeleteAlias("#old:hs.test"), "leads to the room on Matrix, not wanted by OpenMeet"),
        (DeleteAlias("#games:hs.test"), "it leads to a room that is history"),
        (JoinBot(), "the bot is not in the room"),
        (CreateRoom(None, {}), "there is no room yet"),
        (Invite(ADA), "belongs into the room, and is on Matrix: leave"),
        (Invite("@new:hs.test"), "belongs into the room, and is on Matrix: not in the room"),
        (Kick("@eve:hs.test", ""), "does not belong into the room, and is on Matrix: join"),
        (Ban("@eve:hs.test", ""), "banned on OpenMeet, and is on Matrix: join"),
        (Unban("@eve:hs.test"), "banned by the bot, and no longer on OpenMeet"),
    ],
)
def test_reasons(action: Action, words: str) -> None:
    actual = ActualRoom(
        "!room",
        members={BOT: "join", ADA: "leave", "@eve:hs.test": "join"},
        state={
            "m.room.name": {"name": "Party"},
            "m.room.join_rules": {"join_rule": "public"},
            "m.room.canonical_alias": {"alias": "#games:hs.test", "alt_aliases": ["#x:hs.test"]},
            "m.room.power_levels": {"users": {"@eve:hs.test": 50}, "invite": 0},
        },
    )
    assert reason(action, DESIRED, actual) == words


def test_many_differing_levels_are_not_all_named() -> None:
    users = {f"@u{number}:hs.test": 50 for number in range(20)}
    action = SetState("m.room.power_levels", {"users": users})
    assert reason(action, DESIRED, ActualRoom("!room")).endswith("; and 15 more")


def test_the_dry_run_says_why(apply: Apply) -> None:
    actual = made(apply, DESIRED)
    memory = remembered(DESIRED, actual)
    other = renamed(actual)
    why = "name differs: 'Party' on Matrix, 'Board games' wanted by OpenMeet"
    verdict = judge(plan(DESIRED, other), DESIRED, other, memory, AS_DESIGNED, now=NOW)
    [action] = verdict.to_json()["actions"]
    assert (action["action"], action["reason"]) == ("set_state", why)
    assert verdict.describe() == (f"set m.room.name to {{'name': 'Board games'}}  ({why})",)
    policy = DriftPolicy(name=Drift.ACCEPT)
    verdict = judge(plan(DESIRED, other), DESIRED, other, memory, policy, now=NOW)
    expected: list[dict[str, Any]] = [{"field": "name", "reason": f"accepted by rooms.drift.name: {why}"}]
    assert verdict.to_json() == {"actions": [], "held": None, "notes": [], "accepted": expected}
    assert verdict.describe() == (f"left as it is: accepted by rooms.drift.name: {why}",)
