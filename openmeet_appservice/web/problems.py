"""Every refusal as an RFC 9457 problem document."""

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Any

from aiohttp import web

from openmeet_appservice.errors import (
    ApiError,
    BadRequest,
    Conflict,
    DatabaseUnavailable,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
    Invalid,
    InvalidName,
    MethodNotAllowed,
    NotFound,
    TooLarge,
    Unavailable,
)
from openmeet_appservice.web.models import MatrixProblem, Problem, ProblemField

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_DATABASE = 5.0
"""Seconds that a caller is asked to wait when the database is away."""

_TYPE = "tag:openmeet.net,2026:openmeet-appservice/"


def api_error(error: Exception) -> ApiError:
    """Return what the API says about any exception.

    What is ours and says enough is translated; anything else becomes a bare 500 that tells the caller
    nothing, and goes to the log with its traceback.
    """
    if isinstance(error, ApiError):
        return error
    if isinstance(error, web.HTTPException):
        return _of_http_exception(error)
    if isinstance(error, InvalidName):
        return Invalid(str(error), code="invalid_name")
    if isinstance(error, DatabaseUnavailable):
        log.warning("the database is away: %s", error)
        return Unavailable(
            "The database cannot be reached.",
            code="database_unavailable",
            retry_after=RETRY_AFTER_DATABASE,
        )
    if isinstance(error, HomeserverUnreachable):
        return Unavailable(
            "The homeserver gave no usable answer.",
            code="homeserver_unreachable",
            retry_after=RETRY_AFTER_DATABASE,
        )
    if isinstance(error, HomeserverLimited):
        return Unavailable(
            "The homeserver asks for patience.",
            code="homeserver_limited",
            refused=error,
            retry_after=error.retry_after or RETRY_AFTER_DATABASE,
        )
    if isinstance(error, HomeserverRefused):
        return Conflict("The homeserver refused.", code="homeserver_refused", refused=error)
    log.error("unexpected fault while answering a request", exc_info=error)
    return ApiError("Something went wrong on our side. The request id finds it in the log.")


def _of_http_exception(error: web.HTTPException) -> ApiError:
    """What aiohttp raises by itself: no such path, no such method, too much body, bad body."""
    if isinstance(error, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(f"Here there is only {', '.join(sorted(error.allowed_methods))}.")
    if error.status == HTTPStatus.NOT_FOUND:
        return NotFound("There is no such path.", code="unknown_path")
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return TooLarge()
    if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
        return BadRequest("The request cannot be read.")
    log.error("unexpected HTTP error", exc_info=error)
    return ApiError("Something went wrong on our side. The request id finds it in the log.")


def document(error: ApiError, request_id: str) -> dict[str, Any]:
    """Return the problem document for *error*; fields with nothing to say are left out."""
    problem = Problem(
        type=_TYPE + error.code,
        title=HTTPStatus(error.status).phrase,
        status=error.status,
        detail=error.detail,
        code=error.code,
        request_id=request_id,
        retryable=error.retryable or error.retry_after is not None,
        errors=[ProblemField(pointer=e.pointer, code=e.code, detail=e.detail) for e in error.errors] or None,
        matrix=_matrix(error.refused),
    )
    return problem.model_dump(exclude_none=True)


def _matrix(refused: HomeserverRefused | None) -> MatrixProblem | None:
    if refused is None:
        return None
    return MatrixProblem(errcode=refused.errcode, error=refused.error, status=refused.status)


def headers(error: ApiError) -> dict[str, str]:
    """Return the headers that go with *error*."""
    found: dict[str, str] = {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        found["WWW-Authenticate"] = 'Bearer realm="openmeet-appservice"'
    if error.retry_after is not None:
        found["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return found
