"""The model answers as Synapse does: both are asked the same, at random, and must agree."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from openmeet_appservice.domain.actions import CreateRoom
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.plan import plan
from openmeet_appservice.domain.rooms import DesiredMember, DesiredRoom
from openmeet_appservice.errors import HomeserverRefused
from openmeet_appservice.homeserver import Homeserver, MatrixApi, RoomVisibility

from .conftest import World
from .life import Life
from .model_homeserver import ModelHomeserver
from .model_routes import performer
from .on_the_model import PREFIXES
from .stack import BOT, SERVER
from .transport import Network

pytestmark = pytest.mark.asyncio(loop_scope="session")

_rounds = itertools.count(1)
_UNSAID = ("m.room.create", "m.room.member")


class Pair:
    """The model and a real Synapse, with the same people and rooms; rooms are told by their number."""

    def __init__(self, world: World) -> None:
        self.round = next(_rounds)
        self.model = ModelHomeserver(
            SERVER,
            BOT,
            PREFIXES,
            "12",
            pause=lambda creator_is_inside: asyncio.sleep(0),
            push=lambda event: None,
        )
        network = Network(performer(self.model, []))
        self.both = (
            Homeserver(MatrixApi("http://model", ["token"], network.session(Life())), "openmeet"),
            world.homeserver(),
        )
        self.rooms: list[tuple[str, str]] = []
        self.people = [f"@openmeet_{who}{self.round}:{SERVER}" for who in ("ada", "bob", "cyd")]

    def alias(self, number: int) -> str:
        """Return one of a few aliases."""
        return f"#event-{number}-{self.round}:{SERVER}"

    async def ask(self, do: Callable[[Homeserver, int], Awaitable[Any]]) -> tuple[Any, Any]:
        """Do the same with both; return what came of it."""
        return (await _outcome(do(self.both[0], 0)), await _outcome(do(self.both[1], 1)))

    async def make_room(self, body: dict[str, Any]) -> None:
        """Make a room on both."""
        made = await self.ask(lambda homeserver, side: homeserver.create_room(body))
        if isinstance(made[0], str) and isinstance(made[1], str):
            self.rooms.append(made)
        else:
            assert made[0] == made[1]

    async def look(self, number: int, who: str | None) -> tuple[Any, Any]:
        """Return what can be seen of a room on both."""

        async def see(homeserver: Homeserver, side: int) -> Any:
            room_id = self.rooms[number][side]
            seen: dict[Any, Any] = {"visibility": await homeserver.room_visibility(room_id)}
            for event in await homeserver.room_state(room_id, as_user=who):
                key = event["type"], event["state_key"]
                if event["type"] == "m.room.member":
                    seen[key] = event["content"]["membership"], event["sender"]
                elif event["type"] not in _UNSAID:
                    seen[key] = event["content"]
            return seen

        return await self.ask(see)


async def _outcome(doing: Awaitable[Any]) -> Any:
    try:
        return await doing
    except HomeserverRefused as error:
        return error.status, error.errcode


def _body(dice: random.Random, pair: Pair, version: str) -> dict[str, Any]:
    """Return a room as the service makes it."""
    levels = [(user, dice.choice([0, 25, 50, 75, 100])) for user in pair.people]
    desired = DesiredRoom(
        wanted=Wanted.OPEN,
        bot=BOT,
        name="Chess",
        topic=dice.choice(["", "Bring a board."]),
        version=version,
        join_rule=dice.choice(["public", "invite"]),
        listed=dice.random() < 0.5,
        private=dice.random() < 0.3,
        alias=pair.alias(dice.randrange(3)),
        members=tuple(DesiredMember(user, level) for user, level in levels),
    )
    [action] = plan(desired, None).actions
    assert isinstance(action, CreateRoom)
    body = action.request("claim".ljust(16, "0"))
    if dice.random() < 0.3:
        del body["room_alias_name"]
    return body


def _step(dice: random.Random, pair: Pair) -> tuple[Callable[[Homeserver, int], Awaitable[Any]], str]:
    number, who = dice.randrange(len(pair.rooms)), dice.choice([None, None, *pair.people])
    whom, alias = dice.choice([BOT, *pair.people]), pair.alias(dice.randrange(3))
    kind = dice.choice(
        ["join", "leave", "invite", "kick", "ban", "unban", "state", "levels", "alias", "list"]
    )
    if not pair.model.rooms[pair.rooms[number][0]].members("join"):
        # What else Synapse does in a room that everybody has left is nobody's concern.
        kind = "join"
    content = dice.choice(
        [
            ("m.room.name", {"name": dice.choice(["Chess", "Go"])}),
            ("m.room.join_rules", {"join_rule": dice.choice(["public", "invite"])}),
            ("m.room.canonical_alias", {"alias": alias}),
            ("m.room.canonical_alias", {}),
        ]
    )
    changed = dice.choice(["users_default", "events_default", "ban", "kick", "invite"])
    level, creator_too = dice.choice([-1, 0, 50, 100, 150]), dice.random() < 0.1
    visibility: RoomVisibility = dice.choice(["public", "private"])
    unlinks = dice.random() < 0.5

    async def do(homeserver: Homeserver, side: int) -> Any:
        room_id = pair.rooms[number][side]
        match kind:
            case "join" | "leave":
                return await getattr(homeserver, kind)(room_id, as_user=who)
            case "invite" | "kick" | "ban" | "unban":
                return await getattr(homeserver, kind)(room_id, whom, as_user=who)
            case "state":
                await homeserver.set_state(room_id, content[0], content[1], as_user=who)
            case "levels":
                before = await homeserver.state_event(room_id, "m.room.power_levels", as_user=who) or {}
                users = {**before["users"], (BOT if creator_too else whom): level}
                after = {**before, "users": users, changed: level}
                await homeserver.set_state(room_id, "m.room.power_levels", after, as_user=who)
            case "alias":
                if unlinks:
                    return await homeserver.delete_alias(alias)
                await homeserver.put_alias(alias, room_id)
            case _:
                return await homeserver.set_room_visibility(room_id, visibility, as_user=who)
        return None

    return do, f"{kind} {number} {who} {whom} {content} {changed} {level}"


async def _register(localpart: str, homeserver: Homeserver, side: int) -> bool:
    return await homeserver.register(localpart)


@pytest.mark.parametrize("version", ["10", "11", "12"])
async def test_the_model_answers_as_synapse(world: World, version: str) -> None:
    pair = Pair(world)
    dice = random.Random(f"{version}")
    for user in [*pair.people, pair.people[0]]:
        made = await pair.ask(partial(_register, user[1:].partition(":")[0]))
        assert made[0] == made[1]
    while len(pair.rooms) < 3:
        await pair.make_room(_body(dice, pair, version))
    for count in range(120):
        if dice.random() < 0.05:
            await pair.make_room(_body(dice, pair, version))
            continue
        do, said = _step(dice, pair)
        outcome = await pair.ask(do)
        assert outcome[0] == outcome[1], (count, said)
        for number in range(len(pair.rooms)):
            seen = await pair.look(number, dice.choice([None, *pair.people]))
            assert seen[0] == seen[1], (count, said)
