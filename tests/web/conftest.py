"""A small application with one route of each kind, and a client for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import pytest
from aiohttp.test_utils import TestClient
from aiohttp.web import Application
from pydantic import Field

from openmeet_appservice.errors import (
    DatabaseUnavailable,
    HomeserverLimited,
    HomeserverRefused,
    NotFound,
)
from openmeet_appservice.web.app import build_app
from openmeet_appservice.web.auth import digest, new_key
from openmeet_appservice.web.conditional import check_if_match
from openmeet_appservice.web.idempotency import (
    Begun,
    Fresh,
    KeyedRequest,
    Mismatch,
    Replay,
    Running,
    SecretShown,
)
from openmeet_appservice.web.models import AnswerModel, ApiModel, MergePatch, Page, PageQuery
from openmeet_appservice.web.openapi import About
from openmeet_appservice.web.routes import Access, Caller, Request, Response, Route, Scope
from openmeet_appservice.web.standard import with_standard_routes

Client: TypeAlias = TestClient[Any, Any]
ClientMaker: TypeAlias = Callable[[Application], Awaitable[Client]]

ABOUT = About("Test", "A small API.", "1.2.3")


class Spec(ApiModel):
    """What a caller may want of a user."""

    display_name: str = Field(max_length=20)
    age: int | None = None
    tags: tuple[str, ...] = ()


class User(AnswerModel):
    """A user."""

    tenant: str
    slug: str
    spec: Spec


class NewKey(ApiModel):
    """What a caller says of a new key."""

    name: str


@dataclass
class MemoryKeys:
    """A key lookup over a dict."""

    callers: dict[str, Caller] = field(default_factory=dict)
    away: bool = False

    async def __call__(self, digest: str) -> Caller | None:
        if self.away:
            raise DatabaseUnavailable
        return self.callers.get(digest)

    def add(self, scope: Scope, tenant: str | None = None) -> str:
        key = new_key(scope)
        self.callers[digest(key)] = Caller(scope, tenant, f"k{len(self.callers)}", scope.value)
        return key


@dataclass
class MemoryIdempotency:
    """The semantics that a store must have, in a dict."""

    known: dict[tuple[str, str, str], tuple[str, Replay | SecretShown | None]] = field(default_factory=dict)
    fail_finish: bool = False

    async def begin(self, request: KeyedRequest) -> Begun:
        place = (request.tenant, request.route, request.key)
        if place not in self.known:
            self.known[place] = (request.body_sha256, None)
            return Fresh()
        sha256, result = self.known[place]
        if sha256 != request.body_sha256:
            return Mismatch()
        return result or Running()

    async def finish(self, request: KeyedRequest, result: Replay | SecretShown | None) -> None:
        if self.fail_finish:
            raise DatabaseUnavailable
        place = (request.tenant, request.route, request.key)
        if result is None:
            del self.known[place]
        else:
            self.known[place] = (request.body_sha256, result)


@dataclass
class World:
    """The application's parts, for tests to look at and to disturb."""

    keys: MemoryKeys = field(default_factory=MemoryKeys)
    idempotency: MemoryIdempotency = field(default_factory=MemoryIdempotency)
    seen: list[Request] = field(default_factory=list)
    fault: Exception | None = None
    gate: asyncio.Event | None = None

    async def _act(self, request: Request) -> None:
        self.seen.append(request)
        if self.gate is not None:
            await self.gate.wait()
        if self.fault is not None:
            raise self.fault

    async def put_user(self, request: Request) -> Response:
        await self._act(request)
        check_if_match(request.if_match, "7")
        user = User(
            tenant=request.path["tenant"],
            slug=request.path["user"],
            spec=request.body_as(Spec),
        )
        return Response(201, user, etag="8")

    async def patch_user(self, request: Request) -> Response:
        await self._act(request)
        patched = request.body_as(MergePatch).apply_to({"display_name": "Ada", "age": 36})
        return Response(body=patched)

    async def list_users(self, request: Request) -> Response:
        await self._act(request)
        return Response(body={"items": [], "next_page_token": None})

    async def delete_user(self, request: Request) -> Response:
        await self._act(request)
        return Response(204)

    async def send(self, request: Request) -> Response:
        await self._act(request)
        return Response(201, {"count": len(self.seen)})

    async def make_key(self, request: Request) -> Response:
        await self._act(request)
        return Response(201, {"api_key": new_key(Scope.PLATFORM)}, secret=True)

    async def resolve(self, request: Request) -> Response:
        await self._act(request)
        raise NotFound

    @property
    def routes(self) -> Sequence[Route]:
        user = Route(
            "PUT",
            "/v1/tenants/{tenant}/users/{user}",
            self.put_user,
            "put_user",
            "Set a user",
            "users",
            Access.TENANT,
            body=Spec,
            responses={200: User, 201: User, 409: None},
            takes_if_match=True,
        )
        plain = replace(user, takes_if_match=False)
        users = "/v1/tenants/{tenant}/users"
        return [
            user,
            replace(
                plain,
                method="PATCH",
                handler=self.patch_user,
                operation="patch_user",
                body=MergePatch,
                responses={200: Spec},
            ),
            replace(
                plain,
                method="DELETE",
                handler=self.delete_user,
                operation="delete_user",
                body=None,
                responses={204: None},
            ),
            Route(
                "GET",
                users,
                self.list_users,
                "list_users",
                "List users",
                "users",
                Access.TENANT,
                query=PageQuery,
                responses={200: Page[User]},
            ),
            Route(
                "POST",
                f"{users}/{{user}}/pokes",
                self.send,
                "poke",
                "Poke a user",
                "users",
                Access.TENANT,
                body=NewKey,
                responses={201: None},
                takes_idempotency_key=True,
            ),
            Route(
                "POST",
                "/v1/keys",
                self.make_key,
                "make_key",
                "Make a key",
                "keys",
                Access.ADMIN,
                body=NewKey,
                responses={201: None},
                takes_idempotency_key=True,
            ),
            Route(
                "GET",
                "/v1/resolve",
                self.resolve,
                "resolve",
                "Resolve",
                "rooms",
                Access.PLATFORM,
                responses={200: None},
            ),
            Route(
                "GET",
                "/v1/tenants/{tenant}",
                self.list_users,
                "get_tenant",
                "A tenant",
                "tenants",
                Access.ADMIN,
                responses={200: None},
            ),
        ]

    def app(self, **changes: Any) -> Application:
        routes = with_standard_routes(
            self.routes, ABOUT, features=["b", "a"], limits={"max_body_bytes": 8388608}
        )
        return build_app(routes, key_lookup=self.keys, idempotency=self.idempotency, **changes)


@dataclass
class Api:
    """A client that knows the keys."""

    http: Client
    world: World
    admin: str
    platform: str
    t1: str

    async def call(
        self, method: str, path: str, key: str | None = None, **options: Any
    ) -> tuple[int, Any, Any]:
        """Return status, decoded body (None if empty) and headers."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= options.pop("headers", {})
        async with self.http.request(method, path, headers=headers, **options) as response:
            body = await response.read()
            return (
                response.status,
                (await response.json(content_type=None) if body else None),
                (response.headers),
            )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def make_api(world: World, aiohttp_client: ClientMaker) -> Callable[..., Awaitable[Api]]:
    async def make(**changes: Any) -> Api:
        http = await aiohttp_client(world.app(**changes))
        admin = world.keys.add(Scope.ADMIN)
        platform = world.keys.add(Scope.PLATFORM)
        return Api(http, world, admin, platform, world.keys.add(Scope.TENANT, "t1"))

    return make


@pytest.fixture
async def api(make_api: Callable[..., Awaitable[Api]]) -> Api:
    return await make_api()


@pytest.fixture
def refusals() -> dict[str, Exception]:
    """What a handler may meet, by name."""
    return {
        "refused": HomeserverRefused(403, "M_FORBIDDEN", "no"),
        "limited": HomeserverLimited("M_LIMIT_EXCEEDED", "slow down", 1.2),
        "database": DatabaseUnavailable(),
        "surprise": RuntimeError("a secret detail"),
    }
