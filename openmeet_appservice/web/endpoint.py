"""One route at work: who calls, may they, what do they want, and the answer in bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web
from pydantic_core import to_json

from openmeet_appservice.domain.names import key as folded
from openmeet_appservice.errors import BadRequest, UnsupportedMediaType
from openmeet_appservice.web.auth import KeyLookup, authenticate, authorize
from openmeet_appservice.web.conditional import quoted
from openmeet_appservice.web.context import bind
from openmeet_appservice.web.idempotency import Answer, IdempotencyStore, keyed_request, once
from openmeet_appservice.web.middleware import REQUEST_ID, read_body
from openmeet_appservice.web.routes import PathParameter, Request, Response, Route
from openmeet_appservice.web.validation import check_path, parse_body, parse_query

_MERGE_PATCH = "application/merge-patch+json"
_JSON_PATCH = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Answers one route; aiohttp calls it.

    Attributes
    ----------
    route
        What is served.
    lookup
        Finds the caller by key.
    idempotency
        Keeps answers; needed only where the route takes an ``Idempotency-Key``.
    parameters
        What the path's parameters may be.
    read_seconds
        How long a body may take to arrive.
    """

    route: Route
    lookup: KeyLookup
    idempotency: IdempotencyStore | None
    parameters: Mapping[str, PathParameter]
    read_seconds: float

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        """Answer *request*. Refusals are raised as `ApiError`."""
        caller = await authenticate(request.headers.getall("Authorization", []), self.lookup)
        tenant = request.match_info.get("tenant")
        authorize(caller, self.route.access, tenant)
        with bind(tenant=tenant):
            check_path(dict(request.match_info), self.parameters)
            query = parse_query(self.route.query, request.query)
            raw = await self._read(request)
            asked = Request(
                request_id=request[REQUEST_ID],
                caller=caller,
                path=dict(request.match_info),
                query=query,
                body=None if self.route.body is None else parse_body(self.route.body, raw),
                if_match=self._if_match(request),
                idempotency_key=self._idempotency_key(request),
            )
            return _http(await self._answer(asked, request, raw))

    async def _answer(self, asked: Request, request: web.Request, raw: bytes) -> Answer:
        async def act() -> Answer:
            return _rendered(await self.route.handler(asked))

        if asked.idempotency_key is None or self.idempotency is None:
            return await act()
        keyed = keyed_request(
            folded(asked.path.get("tenant", "")),
            f"{self.route.method} {self._concrete_path(asked.path)}",
            asked.idempotency_key,
            request.query.items(),
            raw,
        )
        return await once(self.idempotency, keyed, act, resumes=self.route.resumes)

    def _concrete_path(self, path: Mapping[str, str]) -> str:
        """The path with its parameters, so that a tenant written in capitals is the same tenant."""
        return self.route.path.format(**{**path, "tenant": folded(path.get("tenant", ""))})

    async def _read(self, request: web.Request) -> bytes:
        if self.route.body is None:
            if request.body_exists and request.content_length != 0:
                raise BadRequest("This request takes no body.", code="unexpected_body")
            return b""
        if not _is_json(request):
            raise UnsupportedMediaType
        return await read_body(request, self.read_seconds)

    def _if_match(self, request: web.Request) -> str | None:
        given = request.headers.getall("If-Match", [])
        if given and not self.route.takes_if_match and request.method not in {"GET", "HEAD"}:
            raise BadRequest("This request takes no If-Match.", code="unexpected_if_match")
        return ", ".join(given) if given else None

    def _idempotency_key(self, request: web.Request) -> str | None:
        return request.headers.get("Idempotency-Key") if self.route.takes_idempotency_key else None


def _is_json(request: web.Request) -> bool:
    kind = request.content_type
    if (request.charset or "utf-8").lower() not in {"utf-8", "utf8", "us-ascii"}:
        return False
    if kind == _MERGE_PATCH:
        return request.method == "PATCH"
    return kind == "application/json" or (
        kind.startswith("application/") and kind.endswith("+json") and kind != _JSON_PATCH
    )


def _rendered(response: Response) -> Answer:
    headers = dict(response.headers)
    if response.etag is not None:
        headers["ETag"] = quoted(response.etag)
    body = b"" if response.body is None else to_json(response.body, by_alias=True)
    return Answer(response.status, body, headers, response.secret)


def _http(answer: Answer) -> web.Response:
    content_type = "application/json" if answer.body else None
    return web.Response(
        status=answer.status,
        body=answer.body or None,
        headers=answer.headers,
        content_type=content_type,
    )
