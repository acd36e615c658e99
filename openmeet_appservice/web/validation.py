"""From bytes and query strings to models, with every fault named by pointer and no value repeated."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import orjson
from multidict import MultiMapping
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from openmeet_appservice.errors import BadRequest, FieldError, Invalid
from openmeet_appservice.web.routes import PathParameter

M = TypeVar("M", bound=BaseModel)

MAX_DEPTH = 32
"""How deep objects and lists in a body may be nested. No body that means something comes near."""

MAX_ERRORS = 100
"""How many faults one answer lists."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_STABLE_CODES = {
    "missing": "required",
    "extra_forbidden": "unknown_field",
    "string_too_long": "too_long",
    "too_long": "too_long",
    "string_too_short": "too_short",
    "too_short": "too_short",
    "greater_than": "out_of_range",
    "greater_than_equal": "out_of_range",
    "less_than": "out_of_range",
    "less_than_equal": "out_of_range",
}


def parse_body(model: type[M], raw: bytes) -> M:
    """Return the JSON text *raw* as *model*. Types are strict: ``"5"`` is no number.

    Of a name that an object holds twice, the last one counts.

    Raises
    ------
    BadRequest
        It is not JSON (RFC 8259, UTF-8), or nested more than `MAX_DEPTH` deep.
    Invalid
        It is JSON but does not fit the model, or a string in it holds U+0000, which no database of
        ours can keep as text.
    """
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"The body is not JSON: {_place(error)}.", code="not_json") from None
    if _deeper_than(MAX_DEPTH, raw):
        raise BadRequest(f"The body is nested more than {MAX_DEPTH} deep.", code="too_deep")
    if b"\\u0000" in raw:
        faults = [_nul_fault(pointer) for pointer in _strings_with_nul(value, "")]
        if faults:
            raise Invalid(errors=faults[:MAX_ERRORS])
    return _validated(model, raw)


def validate(model: type[M], value: Any) -> M:
    """Return *value*, made of what JSON has, as *model*: for the result of a merge patch.

    Raises `Invalid` as `parse_body` does.
    """
    return _validated(model, orjson.dumps(value))


def check_path(path: Mapping[str, str], parameters: Mapping[str, PathParameter]) -> None:
    """Return if each of the path's parameters is what *parameters* says it may be; else raise `Invalid`."""
    faults = [
        FieldError("path", "invalid_value", f"{name}: must match {parameter.pattern}")
        for name, value in path.items()
        if not re.fullmatch((parameter := parameters[name]).pattern, value)
    ]
    if faults:
        raise Invalid(errors=faults)


def parse_query(model: type[M] | None, query: MultiMapping[str]) -> M | None:
    """Return a query string as *model*; with no model there must be no query.

    Raises
    ------
    Invalid
        A parameter is unknown, given twice, holds U+0000 or does not fit.
    """
    faults = [
        FieldError(f"?{name[:100]}", "given_twice", "Give it once.")
        for name in dict.fromkeys(query)
        if len(query.getall(name)) > 1
    ]
    faults += [_nul_fault(f"?{name[:100]}") for name, value in query.items() if "\0" in name + value]
    if model is None:
        faults += [
            FieldError(f"?{name[:100]}", "unknown_field", "There is no such parameter here.")
            for name in dict.fromkeys(query)
        ]
    if faults:
        raise Invalid(errors=faults[:MAX_ERRORS])
    if model is None:
        return None
    try:
        return model.model_validate_strings(dict(query.items()))
    except ValidationError as error:
        raise Invalid(errors=_faults(error.errors(include_url=False), "?")) from None


def _validated(model: type[M], raw: bytes) -> M:
    try:
        return model.model_validate_json(raw, strict=True)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        raise Invalid(errors=_faults(details, "/")) from None


def _faults(details: Iterable[ErrorDetails], style: str) -> list[FieldError]:
    return [
        FieldError(_pointer(detail["loc"], style), _code(detail["type"]), _words(detail))
        for detail in list(details)[:MAX_ERRORS]
    ]


def _pointer(location: tuple[int | str, ...], style: str) -> str:
    parts = [str(part)[:100] for part in location]
    if style == "?":
        return "?" + ".".join(parts)
    return "".join("/" + part.replace("~", "~0").replace("/", "~1") for part in parts)


def _code(kind: str) -> str:
    if kind in _STABLE_CODES:
        return _STABLE_CODES[kind]
    return "wrong_type" if kind.endswith("_type") else "invalid_value"


def _words(detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return "There is no such field here."
    if detail["type"] == "missing":
        return "It is required."
    return detail["msg"].removeprefix("Value error, ")


def _place(error: orjson.JSONDecodeError) -> str:
    return f"{error.msg.partition(':')[0]} (line {error.lineno}, column {error.colno})"


def _deeper_than(limit: int, raw: bytes) -> bool:
    """Whether well-formed JSON nests deeper than *limit*, in a few passes at the speed of C.

    With strings and everything but brackets taken away, each pass removes the innermost pairs.
    """
    if raw.count(b"[") + raw.count(b"{") <= limit:
        return False
    left = _without_strings(raw).translate(_ONE_KIND, _NO_BRACKETS)
    for _ in range(limit):
        left = left.replace(b"[]", b"")
        if not left:
            return False
    return True


def _without_strings(raw: bytes) -> bytes:
    """Well-formed JSON without the contents of its strings."""
    plain = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(plain.split(b'"')[::2])


def _strings_with_nul(value: object, pointer: str) -> Iterable[str]:
    if isinstance(value, str) and "\0" in value:
        yield pointer
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if "\0" in name:
                yield pointer
            escaped = name[:100].replace("~", "~0").replace("/", "~1").replace("\0", "�")
            yield from _strings_with_nul(inner, f"{pointer}/{escaped}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _strings_with_nul(inner, f"{pointer}/{index}")


def _nul_fault(pointer: str) -> FieldError:
    return FieldError(pointer, "invalid_value", "U+0000 is not allowed in text.")
