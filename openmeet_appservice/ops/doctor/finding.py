"""What a check has found, and how it is printed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from openmeet_appservice.ops.logs import redact


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    INFO = "info"
    """Good to know; nothing is to be done."""
    WARNING = "warning"
    """It works, but an admin should look at it."""
    PROBLEM = "problem"
    """Something does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `doctor`.

    The words may come from elsewhere, such as an answer of Synapse: they are made one line without control
    characters, and secrets in them are starred out.

    Parameters
    ----------
    name
        What was looked at.
    what
        How it is.
    remedy
        What an admin does about it, None where there is nothing to do.
    """

    name: str
    level: Level
    what: str
    remedy: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "what", _one_line(self.what))
        if self.remedy is not None:
            object.__setattr__(self, "remedy", _one_line(self.remedy))


_MARKS = {Level.OK: "✔", Level.INFO: "·", Level.WARNING: "!", Level.PROBLEM: "✘"}


def ok(name: str, what: str) -> Finding:
    """Return that all is well."""
    return Finding(name, Level.OK, what)


def info(name: str, what: str, remedy: str | None = None) -> Finding:
    """Return what is good to know."""
    return Finding(name, Level.INFO, what, remedy)


def warning(name: str, what: str, remedy: str) -> Finding:
    """Return what an admin should look at."""
    return Finding(name, Level.WARNING, what, remedy)


def problem(name: str, what: str, remedy: str) -> Finding:
    """Return what does not work."""
    return Finding(name, Level.PROBLEM, what, remedy)


def skipped(names: Sequence[str], needed: str) -> Finding:
    """Return that the checks *names* were not made, because they need what *needed* names."""
    return info(", ".join(names), f"not checked: needs {needed}")


def as_text(findings: Iterable[Finding]) -> str:
    """Write one line for each finding."""
    return "\n".join(_line(finding) for finding in findings)


def _line(finding: Finding) -> str:
    remedy = f" — {finding.remedy}" if finding.remedy else ""
    return f"{_MARKS[finding.level]} {finding.name}: {finding.what}{remedy}"


def _one_line(text: str) -> str:
    return redact("".join(letter if letter.isprintable() else " " for letter in text))
