"""The topic of a room: what OpenMeet wrote, or a template filled with what it said of the event."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

DEFAULT_TEMPLATE: Final = "{when}\n{description}\n{url}"

_FIELDS: Final = frozenset({"name", "description", "when", "url"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
# Not strftime's: what a room is called must not depend on the language of the machine.
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When an event is: milliseconds since the epoch, and the name of its zone (IANA)."""

    starts_at: int
    ends_at: int | None = None
    time_zone: str = "UTC"


def check_template(text: str) -> str:
    """Return *text* if it is a template for topics.

    Raises
    ------
    ValueError
        It holds a lone brace or an unknown field.
    """
    try:
        found = list(string.Formatter().parse(text))
    except ValueError:
        raise ValueError("holds a lone brace; write {{ and }} for braces of the text itself") from None
    for _, field, form, conversion in found:
        if field is not None and (field not in _FIELDS or form or conversion):
            known = ", ".join(f"{{{name}}}" for name in sorted(_FIELDS))
            raise ValueError(f"holds {{{field}}}; its fields are {known}, without a format")
    return text


def fill_topic(template: str, *, name: str, description: str, url: str, schedule: Schedule | None) -> str:
    """Fill the template; a line of it whose fields are all empty is left out.

    Parameters
    ----------
    template
        Text with the fields ``{name}``, ``{description}``, ``{when}`` and ``{url}``.
    schedule
        What ``{when}`` tells, in the event's own zone; None: it is empty.
    """
    values = {
        "name": name.strip(),
        "description": description.strip(),
        "url": url,
        "when": "" if schedule is None else when(schedule),
    }
    lines = (_line(line, values) for line in template.split("\n"))
    return "\n".join(line for line in lines if line is not None)


def when(schedule: Schedule) -> str:
    """Say when the event is, such as ``Fri, 27 Nov 2026, 19:00–22:00 (Europe/Berlin)``."""
    start = _local(schedule.starts_at, schedule.time_zone)
    text = f"{_day(start)}, {_time(start)}"
    if schedule.ends_at is not None:
        end = _local(schedule.ends_at, schedule.time_zone)
        same_day = end.date() == start.date()
        text += f"–{_time(end)}" if same_day else f" – {_day(end)}, {_time(end)}"
    return f"{text} ({schedule.time_zone})"


def _line(line: str, values: Mapping[str, str]) -> str | None:
    fields = [field for _, field, _, _ in string.Formatter().parse(line) if field is not None]
    if fields and not any(values[field] for field in fields):
        return None
    return line.format_map(values).strip()


def _local(moment: int, zone: str) -> datetime:
    return (_EPOCH + timedelta(milliseconds=moment)).astimezone(ZoneInfo(zone))


def _day(moment: datetime) -> str:
    return f"{_DAYS[moment.weekday()]}, {moment.day} {_MONTHS[moment.month - 1]} {moment.year}"


def _time(moment: datetime) -> str:
    return f"{moment.hour:02d}:{moment.minute:02d}"
