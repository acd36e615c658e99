"""The command line, thin: each command reads its words, calls the part that does it, and prints.

Exit codes, the same for all commands: 0 done; 1 it ran and found a problem; 2 wrong usage or configuration.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from openmeet_appservice import __version__, errors
from openmeet_appservice.cli import admin, adopting, delivery, explaining, importing, service, setup
from openmeet_appservice.cli.output import DONE, PROBLEM, WRONG_USAGE

EPILOG = """\
exit codes: 0 done, 1 it ran and found a problem, 2 wrong usage or configuration

Every key of the configuration can be given as OPENMEET_AS_<SECTION>__<KEY> as well,
and read from a file as OPENMEET_AS_<SECTION>__<KEY>_FILE.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog="openmeet-appservice",
        description="The Matrix application service of OpenMeet.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"openmeet-appservice {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for part in (setup, service, admin, explaining, importing, adopting, delivery):
        part.add_commands(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        try:
            return _run(arguments)
        finally:
            # Here, where it can still be handled that nobody reads it.
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is left goes nowhere, or the interpreter would
        # complain when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE


def _run(arguments: Sequence[str] | None) -> int:
    asked = build_parser().parse_args(arguments)
    try:
        return int(asked.command(asked))
    except (errors.ConfigError, errors.UsageError) as error:
        print(error, file=sys.stderr)
        return WRONG_USAGE
    except errors.OpenMeetError as error:
        print(f"error: {error}", file=sys.stderr)
        return PROBLEM
