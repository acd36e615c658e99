"""Routes made into an aiohttp application."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from openmeet_appservice.metrics import PROVISIONING_REQUESTS, PROVISIONING_SECONDS
from openmeet_appservice.web import problems
from openmeet_appservice.web.auth import KeyLookup
from openmeet_appservice.web.endpoint import Endpoint
from openmeet_appservice.web.idempotency import IdempotencyStore
from openmeet_appservice.web.middleware import (
    REQUEST_ID,
    access_log,
    add_headers,
    continue_later,
    measured,
    request_id,
)
from openmeet_appservice.web.routes import PATH_PARAMETERS, PathParameter, Route

MAX_BODY = 8 * 1024 * 1024
"""The largest body in bytes, after unpacking."""

_CLOSING = frozenset({408, 413})


def new_request_id() -> str:
    """Return a random request id."""
    return secrets.token_hex(12)


def build_app(
    routes: Sequence[Route],
    *,
    key_lookup: KeyLookup,
    idempotency: IdempotencyStore | None = None,
    path_parameters: Mapping[str, PathParameter] = PATH_PARAMETERS,
    read_seconds: float = 30.0,
    max_body: int = MAX_BODY,
    clock: Callable[[], float] = time.monotonic,
    new_id: Callable[[], str] = new_request_id,
) -> web.Application:
    """Return an application that serves *routes*.

    Parameters
    ----------
    routes
        What is served, in any order.
    key_lookup
        Finds the caller by the digest of the key.
    idempotency
        Keeps answers for ``Idempotency-Key``; may be absent only if no route takes one.
    path_parameters
        What every parameter in a path may be.
    read_seconds
        How long a body may take to arrive.
    max_body
        The largest body in bytes, after unpacking.
    clock
        Counts seconds, for measures.
    new_id
        Makes request ids.

    Raises
    ------
    ValueError
        Two routes are the same, or a route needs what was not given. A fault of the program.
    """
    _check(routes, idempotency, path_parameters)
    app = web.Application(
        client_max_size=max_body,
        middlewares=[
            request_id(new_id),
            access_log(clock),
            measured(PROVISIONING_REQUESTS, PROVISIONING_SECONDS, clock),
            _problem_documents,
        ],
    )
    app.on_response_prepare.append(add_headers)
    for route in sorted(routes, key=_literal_first):
        endpoint = Endpoint(route, key_lookup, idempotency, path_parameters, read_seconds)
        resource = app.router.add_resource(route.path)
        for method in ("GET", "HEAD") if route.method == "GET" else (route.method,):
            resource.add_route(method, endpoint.__call__, expect_handler=continue_later)
    return app


def _literal_first(route: Route) -> str:
    """A sort key: ``/users/me`` before ``/users/{user}``, and the methods of one path together."""
    return route.path.replace("{", "\x7f")


def _check(
    routes: Sequence[Route],
    idempotency: IdempotencyStore | None,
    parameters: Mapping[str, PathParameter],
) -> None:
    seen: set[str] = set()
    for route in routes:
        for name in (str(route), route.operation):
            if name in seen:
                raise ValueError(f"{name} is there twice")
            seen.add(name)
        if route.takes_idempotency_key and idempotency is None:
            raise ValueError(f"{route} needs a store for idempotency keys")
        if unknown := set(route.parameters) - parameters.keys():
            raise ValueError(f"{route}: nobody says what {sorted(unknown)} may be")


@web.middleware
async def _problem_documents(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer whatever is raised with a problem document."""
    try:
        return await handler(request)
    except Exception as error:
        refusal = problems.api_error(error)
        headers = problems.headers(refusal)
        if isinstance(error, web.HTTPMethodNotAllowed):
            headers["Allow"] = ", ".join(sorted(error.allowed_methods))
        response = web.Response(
            status=refusal.status,
            body=orjson.dumps(problems.document(refusal, request[REQUEST_ID])),
            content_type=problems.CONTENT_TYPE,
            headers=headers,
        )
        if refusal.status in _CLOSING:
            # What is left of the body would be taken for the next request.
            response.force_close()
        return response
