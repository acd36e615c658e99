"""How much longer a room full of people takes through the service than with bare requests to Synapse.

``python -m benchmarks.rooms`` starts a Synapse that knows two application services: this one, as it is run,
and one that only makes the requests without which there is no such room: register everybody, make the room
with the same settings, and for each invite and join, as many at a time as the service works on. Both do so
by turns, each time with people whom Synapse has never seen. See README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout
from ruamel.yaml import YAML

from benchmarks.processes import install, service
from benchmarks.pushing import SERVER
from openmeet_appservice.dev.api import Api
from openmeet_appservice.dev.ports import LOOPBACK, any_free_port
from openmeet_appservice.dev.synapse import Synapse, SynapseSettings
from openmeet_appservice.domain.actions import CreateRoom
from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.plan import plan
from openmeet_appservice.domain.rooms import DesiredRoom
from openmeet_appservice.homeserver import Homeserver, MatrixApi, open_session
from openmeet_appservice.reconciler import ReconcilerSettings

GOAL = 1.15
TENANT = "bench"
BARE = "bare"
_DEFAULTS: dict[str, Any] = {one.name: one.default for one in fields(ReconcilerSettings)}
ROOMS_AT_ONCE: int = _DEFAULTS["concurrency"]
PEOPLE_AT_ONCE: int = _DEFAULTS["member_concurrency"]
WARM_UP = 5
"""How many people the first room of each has, which is not counted."""
LONGEST = 3600.0
"""Seconds that all rooms of a round may take."""


@dataclass(slots=True)
class Contestant:
    """Whose rooms they are, and how many seconds each round took."""

    name: str
    seconds: list[float] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if the goal was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--puppets", type=int, default=200, help="in each room (%(default)s)")
    parser.add_argument("--rooms", type=int, default=1, help="at a time (%(default)s)")
    options = parser.parse_args(arguments)
    bare, ours = asyncio.run(_measure(options.rounds, options.puppets, options.rooms))
    ratios = [o / b for o, b in zip(ours.seconds, bare.seconds, strict=True)]
    ratio = statistics.median(ratios)
    print(f"\nseconds until {options.rooms} room(s) with {options.puppets} people each are there")
    print(f"{'':20}{'median':>10}{'lowest':>10}{'highest':>10}")
    for one in (bare, ours):
        print(
            f"{one.name:20}{statistics.median(one.seconds):10.1f}"
            f"{min(one.seconds):10.1f}{max(one.seconds):10.1f}"
        )
    print(
        f"\nOurs takes x {ratio:.2f} (in the rounds {min(ratios):.2f} to {max(ratios):.2f}); "
        f"goal: at most x {GOAL:.2f}."
    )
    print("The goal was reached." if ratio <= GOAL else "The goal was not reached.")
    return 0 if ratio <= GOAL else 1


async def _measure(rounds: int, puppets: int, rooms: int) -> tuple[Contestant, Contestant]:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="omas-bench-")))
        port = any_free_port()
        installation = install(folder / "ours", homeserver=f"http://{LOOPBACK}:{port}")
        registration, token = folder / "bare.yaml", secrets.token_hex(16)
        _write_registration(registration, token)
        synapse = Synapse(
            SynapseSettings(
                folder / "synapse",
                SERVER,
                port,
                registration_files=(installation.registration_file, registration),
                bot_user_id=f"@{installation.config().appservice.bot_localpart}:{SERVER}",
            )
        )
        stack.push_async_callback(synapse.stop)
        await synapse.start()
        running = stack.enter_context(service(installation))
        key = installation.config().provisioning.admin_key.get_secret_value()
        session = await stack.enter_async_context(ClientSession(timeout=ClientTimeout(total=300)))
        admin = Api(session, running.installation.of("PROVISIONING"), key)
        await admin.call("PUT", f"/v1/tenants/{TENANT}", {"name": TENANT})
        client = await stack.enter_async_context(open_session("benchmark"))
        homeserver = Homeserver(MatrixApi(synapse.url, [token], client), BARE)
        bare, ours = Contestant("bare requests"), Contestant("ours")
        for number in range(-1, rounds):
            few = puppets if number >= 0 else min(puppets, WARM_UP)
            labels = [f"r{number + 1}n{room}" for room in range(rooms)]
            both = ((bare, _bare(homeserver, labels, few)), (ours, _ours(admin, labels, few)))
            for one, doing in both if number % 2 else reversed(both):
                started = time.monotonic()
                await doing
                if number >= 0:
                    one.seconds.append(time.monotonic() - started)
        return bare, ours


def _names(label: str, puppets: int) -> list[str]:
    return [f"{label}p{number}" for number in range(puppets)]


async def _ours(admin: Api, labels: Sequence[str], puppets: int) -> None:
    """Have the service make the rooms."""

    async def make(label: str) -> None:
        spec = {
            "name": "Board games",
            "topic": "Bring your own.",
            "visibility": "public",
            "status": "published",
            "members": [{"user": name, "role": "participant"} for name in _names(label, puppets)],
        }
        path = f"/v1/tenants/{TENANT}/events/{label}?wait=30"
        until = time.monotonic() + LONGEST
        while (await admin.call("PUT", path, spec))["sync"]["phase"] != "ready":
            if time.monotonic() > until:
                raise RuntimeError(f"{label} is not ready after {LONGEST:g} s")

    await asyncio.gather(*map(make, labels))


async def _bare(homeserver: Homeserver, labels: Sequence[str], puppets: int) -> None:
    """Make the rooms with the least requests."""

    async def let_in(room_id: str, name: str) -> None:
        user = f"@{BARE}_{name}:{SERVER}"
        await homeserver.register(f"{BARE}_{name}")
        await homeserver.invite(room_id, user)
        await homeserver.join(room_id, as_user=user)

    async def make(label: str) -> None:
        room_id = await homeserver.create_room(_room(label))
        await _at_once(PEOPLE_AT_ONCE, (let_in(room_id, name) for name in _names(label, puppets)))

    await _at_once(ROOMS_AT_ONCE, map(make, labels))


async def _at_once(number: int, doing: Iterable[Any]) -> None:
    """Await all of *doing*, *number* at a time."""
    queue: Iterator[Any] = iter(doing)

    async def work() -> None:
        for one in queue:
            await one

    await asyncio.gather(*(work() for _ in range(number)))


def _room(label: str) -> dict[str, Any]:
    """Return the body for a room as the service makes it."""
    desired = DesiredRoom(
        wanted=Wanted.OPEN,
        bot=f"@{BARE}-bot:{SERVER}",
        name="Board games",
        topic="Bring your own.",
        alias=f"#{BARE}-{label}:{SERVER}",
    )
    [action] = plan(desired, None).actions
    assert isinstance(action, CreateRoom)
    return action.request(secrets.token_hex(16))


def _write_registration(path: Path, token: str) -> None:
    def only(sigil: str) -> list[dict[str, Any]]:
        return [{"exclusive": True, "regex": rf"{sigil}{BARE}[-_].*:{SERVER}$"}]

    registration = {
        "id": BARE,
        "url": None,
        "as_token": token,
        "hs_token": secrets.token_hex(16),
        "sender_localpart": f"{BARE}-bot",
        "rate_limited": False,
        "namespaces": {"users": only("@"), "aliases": only("#"), "rooms": []},
    }
    with path.open("w") as stream:
        YAML().dump(registration, stream)


if __name__ == "__main__":
    sys.exit(main())
