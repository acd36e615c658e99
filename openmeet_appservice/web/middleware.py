"""What every listener does around a request: an id, a log line, measures, a limit on the body."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable

import aiohttp
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import Counter, Histogram

from openmeet_appservice.errors import BadRequest, RequestTimedOut, TooLarge
from openmeet_appservice.web.context import bind

log = logging.getLogger(__name__)

REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
"""Where a request's id is kept on aiohttp's request."""

_ACCEPTED_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})


def request_id(new_id: Callable[[], str]) -> Middleware:
    """Give every request an id: the caller's ``X-Request-Id`` if it is harmless, else a new one.

    The id is on every log line written meanwhile. Put `add_headers` on ``app.on_response_prepare`` to
    return it.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("X-Request-Id", "")
        found = given if _ACCEPTED_ID.fullmatch(given) else new_id()
        request[REQUEST_ID] = found
        with bind(request_id=found):
            return await handler(request)

    return middleware


async def add_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Put on an answer what every answer has. A handler for ``app.on_response_prepare``."""
    found = request.get(REQUEST_ID)
    if found is not None:
        response.headers["X-Request-Id"] = found
    response.headers["Server"] = "openmeet-appservice"
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"


def access_log(clock: Callable[[], float]) -> Middleware:
    """Write one line for every answered request, without its query string: that may hold tokens.

    *clock* counts seconds from any start.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = clock()
        response = await handler(request)
        elapsed_ms = (clock() - started) * 1000
        path = request.rel_url.raw_path
        log.info("%s %s %d in %.0f ms", request.method, path, response.status, elapsed_ms)
        return response

    return middleware


def measured(requests: Counter, seconds: Histogram, clock: Callable[[], float]) -> Middleware:
    """Count requests and time them by method and route.

    Parameters
    ----------
    requests
        Has the labels method, route, status.
    seconds
        Has the labels method, route.
    clock
        Counts seconds from any start.
    """

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        started, status = clock(), "cut off"
        try:
            response = await handler(request)
            status = str(response.status)
            return response
        finally:
            method = request.method if request.method in _METHODS else "other"
            route = route_template(request)
            requests.labels(method, route, status).inc()
            seconds.labels(method, route).observe(clock() - started)

    return middleware


def route_template(request: web.Request) -> str:
    """Return the route a request matched, such as ``/v1/tenants/{tenant}``; else ``unknown``."""
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical


async def continue_later(request: web.Request) -> None:
    """Take note of ``Expect: 100-continue`` and say nothing yet. For ``expect_handler`` of a route.

    aiohttp says *continue* before it runs any handler, so a caller would send its whole body only to
    hear that its key is not valid. `read_body` says it, once somebody wants the body.
    """


async def read_body(request: web.Request, seconds: float) -> bytes:
    """Return the whole body, unpacked, of a request to an app with a ``client_max_size``.

    Raises
    ------
    TooLarge
        It is larger than the app allows; known from its header, or found while reading.
    RequestTimedOut
        It was not complete after *seconds*.
    BadRequest
        It ended early, or is not packed as it says.
    """
    if (request.content_length or 0) > request.client_max_size:
        raise TooLarge
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    try:
        if request.content.is_eof():
            return await request.read()
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError:
        raise RequestTimedOut from None
    except web.HTTPRequestEntityTooLarge:
        raise TooLarge from None
    except (web.RequestPayloadError, aiohttp.ClientError, ConnectionError):
        raise BadRequest("The body is cut off or damaged.", code="bad_body") from None
