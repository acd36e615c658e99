"""Direct rooms: the chat of two people. It belongs to the two, and the bot is never inside.

At least one of them is a puppet. The puppets own the room: one of them makes it, both manage it, and all that
this service does there it does as one of them. What the two make of it, such as a name, is theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from openmeet_appservice.domain.actions import (
    Action,
    CreateRoom,
    DeleteAlias,
    Invite,
    Join,
    Leave,
    MarkDirect,
    SetState,
)
from openmeet_appservice.domain.findings import Note
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.names import key
from openmeet_appservice.domain.power_levels import supports_creator_power
from openmeet_appservice.domain.rooms import (
    ENCRYPTED,
    ActualRoom,
    DesiredMember,
    DesiredRoom,
    EntityFacts,
    JsonObject,
    MemberFacts,
    RoomSettings,
    wanted_of,
)

JOINER: Final = "~"
"""What stands between the two users of a direct room's slug. No slug of a user holds it."""

MEMBER: Final = "member"
"""The one role that there is in a direct room."""

OWNER: Final = 100

_POWER, _ENCRYPTION = "m.room.power_levels", "m.room.encryption"
_GIVEN: Final = {
    "m.room.join_rules": {"join_rule": "invite"},
    "m.room.history_visibility": {"history_visibility": "shared"},
    "m.room.guest_access": {"guest_access": "forbidden"},
}


def direct_slug(one: str, other: str) -> str:
    """Return the slug of the room of two users, by their slugs in either order.

    The lesser comes first, compared in lower case and character by character.
    """
    return JOINER.join(sorted((one, other), key=key))


def desired_direct(
    entity: EntityFacts,
    members: Iterable[MemberFacts],
    puppets: Collection[str],
    settings: RoomSettings,
    *,
    bot: str,
    default_version: str,
) -> DesiredRoom:
    """Derive the room that two people should have.

    Parameters
    ----------
    members
        The two.
    puppets
        The user ids of those who are puppets. The first of them, in the order of user ids, makes the room.
    bot
        The bot's user id.
    default_version
        The homeserver's default room version, used where the settings name none.
    """
    people = sorted(member.user_id for member in members)
    return DesiredRoom(
        wanted=wanted_of(entity),
        bot=bot,
        version=settings.version or default_version,
        federate=settings.federate,
        private=True,
        encrypted=settings.encrypted if entity.encrypted is None else entity.encrypted,
        members=tuple(DesiredMember(user_id, OWNER) for user_id in people),
        owners=tuple(user_id for user_id in people if user_id in puppets),
    )


def plan_direct(
    desired: DesiredRoom, owners: tuple[str, ...], actual: ActualRoom | None
) -> tuple[tuple[Action, ...], tuple[Note, ...]]:
    """Compare a direct room as it should be with the room as it is (None: there is none).

    State that is missing is added, for Synapse may have made half of the room; what is there is its owners'.
    A room in which none of its puppets is gives joins alone: what else there is to do shows once one is back.
    Who is no puppet is invited once, and may leave.
    """
    if not owners:
        return (), (Note("direct_needs_puppet", "neither of the two is a puppet, who could make the room"),)
    if actual is None:
        return (_create(desired, owners[0]),) if desired.wanted is Wanted.OPEN else (), ()
    if desired.wanted is not Wanted.OPEN:
        return _close(owners, actual), ()
    inside = [user for user in owners if actual.members.get(user) == "join"]
    if not inside:
        return tuple(Join(user) for user in owners), ()
    arrivals, notes = _arrivals(desired, owners, actual, inside[0])
    actions = (
        *(DeleteAlias(alias) for alias in sorted(actual.aliases)),
        *_missing_state(desired, actual, inside[0]),
        *arrivals,
        *(MarkDirect(user, marked=True) for user in owners if user not in actual.marked),
    )
    return actions, notes


def with_marks(
    content: JsonObject, wanted: Mapping[str, Collection[str]], gone: Collection[str]
) -> dict[str, Any]:
    """Return a user's ``m.direct`` with direct rooms of ours added, and others of ours taken out.

    Everything else in it stays as it is, also what has a shape that nobody expects.

    Parameters
    ----------
    content
        As it is: room ids by the user id of the other.
    wanted
        The rooms that are to be in it, by the user id of the other.
    gone
        The rooms that are not to be in it.
    """
    merged: dict[str, Any] = {}
    for user, listed in content.items():
        kept = [room for room in listed if room not in gone] if isinstance(listed, list) else listed
        if kept or kept == listed:
            merged[user] = kept
    for user, rooms in wanted.items():
        listed = merged.get(user)
        known = listed if isinstance(listed, list) else []
        merged[user] = [*known, *(room for room in sorted(rooms) if room not in known)]
        if not merged[user]:
            del merged[user]
    return merged


def _create(desired: DesiredRoom, maker: str) -> CreateRoom:
    others = [member.user_id for member in desired.members if member.user_id != maker]
    creation: dict[str, Any] = {"m.federate": desired.federate}
    if supports_creator_power(desired.version):
        creation["additional_creators"] = others
    state: dict[str, JsonObject] = dict(_GIVEN)
    if desired.encrypted:
        state[_ENCRYPTION] = ENCRYPTED
    return CreateRoom(
        None,
        {
            "room_version": desired.version,
            # What `trusted_private_chat` would make is said in full: a homeserver can be set to encrypt the
            # rooms of that preset, and that can never be undone.
            "preset": "public_chat",
            "visibility": "private",
            "is_direct": True,
            "invite": others,
            "creation_content": creation,
            "initial_state": [
                {"type": event_type, "state_key": "", "content": value} for event_type, value in state.items()
            ],
            "power_level_content_override": _levels(desired, desired.version),
        },
        as_user=maker,
    )


def _levels(desired: DesiredRoom, version: str) -> dict[str, Any]:
    """Both own the room: as its creators, and where a version knows no such power, by their level."""
    listed = {} if supports_creator_power(version) else {m.user_id: m.power_level for m in desired.members}
    return {"users": listed, "invite": 50}


def _missing_state(desired: DesiredRoom, actual: ActualRoom, by: str) -> tuple[Action, ...]:
    wanted: dict[str, JsonObject] = {_POWER: _levels(desired, actual.version), **_GIVEN}
    if desired.encrypted:
        wanted[_ENCRYPTION] = ENCRYPTED
    return tuple(
        SetState(event_type, content, as_user=by)
        for event_type, content in wanted.items()
        if not actual.content(event_type)
    )


def _arrivals(
    desired: DesiredRoom, owners: tuple[str, ...], actual: ActualRoom, by: str
) -> tuple[tuple[Action, ...], tuple[Note, ...]]:
    actions: list[Action] = []
    notes: list[Note] = []
    for member in desired.members:
        user, is_puppet = member.user_id, member.user_id in owners
        match actual.members.get(user):
            case "join":
                continue
            case "ban":
                notes.append(Note("member_banned", "belongs into the room but is banned from it", user))
                continue
            case "invite":
                pass
            case "leave" if not is_puppet:
                continue
            case _:
                actions.append(Invite(user, by=by))
        if is_puppet:
            actions.append(Join(user))
    return tuple(actions), tuple(notes)


def _close(owners: tuple[str, ...], actual: ActualRoom) -> tuple[Action, ...]:
    """Those who are only invited leave first: afterwards nobody could see that they are."""
    leaving = [
        user for membership in ("invite", "join") for user in owners if actual.members.get(user) == membership
    ]
    return (
        *(DeleteAlias(alias) for alias in sorted(actual.aliases)),
        *(MarkDirect(user, marked=False) for user in owners if user in actual.marked),
        *(Leave(user) for user in leaving),
    )
