"""How much later than Synapse itself could tell it a webhook tells what somebody said.

``python -m benchmarks.latency`` starts a Synapse that knows two application services: this one, as it is run,
and one that does nothing but note when it is told something. Somebody speaks in a room of each in turn, the
next time when the last was heard of. Measured is from the client's call to the arrival: at the webhook's
receiver, and at the application service that does nothing. See README.md.
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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientTimeout
from ruamel.yaml import YAML

from benchmarks.processes import install, server, service
from benchmarks.pushing import SERVER
from benchmarks.webhook_sink import SECRET
from openmeet_appservice.dev.api import Api
from openmeet_appservice.dev.person import Person, call
from openmeet_appservice.dev.ports import LOOPBACK, any_free_port
from openmeet_appservice.dev.synapse import Synapse, SynapseSettings

GOAL_MS = 15.0
TENANT, HOST, EVENT = "bench", "ada", "board-games"
NULL_BOT = "null-bot"
WARM_UP = 20
"""How many messages are sent to each first at most, and not counted."""


@dataclass(slots=True)
class Heard:
    """A room, under which name the sink hears of it, and how many milliseconds each message took, by run."""

    name: str
    room_id: str
    runs: list[list[float]] = field(default_factory=list)

    def of_runs(self, part: float) -> list[float]:
        """Return the quantile *part* of each run."""
        return [sorted(run)[min(len(run) - 1, int(len(run) * part))] for run in self.runs]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if the goal was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=300, help="to each, in a round (%(default)s)")
    options = parser.parse_args(arguments)
    null, ours = asyncio.run(_measure(options.rounds, options.messages))
    print("\nms from a client's call until it is heard of; medians of the rounds")
    print(f"{'':20}{'p50':>10}{'p99':>10}")
    for one in (null, ours):
        print(f"{one.name:20}{statistics.median(one.of_runs(0.5)):10.1f}", end="")
        print(f"{statistics.median(one.of_runs(0.99)):10.1f}")
    differences = [o - n for o, n in zip(ours.of_runs(0.5), null.of_runs(0.5), strict=True)]
    later = statistics.median(differences)
    print(
        f"\nThe p50 of ours is {later:.1f} ms later (in the rounds {min(differences):.1f} to "
        f"{max(differences):.1f}); goal: at most {GOAL_MS:g}."
    )
    print("The goal was reached." if later <= GOAL_MS else "The goal was not reached.")
    return 0 if later <= GOAL_MS else 1


async def _measure(rounds: int, messages: int) -> tuple[Heard, Heard]:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="omas-bench-")))
        sink = f"http://{LOOPBACK}:{stack.enter_context(server('benchmarks.webhook_sink'))}"
        session = await stack.enter_async_context(ClientSession(timeout=ClientTimeout(total=120)))
        port = any_free_port()
        installation = install(folder / "ours", homeserver=f"http://{LOOPBACK}:{port}")
        token = secrets.token_hex(16)
        null_registration = folder / "null.yaml"
        _write_registration(null_registration, f"{sink}/null", token)
        synapse = Synapse(
            SynapseSettings(
                folder / "synapse",
                SERVER,
                port,
                registration_files=(installation.registration_file, null_registration),
                bot_user_id=f"@{installation.config().appservice.bot_localpart}:{SERVER}",
            )
        )
        stack.push_async_callback(synapse.stop)
        await synapse.start()
        running = stack.enter_context(service(installation))
        key = installation.config().provisioning.admin_key.get_secret_value()
        admin = Api(session, running.installation.of("PROVISIONING"), key)
        person = await Person.register(session, synapse.url, "wanda", secrets.token_hex(8))
        heard = (
            Heard("null", await _room_of_null(session, synapse.url, token)),
            Heard("ours", await _room_of_ours(admin, f"{sink}/hook/ours")),
        )
        for one in heard:
            await person.join(one.room_id)
        await _run(session, sink, person, heard, min(WARM_UP, messages))
        for one in heard:
            one.runs.clear()
        for _ in range(rounds):
            await _run(session, sink, person, heard, messages)
        return heard


async def _run(
    session: ClientSession, sink: str, person: Person, heard: Sequence[Heard], messages: int
) -> None:
    for one in heard:
        one.runs.append([])
    for number in range(messages):
        for one in heard if number % 2 else reversed(heard):
            sent = time.monotonic_ns()
            event_id = await person.send_text(one.room_id, f"Number {number}: see you on Friday?")
            async with session.get(f"{sink}/event/{one.name}/{event_id}") as response:
                answer: dict[str, Any] = await response.json()
            if answer["faults"]:
                raise RuntimeError(f"{one.name}: {answer['faults'][:5]}")
            one.runs[-1].append((answer["at"] - sent) / 1e6)


async def _room_of_null(session: ClientSession, url: str, token: str) -> str:
    answer = await call(
        session,
        "POST",
        f"{url}/_matrix/client/v3/createRoom",
        body={"preset": "public_chat", "name": "Nobody listens"},
        token=token,
    )
    return str(answer["room_id"])


async def _room_of_ours(admin: Api, webhook: str) -> str:
    below = f"/v1/tenants/{TENANT}"
    await admin.call("PUT", below, {"name": TENANT})
    await admin.call("PUT", f"{below}/webhooks/main", {"url": webhook, "secret": SECRET})
    await admin.call("PUT", f"{below}/users/{HOST}?wait=30", {"display_name": "Ada"})
    spec = {
        "name": "Board games",
        "visibility": "public",
        "access": "anyone",
        "status": "published",
        "members": [{"user": HOST, "role": "host"}],
    }
    made = await admin.call("PUT", f"{below}/events/{EVENT}?wait=30", spec)
    return str(made["matrix"]["room_id"])


def _write_registration(path: Path, url: str, token: str) -> None:
    user = f"@{NULL_BOT}:{SERVER}".replace(".", r"\.")
    registration = {
        "id": "null",
        "url": url,
        "as_token": token,
        "hs_token": secrets.token_hex(16),
        "sender_localpart": NULL_BOT,
        "rate_limited": False,
        "namespaces": {"users": [{"exclusive": True, "regex": user}], "aliases": [], "rooms": []},
    }
    with path.open("w") as stream:
        YAML().dump(registration, stream)


if __name__ == "__main__":
    sys.exit(main())
