"""``python -m benchmarks.delivery_proof``: run the proof, print what came of it, exit 0 only if it holds."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from benchmarks.delivery_proof.proof import Options, Outcome, prove
from benchmarks.delivery_proof.scenario import Scale


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.delivery_proof",
        description="Proves that every event arrives, in order, while everything around it fails.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--seed", type=int, default=1, help="chooses what happens")
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--replicas", type=int, help="processes that share the work (sqlite 1, postgresql 3)")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--tenants", type=int, default=5)
    parser.add_argument("--rooms", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100, help="with SIGKILL, of one process each")
    parser.add_argument("--restarts", type=int, help="of the database server (sqlite 0, postgresql 10)")
    parser.add_argument("--outages", type=int, default=2, help="of a whole endpoint, for some seconds")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep the processes' logs there")
    given = parser.parse_args()
    is_sqlite = given.database == "sqlite"
    replicas = given.replicas or (1 if is_sqlite else 3)
    restarts = given.restarts if given.restarts is not None else (0 if is_sqlite else 10)
    if is_sqlite and (replicas > 1 or restarts):
        parser.error("SQLite has one process and no server")
    if not 1 <= given.tenants <= given.rooms:
        parser.error("every tenant needs a room")
    options = Options(
        seed=given.seed,
        database=given.database,
        replicas=replicas,
        scale=Scale(given.tenants, given.rooms, given.events),
        kills=given.kills,
        restarts=restarts,
        outages=given.outages,
        logs=given.logs,
    )
    outcome = asyncio.run(prove(options))
    print(table(outcome))
    return 0 if outcome.holds else 1


def table(outcome: Outcome) -> str:
    """Return what came of a run, to be read."""
    options, verdict = outcome.options, outcome.verdict
    rows = [
        ("seed", str(options.seed)),
        ("database, processes", f"{options.database}, {options.replicas}"),
        (
            "tenants, rooms, endpoints",
            _numbers(options.scale.tenants, options.scale.rooms, options.scale.tenants + 1),
        ),
        ("events pushed", f"{options.scale.events:,} in {outcome.transactions:,} transactions"),
        ("pushes that failed", _counts(outcome.pushes_failed)),
        ("blows", _counts({blow.value: number for blow, number in outcome.fell.items()})),
        ("requests", _counts({kind.value: number for kind, number in outcome.treated.items()})),
        ("events to arrive", f"{verdict.events:,}"),
        ("events arrived", f"{verdict.arrived:,}"),
        ("requests in all", f"{verdict.requests:,}"),
        (
            "repeats, same bytes",
            f"{verdict.repeats:,} ({verdict.needless:,} of what was taken, {verdict.late:,} late)",
        ),
        ("splits", f"{verdict.splits:,}"),
        ("seconds", f"{outcome.seconds:,.0f} ({verdict.arrived / outcome.seconds:,.0f} events/s arrived)"),
    ]
    lines = [f"{name:27}{value}" for name, value in rows]
    faults = {kind.value: number for kind, number in verdict.faults.items()}
    if outcome.stray:
        faults["request that nobody should have sent"] = outcome.stray
    lines += [f"FAULT  {name}: {number:,}" for name, number in faults.items()]
    lines += [f"       {example}" for example in verdict.examples]
    lines += [f"FAULT  {trouble}" for trouble in outcome.troubles]
    lines.append("The promises hold." if outcome.holds else "The promises are BROKEN.")
    return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items())) or "none"


def _numbers(*numbers: int) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


if __name__ == "__main__":
    sys.exit(main())
