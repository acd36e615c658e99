"""The OpenAPI 3.1 document, made from the routes that are served."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema
from ruamel.yaml import YAML

from openmeet_appservice.web import problems
from openmeet_appservice.web.models import Problem
from openmeet_appservice.web.routes import PATH_PARAMETERS, Access, PathParameter, Route
from openmeet_appservice.web.webhooks import PARAMETERS as WEBHOOK_PARAMETERS
from openmeet_appservice.web.webhooks import Webhook, path_item

Json: TypeAlias = dict[str, Any]

_METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE")
_WHO = {
    Access.ANYONE_WITH_KEY: "any key",
    Access.TENANT: "the tenant's own keys, platform keys, the admin key",
    Access.PLATFORM: "platform keys, the admin key",
    Access.ADMIN: "the admin key",
}
_PROBLEM_WORDS = {
    400: "The request cannot be read.",
    401: "There is no API key, or nobody has it.",
    403: "The key may not do that.",
    404: "There is no such thing, or it belongs to another tenant.",
    408: "The body did not arrive in time.",
    409: "The request does not fit the present state.",
    412: "It has changed since it was read.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    422: "The request is not valid.",
    429: "Too many requests.",
    500: "A fault of the service.",
    503: "The service cannot answer this just now.",
}


@dataclass(frozen=True, slots=True)
class About:
    """What the document says about the whole API.

    Attributes
    ----------
    title, description
        For the reader.
    version
        The release of this program.
    """

    title: str
    description: str
    version: str


def build_document(
    routes: Sequence[Route],
    about: About,
    path_parameters: Mapping[str, PathParameter] = PATH_PARAMETERS,
    webhooks: Sequence[Webhook] = (),
) -> Json:
    """Return the OpenAPI document of *routes*; the same routes in any order give the same document.

    Each operation carries ``x-access``, one of the values of `Access`, beside what the standard has.

    Parameters
    ----------
    webhooks
        What the service sends to others, in the order in which the document shows them.
    """
    ordered = sorted(routes, key=lambda route: (route.path, _METHODS.index(route.method)))
    schemas = _schemas(ordered, webhooks)
    paths: Json = {}
    for route in ordered:
        item = paths.setdefault(route.path, {})
        if route.parameters and "parameters" not in item:
            item["parameters"] = [_path_parameter(n, path_parameters[n]) for n in route.parameters]
        item[route.method.lower()] = _operation(route, schemas)
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": about.title,
            "version": about.version,
            "description": about.description,
        },
        "security": [{"key": []}],
        "tags": [{"name": tag} for tag in sorted({route.tag for route in ordered})],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "headers": {"RequestId": _REQUEST_ID_HEADER},
            "responses": {f"Problem{status}": _problem(status) for status in _PROBLEM_WORDS},
            "schemas": schemas.components(ordered),
        },
    }
    if webhooks:
        document["webhooks"] = {each.name: path_item(each, schemas.answer(each.body)) for each in webhooks}
        document["components"]["parameters"] = dict(WEBHOOK_PARAMETERS)
    return document


def document_yaml(document: Json) -> str:
    """Return *document* as YAML text, the same for the same document."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 100
    yaml.representer.ignore_aliases = lambda _: True
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


@dataclass(frozen=True, slots=True)
class _Schemas:
    """The schemas of all models that routes and webhooks use."""

    references: Mapping[tuple[Any, JsonSchemaMode], Json]
    definitions: Mapping[str, Json]

    def body(self, model: type[BaseModel]) -> Json:
        """The reference to what a caller sends."""
        return self.references[model, "validation"]

    def answer(self, model: type[BaseModel]) -> Json:
        """The reference to what we send."""
        return self.references[model, "serialization"]

    def query(self, model: type[BaseModel]) -> Json:
        """The definition of a query string's model."""
        return self.definitions[_name(self.body(model))]

    def components(self, routes: Sequence[Route]) -> Json:
        """All definitions by name; queries are left out, they become parameters."""
        queries = {_name(self.body(route.query)) for route in routes if route.query}
        return {name: schema for name, schema in sorted(self.definitions.items()) if name not in queries}


def _name(reference: Json) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _schemas(routes: Sequence[Route], webhooks: Sequence[Webhook]) -> _Schemas:
    used: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Problem, "serialization"): None}
    for route in routes:
        used.update({(model, "validation"): None for model in (route.body, route.query) if model})
        used.update({(m, "serialization"): None for m in route.responses.values() if m})
    used.update({(webhook.body, "serialization"): None for webhook in webhooks})
    references, schema = models_json_schema(list(used), ref_template="#/components/schemas/{model}")
    return _Schemas(references, schema.get("$defs", {}))


def _operation(route: Route, schemas: _Schemas) -> Json:
    description = f"{route.description}\n\n" if route.description else ""
    operation: Json = {
        "operationId": route.operation,
        "tags": [route.tag],
        "summary": route.summary,
        "description": f"{description}For {_WHO[route.access]}.",
        "x-access": route.access.value,
    }
    if parameters := _parameters(route, schemas):
        operation["parameters"] = parameters
    if route.body is not None:
        kinds = ["application/json"]
        if route.method == "PATCH":
            kinds.append("application/merge-patch+json")
        schema = schemas.body(route.body)
        operation["requestBody"] = {
            "required": True,
            "content": {kind: {"schema": schema} for kind in kinds},
        }
    operation["responses"] = _responses(route, schemas)
    return operation


def _parameters(route: Route, schemas: _Schemas) -> list[Json]:
    found: list[Json] = []
    if route.query is not None:
        found += _query_parameters(schemas.query(route.query))
    if route.takes_if_match:
        found.append(_header("If-Match", "Do it only if this is still the ETag, else answer 412.", 1024))
    if route.takes_idempotency_key:
        found.append(
            _header(
                "Idempotency-Key",
                "Repeated with the same body within 24 hours, the first answer is given again.",
                255,
            )
        )
    return found


def _query_parameters(schema: Json) -> list[Json]:
    return [
        {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", []),
            "description": field.get("description", ""),
            "schema": _without_null(field),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _without_null(field: Json) -> Json:
    """The schema of a field as a query string can hold it: absent, but never null."""
    kept = {k: v for k, v in field.items() if k not in {"title", "description", "anyOf"}}
    if kept.get("default", ...) is None:
        del kept["default"]
    choices = [choice for choice in field.get("anyOf", []) if choice != {"type": "null"}]
    if len(choices) == 1:
        kept |= choices[0]
    elif choices:
        kept["anyOf"] = choices
    return kept


def _header(name: str, description: str, longest: int) -> Json:
    schema = {"type": "string", "minLength": 1, "maxLength": longest}
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _responses(route: Route, schemas: _Schemas) -> Json:
    statuses = {400, 401, 422, 500, 503} | {s for s in route.responses if s >= 400}
    if route.access in {Access.PLATFORM, Access.ADMIN}:
        statuses.add(403)
    if route.parameters:
        statuses.add(404)
    if route.body is not None:
        statuses |= {408, 413, 415}
    if route.takes_if_match:
        statuses.add(412)
    if route.takes_idempotency_key:
        statuses.add(409)
    answers: Json = {
        str(status): _success(route, status, model, schemas)
        for status, model in sorted(route.responses.items())
        if status < 400
    }
    for status in sorted(statuses):
        answers[str(status)] = {"$ref": f"#/components/responses/Problem{status}"}
    return answers


def _success(route: Route, status: int, model: type[BaseModel] | None, schemas: _Schemas) -> Json:
    headers: Json = {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}}
    if route.takes_if_match:
        headers["ETag"] = {
            "description": "What `If-Match` compares with.",
            "schema": {"type": "string"},
        }
    answer: Json = {"description": HTTPStatus(status).phrase, "headers": headers}
    if model is not None:
        answer["content"] = {"application/json": {"schema": schemas.answer(model)}}
    return answer


_REQUEST_ID_HEADER: Json = {
    "description": "The id of this request in the logs; the caller's own if it sent a fit one.",
    "schema": {"type": "string"},
}


def _problem(status: int) -> Json:
    return {
        "description": _PROBLEM_WORDS[status],
        "headers": {"X-Request-Id": {"$ref": "#/components/headers/RequestId"}},
        "content": {problems.CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def _path_parameter(name: str, parameter: PathParameter) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": parameter.description,
        "schema": {"type": "string", "pattern": f"^(?:{parameter.pattern})$"},
    }
