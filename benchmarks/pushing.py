"""What Synapse does when it pushes transactions: one at a time, over one connection.

The client is a bare socket, so that what is measured is the server.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

SERVER = "bench.example"
BOT = f"@openmeet-bot:{SERVER}"
TENANT = "t1"
ROOMS = 10
PEOPLE = 50
HS_TOKEN = "bench-hs-token-".ljust(40, "x")

_WORDS = (
    "Hello everyone, the doors open at half past six and we start with the short games. "
    "Bring a snack if you can, drinks are there. See you on Friday! "
)


def room_id(number: int) -> str:
    """Return the id of one of the rooms, as version 12 has them."""
    return "!" + f"room{number:03d}".ljust(43, "x")


def event_id(name: str, number: int) -> str:
    """Return the id of one of the events that are called *name*."""
    return "$" + f"{name}-{number}".ljust(43, "y")


def puppet(number: int) -> str:
    """Return the user id of one of the `PEOPLE` who talk."""
    return f"@openmeet_{TENANT}_person{number}:{SERVER}"


def in_turns(rooms: int) -> Callable[[int], int]:
    """Return which of so many rooms an event is in, by its number: seven in one, then in the next."""
    return lambda number: number // 7 % rooms


def mixed(rooms: int) -> Callable[[int], int]:
    """Return which of so many rooms an event is in: another one each time, as in a lively installation."""
    return lambda number: number * 7919 % rooms


IN_TURNS = in_turns(ROOMS)


def events(name: str, count: int, room_of: Callable[[int], int] = IN_TURNS) -> Iterator[dict[str, Any]]:
    """Yield events as Synapse sends them: eight in ten plain messages, one in a thread, one membership."""
    for number in range(count):
        kind = number % 10
        room = room_id(room_of(number))
        sender = puppet(number % PEOPLE)
        event = {
            "age": 41,
            "event_id": event_id(name, number),
            "origin_server_ts": 1_790_000_000_000 + number,
            "room_id": room,
            "sender": sender,
            "user_id": sender,
            "unsigned": {"age": 41},
        }
        if kind == 9:
            content = {"displayname": f"Person {number % PEOPLE}", "membership": "join"}
            before = {"membership": "leave"}
            event |= {"type": "m.room.member", "state_key": sender, "content": content}
            event |= {"prev_content": before, "unsigned": {"age": 41, "prev_content": before}}
        else:
            message = {"msgtype": "m.text", "body": f"{number}: {_WORDS}{_WORDS}", "m.mentions": {}}
            if kind == 8:
                root = event_id(name, number - 8)
                message["m.relates_to"] = {
                    "rel_type": "m.thread",
                    "event_id": root,
                    "is_falling_back": True,
                    "m.in_reply_to": {"event_id": root},
                }
            event |= {"type": "m.room.message", "content": message}
        yield event


def transactions(name: str, count: int, size: int, room_of: Callable[[int], int] = IN_TURNS) -> list[bytes]:
    """Return *count* whole HTTP requests, each of a transaction with *size* events."""
    flow = events(name, count * size, room_of)
    requests = []
    for number in range(count):
        body = orjson.dumps(
            {
                "events": [next(flow) for _ in range(size)],
                "ephemeral": [],
                "de.sorunome.msc2409.to_device": [],
            },
            option=orjson.OPT_SORT_KEYS,
        )
        head = (
            f"PUT /_matrix/app/v1/transactions/{name}-{number} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
            f"Authorization: Bearer {HS_TOKEN}\r\nContent-Type: application/json\r\n"
            f"User-Agent: Synapse/1.163.2\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


class Pusher:
    """One connection to a server on this machine, kept open."""

    def __init__(self, port: int) -> None:
        self._connection = socket.create_connection(("127.0.0.1", port))
        self._connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def push(self, requests: Sequence[bytes]) -> float:
        """Send *requests*, each after the answer to the last; return the seconds that took."""
        started = time.perf_counter()
        for request in requests:
            self._connection.sendall(request)
            self._await_success()
        return time.perf_counter() - started

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _await_success(self) -> None:
        answer = b""
        while True:
            received = self._connection.recv(65536)
            answer += received
            head, end, body = answer.partition(b"\r\n\r\n")
            if end and len(body) >= _content_length(head):
                break
            if not received:
                raise ConnectionError("the server closed the connection")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(f"not taken: {answer[:200]!r}")


def _content_length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return 0
