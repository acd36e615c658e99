"""Answers in Matrix's form: JSON, and of refusals ``errcode`` and ``error``."""

from __future__ import annotations

import logging
from typing import Any

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler

from openmeet_appservice.errors import ApiError, StoreError, Unavailable

log = logging.getLogger(__name__)

_ERRCODES = {
    401: "M_MISSING_TOKEN",
    403: "M_FORBIDDEN",
    404: "M_NOT_FOUND",
    413: "M_TOO_LARGE",
}
_JSON = {"Content-Type": "application/json"}
_CLOSING = frozenset({408, 413})


def json_answer(value: Any, status: int = 200) -> web.Response:
    """Return *value* as an answer."""
    return web.Response(status=status, body=orjson.dumps(value), headers=_JSON)


@web.middleware
async def matrix_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer whatever is raised in Matrix's form, and show nobody a traceback."""
    try:
        return await handler(request)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        refusal = _refusal(405, "M_UNRECOGNIZED", f"This path takes {allowed}.")
        refusal.headers["Allow"] = allowed
        return refusal
    except web.HTTPNotFound:
        return _refusal(404, "M_UNRECOGNIZED", "There is no such path here.")
    except web.HTTPException as error:
        return _refusal(error.status, _ERRCODES.get(error.status, "M_UNKNOWN"), error.reason)
    except ApiError as error:
        return _api_refusal(error)
    except StoreError as error:
        log.warning("%s failed: %s", request.match_info.handler.__name__, error)
        return _api_refusal(Unavailable("The database cannot be used just now."))
    except Exception:
        log.exception("a request of the homeserver could not be answered")
        return _refusal(500, "M_UNKNOWN", "This service made a mistake; its log says more.")


def _api_refusal(error: ApiError) -> web.Response:
    errcode = error.code if error.code.startswith("M_") else _ERRCODES.get(error.status, "M_UNKNOWN")
    return _refusal(error.status, errcode, error.detail)


def _refusal(status: int, errcode: str, words: str) -> web.Response:
    response = json_answer({"errcode": errcode, "error": words}, status)
    if status in _CLOSING:
        # What is left of the body would be taken for the next request.
        response.force_close()
    return response
