"""What commands have in common: exit codes, ``--config``, ``--json``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

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


def positive(text: str) -> int:
    """Return the number of an option that counts from 1."""
    if not (text.isascii() and text.isdigit() and int(text[:18])):
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on, not {text!r}")
    return int(text[:18])


def print_json(value: Any) -> None:
    """Print *value* as JSON for programs, and legible for people."""
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print *rows* below *head*, each column as wide as it has to be."""
    lines = [list(map(str, row)) for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


class ProgressLine:
    """One line on standard error that is written over again and again; nothing where nobody would see it.

    Used as a context manager, which ends the line.
    """

    def __init__(self, *, wanted: bool = True) -> None:
        self._shown = wanted and sys.stderr.isatty()
        self._width = 0

    def show(self, words: str) -> None:
        """Put *words* in the place of what was there."""
        if self._shown:
            print(f"\r{words.ljust(self._width)}", end="", file=sys.stderr, flush=True)
            self._width = len(words)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width:
            print(file=sys.stderr)
