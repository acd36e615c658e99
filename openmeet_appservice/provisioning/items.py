"""One write as an item of a list, such as a batch has: done by the very route that it has by itself.

Nothing is decided here. An item names a route; that route's models judge it, its handler does it in a
transaction of its own, and the answer or the refusal is what the single request would have got.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import BaseModel, Field, JsonValue
from pydantic_core import to_json

from openmeet_appservice.domain.direct import JOINER
from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.errors import ApiError, BadRequest, DatabaseUnavailable, FieldError, Invalid
from openmeet_appservice.web.models import ApiModel
from openmeet_appservice.web.problems import api_error
from openmeet_appservice.web.routes import PATH_PARAMETERS, Caller, PathParameter, Request, Response, Route
from openmeet_appservice.web.validation import check_path, parse_body

Op = Literal["put", "patch", "delete"]
ItemKind = Literal["user", "event", "group", "direct", "event_members", "group_members"]

_TENANT = "/v1/tenants/{tenant}"
_PATHS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "user": f"{_TENANT}/users/{{user}}",
        "event": f"{_TENANT}/events/{{event}}",
        "group": f"{_TENANT}/groups/{{group}}",
        "direct": f"{_TENANT}/direct/{{user_a}}/{{user_b}}",
        "event_members": f"{_TENANT}/events/{{event}}/members",
        "group_members": f"{_TENANT}/groups/{{group}}/members",
    }
)
"""The path of each kind of item."""


class Item(ApiModel):
    """One write."""

    op: Op
    kind: ItemKind = Field(description="What is written. `event_members`: the members of that event.")
    slug: str = Field(
        max_length=1024,
        description="Of a direct room the slugs of both users, in either order, joined by `~`.",
        examples=["board-games-k3v9ab"],
    )
    spec: dict[str, JsonValue] | None = Field(
        default=None,
        description="The body that the same request has by itself; of `put` the whole, of `patch` a merge "
        "patch or, of members, a delta. `delete` has none.",
    )


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for a whole list of items.

    Attributes
    ----------
    tenant
        Whose they are, as the caller wrote it.
    caller, request_id
        Who asks, and under which id.
    as_of
        When OpenMeet read it, in milliseconds since the epoch.
    confirmed
        Whether many people may be removed at once.
    """

    tenant: str
    caller: Caller
    request_id: str
    as_of: int | None = None
    confirmed: bool = False


class ItemWriter:
    """Writes items through the routes that are given.

    Parameters
    ----------
    routes
        Those of users, events, groups and members, and perhaps others.
    """

    def __init__(
        self, routes: Iterable[Route], parameters: Mapping[str, PathParameter] = PATH_PARAMETERS
    ) -> None:
        kinds = {path: kind for kind, path in _PATHS.items()}
        self._routes = {
            (route.method.lower(), kinds[route.path]): route for route in routes if route.path in kinds
        }
        self._parameters = parameters

    async def write(self, item: Item, terms: Terms) -> Response | ApiError:
        """Do what *item* says, and return what the single request would have been answered.

        Raises `DatabaseUnavailable`: that is nothing about this one item.
        """
        try:
            return await self.perform(item, terms)
        except DatabaseUnavailable:
            raise
        except Exception as error:
            return api_error(error)

    async def perform(self, item: Item, terms: Terms) -> Response:
        """Do what *item* says; refusals are raised as the single request's handler raises them."""
        route = self._routes.get((item.op, item.kind))
        if route is None:
            fault = FieldError("/op", "unknown_operation", f"There is no {item.op} of {item.kind}.")
            raise Invalid(errors=[fault])
        path = _path(route, item, terms.tenant)
        check_path(path, self._parameters)
        return await route.handler(
            Request(
                request_id=terms.request_id,
                caller=terms.caller,
                path=path,
                query=_query(route, terms),
                body=_body(route, item),
            )
        )


def pointed(error: ApiError) -> list[FieldError]:
    """Return the faults of a refused item, with pointers into the item instead of the single request."""
    return [replace(fault, pointer=_pointer(fault.pointer)) for fault in error.errors]


def _pointer(pointer: str) -> str:
    if pointer == "path":
        return "/slug"
    if pointer.startswith("?") or pointer == "/op":
        return pointer
    return "/spec" + pointer


def _path(route: Route, item: Item, tenant: str) -> dict[str, str]:
    names = route.parameters[1:]
    slugs = item.slug.split(JOINER) if item.kind == "direct" else [item.slug]
    if len(slugs) != len(names):
        raise Invalid(errors=[FieldError("path", "invalid_value", "slug: must be two users joined by ~")])
    return {"tenant": tenant, **dict(zip(names, slugs, strict=True))}


def _query(route: Route, terms: Terms) -> BaseModel | None:
    if route.query is None:
        return None
    fields: dict[str, Any] = {}
    if terms.as_of is not None:
        fields["as_of"] = to_rfc3339(terms.as_of)
    if terms.confirmed and "confirm_removals" in route.query.model_fields:
        fields["confirm_removals"] = "true"
    return route.query.model_validate_strings(fields)


def _body(route: Route, item: Item) -> BaseModel | None:
    if route.body is None:
        if item.spec is not None:
            raise BadRequest(f"A {item.op} has no spec.", code="unexpected_body")
        return None
    if item.spec is None:
        raise Invalid(errors=[FieldError("", "required", "It is required.")])
    return parse_body(route.body, to_json(item.spec))
