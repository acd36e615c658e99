"""A homeserver with which everything is as OpenMeet wants it (`benchmarks.peopled`), in a process of its own.

``python -m benchmarks.contented PEOPLE`` prints its port and serves until it is ended. What is written to a
room is kept, and seen in its state from then on. ``GET /asked`` tells how many requests there were since this
was asked last, by kind.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from urllib.parse import unquote

from aiohttp import web

from benchmarks.peopled import alias, number_of, people_in, person, state_of
from benchmarks.pushing import BOT, SERVER

CONTROL = f"!control:{SERVER}"


class Contented:
    """Answers as Synapse would."""

    def __init__(self, people: int) -> None:
        self._people = people
        self._asked: Counter[str] = Counter()
        self._written: dict[tuple[int, str], object] = {}

    def app(self) -> web.Application:
        """Return the application to serve."""
        app = web.Application()
        app.router.add_get("/asked", self._tell)
        app.router.add_route("*", "/_matrix/client/{path:.*}", self._answer)
        return app

    async def _tell(self, request: web.Request) -> web.Response:
        asked, self._asked = self._asked, Counter()
        return web.json_response(asked)

    async def _answer(self, request: web.Request) -> web.Response:
        parts = [unquote(part) for part in request.raw_path.partition("?")[0].split("/")[4:]]
        match request.method, parts:
            case "PUT", ["rooms", room, "state", kind, *_] if room != CONTROL:
                self._asked["set_state"] += 1
                self._written[number_of(room), kind] = await request.json()
                return web.json_response({"event_id": "$set"})
            case "GET", ["rooms", room, what]:
                self._asked[what] += 1
                return self._of_room(number_of(room), what)
            case "GET", ["directory", "list", "room", _]:
                self._asked["visibility"] += 1
                return web.json_response({"visibility": "public"})
            case "GET", ["account", "whoami"]:
                self._asked["whoami"] += 1
                return web.json_response({"user_id": BOT})
        self._asked["others"] += 1
        if parts[-1:] == ["ping"]:
            return web.json_response({"duration_ms": 1})
        if request.method == "GET":
            return web.json_response({"errcode": "M_NOT_FOUND", "error": "there is none"}, status=404)
        return web.json_response({"room_id": CONTROL, "event_id": "$wake"})

    def _of_room(self, room: int, what: str) -> web.Response:
        match what:
            case "state":
                state = state_of(room, self._people)
                for event in state:
                    event["content"] = self._written.get((room, event["type"]), event["content"])
                return web.json_response(state)
            case "aliases":
                return web.json_response({"aliases": [alias(room)]})
            case "joined_members":
                inside = [BOT, *map(person, people_in(room, self._people))]
                return web.json_response({"joined": {user: {} for user in inside}})
            case _:
                return web.json_response({"chunk": [], "start": "here", "end": None})


async def main() -> None:
    """Serve, and print the port."""
    runner = web.AppRunner(Contented(int(sys.argv[1])).app(), access_log=None)
    await runner.setup()
    gc.freeze()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
