"""What commands have in common: exit codes, ``--config``, ``--json``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from openmeet_appservice.config import Config, load_config

DONE, PROBLEM, WRONG_USAGE = 0, 1, 2

Command = Callable[[argparse.Namespace], int]


def add_command(
    commands: Any, name: str, run: Command, summary: str, *, config: bool = True, json: bool = False
) -> argparse.ArgumentParser:
    """Add the command *name*, which *run* carries out.

    Parameters
    ----------
    config, json
        Whether it takes ``--config`` and ``--json``.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=summary[0].upper() + summary[1:] + "."
    )
    if config:
        parser.add_argument(
            "-c", "--config", type=Path, default=Path("config.yaml"), help="default: %(default)s"
        )
    if json:
        parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(command=run)
    return parser


def add_group(commands: Any, name: str, summary: str) -> Any:
    """Add a command with commands of its own, such as ``config check``."""
    parser = commands.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".")
    return parser.add_subparsers(title="commands", metavar="COMMAND", required=True)


def configuration(asked: argparse.Namespace) -> Config:
    """Return the configuration that ``--config`` and the environment give."""
    return load_config(asked.config, os.environ)


def print_json(value: Any) -> None:
    """Print *value* as JSON for programs, and legible for people."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
