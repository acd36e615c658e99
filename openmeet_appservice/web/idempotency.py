"""``Idempotency-Key``: a ``POST`` that is repeated gets the first answer, and happens once.

The rules follow the IETF draft "The Idempotency-Key HTTP Header Field" (07): the same key with another
request is 422, with one that still runs 409. What the draft leaves open is decided here:

* Only successes are kept. A refusal changed nothing, so the same key may try again.
* An answer that shows a secret is never stored. Its repetition is 409 ``secret_already_shown``.
* A key belongs to a tenant and a path.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from openmeet_appservice.errors import BadRequest, Conflict, Invalid, OpenMeetError

log = logging.getLogger(__name__)

_KEY = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_RETRY_AFTER_RUNNING = 2.0


@dataclass(frozen=True, slots=True)
class KeyedRequest:
    """What an idempotency key stands for.

    Attributes
    ----------
    tenant
        The tenant in the path, lower-cased; empty on routes that name none.
    route
        Method and path with the parameters filled in, such as
        ``POST /v1/tenants/t1/events/e1/messages``.
    key
        The caller's key, 1 to 255 visible ASCII characters.
    body_sha256
        The digest (hex) of query string and body: another digest is another request.
    """

    tenant: str
    route: str
    key: str
    body_sha256: str


@dataclass(frozen=True, slots=True)
class Fresh:
    """Nobody used the key yet: it is now recorded as running, and the request may be done."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The request was done. This was the answer."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class SecretShown:
    """The request was done; its answer showed a secret and was not kept."""


@dataclass(frozen=True, slots=True)
class Running:
    """The request is being done at this moment."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The key was used for another request."""


Begun: TypeAlias = Fresh | Replay | SecretShown | Running | Mismatch


class IdempotencyStore(Protocol):
    """Keeps keys and answers for 24 hours.

    `begin` is atomic: of two at once, one gets `Fresh`. `finish` follows every `Fresh`, except when the
    process died in between; so a key that has been running for longer than a request can take (two
    minutes are plenty) counts as never used.
    """

    async def begin(self, request: KeyedRequest) -> Begun:
        """Say what is known of this key, and record it as running where nothing is."""

    async def finish(self, request: KeyedRequest, result: Replay | SecretShown | None) -> None:
        """Keep the answer of a request that was `Fresh`; None forgets the key."""


def keyed_request(
    tenant: str, route: str, header: str, query: Iterable[tuple[str, str]], body: bytes
) -> KeyedRequest:
    """Return what the header *header* stands for on this request.

    Raises `BadRequest` where the header is not 1 to 255 visible ASCII characters.
    """
    if not _KEY.fullmatch(header):
        raise BadRequest("Idempotency-Key is 1 to 255 visible ASCII characters.", code="bad_idempotency_key")
    hashed = hashlib.sha256()
    for name, value in sorted(query):
        hashed.update(f"{name}={value}\n".encode())
    hashed.update(b"\0" + body)
    return KeyedRequest(tenant, route, header, hashed.hexdigest())


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it goes out. *secret* keeps it from being stored."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    secret: bool = False


async def once(
    store: IdempotencyStore,
    request: KeyedRequest,
    act: Callable[[], Awaitable[Answer]],
    *,
    resumes: bool = False,
) -> Answer:
    """Return what *act* answers, or what it answered the first time.

    A cancelled *act* stays recorded as running: whether it took effect is not known.

    Parameters
    ----------
    resumes
        *act* may be called while it is under way, and takes it up where it is. So nobody has to wait
        until a request whose process died counts as dead.

    Raises
    ------
    Conflict
        It is being done, or its answer held a secret.
    Invalid
        The key was used for another request.
    """
    begun = await store.begin(request)
    if isinstance(begun, Replay):
        return Answer(begun.status, begun.body, {"Idempotency-Replayed": "true"})
    if not isinstance(begun, Fresh) and not (resumes and isinstance(begun, Running)):
        raise _refusal(begun)
    try:
        answer = await act()
    except Exception:
        await _finish(store, request, None)
        raise
    kept = SecretShown() if answer.secret else Replay(answer.status, answer.body)
    await _finish(store, request, kept)
    return answer


async def _finish(
    store: IdempotencyStore, request: KeyedRequest, result: Replay | SecretShown | None
) -> None:
    """Record the outcome. The outcome itself stands even when that fails, and must reach the caller."""
    try:
        await store.finish(request, result)
    except OpenMeetError:
        log.exception("the outcome for an idempotency key could not be recorded")


def _refusal(begun: Running | SecretShown | Mismatch) -> Conflict | Invalid:
    if isinstance(begun, Running):
        return Conflict(
            "The first request with this Idempotency-Key is still being answered.",
            code="idempotency_key_running",
            retry_after=_RETRY_AFTER_RUNNING,
        )
    if isinstance(begun, SecretShown):
        return Conflict(
            "This was done, and its answer showed a secret, which is shown once only.",
            code="secret_already_shown",
        )
    return Invalid("This Idempotency-Key was used for another request.", code="idempotency_key_reused")
