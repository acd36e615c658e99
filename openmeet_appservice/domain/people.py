"""The part of the plan that is about people: who comes, who goes, who has which power."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from openmeet_appservice.domain.actions import Action, Ban, Invite, Join, Kick, Unban
from openmeet_appservice.domain.findings import Held, Note
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.power_levels import bot_level, supports_creator_power
from openmeet_appservice.domain.rooms import ActualRoom, DesiredRoom

HELD_ABOVE_PEOPLE: Final = 20
HELD_ABOVE_PERCENT: Final = 20
NOT_A_MEMBER: Final = "Not a member on OpenMeet (any more)"
BANNED: Final = "Banned on OpenMeet"
BANNED_BEFORE: Final = "Banned in the room that this one replaces"
"""Why the bot bans whom a moderator had banned before: it is the moderator's ban as much as before."""

CAME_BACK: Final = "Not a member on OpenMeet, and came back again and again"
ROOM_CLOSED: Final = "This room has been closed"

_INSIDE: Final = frozenset({"join", "invite"})


@dataclass(frozen=True, slots=True)
class People:
    """What is to be done about people, and the power levels they end with.

    *fixed* are the levels that the bot cannot change.
    """

    departures: tuple[Kick | Ban, ...]
    arrivals: tuple[Action, ...]
    levels: Mapping[str, int]
    fixed: Mapping[str, int]
    held: Held | None
    notes: tuple[Note, ...]


def plan_people(desired: DesiredRoom, actual: ActualRoom) -> People:
    """Compare who belongs into the room with who is in it or invited.

    A ban of the bot's is taken back when OpenMeet lists the person without one; a ban that a moderator
    made is kept, and reported where a member has it. Where anyone may join, only puppets are removed;
    strangers are welcome there. There, who comes back again and again is banned, until that person belongs
    into the room. Removing more than 20 people and more than 20 % of those inside at once is held until
    confirmed, except when the room is closed; who is held keeps the power level. From a guarded room nobody
    is removed.
    """
    entitled = entitled_levels(desired)
    stuck = _out_of_reach(desired, actual)
    banned = _to_be_banned(desired, actual, stuck)
    leaving = _leaving(desired, actual, entitled, stuck)
    held = _held(desired, actual, leaving)
    levels = dict(entitled)
    if desired.guarded:
        held, banned, leaving = None, (), ()
    if held is not None:
        listed = listed_now(actual)
        levels |= {user: listed[user] for user in leaving if user in listed}
        banned = tuple(user for user in banned if user not in leaving)
        leaving = ()
    reason = NOT_A_MEMBER if desired.wanted is Wanted.OPEN else ROOM_CLOSED
    arrivals, notes = _arrivals(desired, actual, entitled)
    return People(
        departures=(
            *(_removal(desired, actual, user, reason) for user in leaving if user not in banned),
            *(Ban(user, BANNED) for user in banned),
        ),
        arrivals=arrivals,
        levels=levels,
        fixed=stuck,
        held=held,
        notes=notes if desired.guarded else (*notes, *_stuck_notes(stuck, entitled)),
    )


def entitled_levels(desired: DesiredRoom) -> dict[str, int]:
    """The power level of everybody who belongs into the room; of two for one user id the higher."""
    levels: dict[str, int] = {}
    for member in desired.members:
        if member.user_id != desired.bot:
            known = levels.get(member.user_id, member.power_level)
            levels[member.user_id] = max(known, member.power_level)
    return levels


def comers(desired: DesiredRoom) -> frozenset[str]:
    """Those who join at once."""
    return frozenset(member.user_id for member in desired.members if member.joins)


def listed_now(actual: ActualRoom) -> dict[str, int]:
    """The power levels that the room lists now."""
    users = actual.content("m.room.power_levels").get("users")
    if not isinstance(users, Mapping):
        return {}
    return {user: level for user, level in users.items() if isinstance(level, int)}


def _out_of_reach(desired: DesiredRoom, actual: ActualRoom) -> dict[str, int]:
    """Those whom the bot can neither lower nor remove: they are its equals."""
    if supports_creator_power(actual.version):
        return {}
    own = bot_level(actual.version)
    return {user: level for user, level in listed_now(actual).items() if level >= own and user != desired.bot}


def _to_be_banned(desired: DesiredRoom, actual: ActualRoom, stuck: Mapping[str, int]) -> tuple[str, ...]:
    """Return whom to ban; a room that is closed needs none."""
    if desired.wanted is not Wanted.OPEN:
        return ()
    return tuple(
        user
        for user in sorted(desired.banned - {desired.bot})
        if actual.members.get(user) != "ban" and user not in stuck
    )


def _leaving(
    desired: DesiredRoom,
    actual: ActualRoom,
    entitled: Mapping[str, int],
    stuck: Mapping[str, int],
) -> tuple[str, ...]:
    strangers_may_stay = desired.join_rule == "public"
    return tuple(
        user
        for user, membership in sorted(actual.members.items())
        if membership in _INSIDE
        and user != desired.bot
        and user not in entitled
        and user not in stuck
        and (user in actual.ours or user in desired.banned or not strangers_may_stay)
    )


def _removal(desired: DesiredRoom, actual: ActualRoom, user: str, reason: str) -> Kick | Ban:
    # Where one has to be invited, whoever does so is to blame.
    may_return = desired.wanted is Wanted.OPEN and desired.join_rule == "public"
    came = user in actual.came
    if user in actual.returners and may_return:
        return Ban(user, CAME_BACK, came)
    return Kick(user, reason, came, counted=may_return)


def _held(desired: DesiredRoom, actual: ActualRoom, leaving: tuple[str, ...]) -> Held | None:
    if desired.removals_confirmed or desired.wanted is not Wanted.OPEN:
        return None
    inside = sum(membership in _INSIDE and user != desired.bot for user, membership in actual.members.items())
    too_many = len(leaving) > HELD_ABOVE_PEOPLE
    too_much = len(leaving) * 100 > inside * HELD_ABOVE_PERCENT
    return Held(leaving, inside) if too_many and too_much else None


def _arrivals(
    desired: DesiredRoom, actual: ActualRoom, entitled: Mapping[str, int]
) -> tuple[tuple[Action, ...], tuple[Note, ...]]:
    """Invitations and joins, the mightiest first, so that a room has its hosts before its guests.

    Who does not join at once does so when invited by somebody: that is being asked for.
    """
    at_once = comers(desired)
    may_return = (actual.our_bans - actual.kept_out) & desired.forgiven | actual.kept_out & entitled.keys()
    forgiven = sorted(may_return) if desired.wanted is Wanted.OPEN else ()
    actions: list[Action] = [Unban(user) for user in forgiven]
    notes: list[Note] = []
    for user in sorted(entitled, key=lambda user: (-entitled[user], user)):
        match actual.members.get(user):
            case "join":
                continue
            case "ban" if user not in forgiven:
                notes.append(Note("member_banned", "belongs into the room but is banned from it", user))
                continue
            case "invite":
                pass
            case _ if user not in at_once:
                continue
            case _ if desired.join_rule != "public":
                actions.append(Invite(user))
        actions.append(Join(user))
    return tuple(actions), tuple(notes)


def _stuck_notes(stuck: Mapping[str, int], entitled: Mapping[str, int]) -> tuple[Note, ...]:
    return tuple(
        Note(
            "power_out_of_reach",
            f"has power level {level}, so the bot can neither lower it"
            + ("" if user in entitled else " nor remove this user"),
            user,
        )
        for user, level in sorted(stuck.items())
    )
