"""The heart: what must be done so that a room becomes what it should be.

`plan` compares the room as it should be with the room as it is. It keeps nothing in mind: after a
crash or a failure at any action, the next comparison finds what is left to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from openmeet_appservice.domain.actions import (
    Action,
    CreateRoom,
    DeleteAlias,
    JoinBot,
    PutAlias,
    SetDirectoryVisibility,
    SetState,
)
from openmeet_appservice.domain.direct import plan_direct
from openmeet_appservice.domain.findings import Held, Note
from openmeet_appservice.domain.guarded import raised_levels
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.people import People, entitled_levels, plan_people
from openmeet_appservice.domain.power_levels import ListedLevels, listed_levels, power_levels
from openmeet_appservice.domain.rooms import ENCRYPTED, ActualRoom, DesiredRoom, JsonObject

__all__ = ["Held", "Note", "Plan", "plan"]

_NAME, _TOPIC, _AVATAR = "m.room.name", "m.room.topic", "m.room.avatar"
_JOIN_RULES, _ALIAS = "m.room.join_rules", "m.room.canonical_alias"
_POWER, _ENCRYPTION = "m.room.power_levels", "m.room.encryption"
_ALWAYS = {
    "m.room.history_visibility": {"history_visibility": "shared"},
    "m.room.guest_access": {"guest_access": "forbidden"},
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order; what is held; what is left as it is."""

    actions: tuple[Action, ...] = ()
    held: Held | None = None
    notes: tuple[Note, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The plan as a JSON object, for the dry run."""
        return {
            "actions": [action.to_json() for action in self.actions],
            "held": self.held.to_json() if self.held else None,
            "notes": [note.to_json() for note in self.notes],
        }

    def describe(self) -> tuple[str, ...]:
        """The plan in lines for people, for the dry run."""
        return (
            *(action.describe() for action in self.actions),
            *((self.held.describe(),) if self.held else ()),
            *(note.describe() for note in self.notes),
        )


def plan(desired: DesiredRoom, actual: ActualRoom | None) -> Plan:
    """Compare *desired* with *actual* (None: there is no room) and decide what to do.

    The order makes every point at which the work may stop a safe one: first what hides and shuts the
    room, then power levels (so that hosts have theirs when they arrive), people who leave, names,
    alias, opening, people who come, and the room directory last, because servers may refuse that.

    A room without its bot gives `JoinBot` alone; what else there is to do shows once it is back. A direct
    room is another matter (`domain.direct`).
    """
    if desired.owners is not None:
        actions, notes = plan_direct(desired, desired.owners, actual)
        return Plan(actions, notes=notes)
    if actual is None:
        return _create(desired) if desired.wanted is Wanted.OPEN else Plan()
    if actual.members.get(desired.bot) != "join":
        return Plan((JoinBot(),))
    people = plan_people(desired, actual)
    power, left_out = _plan_power(desired, actual, people)
    aliases, alias_notes = _plan_alias(desired, actual)
    join_rule = _plan_state(actual, _JOIN_RULES, {"join_rule": desired.join_rule})
    opening = desired.join_rule == "public"
    directory = _plan_directory(desired, actual)
    actions = (
        *(() if desired.listed else directory),
        *(() if opening else join_rule),
        *(() if desired.alias else aliases),
        *_plan_always(actual),
        *_plan_encryption(desired, actual),
        *power,
        *people.departures,
        *_plan_names(desired, actual),
        *(aliases if desired.alias else ()),
        *(join_rule if opening else ()),
        *people.arrivals,
        *(directory if desired.listed else ()),
    )
    return Plan(actions, people.held, (*alias_notes, *_full(left_out), *people.notes))


def _create(desired: DesiredRoom) -> Plan:
    listed = listed_levels(desired.version, entitled_levels(desired))
    state: dict[str, JsonObject] = {_JOIN_RULES: {"join_rule": desired.join_rule}, **_ALWAYS}
    if desired.encrypted:
        state[_ENCRYPTION] = ENCRYPTED
    if desired.avatar:
        state[_AVATAR] = {"url": desired.avatar}
    content: dict[str, Any] = {
        "room_version": desired.version,
        # Whatever the join rule, which is sent along: a homeserver can be set to encrypt the rooms of all
        # other presets, and that can never be undone.
        "preset": "public_chat",
        "visibility": "public" if desired.listed else "private",
        "creation_content": {"m.federate": desired.federate},
        "initial_state": [
            {"type": event_type, "state_key": "", "content": value} for event_type, value in state.items()
        ],
        "power_level_content_override": _power(desired, desired.version, listed),
    }
    if desired.name:
        content["name"] = desired.name
    if desired.topic:
        content["topic"] = desired.topic
    alias = desired.alias and desired.alias[1:].partition(":")[0]
    return Plan((CreateRoom(alias or None, content),), notes=_full(listed.left_out))


def _plan_power(
    desired: DesiredRoom, actual: ActualRoom, people: People
) -> tuple[tuple[Action, ...], tuple[str, ...]]:
    """Return how the power levels are to be written, and who does not fit in."""
    if desired.guarded:
        raised = raised_levels(actual, people.levels)
        return (() if raised.content is None else (SetState(_POWER, raised.content),)), raised.left_out
    listed = listed_levels(actual.version, people.levels, people.fixed)
    return _plan_state(actual, _POWER, _power(desired, actual.version, listed)), listed.left_out


def _power(desired: DesiredRoom, version: str, listed: ListedLevels) -> dict[str, Any]:
    closed = desired.wanted is not Wanted.OPEN
    return power_levels(version, desired.bot, listed.users, private=desired.private, closed=closed)


def _full(left_out: tuple[str, ...]) -> tuple[Note, ...]:
    if not left_out:
        return ()
    return (
        Note(
            "power_levels_full",
            f"{len(left_out)} people have no power level of their own, because one event holds no more",
        ),
    )


def _plan_state(actual: ActualRoom, event_type: str, wanted: JsonObject) -> tuple[Action, ...]:
    """Write the event unless it says already what is wanted.

    Keys that we don't write are left alone where the rest is right: Synapse adds some of its own to
    the power levels of a new room, and a rich form to its topic.
    """
    content = actual.content(event_type)
    same = all(key in content and content[key] == value for key, value in wanted.items())
    return () if same else (SetState(event_type, wanted),)


def _plan_always(actual: ActualRoom) -> tuple[Action, ...]:
    return tuple(
        action for event_type, wanted in _ALWAYS.items() for action in _plan_state(actual, event_type, wanted)
    )


def _plan_encryption(desired: DesiredRoom, actual: ActualRoom) -> tuple[Action, ...]:
    """Encrypt the room if that is wanted; what is encrypted stays so, as Matrix knows no way back."""
    encrypted = bool(actual.content(_ENCRYPTION).get("algorithm"))
    return (SetState(_ENCRYPTION, ENCRYPTED),) if desired.encrypted and not encrypted else ()


def _plan_names(desired: DesiredRoom, actual: ActualRoom) -> tuple[Action, ...]:
    """Name, topic and avatar; a closed room keeps what it has. Absent and empty are the same."""
    if desired.wanted is not Wanted.OPEN:
        return ()
    wanted = (
        (_NAME, "name", desired.name),
        (_TOPIC, "topic", desired.topic),
        (_AVATAR, "url", desired.avatar),
    )
    return tuple(
        # An avatar without a URL is none; an empty one would be a wrong one (Matrix, ``m.room.avatar``).
        SetState(event_type, {key: text} if text or event_type != _AVATAR else {})
        for event_type, key, text in wanted
        if text is not None and (actual.content(event_type).get(key) or "") != text
    )


def _plan_directory(desired: DesiredRoom, actual: ActualRoom) -> tuple[Action, ...]:
    same = desired.listed == actual.listed
    return () if same else (SetDirectoryVisibility(desired.listed),)


def _plan_alias(desired: DesiredRoom, actual: ActualRoom) -> tuple[tuple[Action, ...], tuple[Note, ...]]:
    """Alias, alternatives, what the room says of them, and the end of our other aliases that point here.

    An alias must point here before the room may name it (else Synapse answers ``M_BAD_ALIAS``), and
    the room must stop naming it before it is deleted, because Synapse does not see to that when an
    application service deletes one. Somebody else's alias is never taken away.
    """
    wanted = () if desired.alias is None else (desired.alias, *desired.alternatives)
    before: list[Action] = []
    notes: list[Note] = []
    for alias in wanted:
        target = actual.alias_target if alias == desired.alias else actual.taken.get(alias)
        if alias in actual.aliases or target == actual.room_id:
            continue
        if target is None:
            before += [PutAlias(alias)]
        elif alias == desired.alias and actual.alias_target_is_ours:
            before += [DeleteAlias(alias), PutAlias(alias)]
        else:
            notes += [Note("alias_taken", f"points to {target}", alias)]
    taken = {note.subject for note in notes}
    named = [alias for alias in wanted if alias not in taken]
    extra = [DeleteAlias(alias) for alias in sorted(actual.aliases - set(wanted))]
    return (*before, *_plan_canonical(named, desired, actual), *extra), tuple(notes)


def _plan_canonical(named: Sequence[str], desired: DesiredRoom, actual: ActualRoom) -> tuple[Action, ...]:
    main = [alias for alias in named if alias == desired.alias]
    others = [alias for alias in named if alias != desired.alias]
    wanted = ({"alias": main[0]} if main else {}) | ({"alt_aliases": others} if others else {})
    content = actual.content(_ALIAS)
    same = (content.get("alias") or None) == wanted.get("alias")
    same = same and (content.get("alt_aliases") or []) == others
    return () if same else (SetState(_ALIAS, wanted),)
