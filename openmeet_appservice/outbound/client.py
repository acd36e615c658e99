"""The HTTP client for URLs that somebody else chose.

It dials only what the guard allows, follows no redirect, uses no proxy and no cookie, waits a limited
time, and reads a limited part of the answer.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from types import TracebackType
from typing import Literal, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from yarl import URL

from openmeet_appservice.errors import AddressRefused, OutboundRefused
from openmeet_appservice.outbound.guard import Guard

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 16 * 1024
"""How much of an answer is read, where nobody says otherwise."""

CONNECT_SECONDS = 5.0

_KEEPALIVE_SECONDS = 4.0
_KEPT_HEADERS = ("content-type", "retry-after", "location", "etag", "last-modified")


@dataclass(frozen=True, slots=True)
class _Dialling:
    """What a dialled socket belongs to: the host that was asked for, and what was refused of it."""

    host: str
    refusals: list[AddressRefused]


_DIALLING: ContextVar[_Dialling | None] = ContextVar("dialling", default=None)


class _Refused(PermissionError):
    """What the guard refused, as the kind of error that aiohttp expects of a resolver and a socket."""

    def __init__(self, refusal: AddressRefused) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Reason(StrEnum):
    """Why there is no answer."""

    URL_REFUSED = "url_refused"
    ADDRESS_REFUSED = "address_refused"
    UNKNOWN_HOST = "unknown_host"
    NOT_CONNECTED = "not_connected"
    TLS_FAILED = "tls_failed"
    TIMED_OUT = "timed_out"
    CUT_OFF = "cut_off"
    """The connection broke, or what came was not HTTP. The receiver may have taken the request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the other side answered.

    Attributes
    ----------
    status
        The HTTP status.
    body_start
        At most as many bytes of the body as were to be read, as far as they came in time.
    headers
        ``content-type``, ``retry-after``, ``location``, ``etag`` and ``last-modified``, lower-cased, where
        present.
    seconds
        How long it took.
    end
        Whether `body_start` is the whole body, was as long as was to be read or longer, or broke off.
    """

    status: int
    body_start: bytes
    headers: Mapping[str, str]
    seconds: float
    end: Literal["whole", "longer", "broken_off"] = "whole"

    @property
    def outcome(self) -> str:
        """Its class, for logs and metrics: ``2xx``, ``4xx``…"""
        return f"{self.status // 100}xx"


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """There was no answer. *detail* is for people; *seconds* is how long it took to know."""

    reason: Reason
    detail: str
    seconds: float

    @property
    def outcome(self) -> str:
        """The reason, for logs and metrics."""
        return self.reason.value


class _GuardedResolver(AbstractResolver):
    """Resolves names, and gives no answer at all where one address of it may not be dialled."""

    def __init__(self, inner: AbstractResolver, guard: Guard, *, plain: bool) -> None:
        self._inner = inner
        self._guard = guard
        self._plain = plain

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        answers = await self._inner.resolve(host, port, family)
        addresses = [ip_address(answer["host"]) for answer in answers]
        try:
            self._guard.check_answers(host, addresses, plain=self._plain)
        except AddressRefused as refusal:
            raise _Refused(refusal) from refusal
        return answers

    async def close(self) -> None:
        await self._inner.close()


class GuardedClient:
    """Calls URLs that somebody else chose. Use it as an async context manager.

    Parameters
    ----------
    guard
        Judges what may be called.
    total_seconds
        How long one call may take in all.
    user_agent
        Says who calls.
    connections
        How many connections may be open at once.
    ssl_context
        Whom to trust; None trusts whom the system trusts.
    clock
        Counts seconds.
    new_resolver
        Makes what asks for the addresses of names.
    """

    def __init__(
        self,
        guard: Guard,
        *,
        total_seconds: float,
        user_agent: str,
        connections: int = 100,
        ssl_context: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        new_resolver: Callable[[], AbstractResolver] = aiohttp.ThreadedResolver,
    ) -> None:
        self._guard = guard
        self._timeout = aiohttp.ClientTimeout(
            total=total_seconds, sock_connect=min(CONNECT_SECONDS, total_seconds)
        )
        self._user_agent = user_agent
        self._connections = connections
        self._ssl = ssl_context
        self._clock = clock
        self._new_resolver = new_resolver
        self._sessions: dict[str, aiohttp.ClientSession] = {}

    async def __aenter__(self) -> Self:
        # What may be dialled depends on the scheme, and a pooled connection is not dialled again.
        self._sessions = {
            "https": self._session(plain=False),
            "http": self._session(plain=True),
        }
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions = {}

    def _session(self, *, plain: bool) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            ssl=self._ssl if self._ssl is not None else True,
            limit=self._connections,
            # Node closes idle connections after 5 s by default; a POST on a closed one would be lost.
            keepalive_timeout=_KEEPALIVE_SECONDS,
            resolver=_GuardedResolver(self._new_resolver(), self._guard, plain=plain),
            # Hosts that are addresses are not resolved, and an answer may be an old one: so each is judged
            # as it is dialled as well.
            socket_factory=self._socket_factory(plain=plain),
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
        )

    def _socket_factory(self, *, plain: bool) -> Callable[[AddrInfoType], socket.socket]:
        def make(info: AddrInfoType) -> socket.socket:
            family, kind, protocol, _, address = info
            dialling = _DIALLING.get() or _Dialling("", [])
            try:
                self._guard.check_address(ip_address(address[0]), host=dialling.host, plain=plain)
            except AddressRefused as refusal:
                dialling.refusals.append(refusal)
                # Only an OSError makes the dialling go on with the host's next address.
                raise _Refused(refusal) from refusal
            return socket.socket(family=family, type=kind, proto=protocol)

        return make

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, most: int = MAX_ANSWER_BYTES
    ) -> Answer | NoAnswer:
        """Send *body* to *url* and return what came of it. Nothing is raised but cancellation.

        Parameters
        ----------
        url
            Judged again here; it may have been stored when other networks were allowed.
        body
            Sent exactly so.
        headers
            Among them ``Content-Type``.
        most
            How many bytes of the answer's body are read.
        """
        return await self._call("POST", url, body, headers, most)

    async def get(self, url: str, headers: Mapping[str, str], *, limit: int) -> Answer | NoAnswer:
        """Ask for what is at *url* and return what came of it. Nothing is raised but cancellation.

        Parameters
        ----------
        url
            Judged again here.
        limit
            How many bytes of the answer are read at most.
        """
        return await self._call("GET", url, None, headers, limit)

    async def _call(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str], limit: int
    ) -> Answer | NoAnswer:
        started = self._clock()
        refusals: list[AddressRefused] = []
        token = None
        try:
            parsed = URL(self._guard.check_url(url))
            token = _DIALLING.set(_Dialling(parsed.raw_host or "", refusals))
            session = self._sessions[parsed.scheme]
            async with session.request(
                method, parsed, data=body, headers=headers, allow_redirects=False
            ) as response:
                start, end = await _start_of(response, limit)
                kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
                return Answer(response.status, start, kept, self._clock() - started, end)
        except OutboundRefused as refusal:
            kind = Reason.ADDRESS_REFUSED if isinstance(refusal, AddressRefused) else Reason.URL_REFUSED
            return NoAnswer(kind, str(refusal), self._clock() - started)
        except UnicodeError:
            # Python's resolver cannot even write down a label that is empty or too long.
            return NoAnswer(Reason.UNKNOWN_HOST, "The host name is none.", self._clock() - started)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason, detail = _why(error, refusals)
            return NoAnswer(reason, detail, self._clock() - started)
        finally:
            if token is not None:
                _DIALLING.reset(token)


async def _start_of(
    response: aiohttp.ClientResponse, limit: int
) -> tuple[bytes, Literal["whole", "longer", "broken_off"]]:
    """The first *limit* bytes of the body. The status has decided already, so one that breaks off is fine."""
    parts: list[bytes] = []
    missing = limit
    try:
        while missing > 0 and (part := await response.content.read(missing)):
            parts.append(part)
            missing -= len(part)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        log.debug("the body of an answer broke off: %s", type(error).__name__)
        return b"".join(parts), "broken_off"
    if missing > 0:
        return b"".join(parts), "whole"
    # Never wait for the rest; the connection goes with it.
    response.close()
    return b"".join(parts), "longer"


def _why(error: Exception, refusals: list[AddressRefused]) -> tuple[Reason, str]:
    if isinstance(error, aiohttp.InvalidURL):
        return Reason.URL_REFUSED, "That is not a URL."
    if isinstance(error, aiohttp.ClientConnectorDNSError) and isinstance(error.os_error, _Refused):
        return Reason.ADDRESS_REFUSED, str(error.os_error.refusal)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return Reason.UNKNOWN_HOST, "The host name is not known."
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        return Reason.TLS_FAILED, f"TLS failed: {_words(error)}"
    if isinstance(error, aiohttp.ClientConnectorError):
        if refusals:
            return Reason.ADDRESS_REFUSED, str(refusals[0])
        return Reason.NOT_CONNECTED, f"No connection: {_words(error)}"
    if isinstance(error, TimeoutError):
        return Reason.TIMED_OUT, "There was no answer in time."
    return Reason.CUT_OFF, f"The connection broke or spoke no HTTP: {type(error).__name__}"


def _words(error: Exception) -> str:
    """What went wrong, without the URL, whose path or query may hold a secret."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return getattr(inner, "strerror", None) or type(inner).__name__
