"""From what a room differs in to what is done about it now.

The plan says what differs. Whether somebody changed it, or OpenMeet wants something new, follows from what
OpenMeet had said, field by field, when the room was last brought to it (`Memory.said`)::

    the room differs ──OpenMeet says something new──▶ done
          │
          └──somebody changed it──▶ accepted, where the policy says so
                                    contested, when it was set right too often within the hour
                                    done, and counted, else

Nothing here knows a clock or the store. What is counted is stored before it is done and what was said after,
so a process that dies in between sets a change right that it might have accepted, never the other way round:
what OpenMeet newly wants is not forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from openmeet_appservice.domain.actions import (
    Action,
    Ban,
    CreateRoom,
    DeleteAlias,
    Invite,
    Join,
    JoinBot,
    PutAlias,
    SetDirectoryVisibility,
    SetState,
    Unban,
)
from openmeet_appservice.domain.arrival import dumps, loads
from openmeet_appservice.domain.bot_power import within_reach
from openmeet_appservice.domain.drift import FIELDS, Bans, DriftPolicy, Field
from openmeet_appservice.domain.findings import Note
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.plan import Plan
from openmeet_appservice.domain.reasons import reason
from openmeet_appservice.domain.rooms import ActualRoom, DesiredRoom

MAX_CORRECTIONS: Final = 5
"""How often one field of a room is set right within `WINDOW_MS`; then somebody else is at it, too."""

WINDOW_MS: Final = 60 * 60_000

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Memory:
    """What is remembered of a room between two comparisons.

    Parameters
    ----------
    room
        Our id of the room; another one is begun with from nothing.
    said
        By field, a digest of what OpenMeet had said when the room was last brought to it.
    accepted
        By field, a digest of the change that was accepted last, so that each is told of once.
    corrections
        By field, when it was set right within the last hour (milliseconds since the epoch).
    """

    room: str
    said: Mapping[str, str] = field(default_factory=dict)
    accepted: Mapping[str, str] = field(default_factory=dict)
    corrections: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def to_text(self) -> str:
        """The memory as text, for the store."""
        return dumps(
            {
                "room": self.room,
                "said": dict(self.said),
                "accepted": dict(self.accepted),
                "corrections": {name: list(at) for name, at in self.corrections.items()},
            }
        )


def read_memory(stored: str | None, room: str) -> Memory:
    """Return what `Memory.to_text` wrote, as far as it is about *room* (our id)."""
    known = loads(stored) if stored else {}
    if known.get("room") != room:
        return Memory(room)
    corrections = {name: tuple(at) for name, at in known.get("corrections", {}).items()}
    return Memory(room, known.get("said", {}), known.get("accepted", {}), corrections)


@dataclass(frozen=True, slots=True)
class Step:
    """An action, what it is about, why it is needed, and whether *somebody* changed what it sets right."""

    action: Action
    field: Field
    reason: str
    is_drift: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is done now, and what is not.

    Parameters
    ----------
    plan
        What is done, held and noted.
    steps
        The actions of the plan, each with its reason.
    accepted, contested
        What is left as it is: because the policy says so, or because somebody changes it again and again.
    known
        What is not as OpenMeet wants it and is no fault.
    memory, counted
        What was remembered, and what is to be before anything is done.
    said
        By field, a digest of what OpenMeet says, as far as *plan* brings the room to it.
    """

    plan: Plan
    steps: tuple[Step, ...]
    accepted: tuple[Step, ...]
    contested: tuple[Step, ...]
    known: tuple[str, ...]
    memory: Memory
    counted: Memory
    said: Mapping[str, str]

    @property
    def corrected(self) -> frozenset[Field]:
        """The fields that are set right because somebody changed them."""
        return frozenset(step.field for step in self.steps if step.is_drift)

    @property
    def newly_accepted(self) -> frozenset[Field]:
        """The fields in which a change is accepted that the memory does not know."""
        return frozenset(
            step.field
            for step in self.accepted
            if self.memory.accepted.get(step.field) != _reasons(self.accepted, step.field)
        )

    def settled(self, *, refused: bool) -> Memory:
        """Return what is to be remembered once all is done.

        Parameters
        ----------
        refused
            Something about single people could not be done. That it is to be done again is no sign that
            somebody else has a hand in it.
        """
        said = {name: what for name, what in self.said.items() if not (refused and name == Field.MEMBERS)}
        accepted = {step.field.value: _reasons(self.accepted, step.field) for step in self.accepted}
        return replace(self.counted, said=said, accepted=accepted)

    def to_json(self) -> dict[str, Any]:
        """What would be done and why, as a JSON object, for the dry run."""
        return {
            **self.plan.to_json(),
            "actions": [{**step.action.to_json(), "reason": step.reason} for step in self.steps],
            "accepted": [
                *({"field": step.field.value, "reason": _accepted(step)} for step in self.accepted),
                *({"field": None, "reason": known} for known in self.known),
            ],
        }

    def describe(self) -> tuple[str, ...]:
        """The same in lines for people."""
        rest = self.plan.describe()[len(self.plan.actions) :]
        return (
            *(f"{step.action.describe()}  ({step.reason})" for step in self.steps),
            *rest,
            *(f"left as it is: {_accepted(step)}" for step in self.accepted),
            *(f"left as it is: {known}" for known in self.known),
        )


def judge(
    steps: Plan,
    desired: DesiredRoom,
    actual: ActualRoom | None,
    memory: Memory,
    policy: DriftPolicy,
    *,
    now: int,
) -> Verdict:
    """Decide what is done of what *steps*, the plan for *desired* and *actual*, asks for.

    A room that is to be closed is closed whatever the policy says. People are removed and banned however
    often they come back; who was removed though they belong into the room is let in again like all else
    that somebody changed.

    Parameters
    ----------
    memory
        What was remembered of the room.
    policy
        What the tenant wants done about changes of others.
    now
        Milliseconds since the epoch.
    """
    said = _said(desired)
    recent = _recent(memory.corrections, now)
    reach = within_reach(steps.actions, actual, desired.bot) if actual is not None else None
    todo: list[Step] = []
    accepted: list[Step] = []
    contested: list[Step] = []
    for action in steps.actions if reach is None else reach.actions:
        step = _step(action, desired, actual, memory, said)
        if step.is_drift and policy.accepts(step.field) and desired.wanted is Wanted.OPEN:
            accepted.append(step)
        elif step.is_drift and len(recent.get(step.field, ())) >= MAX_CORRECTIONS:
            contested.append(step)
        else:
            todo.append(step)
    unreached = {_field_of(action) for action in reach.beyond} if reach is not None else set()
    if any(note.code == "alias_taken" for note in steps.notes):
        unreached.add(Field.ALIASES)
    known, notes = _told(steps.notes, actual, desired, policy)
    gravest = [reach.note] if reach is not None and reach.note is not None else []
    notes = [*gravest, *_contested_notes(contested), *notes]
    corrected = {step.field for step in todo if step.is_drift}
    corrections = recent | {name: (*recent.get(name, ()), now) for name in corrected}
    return Verdict(
        plan=Plan(tuple(step.action for step in todo), steps.held, tuple(notes)),
        steps=tuple(todo),
        accepted=tuple(accepted),
        contested=tuple(contested),
        known=tuple(known),
        memory=memory,
        counted=replace(memory, corrections=corrections) if corrected else memory,
        said={name: what for name, what in said.items() if name not in unreached},
    )


def _step(
    action: Action,
    desired: DesiredRoom,
    actual: ActualRoom | None,
    memory: Memory,
    said: Mapping[str, str],
) -> Step:
    about = _field_of(action)
    is_drift = memory.said.get(about) == said.get(about, "") and _can_be_drift(action, actual)
    return Step(action, about, reason(action, desired, actual), is_drift)


def _can_be_drift(action: Action, actual: ActualRoom | None) -> bool:
    """Whether somebody else may have caused that *action* is needed.

    Who was never in the room has not been removed from it; and removals are not counted, for they must not
    end.
    """
    match action:
        case Invite(user_id=user_id) | Join(user_id=user_id):
            return actual is not None and actual.members.get(user_id) == "leave"
        case SetState() | PutAlias() | DeleteAlias() | SetDirectoryVisibility() | JoinBot():
            return True
        case _:
            return False


def _field_of(action: Action) -> Field:
    match action:
        case SetState(event_type=event_type):
            return FIELDS.get(event_type, Field.OTHER)
        case PutAlias() | DeleteAlias():
            return Field.ALIASES
        case SetDirectoryVisibility():
            return Field.DIRECTORY
        case JoinBot() | CreateRoom():
            return Field.BOT
        case Ban() | Unban():
            return Field.BANS
        case _:
            return Field.MEMBERS


def _said(desired: DesiredRoom) -> dict[str, str]:
    """Return a digest of what OpenMeet says, field by field."""
    levels = sorted((m.user_id, m.power_level) for m in desired.members if m.power_level)
    values: dict[Field, object] = {
        Field.NAME: desired.name,
        Field.TOPIC: desired.topic,
        Field.AVATAR: desired.avatar,
        Field.ALIASES: (desired.alias, desired.alternatives),
        Field.JOIN_RULE: desired.join_rule,
        Field.POWER_LEVELS: (levels, desired.private),
        Field.HISTORY: None,
        Field.GUESTS: None,
        Field.ENCRYPTION: desired.encrypted,
        Field.DIRECTORY: desired.listed,
        Field.MEMBERS: sorted(map(repr, desired.members)),
        Field.BOT: None,
    }
    return {name.value: _digest((desired.wanted.value, value)) for name, value in values.items()}


def _reasons(accepted: Sequence[Step], name: Field) -> str:
    return _digest([step.reason for step in accepted if step.field is name])


def _digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode(errors="replace")).hexdigest()[:16]


def _recent(corrections: Mapping[str, tuple[int, ...]], now: int) -> dict[str, tuple[int, ...]]:
    """Leave out what is over; what lies in the future, a clock has put there."""
    recent = {
        name: tuple(at for at in moments if now - WINDOW_MS < at <= now)
        for name, moments in corrections.items()
    }
    return {name: moments for name, moments in recent.items() if moments}


def _told(
    notes: Sequence[Note], actual: ActualRoom | None, desired: DesiredRoom, policy: DriftPolicy
) -> tuple[list[str], list[Note]]:
    """Return what is merely known, and what is a fault."""
    known: list[str] = []
    faults: list[Note] = []
    for note in notes:
        if note.code == "member_banned" and policy.bans is Bans.ACCEPT:
            known.append(f"accepted by rooms.drift.bans: {note.describe()}")
        else:
            faults.append(note)
    if actual is None or desired.wanted is not Wanted.OPEN:
        return known, faults
    if actual.content("m.room.encryption").get("algorithm") and not desired.encrypted:
        known.append("the room is encrypted, which Matrix cannot undo; OpenMeet does not want it so")
    if successor := actual.content("m.room.tombstone").get("replacement_room"):
        detail = f"somebody has declared {successor} its successor; let it be made anew (recreate)"
        faults.append(Note("tombstoned", f"the room is closed: {detail}"))
    return known, faults


def _contested_notes(contested: Sequence[Step]) -> list[Note]:
    first: dict[Field, Step] = {}
    for step in contested:
        first.setdefault(step.field, step)
    return [
        Note(
            "drift_contested",
            f"set right {MAX_CORRECTIONS} times within an hour and changed again each time, so it rests "
            f"for a while; see in the room's history who does it ({step.reason})",
            name.value,
        )
        for name, step in first.items()
    ]


def _accepted(step: Step) -> str:
    return f"accepted by rooms.drift.{step.field.value}: {step.reason}"
