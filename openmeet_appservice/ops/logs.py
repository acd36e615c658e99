"""Log lines as text or JSON: with tenant, room and request id, and without secrets.

Everything goes through `redact` after formatting, so it does not matter whether a secret came in the
message, an argument, an extra field or a traceback.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Literal, TextIO, TypeAlias

from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.web.context import current

Format: TypeAlias = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_ORDER = ("tenant", "room", "request_id")
_LINE_BREAKS = str.maketrans(
    {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
    | {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)
_VALUE = r"[^\s\"',;&}\])]+"
_NAMED = (
    r"(?:access_token|refresh_token|as_token|hs_token|admin_token|registration_shared_secret"
    r"|client_secret|secret|password)(?:_next)?"
)
_IS = r"['\"]?\s*[:=]\s*(?:b?['\"])?"
_SECRETS = (
    re.compile(rf"(?i)(authorization{_IS}(?:(?:bearer|basic)\s+)?){_VALUE}"),
    re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{16,}"),
    re.compile(rf"(?i)(\b{_NAMED}{_IS}){_VALUE}"),
    re.compile(r"\b(omk_(?:admin|platform|tenant)_)[A-Za-z0-9_-]+"),
    re.compile(r"\b(whsec_)[A-Za-z0-9+/=_-]+"),
    re.compile(r"\b(sy[trl]_)[A-Za-z0-9_]{16,}"),
    re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@\"']+:)[^\s/@\"']+(?=@)"),
)

_QUIET = {
    "aiohttp.access": logging.WARNING,
    "asyncio": logging.WARNING,
    "mau": logging.WARNING,
    "mautrix": logging.WARNING,
    "alembic": logging.WARNING,
    "sqlalchemy": logging.WARNING,
}


def redact(text: str) -> str:
    """Return *text* with API keys, tokens, webhook secrets and passwords in URLs starred out."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1***", text)
    return text


class TextFormatter(logging.Formatter):
    """``2026-11-22T19:00:00.123Z INFO openmeet_appservice.intake: message [tenant=t1 room=!r]``.

    One record is one line, except for its traceback: line breaks in a message are escaped, so that
    nobody can forge a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for *record*."""
        fields = " ".join(f"{name}={value}" for name, value in _fields(record).items())
        message = record.getMessage() + (f" [{fields}]" if fields else "")
        line = f"{_time(record)} {record.levelname} {record.name}: {message.translate(_LINE_BREAKS)}"
        trace = _trace(record)
        return redact(f"{line}\n{trace}" if trace else line)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, and the traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line for *record*."""
        entry: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        entry |= {name: _redacted(name, value) for name, value in _fields(record).items()}
        if trace := _trace(record):
            entry["exception"] = redact(trace)
        return json.dumps(entry, default=lambda value: redact(str(value)))


class _OurHandler(logging.StreamHandler[TextIO]):
    """Known by its class, so that setting up again replaces it and nobody else's."""


def set_up_logging(level: str, style: Format, stream: TextIO | None = None) -> None:
    """Log everything of *level* and above to *stream* (stderr by default). Calling it again replaces it.

    Parameters
    ----------
    level
        A name that `logging` knows, such as ``INFO``.
    style
        ``text`` for people, ``json`` for collectors.
    stream
        Where lines go.
    """
    handler = _OurHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    for former in [h for h in root.handlers if isinstance(h, _OurHandler)]:
        root.removeHandler(former)
    root.addHandler(handler)
    root.setLevel(level)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, root.level))


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """The bound fields and those of ``extra``, which win, in a fixed order."""
    extra = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    found = {**current(), **extra}
    first = {name: found[name] for name in _ORDER if found.get(name) is not None}
    rest = {name: found[name] for name in sorted(found) if name not in _ORDER}
    return {**first, **rest}


def _redacted(name: str, value: Any) -> Any:
    """A field's value; together with its name, since ``access_token`` says what the value is."""
    if isinstance(value, Mapping):
        return {str(inner): _redacted(str(inner), value[inner]) for inner in value}
    if isinstance(value, list | tuple):
        return [_redacted(name, inner) for inner in value]
    if not isinstance(value, str):
        return value
    shown = redact(f"{name}={value}")
    return shown[len(name) + 1 :] if shown.startswith(f"{name}=") else "***"


def _time(record: logging.LogRecord) -> str:
    return to_rfc3339(int(record.created * 1000))


def _trace(record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append("".join(traceback.format_exception(*record.exc_info)).rstrip())
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)
