"""How fast what happens in the rooms reaches a webhook, through the service as it is run.

``python -m benchmarks.delivery`` runs the service on SQLite and on PostgreSQL, pushes transactions at it as
Synapse does, and reads from a receiver in another process what came and when. It measures

throughput
    events a second, from the first transaction's sending to the last event's arrival, from many rooms
delay
    from a transaction's sending to the arrival of the webhook with its events, at a moderate load
cost
    of one event, one after the other, in time and in the processor's time, with few and with many idle rooms

and prints medians. See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection

from benchmarks.processes import Service, SinkReader, install, postgresql, prepare, server, service
from benchmarks.provisioned import Provisioned
from benchmarks.pushing import HS_TOKEN, Pusher, event_id, mixed, transactions
from benchmarks.webhook_sink import SECRET
from openmeet_appservice.store.secretbox import SecretBox

GOAL_RATE = 2000
GOAL_DATABASE = "sqlite"
GOAL_COST = 1.10
ROOMS = 200
MAX_BATCH = 10
TRANSACTION = 100
"""How many events are in a transaction, where Synapse has many to send."""

LOAD = 200
"""Events a second, in transactions of `LOAD_TRANSACTION`: a lively evening, for all that Synapse takes."""
LOAD_TRANSACTION = 4

SLICES = 10
"""In so many slices the two of a comparison take turns, so that all else disturbs both alike."""

WARM_UP = 0.2
"""How large a part of a round comes before the first one, and is not counted."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is pushed.

    Parameters
    ----------
    rounds
        How often everything is measured.
    events
        How many events a round of throughput has.
    delayed
        How many a round of delay has.
    single
        How many, one by one, a round of cost has.
    idle
        How many idle rooms are many.
    """

    rounds: int
    events: int
    delayed: int
    single: int
    idle: int


@dataclass(slots=True)
class Contestant:
    """A service that runs, and what was measured of it."""

    name: str
    service: Service
    pusher: Pusher
    sink: SinkReader
    arrived: int = 0
    repeated: int = 0
    rates: list[float] = field(default_factory=list)
    delays: list[list[float]] = field(default_factory=list)
    costs: list[tuple[float, float]] = field(default_factory=list)

    def throughput(self, label: str, count: int) -> float:
        """Return how many events a second went through."""
        size = min(TRANSACTION, count)
        requests = transactions(label, count // size, size, mixed(ROOMS))
        started = time.monotonic_ns()
        self.pusher.push(requests)
        arrivals = self._all_of(label, len(requests) * size)
        return len(arrivals) * 1e9 / (max(arrivals.values()) - started)

    def delay(self, label: str, count: int) -> list[float]:
        """Return how many milliseconds each event took, at an even load."""
        requests = transactions(label, count // LOAD_TRANSACTION, LOAD_TRANSACTION, mixed(ROOMS))
        sent: list[int] = []
        started = time.monotonic()
        for number, request in enumerate(requests):
            time.sleep(max(0.0, started + number * LOAD_TRANSACTION / LOAD - time.monotonic()))
            sent.append(time.monotonic_ns())
            self.pusher.push([request])
        arrivals = self._all_of(label, len(requests) * LOAD_TRANSACTION)
        return [
            (arrivals[event_id(label, number)] - sent[number // LOAD_TRANSACTION]) / 1e6
            for number in range(len(arrivals))
        ]

    def cost(self, label: str, count: int) -> tuple[list[float], float]:
        """Return the milliseconds of each event's way, and of the processor's in all; each goes alone."""
        requests = transactions(label, count, 1, lambda number: 0)
        took: list[float] = []
        used = self.service.cpu_seconds
        for number, request in enumerate(requests):
            sent = time.monotonic_ns()
            self.pusher.push([request])
            took.append((self._all_of(label, 1)[event_id(label, number)] - sent) / 1e6)
        return took, (self.service.cpu_seconds - used) * 1000

    def _all_of(self, label: str, count: int) -> dict[str, int]:
        self.arrived += count
        self.repeated = self.sink.await_count(self.name, self.arrived)
        arrivals = self.sink.arrivals(self.name)
        if len(arrivals) != count:
            raise RuntimeError(f"{label}: {len(arrivals)} of {count} events came")
        return arrivals


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 if every goal was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("sqlite", "postgresql"), help="one database only")
    parser.add_argument("--parts", default="throughput,delay,cost", help="which to measure (%(default)s)")
    parser.add_argument("--events", type=int, default=20_000, help="in a round of throughput (%(default)s)")
    parser.add_argument("--idle-rooms", type=int, default=100_000, help="how many are many (%(default)s)")
    options = parser.parse_args(arguments)
    few = max(8, options.events // 10)
    sizes = Sizes(options.rounds, options.events, few, max(5, few // 10), options.idle_rooms)
    databases = [options.only] if options.only else ["sqlite", "postgresql"]
    parts = options.parts.split(",")
    reached = True
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="omas-bench-")))
        sink = stack.enter_context(server("benchmarks.webhook_sink"))
        stage = _Stage(stack, folder, sink)
        if "throughput" in parts or "delay" in parts:
            reached &= _measure_flow([stage.contestant(name, ROOMS) for name in databases], parts, sizes)
        if "cost" in parts:
            for name in databases:
                few_idle = stage.contestant(name, 1, idle=1)
                many_idle = stage.contestant(name, 1, idle=sizes.idle)
                reached &= _measure_cost(name, few_idle, many_idle, sizes)
    print("\nEvery goal was reached." if reached else "\nNot every goal was reached.")
    return 0 if reached else 1


@dataclass(frozen=True, slots=True)
class _Stage:
    """Starts the contestants; *sink* is the receiver's port."""

    stack: contextlib.ExitStack
    folder: Path
    sink: int

    def contestant(self, database: str, rooms: int, idle: int = 0) -> Contestant:
        """Start a service with so many rooms on such a database."""
        name = f"{database}-{rooms}-{idle}"
        folder = self.folder / name
        url = f"sqlite:///{folder / 'bench.db'}"
        if database == "postgresql":
            url = self.stack.enter_context(postgresql(self.folder / f"{name}-server"))
        installation = install(
            folder,
            homeserver=f"http://127.0.0.1:{self.sink}",
            DATABASE__URL=url,
            APPSERVICE__HS_TOKEN=HS_TOKEN,
            WEBHOOKS__MAX_BATCH=str(MAX_BATCH),
        )

        def fill(connection: Connection, box: SecretBox) -> None:
            url = f"http://127.0.0.1:{self.sink}/hook/{name}"
            Provisioned(rooms, idle, url, box.seal(SECRET)).into(connection)

        prepare(installation, fill)
        running = self.stack.enter_context(service(installation))
        pusher = Pusher(int(installation.of("APPSERVICE").rpartition(":")[2]))
        self.stack.callback(pusher.close)
        return Contestant(name, running, pusher, SinkReader(self.sink))


def _measure_flow(contestants: list[Contestant], parts: list[str], sizes: Sizes) -> bool:
    for contestant in contestants:
        contestant.throughput("warm", max(1, int(sizes.events * WARM_UP)))
    for number in range(sizes.rounds):
        for contestant in contestants:
            if "throughput" in parts:
                contestant.rates.append(contestant.throughput(f"flow{number}", sizes.events))
            if "delay" in parts:
                contestant.delays.append(contestant.delay(f"delay{number}", sizes.delayed))
    reached = True
    if "throughput" in parts:
        print(
            f"\nevents a second from {ROOMS} rooms, at most {MAX_BATCH} in a webhook; "
            f"goal {GOAL_RATE} on {GOAL_DATABASE}"
        )
        print(f"{'':20}{'median':>10}{'lowest':>10}{'highest':>10}{'x goal':>10}{'repeated':>10}")
        for one in contestants:
            median = statistics.median(one.rates)
            reached &= median >= GOAL_RATE or _title(one) != GOAL_DATABASE
            print(
                f"{_title(one):20}{median:10.0f}{min(one.rates):10.0f}{max(one.rates):10.0f}"
                f"{median / GOAL_RATE:10.2f}{one.repeated:10}"
            )
    if "delay" in parts:
        print(f"\nms from a transaction's sending to the webhook, at {LOAD} events a second")
        print(f"{'':20}{'p50':>10}{'p99':>10}{'highest':>10}")
        for one in contestants:
            p50, p99 = (statistics.median(_part(each, part) for each in one.delays) for part in (0.50, 0.99))
            print(f"{_title(one):20}{p50:10.1f}{p99:10.1f}{max(map(max, one.delays)):10.1f}")
    return reached


def _measure_cost(database: str, few: Contestant, many: Contestant, sizes: Sizes) -> bool:
    for one in (few, many):
        one.cost("warm", max(1, int(sizes.single * WARM_UP)))
    for number in range(sizes.rounds):
        took: dict[str, list[float]] = {few.name: [], many.name: []}
        used = dict.fromkeys(took, 0.0)
        for part in range(SLICES):
            for one in (few, many) if part % 2 else (many, few):
                times, processor = one.cost(f"cost{number}-{part}", max(1, sizes.single // SLICES))
                took[one.name] += times
                used[one.name] += processor
        for one in (few, many):
            one.costs.append((statistics.median(took[one.name]), used[one.name] / len(took[one.name])))
    print(f"\n{database}: ms for one event, alone, with few and with many idle rooms; goal x {GOAL_COST:.2f}")
    print(f"{'':20}{'1 idle':>10}{f'{sizes.idle:,} idle':>18}{'ratio':>10}{'lowest':>10}{'highest':>10}")
    worst = 0.0
    for which, title in enumerate(("until it arrives", "of the processor")):
        ratios = [m[which] / max(f[which], 1e-9) for m, f in zip(many.costs, few.costs, strict=True)]
        medians = [statistics.median(cost[which] for cost in one.costs) for one in (few, many)]
        ratio = statistics.median(ratios)
        worst = max(worst, ratio)
        print(
            f"{title:20}{medians[0]:10.2f}{medians[1]:18.2f}"
            f"{ratio:10.2f}{min(ratios):10.2f}{max(ratios):10.2f}"
        )
    return worst <= GOAL_COST


def _title(contestant: Contestant) -> str:
    return contestant.name.partition("-")[0]


def _part(values: list[float], part: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


if __name__ == "__main__":
    sys.exit(main())
