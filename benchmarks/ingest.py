"""How many events a second are taken and made durable, beside others who do less.

``python -m benchmarks.ingest`` starts each server in a process of its own and pushes transactions at one
after the other, round after round; it prints the medians and their ratios. See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import postgresql, server
from benchmarks.pushing import Pusher, transactions

SIZES = {1: 2000, 100: 100}
"""How many transactions a run has, by the number of events in each."""

SLICES = 4
"""A run is cut into slices, and the contestants take turns slice by slice: what else happens on the machine
meanwhile then disturbs all of them alike."""


@dataclass(slots=True)
class Contestant:
    """A server that runs, and its rates (events a second) by the size of the transactions."""

    title: str
    pusher: Pusher
    rates: dict[int, list[float]] = field(default_factory=lambda: {size: [] for size in SIZES})

    def median(self, size: int) -> float:
        """The median of its rates."""
        return statistics.median(self.rates[size])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="comma-separated titles, such as ours/sqlite,mautrix")
    parser.add_argument("--part", type=float, default=1.0, help="how large a part of the load (%(default)s)")
    options = parser.parse_args(arguments)
    sizes = {size: max(SLICES, int(count * options.part)) for size, count in SIZES.items()}
    with contextlib.ExitStack() as stack:
        contestants = _start(stack, options.only.split(",") if options.only else None)
        for size in SIZES:
            _run(contestants, size, sizes[size], "warm")
            for contestant in contestants:
                contestant.rates[size].clear()
            for number in range(options.rounds):
                _run(contestants, size, sizes[size], f"run{number}")
        _print(contestants)


def _start(stack: contextlib.ExitStack, only: list[str] | None) -> list[Contestant]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="omas-bench-")))
    wheres: dict[str, tuple[str, Callable[[], str]]] = {
        "ours/sqlite": ("ours", lambda: f"sqlite:///{folder / 'ours.db'}"),
        "ours/postgresql": ("ours", lambda: stack.enter_context(postgresql(folder / "postgresql"))),
        "mautrix": ("mautrix", lambda: str(folder)),
        "one-commit": ("one-commit", lambda: str(folder)),
        "one-commit-inline": ("one-commit-inline", lambda: str(folder)),
        "bare": ("bare", lambda: str(folder)),
    }
    return [
        Contestant(title, Pusher(stack.enter_context(server("benchmarks.ingest_servers", kind, where()))))
        for title, (kind, where) in wheres.items()
        if only is None or title in only
    ]


def _run(contestants: list[Contestant], size: int, count: int, name: str) -> None:
    """Let each contestant take the same number of transactions, in turns."""
    requests = transactions(f"{name}-{size}", count, size)
    seconds = dict.fromkeys((contestant.title for contestant in contestants), 0.0)
    step = count // SLICES
    for start in range(0, count, step):
        for contestant in contestants:
            seconds[contestant.title] += contestant.pusher.push(requests[start : start + step])
    for contestant in contestants:
        contestant.rates[size].append(count * size / seconds[contestant.title])


def _print(contestants: list[Contestant]) -> None:
    by_title = {contestant.title: contestant for contestant in contestants}
    for size in SIZES:
        print(f"\n{size} event{'s' if size > 1 else ''} a transaction")
        print(f"{'':20}{'events/s':>10}{'lowest':>10}{'highest':>10}{'x mautrix':>11}{'x one-commit':>14}")
        for contestant in contestants:
            rates = contestant.rates[size]
            ratios = [
                f"{contestant.median(size) / by_title[other].median(size):.2f}" if other in by_title else "-"
                for other in ("mautrix", "one-commit")
            ]
            print(
                f"{contestant.title:20}{contestant.median(size):10.0f}{min(rates):10.0f}{max(rates):10.0f}"
                f"{ratios[0]:>11}{ratios[1]:>14}"
            )


if __name__ == "__main__":
    main()
