"""``import``: desired state from a file, for moving in."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import orjson

from openmeet_appservice import errors, wiring
from openmeet_appservice.cli.output import DONE, PROBLEM, ProgressLine, add_command, configuration
from openmeet_appservice.cli.stored import require_tenant, with_database
from openmeet_appservice.config import Config
from openmeet_appservice.domain.moments import from_rfc3339
from openmeet_appservice.outbound.client import Answer, NoAnswer
from openmeet_appservice.provisioning.importing import OUTCOMES, Reading, import_file
from openmeet_appservice.provisioning.parts import CLOCK_TOLERANCE_MS, Parts
from openmeet_appservice.store import imports
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.imports import Progress
from openmeet_appservice.store.scratch import scratch_copy
from openmeet_appservice.store.wakeups import Wakeups

PAGE = 500
BREATH = 0.1
"""Seconds between two transactions on SQLite, where one process at a time writes: a service that runs beside
looks as often whether it is its turn."""

EPILOG = """\
Each line is a JSON object, an item as POST /v1/tenants/TENANT/batch takes it, with two fields more:

  {"op": "put", "kind": "user", "slug": "ada", "spec": {"display_name": "Ada"}}
  {"op": "put", "kind": "event", "slug": "games", "spec": {...}, "tenant": "t1",
   "as_of": "2026-11-22T19:00:00Z"}
  {"op": "put", "kind": "event_members", "slug": "games", "spec": {"members": [...]}}

(a line of the file is one line; here the second one is broken.) The lines are done in their order. One that
is refused stops no other, and is told at the end with its number and the reason.

It may run beside the service. Run again after it was cut off it goes on where it was; run again after it
ended it does everything again, which changes nothing that is as the file says. What OpenMeet wrote meanwhile
stands, if the file says when it was read (--as-of, or as_of on the lines).

exit codes: 0 done, 1 some lines were refused, 2 wrong usage or configuration
"""


def add_commands(commands: Any) -> None:
    """Add this command to the parser."""
    command = add_command(
        commands, "import", run_import, "take users, events, groups and members from a file", json=True
    )
    command.epilog = EPILOG
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_argument("file", metavar="FILE.ndjson", type=Path, help="one JSON object on each line")
    command.add_argument("--tenant", help="whose the lines are that name no tenant")
    command.add_argument(
        "--as-of",
        type=_moment,
        metavar="WHEN",
        help="when OpenMeet read what is in the file, such as 2026-11-22T19:00:00Z: what it wrote "
        "later stands",
    )
    command.add_argument(
        "--confirm-removals",
        action="store_true",
        help="remove people even if they are more than 20 and more than 20 %% of a room",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="check every line and tell what would change; change nothing"
    )


def _moment(text: str) -> int:
    try:
        found = from_rfc3339(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment such as 2026-11-22T19:00:00Z") from None
    if found > wiring.now() + CLOCK_TOLERANCE_MS:
        raise argparse.ArgumentTypeError(f"{text} is in the future")
    return found


def run_import(asked: argparse.Namespace) -> int:
    """Carry out ``import``."""
    config = configuration(asked)
    reading = Reading(asked.file, asked.tenant, asked.as_of, asked.confirm_removals)

    async def work(database: Database) -> int:
        if asked.tenant is not None:
            await database.read(require_tenant, asked.tenant)
        if asked.dry_run:
            async with scratch_copy(database) as scratch:
                return await _import(config, scratch, reading, asked, breath=0)
        breath = BREATH if database.dialect == "sqlite" else 0
        return await _import(config, database, reading, asked, breath=breath)

    try:
        return with_database(config, work)
    except OSError as error:
        raise errors.UsageError(f"{asked.file}: {error.strerror}") from error


async def _import(
    config: Config, database: Database, reading: Reading, asked: argparse.Namespace, *, breath: float
) -> int:
    digest = await asyncio.to_thread(reading.digest)
    size = reading.path.stat().st_size
    begun = await database.read(imports.get, digest)
    if begun.line and not asked.json:
        print(f"Going on after line {begun.line}.")
    with ProgressLine(wanted=not asked.json) as line:
        done = await import_file(
            _parts(config, database),
            reading,
            digest,
            on_progress=lambda progress: line.show(_words(progress, size)),
            pause=lambda: asyncio.sleep(breath),
        )
    counts = _by_kind(done)
    refused = sum(one["refused"] for one in counts.values())
    head = {
        "dry_run": asked.dry_run,
        "lines": done.line,
        "continued_after_line": begun.line or None,
        "counts": counts,
    }
    if asked.json:
        await _print_json(database, digest, head)
    else:
        await _print_text(database, digest, head)
    await database.write(imports.forget, digest)
    return PROBLEM if refused else DONE


def _parts(config: Config, database: Database) -> Parts:
    async def post(url: str, body: bytes, headers: object) -> Answer | NoAnswer:
        raise AssertionError("an import sends no webhook")

    return wiring.provisioning_parts(config, database, Wakeups(), post)


def _by_kind(done: Progress) -> dict[str, dict[str, int]]:
    """Return the counts by kind and outcome, each outcome there even where it is 0."""
    found: dict[str, Counter[str]] = {}
    for name, count in sorted(done.counts.items()):
        kind, _, outcome = name.partition(" ")
        found.setdefault(kind, Counter())[outcome] += count
    return {kind: {outcome: counts[outcome] for outcome in OUTCOMES} for kind, counts in found.items()}


def _words(progress: Progress, size: int) -> str:
    share = progress.bytes / size if size else 1.0
    bar = "#" * round(20 * min(share, 1.0))
    refused = sum(count for name, count in progress.counts.items() if name.endswith(" refused"))
    return f"[{bar:<20}] {share:4.0%}, {progress.line} lines done, {refused} refused"


async def _print_text(database: Database, digest: str, head: dict[str, Any]) -> None:
    after = 0
    while page := await database.read(imports.refusals, digest, after=after, limit=PAGE):
        for one in page:
            print(f"line {one.line} refused: {one.code}: {one.detail}")
        after = page[-1].line
    for kind, counts in head["counts"].items():
        print(f"{kind}: {', '.join(f'{count} {outcome}' for outcome, count in counts.items() if count)}")
    print(f"{head['lines']} lines read.")
    if head["dry_run"]:
        print("This was a dry run: nothing was changed.")


async def _print_json(database: Database, digest: str, head: dict[str, Any]) -> None:
    """Print one object piece by piece, for there may be as many refusals as lines."""
    text = orjson.dumps(head).decode()
    print(f'{text[:-1]},"refused":[', end="")
    after = 0
    while page := await database.read(imports.refusals, digest, after=after, limit=PAGE):
        for one in page:
            print("," if after else "", end="")
            entry = {"line": one.line, "code": one.code, "detail": one.detail}
            print("\n" + orjson.dumps(entry).decode(), end="")
            after = one.line
    print("]}")
