"""``run``, ``migrate``, ``doctor``, ``dev`` and ``healthcheck``."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
from dataclasses import asdict
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

from aiohttp import ClientError, ClientSession

from openmeet_appservice import app, errors, wiring
from openmeet_appservice.cli.output import DONE, PROBLEM, add_command, configuration, print_json
from openmeet_appservice.cli.stored import alone
from openmeet_appservice.config import Config
from openmeet_appservice.ops.logs import set_up_logging
from openmeet_appservice.store import resealing, schema
from openmeet_appservice.store.secretbox import SecretBox

HEALTHCHECK_SECONDS = 5.0


def add_commands(commands: Any) -> None:
    """Add these commands to the parser."""
    add_command(commands, "run", run_service, "run the service until it is told to stop")
    migrate = add_command(
        commands, "migrate", run_migrate, "bring the database to the newest schema and encryption key"
    )
    migrate.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 if the schema is not the newest"
    )
    add_command(
        commands,
        "doctor",
        run_doctor_command,
        "check everything that may be wrong, with what to do",
        json=True,
    )
    dev = add_command(
        commands,
        "dev",
        run_dev,
        "start a throw-away Synapse, this service and a stand-in for OpenMeet, and play the whole story",
        config=False,
    )
    dev.add_argument("--once", action="store_true", help="end after the story; exit 0 if all of it was seen")
    dev.add_argument("--fresh", action="store_true", help="forget what an earlier start left behind")
    dev.add_argument(
        "--folder",
        type=Path,
        default=Path(".dev"),
        metavar="DIR",
        help="where it keeps its state (%(default)s)",
    )
    add_command(commands, "healthcheck", run_healthcheck, "ask a running service whether it is ready")


def run_service(asked: argparse.Namespace) -> int:
    """Carry out ``run``."""
    config = configuration(asked)
    set_up_logging(config.logging.level, config.logging.format)
    return asyncio.run(app.run(config))


def run_migrate(asked: argparse.Namespace) -> int:
    """Carry out ``migrate``."""
    before, resealed = asyncio.run(_migrate(configuration(asked), check=asked.check))
    newest = schema.newest_revision()
    if asked.check or before == newest:
        print(f"The database has the newest schema, {newest}.")
    else:
        print(f"The database had {f'schema {before}' if before else 'no schema'} and has {newest} now.")
    if resealed:
        print(f"{resealed} secrets were encrypted anew with the first of security.encryption_keys.")
    return DONE


async def _migrate(config: Config, *, check: bool) -> tuple[str | None, int]:
    """Return the schema of before, and how many secrets were under an older key."""
    database = wiring.open_database(config)
    try:
        if check:
            await database.read(schema.check)
            return None, 0
        with alone(database):
            before = await database.write(schema.migrate)
            return before, await resealing.reseal(database, SecretBox(config.security.keys))
    finally:
        await database.close()


def run_doctor_command(asked: argparse.Namespace) -> int:
    """Carry out ``doctor``."""
    from openmeet_appservice.ops.doctor import Level, as_text, run_doctor

    findings = asyncio.run(run_doctor(configuration(asked), asked.config))
    if asked.json:
        print_json([asdict(finding) for finding in findings])
    else:
        print(as_text(findings))
    return PROBLEM if any(finding.level is Level.PROBLEM for finding in findings) else DONE


def run_dev(asked: argparse.Namespace) -> int:
    """Carry out ``dev``."""
    # Only here: a service in production needs none of it installed.
    from openmeet_appservice.dev import stack
    from openmeet_appservice.dev.synapse import installed_version

    installed_version()
    if asked.fresh:
        stack.forget(asked.folder)
    try:
        return asyncio.run(_dev(asked.folder, once=asked.once))
    except (errors.ConfigError, errors.UsageError):
        raise
    except (errors.OpenMeetError, ClientError, TimeoutError) as error:
        why = str(error) or type(error).__name__
        print(f"The story failed: {why}\nThe service's log is {asked.folder / 'service.log'}.")
        return PROBLEM


async def _dev(folder: Path, *, once: bool) -> int:
    seen = asyncio.Event()
    playing = asyncio.create_task(_play(folder, seen, once=once))

    def stop() -> None:
        # Once only: a second Ctrl-C would cut off the parts that are being stopped.
        if not playing.cancelling():
            playing.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await playing
    except asyncio.CancelledError:
        if not seen.is_set():
            print("Stopped before the story was over.")
    return DONE if seen.is_set() else PROBLEM


async def _play(folder: Path, seen: asyncio.Event, *, once: bool) -> None:
    from openmeet_appservice.dev import stack, story

    def say(line: str) -> None:
        print(line, flush=True)

    async with ClientSession() as session, stack.running(folder, session, say) as running:
        await story.play(running.cast, session, secrets.token_hex(4), say)
        say("The whole story was seen.")
        seen.set()
        if not once:
            say(stack.directions(running))
            say("Everything stays up until Ctrl-C.")
            await asyncio.Event().wait()


def run_healthcheck(asked: argparse.Namespace) -> int:
    """Carry out ``healthcheck``."""
    listen = configuration(asked).ops.listen
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)  # noqa: S104
    url = f"http://{f'[{host}]' if ':' in host else host}:{listen.port}/ready"
    # Straight to it: a proxy from the environment does not know this machine's own addresses.
    opener = build_opener(ProxyHandler({}))
    try:
        with opener.open(url, timeout=HEALTHCHECK_SECONDS) as answer:
            print(answer.read().decode())
    except HTTPError as error:
        print(f"{url}: {error.read().decode(errors='replace')}")
        return PROBLEM
    except (OSError, HTTPException) as error:
        print(f"{url}: {error}")
        return PROBLEM
    return DONE
