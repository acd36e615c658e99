"""Typing and receipts: what of them is worth telling, coalesced, and never more than a limited amount.

Only the newest of each is kept: who is typing in a room, and how far each person has read there (by type of
receipt and by thread). What has another shape, and presence, is passed over: nothing depends on it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from openmeet_appservice.domain.arrival import MAX_ID_BYTES

MOST_KEPT = 20_000
"""How many receipts, people typing, and rooms are kept at once, all together."""

MOST_IN_ROOM = 200
"""How many receipts, and people typing, are kept of one room: a body has to stay small."""

_MOST_TS = 2**53
"""Greater numbers are no moments, and not every JSON parser takes them."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """How far somebody has read. *ts* is in milliseconds since the epoch; *thread_id* None: no thread."""

    event_id: str
    receipt_type: str
    user_id: str
    ts: int
    thread_id: str | None


@dataclass(slots=True)
class RoomUpdate:
    """What is new in a room: who is typing (None: unchanged), and the newest receipts."""

    typing: tuple[str, ...] | None = None
    receipts: OrderedDict[tuple[str, str, str | None], Receipt] = field(default_factory=OrderedDict)

    @property
    def user_ids(self) -> set[str]:
        """Everybody it names."""
        return {*(self.typing or ()), *(receipt.user_id for receipt in self.receipts.values())}

    @property
    def size(self) -> int:
        """How much it counts towards `MOST_KEPT`."""
        return 1 + len(self.typing or ()) + len(self.receipts)

    def add(self, receipt: Receipt) -> None:
        """Take a receipt, unless a newer one of the same person is here."""
        key = receipt.user_id, receipt.receipt_type, receipt.thread_id
        known = self.receipts.get(key)
        if known is None or known.ts <= receipt.ts:
            self.receipts[key] = receipt
            self.receipts.move_to_end(key)
        if len(self.receipts) > MOST_IN_ROOM:
            self.receipts.popitem(last=False)

    def merge(self, newer: RoomUpdate) -> None:
        """Take what a later one says."""
        if newer.typing is not None:
            self.typing = newer.typing
        for receipt in newer.receipts.values():
            self.add(receipt)


class Updates:
    """The updates of all rooms, the one that waits longest first. Beyond `MOST_KEPT` the oldest go."""

    __slots__ = ("_rooms", "_size", "dropped")

    def __init__(self) -> None:
        self._rooms: OrderedDict[str, RoomUpdate] = OrderedDict()
        self._size = 0
        self.dropped = 0
        """Of how many rooms updates were dropped."""

    def __bool__(self) -> bool:
        return bool(self._rooms)

    def __len__(self) -> int:
        return len(self._rooms)

    def items(self) -> Iterator[tuple[str, RoomUpdate]]:
        """Yield each room's id and update."""
        yield from self._rooms.items()

    def read(self, elements: Iterable[Any]) -> None:
        """Take what a transaction's ephemeral elements say."""
        for element in elements:
            if isinstance(element, dict) and isinstance(content := element.get("content"), dict):
                room_id, kind = element.get("room_id"), element.get("type")
                if not _is_id(room_id):
                    continue
                if kind == "m.typing":
                    self._add(room_id, _typing(content))
                elif kind == "m.receipt":
                    self._add(room_id, _receipts(content))

    def _add(self, room_id: str, update: RoomUpdate | None) -> None:
        if update is None:
            return
        known = self._rooms.get(room_id)
        if known is None:
            self._rooms[room_id] = update
            self._size += update.size
        else:
            self._size -= known.size
            known.merge(update)
            self._size += known.size
        while self._size > MOST_KEPT:
            _, oldest = self._rooms.popitem(last=False)
            self._size -= oldest.size
            self.dropped += 1


def _typing(content: dict[str, Any]) -> RoomUpdate | None:
    user_ids = content.get("user_ids")
    if not isinstance(user_ids, list):
        return None
    return RoomUpdate(typing=tuple(user for user in user_ids[:MOST_IN_ROOM] if _is_id(user)))


def _receipts(content: dict[str, Any]) -> RoomUpdate | None:
    """Read ``{event_id: {receipt_type: {user_id: {ts, thread_id?}}}}``."""
    update = RoomUpdate()
    for event_id, by_type in _entries(content):
        for receipt_type, by_user in _entries(by_type):
            for user_id, said in _entries(by_user):
                if isinstance(said, dict) and (receipt := _receipt(event_id, receipt_type, user_id, said)):
                    update.add(receipt)
    return update if update.receipts else None


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield from ((name, inner) for name, inner in value.items() if _is_id(name))


def _receipt(event_id: str, receipt_type: str, user_id: str, said: dict[str, Any]) -> Receipt | None:
    ts, thread_id = said.get("ts"), said.get("thread_id")
    if not isinstance(ts, int) or isinstance(ts, bool) or not 0 <= ts <= _MOST_TS:
        return None
    return Receipt(event_id, receipt_type, user_id, ts, thread_id if _is_id(thread_id) else None)


def _is_id(value: Any) -> TypeGuard[str]:
    """Tell whether it is text that can be an id; PostgreSQL could not look for NUL or half a character."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID_BYTES or "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)
