"""What it costs that there is much: 100,000 rooms with 1,000,000 memberships, beside ten rooms.

``python -m benchmarks.scale`` fills a database, has a homeserver with which everything is as wanted already,
and measures the service as it is run: how long it takes to start, how much memory it has, what it does while
nothing happens, and how long one change takes, beside a service that knows ten rooms. See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from benchmarks.peopled import MEMBERS, Peopled, people_in, slug
from benchmarks.processes import Installation, Service, install, prepare, server, service
from benchmarks.pushing import TENANT
from openmeet_appservice.store.secretbox import SecretBox

GOAL_MB, GOAL_START, GOAL_CHANGE = 200, 5.0, 1.10
GOAL_REQUESTS, GOAL_CPU = 2.0, 1.0
"""Requests a second, and per cent of a processor, while nothing happens."""

FEW = 10
WARM_UP = 0.1
"""Part of a round of changes that is done first and not counted."""


@dataclass(slots=True)
class Contestant:
    """A service that runs, and how many milliseconds its changes took, by round."""

    rooms: int
    people: int
    installation: Installation
    homeserver: str
    start: float = 0.0
    service: Service | None = None
    changes: list[float] = field(default_factory=list)
    _count: int = 0

    def change(self) -> float:
        """Give one member of one room another role, and wait until the homeserver has it."""
        self._count += 1
        room = self._count * 7919 % self.rooms
        somebody = people_in(room, self.people)[1 + self._count // self.rooms % (MEMBERS - 1)]
        role = "speaker" if self._count // (self.rooms * (MEMBERS - 1)) % 2 == 0 else "participant"
        path = f"/v1/tenants/{TENANT}/events/{slug(room)}/members/person{somebody}?wait=30"
        started = time.perf_counter()
        answer = self._put(path, {"role": role})
        took = (time.perf_counter() - started) * 1000
        if answer["sync"]["phase"] != "ready" or answer["changed"] != 1:
            raise RuntimeError(f"{path}: {answer}")
        return took

    def asked(self) -> dict[str, int]:
        """Return how many requests the homeserver got since this was asked last, by kind."""
        with urllib.request.urlopen(f"{self.homeserver}/asked") as response:
            found: dict[str, int] = json.load(response)
            return found

    def memory(self) -> float:
        """Return the process's memory in MB (Linux)."""
        assert self.service is not None
        return self.service.memory_bytes / 1e6

    def _put(self, path: str, body: Any) -> Any:
        key = self.installation.config().provisioning.admin_key.get_secret_value()
        request = urllib.request.Request(
            self.installation.of("PROVISIONING") + path,
            json.dumps(body).encode(),
            {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            method="PUT",
        )
        with urllib.request.urlopen(request) as response:
            return json.load(response)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if every goal was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rooms", type=int, default=100_000, help="how many are many (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of changes (%(default)s)")
    parser.add_argument("--changes", type=int, default=100, help="in a round (%(default)s)")
    parser.add_argument(
        "--idle", type=float, default=60.0, help="seconds in which nothing happens (%(default)s)"
    )
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="omas-bench-")))
        few = _prepared(stack, folder / "few", FEW)
        many = _prepared(stack, folder / "many", max(FEW, options.rooms))
        for one in (few, many):
            started = time.monotonic()
            one.service = stack.enter_context(service(one.installation))
            one.start = time.monotonic() - started
        reached = _measure(few, many, options.rounds, options.changes, options.idle)
    print("\nEvery goal was reached." if reached else "\nNot every goal was reached.")
    return 0 if reached else 1


def _prepared(stack: contextlib.ExitStack, folder: Path, rooms: int) -> Contestant:
    people = max(2 * MEMBERS, rooms // 5)
    homeserver = f"http://127.0.0.1:{stack.enter_context(server('benchmarks.contented', str(people)))}"
    url = f"sqlite:///{folder / 'bench.db'}"
    installation = install(folder, homeserver=homeserver, DATABASE__URL=url)

    def fill(connection: Connection, box: SecretBox) -> None:
        Peopled(rooms, people).into(connection)

    prepare(installation, fill)
    return Contestant(rooms, people, installation, homeserver)


def _measure(few: Contestant, many: Contestant, rounds: int, changes: int, idle: float) -> bool:
    both = (few, many)
    for one in both:
        for _ in range(max(1, int(changes * WARM_UP))):
            one.change()
    # What begins with the start, such as looking for what was missed, has ended by now.
    idled = _idle(both, idle)
    for number in range(rounds):
        took: dict[int, list[float]] = {few.rooms: [], many.rooms: []}
        for _ in range(changes):
            for one in both if number % 2 else reversed(both):
                took[one.rooms].append(one.change())
        for one in both:
            one.changes.append(statistics.median(took[one.rooms]))
    ratios = [m / f for f, m in zip(few.changes, many.changes, strict=True)]
    ratio = statistics.median(ratios)
    print(f"{'':36}{f'{few.rooms:,} rooms':>16}{f'{many.rooms:,} rooms':>16}{'goal':>12}")
    medians = [statistics.median(one.changes) for one in both]
    rows: list[tuple[str, float, float, str]] = [
        ("memberships", few.rooms * MEMBERS, many.rooms * MEMBERS, ""),
        ("seconds to start", few.start, many.start, f"{GOAL_START:g}"),
        ("MB of memory in the end", few.memory(), many.memory(), f"{GOAL_MB}"),
        ("requests a second while idle", idled[0][0], idled[1][0], f"{GOAL_REQUESTS:g}"),
        ("% of a processor while idle", idled[0][1], idled[1][1], f"{GOAL_CPU:g}"),
        ("ms for one change, median", medians[0], medians[1], ""),
    ]
    for title, left, right, goal in rows:
        print(f"{title:36}{left:16,.2f}{right:16,.2f}{goal:>12}")
    print(
        f"\nA change with many rooms takes x {ratio:.2f} (in the rounds {min(ratios):.2f} to "
        f"{max(ratios):.2f}); goal: at most x {GOAL_CHANGE:.2f}."
    )
    return (
        ratio <= GOAL_CHANGE
        and many.start < GOAL_START
        and many.memory() < GOAL_MB
        and idled[1][0] <= GOAL_REQUESTS
        and idled[1][1] < GOAL_CPU
    )


def _idle(both: Sequence[Contestant], seconds: float) -> list[tuple[float, float]]:
    """Let nothing happen; return of each its requests a second and its part of a processor in per cent."""
    used = []
    for one in both:
        assert one.service is not None
        one.asked()
        used.append(one.service.cpu_seconds)
    time.sleep(seconds)
    found = []
    for one, before in zip(both, used, strict=True):
        assert one.service is not None
        requests = sum(one.asked().values())
        found.append((requests / seconds, (one.service.cpu_seconds - before) / seconds * 100))
    return found


if __name__ == "__main__":
    sys.exit(main())
