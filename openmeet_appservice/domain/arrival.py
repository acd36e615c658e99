"""What the log needs to know of the events that Synapse pushes, and nothing more of them.

An event is kept and handed on whole: every key in its order, every value as it was. Where a transaction holds
a number that might not fit 64 bits, its events are cut out of the text that came, for the fast parser would
change such a number without a word. Shapes nobody has seen before are events too; only an element without a
usable ``event_id`` and ``room_id`` is not, and is kept raw as `Junk`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson

from openmeet_appservice.domain.drift import Touch, touch_of

MARK = "net.openmeet.id"
"""The key in an event's content that names the row of ours it was sent from."""

CLAIM = "net.openmeet.claim"
"""The key in the content of ``m.room.create`` that names the claim the room was made for."""

MAX_ID_BYTES = 255
"""The longest event or room id that Matrix allows."""

_EPHEMERAL = ("ephemeral", "de.sorunome.msc2409.ephemeral")
"""The names of the list of ephemeral elements; older Synapse knows only the second."""

_CLASSES = {
    "m.room.message": "message",
    "m.room.encrypted": "message",
    "m.sticker": "message",
    "m.reaction": "reaction",
    "m.room.redaction": "redaction",
    "m.room.member": "membership",
}

EVENT_CLASSES = frozenset({*_CLASSES.values(), "room", "other"})
"""What `event_class` returns."""


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
    is_state
        It has a state key.
    joins
        Whether it is an ``m.room.member`` by which its sender came in.
    age
        ``unsigned.age``: how many milliseconds ago it was sent, by Synapse's clock.
    touch
        What it touches of what this service sees to in its rooms.
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
    age: int | None = None
    touch: Touch | None = None
    is_state: bool = False
    joins: bool = False


@dataclass(frozen=True, slots=True)
class Junk:
    """An element that is no event, and why."""

    reason: str
    body: str


def event_class(event_type: str) -> str:
    """Sort events into the handful of `EVENT_CLASSES`, for counting; ``room`` are other ``m.room.`` types."""
    return _CLASSES.get(event_type) or ("room" if event_type.startswith("m.room.") else "other")


def loads(text: str | bytes) -> Any:
    """Parse JSON, also what the fast parser refuses: lone surrogates.

    Integers beyond 64 bits become floats.

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


@dataclass(frozen=True, slots=True)
class Transaction:
    """What a transaction holds: the elements of ``events``, and the ephemeral ones as they came."""

    elements: list[Arrival | Junk]
    ephemeral: list[Any]


def read_transaction(body: bytes) -> Transaction | None:
    """Read a transaction; None where there is no list ``events``.

    Ephemeral elements have two names; of a transaction that carries both one is read. An element of
    ``events`` that cannot be taken apart (nested too deeply, a number of thousands of digits) is `Junk` and
    spoils none of the others.

    Raises
    ------
    ValueError
        It is not JSON in UTF-8.
    """
    if _LONG_NUMBER not in body.translate(_DIGITS_AS_ZERO):
        try:
            return _read_plain(orjson.loads(body))
        except (orjson.JSONDecodeError, TypeError):
            # Too deep, not quite Unicode, or no JSON at all: the exact way tells which.
            pass
    return _read_exactly(body.decode())


def _read_plain(parsed: Any) -> Transaction | None:
    events = parsed.get("events") if isinstance(parsed, dict) else None
    if not isinstance(events, list):
        return None
    elements = [read_event(element, orjson.dumps(element).decode()) for element in events]
    return Transaction(elements, _ephemeral(parsed))


def _ephemeral(named: Mapping[str, Any]) -> list[Any]:
    for name in _EPHEMERAL:
        if isinstance(found := named.get(name), list) and found:
            return found
    return []


def _read_exactly(text: str) -> Transaction | None:
    """Read what the fast parser refuses or would change, keeping the text of each element as it came.

    It turns integers of more than 64 bits into other numbers without a word, and refuses whole a
    transaction of which one element is nested too deeply.
    """
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        _value(text, at)
        return None
    events: list[Arrival | Junk] | None = None
    others: dict[str, Any] = {}
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        key, at = _value(text, at)
        if not isinstance(key, str):
            raise ValueError("a key is not a string")
        at = _expect(":", text, at)
        if key == "events" and text[at : at + 1] == "[":
            events, at = _elements(text, at)
        else:
            value, at = _value(text, at)
            events = None if key == "events" else events
            if key in _EPHEMERAL:
                others[key] = value
        at = _next_item("}", text, at)
    if _skip(text, at + 1) != len(text):
        raise ValueError("there is more after the end")
    return None if events is None else Transaction(events, _ephemeral(others))


def read_event(element: Any, body: str | None = None) -> Arrival | Junk:
    """Read one element of a transaction's ``events``, of which *body* is the text."""
    text = dumps(element) if body is None else body
    if not isinstance(element, dict):
        return Junk("not an object", text)
    for name in ("event_id", "room_id"):
        if reason := _unusable_id(element.get(name)):
            return Junk(f"{name} {reason}", text)
    kind = element.get("type")
    content = element.get("content")
    if not isinstance(content, dict):
        content = {}
    state_key = element.get("state_key")
    unsigned = element.get("unsigned")
    age = unsigned.get("age") if isinstance(unsigned, dict) else None
    is_create = kind == "m.room.create"
    return Arrival(
        event_id=element["event_id"],
        room_id=element["room_id"],
        type=_text(kind),
        sender=_text(element.get("sender")),
        body=text,
        claim=_text(content.get(CLAIM)) or None if is_create else None,
        room_version=_text(content.get("room_version")) or "1" if is_create else None,
        mark=_text(content.get(MARK)) or None,
        target=_text(state_key) if kind == "m.room.member" and isinstance(state_key, str) else None,
        age=age if type(age) is int else None,
        touch=touch_of(element),
        is_state=isinstance(state_key, str),
        joins=kind == "m.room.member" and state_key == element.get("sender") and _joins(element, content),
    )


def _joins(element: Mapping[str, Any], content: Mapping[str, Any]) -> bool:
    unsigned = element.get("unsigned")
    before = unsigned.get("prev_content") if isinstance(unsigned, dict) else None
    was_inside = isinstance(before, dict) and before.get("membership") == "join"
    return content.get("membership") == "join" and not was_inside


def read_event_text(text: str) -> Arrival | Junk:
    """Read one event from its text, as `read_transaction` left it."""
    element, _ = _value(text, 0)
    return Junk(element.reason, text) if isinstance(element, _Unreadable) else read_event(element, text)


@dataclass(frozen=True, slots=True)
class _Unreadable:
    reason: str


def _refuse(constant: str) -> NoReturn:
    raise json.JSONDecodeError(f"{constant} is not JSON", constant, 0)


_DIGITS_AS_ZERO = bytes(48 if 48 <= byte <= 57 else 32 for byte in range(256))
_LONG_NUMBER = b"0" * 19
"""So many digits in a row may be a number that does not fit into 64 bits."""

_DECODER = json.JSONDecoder(parse_constant=_refuse)
_SPACES = " \t\n\r"
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?\d+", re.ASCII)
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*+"|[][{}"]')


def _skip(text: str, at: int) -> int:
    if text[at : at + 1] not in _SPACES:
        return at
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _expect(character: str, text: str, at: int) -> int:
    at = _skip(text, at)
    if text[at : at + 1] != character:
        raise ValueError(f"{character} is missing")
    return _skip(text, at + 1)


def _next_item(end: str, text: str, at: int) -> int:
    """Step over a comma to the next item; stay on *end*."""
    at = _skip(text, at)
    if text[at : at + 1] == end:
        return at
    at = _expect(",", text, at)
    if text[at : at + 1] == end:
        raise ValueError("an item is missing after the comma")
    return at


def _elements(text: str, at: int) -> tuple[list[Arrival | Junk], int]:
    """Read the elements of the list that begins at *at*; return them and where the list ends."""
    elements: list[Arrival | Junk] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        element, end = _value(text, at)
        body = text[at:end]
        if isinstance(element, _Unreadable):
            elements.append(Junk(element.reason, body))
        else:
            elements.append(read_event(element, body))
        at = _next_item("]", text, end)
    return elements, at + 1


def _value(text: str, at: int) -> tuple[Any, int]:
    """Parse the value at *at*; return it, or `_Unreadable`, and where it ends."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        return _Unreadable("nested too deeply"), _end_of_value(text, at)
    except ValueError:
        # Python converts no text of more than 4,300 digits to a number.
        return _Unreadable("holds too large a number"), _end_of_value(text, at)


def _end_of_value(text: str, at: int) -> int:
    """Return where the number, object or list at *at* ends, the latter two by their brackets alone."""
    if number := _NUMBER.match(text, at):
        return number.end()
    opened: list[str] = []
    for found in _STRING_OR_BRACKET.finditer(text, at):
        character = found.group()
        if character in ("{", "["):
            opened.append("}" if character == "{" else "]")
        elif character in ("}", "]"):
            if not opened or opened.pop() != character:
                break
            if not opened:
                return found.end()
        elif character == '"' or not opened:
            break
    raise ValueError("the brackets do not match")


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
        length = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return "is too long" if length > MAX_ID_BYTES else None


def _text(value: Any) -> str:
    """Return *value* as text that PostgreSQL can store; anything but a string becomes empty."""
    if not isinstance(value, str):
        return ""
    if value.isascii() and "\0" not in value:
        return value
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()
