"""What the log needs to know of an event that Synapse pushed, and nothing more of it.

The event itself is kept as text and handed on as it is. Shapes nobody has seen before are events too; only
an element without a usable ``event_id`` and ``room_id`` is not, and is kept raw as `Junk`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import orjson

MARK = "net.openmeet.id"
"""The key in an event's content that names the row of ours it was sent from."""

CLAIM = "net.openmeet.claim"
"""The key in the content of ``m.room.create`` that names the claim the room was made for."""

MAX_ID_BYTES = 255
"""The longest event or room id that Matrix allows."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event as it came.

    Parameters
    ----------
    type, sender
        With NUL characters replaced, for Synapse passes them on and PostgreSQL refuses them.
    body
        The event as JSON text, nothing dropped.
    claim, room_version
        Of an ``m.room.create``: `CLAIM` and ``room_version`` of its content.
    mark
        `MARK` of its content.
    target
        The state key of an ``m.room.member``.
    """

    event_id: str
    room_id: str
    type: str
    sender: str
    body: str
    claim: str | None = None
    room_version: str | None = None
    mark: str | None = None
    target: str | None = None


@dataclass(frozen=True, slots=True)
class Junk:
    """An element that is no event, and why."""

    reason: str
    body: str


def loads(text: str | bytes) -> Any:
    """Parse JSON, also what the fast parser refuses: lone surrogates and very large numbers.

    Raises
    ------
    ValueError
        It is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def dumps(value: Any) -> str:
    """Return *value* as compact JSON text that every database can store."""
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, separators=(",", ":"))


def read_event(element: Any) -> Arrival | Junk:
    """Read one element of a transaction's ``events``."""
    body = dumps(element)
    if not isinstance(element, dict):
        return Junk("not an object", body)
    for name in ("event_id", "room_id"):
        if reason := _unusable_id(element.get(name)):
            return Junk(f"{name} {reason}", body)
    kind = element.get("type")
    content = element.get("content")
    if not isinstance(content, dict):
        content = {}
    state_key = element.get("state_key")
    return Arrival(
        event_id=element["event_id"],
        room_id=element["room_id"],
        type=_text(kind),
        sender=_text(element.get("sender")),
        body=body,
        claim=_text(content.get(CLAIM)) or None if kind == "m.room.create" else None,
        room_version=_text(content.get("room_version")) or "1" if kind == "m.room.create" else None,
        mark=_text(content.get(MARK)) or None,
        target=_text(state_key) if kind == "m.room.member" and isinstance(state_key, str) else None,
    )


def _unusable_id(value: Any) -> str | None:
    if value is None:
        return "is missing"
    if not isinstance(value, str):
        return "is not a string"
    if not value:
        return "is empty"
    if "\0" in value:
        return "holds a NUL character"
    try:
        length = len(value.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return "is too long" if length > MAX_ID_BYTES else None


def _text(value: Any) -> str:
    """Return *value* as text that PostgreSQL can store; anything but a string becomes empty."""
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
