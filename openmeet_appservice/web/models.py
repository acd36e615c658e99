"""The base of every model at the HTTP edge, and the few models that all resources share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel

T = TypeVar("T")


MAX_LIMIT = 500
"""The most items that one page of a list holds."""


class ApiModel(BaseModel):
    """A model that refuses unknown fields and never shows the values it was given in an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class AnswerModel(BaseModel):
    """A model of an answer. What it lists is always there; more may be added in a later release."""

    model_config = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)


class Page(AnswerModel, Generic[T]):
    """One page of a list."""

    items: list[T]
    next_page_token: str | None = Field(
        default=None, description="Give it as `page_token` to get the next page; null on the last."
    )


class PageQuery(ApiModel):
    """The query of a list. Derive from it to add filters."""

    limit: int = Field(default=100, ge=1, le=MAX_LIMIT, description="How many items at most.")
    page_token: str | None = Field(
        default=None, max_length=2048, description="`next_page_token` of the page before."
    )


class MergePatch(RootModel[dict[str, JsonValue]]):
    """An RFC 7396 merge patch: fields to set; null takes a field away."""

    def apply_to(self, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return *target* with this patch applied; neither is changed."""
        return _merged(target, self.root)


def _merged(target: object, patch: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, Mapping):
            result[name] = _merged(result.get(name), value)
        else:
            result[name] = value
    return result


class ProblemField(AnswerModel):
    """One fault in a request."""

    pointer: str = Field(description="A JSON pointer into the body, `?name` for the query, or `path`.")
    code: str
    detail: str


class MatrixProblem(AnswerModel):
    """What the homeserver answered when it refused."""

    errcode: str
    error: str
    status: int


class Problem(BaseModel):
    """An RFC 9457 problem document. Decide by `code`; `detail` is for people and may change."""

    type: str = Field(description="A URI that stands for the code.")
    title: str
    status: int
    detail: str
    code: str = Field(description="The stable name of this fault.")
    request_id: str
    retryable: bool = Field(description="Whether the same request may succeed later.")
    errors: list[ProblemField] | None = None
    matrix: MatrixProblem | None = None
