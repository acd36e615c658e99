"""The one place that talks HTTP with the homeserver.

A subclass of mautrix's `HTTPAPI`, which builds the requests. Added here is what the library leaves
out: time limits, patience with 429, repetition of what may be repeated, errors that keep everything
the homeserver said, two tokens at once, metrics, and a log without the content of requests.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import (
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    DummyCookieJar,
    TCPConnector,
)
from mautrix.api import HTTPAPI, Method, PathBuilder
from yarl import URL

from openmeet_appservice.errors import (
    HomeserverError,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
)
from openmeet_appservice.homeserver.answers import read_answer
from openmeet_appservice.homeserver.retries import RetryPolicy
from openmeet_appservice.metrics import HOMESERVER_REQUESTS, HOMESERVER_SECONDS

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """How many seconds one attempt may take: to connect, in all, and in all for making a room.

    Synapse needs 20 s and more for a room with hundreds of invitations, measured on two cores.
    """

    connect: float = 5.0
    total: float = 60.0
    create_room: float = 180.0


def open_session(user_agent: str, *, connections: int = 64) -> ClientSession:
    """Open the HTTP session that a `MatrixApi` works with; whoever opens it closes it.

    Parameters
    ----------
    user_agent
        How this program introduces itself.
    connections
        How many connections to the homeserver there are at most; what is above waits.
    """
    return ClientSession(
        connector=TCPConnector(limit=connections),
        cookie_jar=DummyCookieJar(),
        headers={"User-Agent": user_agent},
    )


def _epoch_milliseconds() -> int:
    return time.time_ns() // 1_000_000


def _nobody_asked() -> None:
    """Do nothing."""


def _is_about_us(error: HomeserverError) -> bool:
    """Tell whether a 5xx says that the homeserver does not reach us (specification, *pinging*)."""
    return isinstance(error, HomeserverRefused) and error.errcode in _PING_FAILURES


_PING_FAILURES = frozenset({"M_BAD_STATUS", "M_CONNECTION_FAILED", "M_CONNECTION_TIMEOUT"})


@dataclass(frozen=True, slots=True)
class _Request:
    """One request as every attempt makes it; *limit* is in seconds.

    *body* is sent as JSON, or as it is where *media_type* says what it is.
    """

    operation: str
    method: Method
    path: PathBuilder
    body: dict[str, Any] | bytes
    query: dict[str, str]
    repeatable: bool
    limit: float
    media_type: str | None = None


class MatrixApi(HTTPAPI):
    """Requests to the homeserver with the tokens of the application service.

    Parameters
    ----------
    base_url
        Where the client-server API is; a path in it is kept.
    tokens
        The as_tokens that may be valid, the likeliest first. When the homeserver does not know the
        one in use, the next is tried and, if it works, used from then on: so a token can be changed
        in either order.
    session
        The HTTP session; see `open_session`.
    limits, retries
        How long an attempt may take, and how often it is made.
    sleep, random_number, monotonic, now
        Wait some seconds; a number in [0, 1); a clock in seconds that never goes back; milliseconds
        since the epoch.
    in_trouble
        Called when an attempt shows that the homeserver is away or has failed inside: the connection was
        refused or broke, or the answer is 500 or above. A request that is merely slow shows nothing.
    """

    def __init__(
        self,
        base_url: str,
        tokens: Sequence[str],
        session: ClientSession,
        *,
        limits: TimeLimits | None = None,
        retries: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random_number: Callable[[], float] = random.random,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], int] = _epoch_milliseconds,
        in_trouble: Callable[[], None] = _nobody_asked,
    ) -> None:
        if not tokens:
            raise ValueError("at least one token is needed")
        super().__init__(base_url, tokens[0], client_session=session, default_retry_count=0)
        self.limits = limits or TimeLimits()
        self._tokens = tuple(tokens)
        self._retries = retries or RetryPolicy()
        self._sleep = sleep
        self._random = random_number
        self._monotonic = monotonic
        self._now = now
        self._in_trouble = in_trouble
        # The whole of an attempt is limited in `_attempt`; aiohttp's own total would include it twice.
        self._http_timeout = ClientTimeout(total=None, sock_connect=self.limits.connect)

    async def call(
        self,
        operation: str,
        method: Method,
        path: PathBuilder,
        *,
        body: Mapping[str, Any] | bytes | None = None,
        media_type: str | None = None,
        query: Mapping[str, str] | None = None,
        as_user: str | None = None,
        repeatable: bool | None = None,
        timeout: float | None = None,
    ) -> Any:
        """Make a request, again if need be, and return the JSON value of the answer.

        Parameters
        ----------
        operation
            What it is called in metrics and logs.
        method, path, body, query
            The request; build *path* with mautrix's ``Path``, which encodes each part.
        media_type
            What a *body* of bytes is; any other goes as JSON.
        as_user
            The user id to act as (``?user_id=``), the bot when None.
        repeatable
            Whether making the request twice does no more than making it once. When None, everything
            but POST is taken for such. A request answered by 429 is made again in any case.
        timeout
            Seconds that one attempt may take; ``limits.total`` when None.

        Raises
        ------
        HomeserverRefused, HomeserverLimited
            The homeserver said no.
        HomeserverUnreachable
            There was no usable answer; it may have acted.
        """
        request = _Request(
            operation,
            method,
            path,
            body if isinstance(body, bytes) else dict(body or {}),
            dict(query or {}) | ({"user_id": as_user} if as_user else {}),
            method is not Method.POST if repeatable is None else repeatable,
            self.limits.total if timeout is None else timeout,
            media_type,
        )
        started = self._monotonic()
        try:
            return await self._until_it_is_settled(request, started)
        finally:
            HOMESERVER_SECONDS.labels(operation).observe(self._monotonic() - started)

    async def _until_it_is_settled(self, request: _Request, started: float) -> Any:
        for attempt in itertools.count(1):
            try:
                return await self._with_any_token(request)
            except HomeserverError as error:
                elapsed = self._monotonic() - started
                wait = self._retries.wait(error, attempt, elapsed, self._random)
                # A homeserver that asks for patience has done nothing, whatever was asked.
                if wait is None or not (request.repeatable or isinstance(error, HomeserverLimited)):
                    raise
                logger.info("%s failed (%s); again in %.1f s", request.operation, error, wait)
            await self._sleep(wait)
        raise AssertionError("counting has no end")

    async def _with_any_token(self, request: _Request) -> Any:
        """Make the request with each token until one is known.

        Safe for every request: a homeserver that does not know the token has done nothing.
        """
        refused: set[str] = set()
        while True:
            used = self.token
            try:
                return await self._attempt(request)
            except HomeserverRefused as error:
                refused.add(used)
                others = [token for token in self._tokens if token not in refused]
                if error.errcode != "M_UNKNOWN_TOKEN" or error.status != 401 or not others:
                    raise
            # Another request may have changed it meanwhile.
            if self.token in refused:
                self.token = others[0]
                logger.warning("the homeserver does not know the as_token in use; trying the next")

    async def _attempt(self, request: _Request) -> Any:
        operation = request.operation
        result = "abandoned"
        try:
            async with asyncio.timeout(request.limit):
                answer = await self.request(
                    request.method,
                    request.path,
                    request.body,
                    headers={"Content-Type": request.media_type} if request.media_type else None,
                    query_params=request.query,
                    retry_count=0,
                    metrics_method=operation,
                )
            result = "ok"
        except TimeoutError as error:
            result = "unreachable"
            message = f"{operation}: no answer within {request.limit:g} s"
            raise HomeserverUnreachable(message) from error
        except HomeserverRefused as error:
            result = error.errcode
            raise
        except HomeserverUnreachable as error:
            result = "unreachable"
            raise HomeserverUnreachable(f"{operation}: {error}") from error
        finally:
            HOMESERVER_REQUESTS.labels(operation, result).inc()
            logger.debug("%s %s: %s", request.method, request.path, result)
        return answer

    async def _send(
        self,
        method: Method,
        url: URL,
        content: Any,
        query_params: dict[str, str],
        headers: dict[str, str],
    ) -> tuple[Any, ClientResponse]:
        try:
            async with self.session.request(
                str(method),
                url,
                data=content,
                params=query_params,
                headers=headers,
                timeout=self._http_timeout,
                # The token is for the homeserver that the admin named, not for where it points.
                allow_redirects=False,
            ) as response:
                body = await response.read()
        except ClientError as error:
            self._in_trouble()
            raise HomeserverUnreachable(f"{type(error).__name__}: {error}") from error
        try:
            return read_answer(response.status, response.headers, body, self._now()), response
        except HomeserverError as error:
            if response.status >= 500 and not _is_about_us(error):
                self._in_trouble()
            raise

    def _full_path(self, path: PathBuilder | str) -> str:
        """Join the base path and *path* as they are.

        The library resolves them like a link, which would take a part ``..`` for a step upwards.
        """
        return f"{self.base_url.raw_path.rstrip('/')}/{str(path).lstrip('/')}"

    def _log_request(self, *args: object, **kwargs: object) -> None:
        """Log nothing: the library's line holds the body. Ours is in `_attempt`."""

    def _log_request_done(self, *args: object, **kwargs: object) -> None:
        """Log nothing: see `_log_request`."""
