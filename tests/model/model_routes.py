"""The paths of the client-server API that the model homeserver knows."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from .model_homeserver import ModelHomeserver
from .model_room import JsonObject, MatrixError, forbidden
from .transport import Answer, Asked, Perform

Operation = Callable[[ModelHomeserver, str, list[str], JsonObject], Any]
"""Does what was asked: the homeserver, who asks, the path's variable parts, the body."""

_V3 = "_matrix/client/v3"
_MEMBERSHIPS = ("invite", "kick", "ban", "unban", "leave")

_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("GET", "_matrix/client/versions"): lambda hs, who, at, body: {"versions": ["v1.15"]},
    ("GET", f"{_V3}/account/whoami"): lambda hs, who, at, body: {"user_id": who},
    ("GET", f"{_V3}/capabilities"): lambda hs, who, at, body: {
        "capabilities": {
            "m.room_versions": {
                "default": hs.default_version,
                "available": dict.fromkeys(("10", "11", "12"), "stable"),
            }
        }
    },
    ("POST", f"{_V3}/register"): lambda hs, who, at, body: hs.register(who, body),
    ("GET", f"{_V3}/profile/*/displayname"): lambda hs, who, at, body: hs.display_name(at[0]),
    ("PUT", f"{_V3}/profile/*/displayname"): lambda hs, who, at, body: hs.set_display_name(
        who, at[0], body["displayname"]
    ),
    ("GET", f"{_V3}/joined_rooms"): lambda hs, who, at, body: hs.joined_rooms(who),
    ("GET", f"{_V3}/directory/room/*"): lambda hs, who, at, body: hs.resolve(at[0]),
    ("PUT", f"{_V3}/directory/room/*"): lambda hs, who, at, body: hs.put_alias(at[0], body["room_id"]),
    ("DELETE", f"{_V3}/directory/room/*"): lambda hs, who, at, body: hs.delete_alias(at[0]),
    ("GET", f"{_V3}/rooms/*/aliases"): lambda hs, who, at, body: hs.room_aliases(who, at[0]),
    ("GET", f"{_V3}/directory/list/room/*"): lambda hs, who, at, body: hs.visibility(at[0]),
    ("PUT", f"{_V3}/directory/list/room/*"): lambda hs, who, at, body: hs.set_visibility(
        who, at[0], body["visibility"]
    ),
    ("POST", f"{_V3}/createRoom"): lambda hs, who, at, body: hs.create_room(who, body),
    ("GET", f"{_V3}/rooms/*/state"): lambda hs, who, at, body: hs.room_state(who, at[0]),
    ("GET", f"{_V3}/rooms/*/state/*/*"): lambda hs, who, at, body: hs.state_event(who, *at),
    ("PUT", f"{_V3}/rooms/*/state/*/*"): lambda hs, who, at, body: hs.set_state(
        who, at[0], at[1], at[2], body
    ),
    ("POST", f"{_V3}/rooms/*/join"): lambda hs, who, at, body: hs.join(who, at[0]),
    ("GET", f"{_V3}/rooms/*/joined_members"): lambda hs, who, at, body: hs.joined_members(who, at[0]),
}


def _member_operation(what: str) -> Operation:
    return lambda hs, who, at, body: hs.change_member(who, at[0], what, body)


_OPERATIONS |= {("POST", f"{_V3}/rooms/*/{what}"): _member_operation(what) for what in _MEMBERSHIPS}


def _whole_event(hs: ModelHomeserver, who: str, at: list[str], body: JsonObject) -> Any:
    """Return a state event as it is asked for with ``format=event``."""
    return hs.whole_state_event(who, *at)


class UnknownRequest(AssertionError):
    """The model does not know this request: teach it what Synapse does with it."""


def performer(homeserver: ModelHomeserver, unknown: list[str]) -> Perform:
    """Return what makes requests to the model; those that it has to learn are added to *unknown*."""

    async def perform(asked: Asked) -> Answer:
        try:
            found = await _answer(homeserver, asked)
        except MatrixError as error:
            return Answer(error.status, json.dumps(error.body).encode())
        except UnknownRequest as error:
            unknown.append(str(error))
            return Answer(404, b'{"errcode": "M_UNRECOGNIZED", "error": "Unrecognized request"}')
        return Answer(200, json.dumps(found).encode())

    return perform


async def _answer(homeserver: ModelHomeserver, asked: Asked) -> Any:
    parts = [unquote(part) for part in asked.url.raw_path.removeprefix("/").split("/")]
    operation, at = _find(asked.method, parts)
    if asked.query.get("format") == "event":
        operation = _whole_event
    who = asked.query.get("user_id", homeserver.bot)
    if who not in homeserver.profiles:
        raise forbidden("Application service has not registered this user")
    result = operation(homeserver, who, at, json.loads(asked.body) if asked.body else {})
    return await result if inspect.isawaitable(result) else result


def _find(method: str, parts: list[str]) -> tuple[Operation, list[str]]:
    for (known, pattern), operation in _OPERATIONS.items():
        expected = pattern.split("/")
        if known == method and len(expected) == len(parts):
            pairs = list(zip(expected, parts, strict=True))
            if all(want in ("*", part) for want, part in pairs):
                return operation, [part for want, part in pairs if want == "*"]
    raise UnknownRequest(f"{method} /{'/'.join(parts)}")
