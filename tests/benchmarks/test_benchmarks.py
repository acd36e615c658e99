"""The benchmarks still run to their verdict, whatever that is: with loads too small to measure anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(benchmark: str, *arguments: str) -> str:
    """Run a benchmark as a person does, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{benchmark}", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # 1 is a goal that was not reached, which is no wonder here.
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def test_ingest() -> None:
    printed = run("ingest", "--rounds", "1", "--part", "0.01", "--only", "ours/sqlite,one-commit")
    assert "ours/sqlite" in printed
    assert "100 events a transaction" in printed


def test_delivery() -> None:
    printed = run("delivery", "--rounds", "1", "--events", "200", "--idle-rooms", "20", "--only", "sqlite")
    assert "events a second from 200 rooms" in printed
    assert "until it arrives" in printed
    assert printed.endswith(("Every goal was reached.\n", "Not every goal was reached.\n"))


def test_latency() -> None:
    printed = run("latency", "--rounds", "1", "--messages", "2")
    assert "The p50 of ours is" in printed


def test_rooms() -> None:
    printed = run("rooms", "--rounds", "1", "--puppets", "3")
    assert "Ours takes x" in printed


def test_scale() -> None:
    printed = run("scale", "--rooms", "20", "--rounds", "1", "--changes", "3", "--idle", "0.1")
    assert "A change with many rooms takes x" in printed
