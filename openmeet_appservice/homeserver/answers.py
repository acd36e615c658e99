"""What an HTTP answer of the homeserver means: a result, a refusal, or nothing that can be relied on.

Between us and Synapse there may be a proxy with pages of its own, so an answer counts as Matrix's
only if its body is what the client-server API promises (specification, *API standards*): a JSON
object with a text ``errcode`` beside every error. ``M_NOT_FOUND`` is only ever read from such a body,
never from a bare status 404.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from openmeet_appservice.errors import (
    HomeserverError,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
)

_ERRCODE = re.compile(r"[A-Za-z0-9_.]{1,100}", re.ASCII)
_MAX_ERROR_CHARACTERS = 500


def read_answer(status: int, headers: Mapping[str, str], body: bytes, now: int) -> Any:
    """Return the JSON value of a 2xx answer.

    Parameters
    ----------
    status, headers, body
        The answer; *headers* must not care about case.
    now
        Milliseconds since the epoch, to understand a ``Retry-After`` that is a date.

    Raises
    ------
    HomeserverRefused
        Not 2xx. With a JSON error of 500 and above the homeserver may have acted all the same.
    HomeserverLimited
        429.
    HomeserverUnreachable
        2xx without JSON, or 500 and above without a Matrix error: something failed on the way, and
        whether the homeserver acted is unknown.
    """
    value = _json_or_none(body)
    if 200 <= status < 300:
        if value is None:
            raise HomeserverUnreachable(f"the answer ({status}) is not JSON")
        return value
    raise _error(status, headers, value, now)


def _error(status: int, headers: Mapping[str, str], value: Any, now: int) -> HomeserverError:
    fields: dict[str, Any] = value if isinstance(value, dict) else {}
    errcode = fields.get("errcode")
    is_matrix = isinstance(errcode, str) and _ERRCODE.fullmatch(errcode) is not None
    if not is_matrix and status >= 500:
        return HomeserverUnreachable(f"HTTP {status} without a Matrix error")
    code = str(errcode) if is_matrix else "M_UNKNOWN"
    words = fields.get("error") if is_matrix else None
    said = words if isinstance(words, str) else f"HTTP {status} without a Matrix error"
    said = said[:_MAX_ERROR_CHARACTERS]
    if status == 429:
        return HomeserverLimited(code, said, _retry_after(headers, fields, now))
    return HomeserverRefused(status, code, said)


def _json_or_none(body: bytes) -> Any:
    """Return the JSON value, None where there is none; no answer of Matrix is a bare ``null``."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _retry_after(headers: Mapping[str, str], fields: Mapping[str, Any], now: int) -> float | None:
    """Return how many seconds to wait.

    The header counts before ``retry_after_ms``, which it replaced (specification, *Rate limiting*).
    """
    header = headers.get("Retry-After")
    if header is not None and (seconds := _seconds_of_header(header.strip(), now)) is not None:
        return seconds
    milliseconds = fields.get("retry_after_ms")
    if isinstance(milliseconds, int | float) and math.isfinite(milliseconds):
        return max(0.0, milliseconds / 1000)
    return None


def _seconds_of_header(header: str, now: int) -> float | None:
    """Read ``Retry-After``: whole seconds or a date (RFC 9110 §10.2.3)."""
    if header.isascii() and header.isdigit():
        return float(header[:9])
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - now / 1000)
