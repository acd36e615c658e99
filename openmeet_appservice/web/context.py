"""What a log line should say about the work it belongs to: request, tenant, room.

The values live in one context variable, so they follow a task and the tasks it starts, and nobody has to
pass them along. Only the log formatters read them; no decision is ever based on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

_EMPTY: Mapping[str, str] = MappingProxyType({})
_FIELDS: ContextVar[Mapping[str, str]] = ContextVar("log_fields", default=_EMPTY)


@contextmanager
def bind(
    *, request_id: str | None = None, tenant: str | None = None, room: str | None = None
) -> Iterator[None]:
    """Put these fields on every log line written inside the block; None leaves a field as it was.

    Parameters
    ----------
    request_id
        The id of the HTTP request being answered.
    tenant
        The tenant id the work is for.
    room
        The Matrix room id.
    """
    given = {"request_id": request_id, "tenant": tenant, "room": room}
    added = {name: value for name, value in given.items() if value is not None}
    token = _FIELDS.set(MappingProxyType({**_FIELDS.get(), **added}))
    try:
        yield
    finally:
        _FIELDS.reset(token)


def current() -> Mapping[str, str]:
    """Return the fields bound here and now."""
    return _FIELDS.get()
