"""The routes that every release has: who am I, what can you do, and the OpenAPI document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field, RootModel

from openmeet_appservice.web.models import AnswerModel
from openmeet_appservice.web.openapi import About, build_document
from openmeet_appservice.web.routes import (
    PATH_PARAMETERS,
    Access,
    Handler,
    PathParameter,
    Request,
    Response,
    Route,
    Scope,
)
from openmeet_appservice.web.webhooks import Webhook

_TAG = "service"


class WhoAmI(AnswerModel):
    """Whose key was sent."""

    scope: Scope
    tenant: str | None = Field(description="The tenant of a tenant's key, in lower case.")
    key_id: str
    name: str


class Capabilities(AnswerModel):
    """What this release can do."""

    version: str
    features: list[str]
    limits: dict[str, int]


class OpenApiDocument(RootModel[dict[str, Any]]):
    """This API as OpenAPI 3.1."""


def with_standard_routes(
    routes: Sequence[Route],
    about: About,
    *,
    features: Sequence[str],
    limits: Mapping[str, int],
    path_parameters: Mapping[str, PathParameter] = PATH_PARAMETERS,
    webhooks: Sequence[Webhook] = (),
) -> tuple[Route, ...]:
    """Return *routes* and, beside them, ``/v1/whoami``, ``/v1/capabilities``, ``/v1/openapi.json``.

    Parameters
    ----------
    routes
        All other routes.
    about
        What the document says about the API.
    features
        The stable names of what a caller may rely on.
    limits
        Sizes that a caller may need to know, such as ``{"max_body_bytes": 8388608}``.
    path_parameters
        What every parameter in a path may be.
    webhooks
        What the service sends to others.
    """
    document: dict[str, Any] = {}
    capabilities = Capabilities(
        version=about.version, features=sorted(features), limits=dict(sorted(limits.items()))
    )

    async def get_openapi(request: Request) -> Response:
        return Response(body=document)

    async def get_capabilities(request: Request) -> Response:
        return Response(body=capabilities)

    standard = (
        _route("/v1/whoami", whoami, "who_am_i", "Whose key this is", WhoAmI),
        _route(
            "/v1/capabilities",
            get_capabilities,
            "get_capabilities",
            "What this release can do",
            Capabilities,
        ),
        _route("/v1/openapi.json", get_openapi, "get_openapi", "This document", OpenApiDocument),
    )
    complete = (*routes, *standard)
    document.update(build_document(complete, about, path_parameters, webhooks))
    return complete


async def whoami(request: Request) -> Response:
    """Answer with what is known of the caller's key."""
    caller = request.caller
    return Response(
        body=WhoAmI(scope=caller.scope, tenant=caller.tenant, key_id=caller.key_id, name=caller.name)
    )


def _route(path: str, handler: Handler, operation: str, summary: str, answer: type[BaseModel]) -> Route:
    return Route(
        method="GET",
        path=path,
        handler=handler,
        operation=operation,
        summary=summary,
        tag=_TAG,
        access=Access.ANYONE_WITH_KEY,
        responses={200: answer},
    )
