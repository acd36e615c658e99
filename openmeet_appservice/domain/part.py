"""Comparing a few members alone, so that a change of one costs the same in a room of ten thousand.

What is known of the room without asking: when the homeserver last agreed with everything, each member was as
was wanted then. So from what a member *was* follows where it is now, and only what does not follow is asked
for. This is a guess that the homeserver judges: whatever it refuses has the whole room compared instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from openmeet_appservice.domain.actions import Action, SetState
from openmeet_appservice.domain.drift import Field
from openmeet_appservice.domain.entitlement import all_join
from openmeet_appservice.domain.findings import Note
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.people import listed_now, plan_people
from openmeet_appservice.domain.power_levels import bot_level, listed_levels
from openmeet_appservice.domain.rooms import (
    ActualRoom,
    DesiredRoom,
    MemberFacts,
    RoomSettings,
    belongs,
    desired_member,
)

POWER = "m.room.power_levels"


@dataclass(frozen=True, slots=True)
class Check:
    """A member who is to be compared.

    Parameters
    ----------
    was, now
        As it was when the homeserver last agreed, and as it is wanted now; None: no member.
    is_known
        Whether *was* says anything: somebody may have moved in the room by another hand.
    """

    user_id: str
    was: MemberFacts | None
    now: MemberFacts | None
    is_known: bool


@dataclass(frozen=True, slots=True)
class Expected:
    """How the room is thought to be, as far as it matters here.

    Parameters
    ----------
    memberships
        By user id, of those whose membership is thought to be known.
    ask
        Those whose membership has to be asked for.
    ask_levels
        Whether the power levels have to be.
    """

    memberships: Mapping[str, str]
    ask: tuple[str, ...]
    ask_levels: bool


@dataclass(frozen=True, slots=True)
class PartPlan:
    """What to do about these members, and what is only reported."""

    actions: tuple[Action, ...]
    notes: tuple[Note, ...]


def expect(
    kind: EntityKind, checks: Sequence[Check], settings: RoomSettings, entitled: int
) -> Expected | None:
    """Say how the room is thought to be; None where the whole has to be compared.

    Parameters
    ----------
    entitled
        How many belong into the room now.

    The whole it must be when so few belong into the room now that everybody joins, and before not; and when
    power levels change that others may change as well, for what they change afterwards is told from what
    OpenMeet wants only by what was remembered then (`verdict.Memory`).
    """
    before = entitled + sum(
        _counts(kind, check.was, settings) - _counts(kind, check.now, settings)
        for check in checks
        if check.is_known
    )
    all_before, all_now = (all_join(settings.join, settings.join_auto_limit, n) for n in (before, entitled))
    if all_now and not all_before:
        return None
    memberships, ask, ask_levels = {}, [], False
    for check in checks:
        then = _wanted(kind, check.was, settings, everybody=all_before)
        now = _wanted(kind, check.now, settings, everybody=all_now)
        ask_levels |= not check.is_known or _level(then) != _level(now)
        if not check.is_known or (check.was is not None and check.was.banned):
            ask.append(check.user_id)
        elif then is None:
            memberships[check.user_id] = "leave"
        elif then[1]:
            memberships[check.user_id] = "join"
        elif now is None or now[1]:
            # May have come to speak.
            ask.append(check.user_id)
    if ask_levels and settings.drift.accepts(Field.POWER_LEVELS):
        return None
    return Expected(memberships, tuple(ask), ask_levels)


def plan_part(desired: DesiredRoom, actual: ActualRoom) -> PartPlan | None:
    """Compare some members; None where the whole has to be compared.

    Parameters
    ----------
    desired, actual
        With nobody but those members; *actual* without power levels where they are not to be changed.
    """
    people = plan_people(desired, actual)
    if people.held is not None:
        return None
    levels: tuple[Action, ...] = ()
    if POWER in actual.state:
        concerned = actual.members.keys() | people.levels.keys() | desired.banned
        listed = listed_now(actual)
        others = {user: level for user, level in listed.items() if user not in concerned}
        own = {desired.bot: bot_level(actual.version)} if desired.bot in listed else {}
        wanted = listed_levels(actual.version, {**others, **people.levels}, {**people.fixed, **own})
        if wanted.left_out:
            return None
        if dict(wanted.users) != listed:
            levels = (SetState(POWER, {**actual.content(POWER), "users": dict(wanted.users)}),)
    return PartPlan((*levels, *people.departures, *people.arrivals), people.notes)


def plan_admission(desired: DesiredRoom, actual: ActualRoom) -> PartPlan:
    """Plan how the members of *desired* are let in at once, whatever is said of when they join."""
    members = tuple(replace(member, joins=True) for member in desired.members)
    people = plan_people(replace(desired, members=members), actual)
    return PartPlan(people.arrivals, people.notes)


def _counts(kind: EntityKind, member: MemberFacts | None, settings: RoomSettings) -> int:
    return int(member is not None and belongs(kind, member, settings))


def _wanted(
    kind: EntityKind, member: MemberFacts | None, settings: RoomSettings, *, everybody: bool
) -> tuple[int, bool] | None:
    """Return level and whether somebody joins at once; None for who does not belong into the room."""
    if member is None or not belongs(kind, member, settings):
        return None
    desired = desired_member(member, settings, everybody=everybody)
    return desired.power_level, desired.joins


def _level(wanted: tuple[int, bool] | None) -> int:
    return 0 if wanted is None else wanted[0]
