"""The kinds of text and moments that specs are made of, with their limits."""

from __future__ import annotations

import re
from typing import Annotated, Final
from zoneinfo import available_timezones

from pydantic import AfterValidator, Field, PlainValidator, WithJsonSchema
from yarl import URL

from openmeet_appservice.domain.moments import from_rfc3339, to_rfc3339
from openmeet_appservice.domain.names import SLUG

MAX_NAME: Final = 255
MAX_DISPLAY_NAME: Final = 256
"""The most that Synapse takes, in characters."""

MAX_DESCRIPTION: Final = 100_000
MAX_URL: Final = 2048

MAX_TOPIC: Final = 10_000
"""In characters. Far below what fits into an event (64 KiB), even at four bytes each."""

_CONTROLS = r"\u0000-\u001f\u007f-\u009f"
_CONTROLS_BUT_SPACE = r"\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f"

# The same rules for readers of the OpenAPI document. The checks below say in words what is wrong.
_ONE_LINE = {"pattern": f"^[^{_CONTROLS}]*$"}
_ONE_LINE_NOT_BLANK = {"pattern": rf"^[^{_CONTROLS}]*[^\s{_CONTROLS}][^{_CONTROLS}]*$"}
_SEVERAL_LINES = {"pattern": f"^[^{_CONTROLS_BUT_SPACE}]*$"}


def _one_line(text: str) -> str:
    if re.search(f"[{_CONTROLS}]", text):
        raise ValueError("It holds control characters.")
    return text


def _several_lines(text: str) -> str:
    if re.search(f"[{_CONTROLS_BUT_SPACE}]", text):
        raise ValueError("It holds control characters other than tabs and line ends.")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("It is blank.")
    return text


def _slug(text: str) -> str:
    if not SLUG.fullmatch(text):
        raise ValueError(
            "A slug is 1 to 255 letters, digits, '_' and '-', and begins with a letter or digit."
        )
    return text


def _url(text: str) -> str:
    try:
        port = URL(text).port if text else 443
    except ValueError:
        port = None
    if not port:
        raise ValueError("It is no URL, or names no usable port.")
    return text


def _time_zone(text: str) -> str:
    if text not in available_timezones():
        raise ValueError("It is no time zone of the IANA database, such as Europe/Berlin.")
    return text


def _moment_text(text: object) -> str:
    return to_rfc3339(_moment(text))


def _moment(text: object) -> int:
    if not isinstance(text, str):
        raise ValueError("It is a moment of RFC 3339, such as 2026-11-22T19:00:00.123Z.")
    return from_rfc3339(text)


Name = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_NAME,
        examples=["Board Games"],
        json_schema_extra=_ONE_LINE_NOT_BLANK,
    ),
    AfterValidator(_one_line),
    AfterValidator(_not_blank),
]
"""What something is called."""

DisplayName = Annotated[
    str,
    Field(max_length=MAX_DISPLAY_NAME, examples=["Ada Lovelace"], json_schema_extra=_ONE_LINE),
    AfterValidator(_one_line),
]
"""What somebody is called; blank stands for the slug."""

Topic = Annotated[
    str,
    Field(max_length=MAX_TOPIC, examples=["Bring your own dice"], json_schema_extra=_SEVERAL_LINES),
    AfterValidator(_several_lines),
]
"""What it is about. Rooms show the first 2,000 bytes."""

Description = Annotated[
    str,
    Field(
        max_length=MAX_DESCRIPTION,
        examples=["We play short games first."],
        json_schema_extra=_SEVERAL_LINES,
    ),
    AfterValidator(_several_lines),
]
"""What OpenMeet says about it at length."""

PageUrl = Annotated[
    str,
    Field(
        max_length=MAX_URL,
        pattern=r"^https?://[^\s/?#]+[^\s]*$",
        examples=["https://openmeet.net/events/board-games-k3v9ab"],
    ),
    AfterValidator(_one_line),
]
"""A page for people."""

ImageUrl = Annotated[
    str,
    Field(
        max_length=MAX_URL,
        pattern=r"^(?:https://[^\s/?#@\\]+(?:[/?][^\s#\\]*)?)?$",
        examples=["https://images.openmeet.net/board-games.jpg"],
    ),
    AfterValidator(_one_line),
    AfterValidator(_url),
]
"""A picture, to be fetched from there."""

TimeZone = Annotated[str, Field(max_length=64, examples=["Europe/Berlin"]), AfterValidator(_time_zone)]
"""A zone of the IANA database."""

ExternalId = Annotated[
    str,
    Field(min_length=1, max_length=MAX_NAME, examples=["01JD2Z7Q"], json_schema_extra=_ONE_LINE_NOT_BLANK),
    AfterValidator(_one_line),
    AfterValidator(_not_blank),
]
"""OpenMeet's own id of something."""

SlugText = Annotated[
    str,
    Field(max_length=255, examples=["ada-x8z1q0"], json_schema_extra={"pattern": f"^(?:{SLUG.pattern})$"}),
    AfterValidator(_slug),
]
"""A slug within a body; case does not matter."""

Moment = Annotated[int, PlainValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"})]
"""RFC 3339 with an offset outside, milliseconds since the epoch inside."""

MomentText = Annotated[
    str,
    PlainValidator(_moment_text),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-27T19:00:00.000Z"]}),
]
"""RFC 3339 with an offset outside, the same in UTC with milliseconds inside and in answers."""
