"""What happens in the rooms, chosen by a seed: who says what where, and how it is pushed.

Everything is drawn from one generator in a fixed order, so the same seed always makes the same transactions.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.delivery_proof.verdict import Room, digest_of_event

SERVER = "proof.example"
BOT = f"@openmeet-bot:{SERVER}"

_SIZES = (1, 1, 1, 2, 3, 5, 8, 20, 50, 100)
"""How many events a transaction has: Synapse sends one at a time when it is quiet, 100 when it catches up."""

_LENGTHS = (10, 40, 40, 120, 120, 400, 4000)
_LETTERS = (
    'abcdefghij klmnop\nqrstuvwxyz \u00e4\u00f6\u00fc\u20ac \u4f60\u597d \U0001f388 \u2028 " \\ \0 </script>'
)
_RECENT = 300


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the world is."""

    tenants: int
    rooms: int
    events: int


@dataclass(frozen=True, slots=True)
class Transaction:
    """One transaction of Synapse's."""

    txn_id: str
    events: tuple[dict[str, Any], ...]


def tenant_ids(scale: Scale) -> list[str]:
    """Return the tenants' ids."""
    return [f"Tenant{number}" for number in range(scale.tenants)]


def make_rooms(scale: Scale) -> dict[str, Room]:
    """Return the rooms, shared out to the tenants, nothing said in them yet."""
    tenants = tenant_ids(scale)
    return {
        "!" + f"room{number:05d}".ljust(43, "x"): Room(tenants[number % len(tenants)])
        for number in range(scale.rooms)
    }


def transactions(seed: int, scale: Scale, rooms: dict[str, Room]) -> Iterator[Transaction]:
    """Yield the transactions that push *scale.events* events, each of which is added to its room.

    Some events come twice: in a transaction of their own, or among new ones. Now and then transaction ids
    begin again, as they do on a SQLite homeserver that was restarted.
    """
    chance = random.Random(f"{seed} transactions")
    room_ids = list(rooms)
    # A few rooms are loud and most are quiet.
    weights = [1 / (place + 3) for place in range(len(room_ids))]
    chance.shuffle(weights)
    recent: deque[dict[str, Any]] = deque(maxlen=_RECENT)
    made, txn = 0, 0
    while made < scale.events:
        size = min(chance.choice(_SIZES), scale.events - made)
        events = []
        for room_id in chance.choices(room_ids, weights, k=size):
            event = _event(chance, f"{seed}-{made}", room_id)
            rooms[room_id].events.append((event["event_id"], digest_of_event(event)))
            events.append(event)
            made += 1
        if recent and chance.random() < 0.05:
            for again in chance.choices(recent, k=chance.randint(1, 3)):
                events.insert(chance.randrange(len(events) + 1), again)
        recent.extend(events)
        txn = 1 if chance.random() < 0.005 else txn + 1
        yield Transaction(str(txn), tuple(events))
        if chance.random() < 0.02:
            yield Transaction(str(txn + 1 if chance.random() < 0.5 else txn), tuple(events))


def _event(chance: random.Random, name: str, room_id: str) -> dict[str, Any]:
    sender = f"@person{chance.randrange(50)}:{SERVER}"
    event: dict[str, Any] = {
        "age": chance.randrange(1000),
        "event_id": "$" + name.ljust(43, "y"),
        "origin_server_ts": 1_790_000_000_000 + chance.randrange(10**9),
        "room_id": room_id,
        "sender": sender,
    }
    kind = chance.random()
    if kind < 0.1:
        event |= {"type": "m.room.member", "state_key": sender, "content": {"membership": "join"}}
    elif kind < 0.15:
        event |= {
            "type": "m.room.encrypted",
            "content": {"ciphertext": "".join(chance.choices("AbC9", k=90))},
        }
    elif kind < 0.2:
        event |= {"type": "m.room.redaction", "redacts": "$" + name, "content": {}}
    else:
        words = "".join(chance.choices(_LETTERS, k=chance.choice(_LENGTHS)))
        event |= {"type": "m.room.message", "content": {"msgtype": "m.text", "body": words}}
    return event
