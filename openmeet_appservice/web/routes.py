"""What a route is, and what its handler gets and gives. Handlers never see the HTTP library.

A module that has something to offer builds a list of `Route` values; `app` joins the lists and hands them
to `web.app.build_app`, and the same values make the OpenAPI document. So what is served and what is
documented cannot differ.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import BaseModel, RootModel

from openmeet_appservice.domain.names import SLUG, TENANT_ID

M = TypeVar("M", bound=BaseModel)


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


class Scope(StrEnum):
    """Whose key it is."""

    ADMIN = "admin"
    PLATFORM = "platform"
    TENANT = "tenant"


class Access(StrEnum):
    """Who may call a route. The admin key may call all of them."""

    ANYONE_WITH_KEY = "anyone_with_key"
    TENANT = "tenant"
    """The tenant named in the path, or a platform key."""
    PLATFORM = "platform"
    """Platform keys: what reaches across tenants."""
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, as its key says.

    Attributes
    ----------
    scope
        What kind of key it is.
    tenant
        The tenant the key belongs to, lower-cased; None for other scopes.
    key_id
        The key's public id, fit for logs. Never the key.
    name
        What the key was called when it was made.
    """

    scope: Scope
    tenant: str | None
    key_id: str
    name: str

    def __post_init__(self) -> None:
        if (self.scope is Scope.TENANT) != (self.tenant is not None):
            raise ValueError("a tenant's key belongs to a tenant, and no other key does")


@dataclass(frozen=True, slots=True)
class Request:
    """One authenticated, authorized and validated request.

    Attributes
    ----------
    request_id
        The id that logs and problem documents carry.
    caller
        Whose key it was.
    path
        The path's parameters, percent-decoded, as sent.
    query, body
        The validated models of the route, None where it has none.
    if_match
        The raw ``If-Match`` header; `web.conditional.check_if_match` judges it.
    idempotency_key
        The raw ``Idempotency-Key`` header of a route that takes one.
    """

    request_id: str
    caller: Caller
    path: Mapping[str, str] = field(default_factory=_nothing)
    query: BaseModel | None = None
    body: BaseModel | None = None
    if_match: str | None = None
    idempotency_key: str | None = None

    def query_as(self, model: type[M]) -> M:
        """Return the query as the model that the route declares."""
        return _of_type(self.query, model)

    def body_as(self, model: type[M]) -> M:
        """Return the body as the model that the route declares."""
        return _of_type(self.body, model)


def _of_type(value: BaseModel | None, model: type[M]) -> M:
    if not isinstance(value, model):
        raise TypeError(f"this route does not declare {model.__name__}")
    return value


@dataclass(frozen=True, slots=True)
class Response:
    """What a handler answers.

    Attributes
    ----------
    status
        An HTTP status below 400; refusals are raised as `errors.ApiError`.
    body
        A model or JSON-like value; None for an answer without a body.
    etag
        The entity tag, unquoted; it becomes the ``ETag`` header.
    headers
        Further headers.
    secret
        The body shows a secret, so it must never be stored for an ``Idempotency-Key``.
    """

    status: int = 200
    body: BaseModel | Mapping[str, Any] | None = None
    etag: str | None = None
    headers: Mapping[str, str] = field(default_factory=_nothing)
    secret: bool = False


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method on one path.

    Parameters
    ----------
    method, path
        Such as ``PUT`` and ``/v1/tenants/{tenant}/users/{user}``.
    handler
        Answers it.
    operation
        The stable name: OpenAPI's ``operationId``, and part of what an idempotency key belongs to.
    summary, description, tag
        For the reader of the documentation.
    access
        Who may call it. `Access.TENANT` needs ``{tenant}`` in the path.
    body, query
        The models that the body and the query string must fit; both refuse unknown fields.
    responses
        The answers below 400 by status, with their model (None: no body), and those from 400 on that
        deserve mention, with None (they are problem documents).
    takes_if_match
        Whether ``If-Match`` has a meaning here. Where it has none it is refused, not ignored.
    takes_idempotency_key
        Whether a repeated ``Idempotency-Key`` returns the first answer. Only for ``POST``.
    resumes
        Whether the handler takes up a request with the same ``Idempotency-Key`` that is still under way,
        or was when its process died. Others refuse it for two minutes.
    """

    method: str
    path: str
    handler: Handler
    operation: str
    summary: str
    tag: str
    access: Access
    description: str = ""
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    responses: Mapping[int, type[BaseModel] | None] = field(
        default_factory=lambda: MappingProxyType({200: None})
    )
    takes_if_match: bool = False
    takes_idempotency_key: bool = False
    resumes: bool = False

    def __post_init__(self) -> None:
        if self.method not in {"GET", "PUT", "POST", "PATCH", "DELETE"}:
            raise ValueError(f"{self}: unknown method")
        if self.access is Access.TENANT and "tenant" not in self.parameters:
            raise ValueError(f"{self}: nothing in the path says which tenant may call it")
        if self.access is Access.ANYONE_WITH_KEY and "tenant" in self.parameters:
            raise ValueError(f"{self}: every tenant could call it for every other")
        if self.takes_idempotency_key and self.method != "POST":
            raise ValueError(f"{self}: only POST takes an Idempotency-Key")
        if self.body is not None and self.method in {"GET", "DELETE"}:
            raise ValueError(f"{self}: {self.method} has no body")
        if not any(status < 400 for status in self.responses):
            raise ValueError(f"{self}: no answer declared")
        for model in (self.body, self.query):
            if model is not None and not _refuses_unknown(model):
                raise ValueError(f"{self}: {model.__name__} accepts unknown fields")

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the path's parameters, in order."""
        return tuple(_PLACEHOLDER.findall(self.path))


def _refuses_unknown(model: type[BaseModel]) -> bool:
    return issubclass(model, RootModel) or model.model_config.get("extra") == "forbid"


@dataclass(frozen=True, slots=True)
class PathParameter:
    """What a parameter in a path may be.

    Attributes
    ----------
    description
        For the documentation.
    pattern
        A regular expression for the whole percent-decoded value.
    """

    description: str
    pattern: str


PATH_PARAMETERS: Mapping[str, PathParameter] = MappingProxyType(
    {
        "tenant": PathParameter("The tenant's id; case does not matter", TENANT_ID.pattern),
        "user": PathParameter("The user's slug; case does not matter", SLUG.pattern),
        "user_a": PathParameter("The slug of one of the two users; case does not matter", SLUG.pattern),
        "user_b": PathParameter("The slug of the other; case does not matter", SLUG.pattern),
        "event": PathParameter("The event's slug; case does not matter", SLUG.pattern),
        "group": PathParameter("The group's slug; case does not matter", SLUG.pattern),
        "name": PathParameter("The webhook endpoint's name", r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}"),
        "key_id": PathParameter("The key's id", r"[A-Za-z0-9_-]{1,64}"),
    }
)
"""The parameters that paths of the contract have. Whoever adds another passes a larger mapping on."""
