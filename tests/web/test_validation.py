from __future__ import annotations

from enum import StrEnum
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import MultiDict
from pydantic import Field, field_validator

from openmeet_appservice.errors import ApiError, BadRequest, Invalid
from openmeet_appservice.web.models import ApiModel, MergePatch, PageQuery
from openmeet_appservice.web.validation import MAX_DEPTH, parse_body, parse_query, validate


class Color(StrEnum):
    RED = "red"


class Member(ApiModel):
    user: str
    role: Color = Color.RED

    @field_validator("user")
    @classmethod
    def _no_robots(cls, user: str) -> str:
        if user == "robot":
            raise ValueError("robots stay out")
        return user


class Thing(ApiModel):
    name: str = Field(max_length=5)
    count: int = 0
    members: tuple[Member, ...] = ()
    extra: dict[str, Any] = Field(default_factory=dict)


def faults(error: ApiError) -> set[tuple[str, str]]:
    return {(fault.pointer, fault.code) for fault in error.errors}


def test_a_fit_body_becomes_the_model() -> None:
    thing = parse_body(Thing, b'{"name": "a", "members": [{"user": "ada", "role": "red"}]}')
    assert thing.members[0] == Member(user="ada", role=Color.RED)


def test_every_fault_is_named_and_no_value_repeated() -> None:
    body = {
        "name": "s3cret-value",
        "count": "17",
        "a/b~c": 1,
        "members": [{"role": "s3cret"}, {"user": "robot"}],
    }
    with pytest.raises(Invalid) as caught:
        parse_body(Thing, orjson.dumps(body))
    assert faults(caught.value) == {
        ("/name", "too_long"),
        ("/count", "wrong_type"),
        ("/a~1b~0c", "unknown_field"),
        ("/members/0/user", "required"),
        ("/members/0/role", "invalid_value"),
        ("/members/1/user", "invalid_value"),
    }
    shown = str([error.detail for error in caught.value.errors])
    assert "s3cret" not in shown
    assert "17" not in shown
    assert "robots stay out" in shown


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"{'a': 1}", b'{"name": NaN}', b'{"name": "\xff"}', b'{"name": "\\ud800"}', b"\x00",
     b'{"name": "a"} x', b"\xef\xbb\xbf{}"],
)  # fmt: skip
def test_what_is_not_json_is_400(raw: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_body(Thing, raw)
    assert caught.value.code == "not_json"


@pytest.mark.parametrize("raw", [b"[]", b"null", b"1", b'"x"'])
def test_json_that_is_no_object_is_422(raw: bytes) -> None:
    with pytest.raises(Invalid):
        parse_body(Thing, raw)


def test_of_a_name_given_twice_the_last_counts() -> None:
    assert parse_body(Thing, b'{"name": "a", "name": "b"}').name == "b"


@pytest.mark.parametrize("shape", [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_deep_nesting_is_refused_at_any_depth(shape: tuple[str, str]) -> None:
    opening, closing = shape
    levels = len(opening.replace('"a":', ""))
    for depth in (1, 10, MAX_DEPTH // levels - 1):
        raw = '{"name": "a", "extra": {"x": ' + opening * depth + "1" + closing * depth + "}}"
        if depth * levels + 2 <= MAX_DEPTH:
            parse_body(Thing, raw.encode())
    for depth in (MAX_DEPTH, 150, 1000, 100_000):
        raw = '{"name": "a", "extra": {"x": ' + opening * depth + "1" + closing * depth + "}}"
        with pytest.raises(BadRequest):
            parse_body(Thing, raw.encode())


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


_JSON = st.recursive(
    st.none() | st.text('[]{}\\"ab', max_size=6),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text('[{\\"', max_size=2), inner, max_size=2)
    ),
    max_leaves=60,
)


@given(_JSON, st.integers(0, 40))
def test_brackets_in_strings_do_not_count_as_depth(value: Any, wrapped: int) -> None:
    for _ in range(wrapped):
        value = [value, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["]
    body = orjson.dumps({"v": value})
    if depth_of(value) + 1 <= MAX_DEPTH:
        assert parse_body(MergePatch, body).root["v"] == value
    else:
        with pytest.raises(BadRequest, match="nested"):
            parse_body(MergePatch, body)


def test_nul_is_refused_wherever_it_is() -> None:
    body = {"name": "a\0b", "members": [{"user": "\0"}], "extra": {"k\0": 1, "t": ["\0"]}}
    with pytest.raises(Invalid) as caught:
        parse_body(Thing, orjson.dumps(body))
    assert {pointer for pointer, _ in faults(caught.value)} == {
        "/name", "/members/0/user", "/extra", "/extra/t/0"
    }  # fmt: skip


def test_the_text_backslash_u0000_is_not_nul() -> None:
    assert parse_body(Thing, rb'{"name": "a", "extra": {"t": "\\u0000"}}').extra["t"] == "\\u0000"


def test_one_answer_does_not_list_thousands_of_faults() -> None:
    with pytest.raises(Invalid) as caught:
        parse_body(Thing, orjson.dumps({"name": "a", "members": [{}] * 20_000}))
    assert len(caught.value.errors) == 100


def test_a_value_made_here_is_checked_alike() -> None:
    patched = MergePatch({"name": "toolong", "count": None}).apply_to({"name": "a", "count": 2})
    with pytest.raises(Invalid) as caught:
        validate(Thing, patched)
    assert faults(caught.value) == {("/name", "too_long")}
    assert validate(Thing, {"name": "a"}) == Thing(name="a")


def test_a_query_is_read_by_its_model() -> None:
    query = parse_query(PageQuery, MultiDict([("limit", "7"), ("page_token", "x")]))
    assert query == PageQuery(limit=7, page_token="x")
    assert parse_query(PageQuery, MultiDict()) == PageQuery()
    assert parse_query(None, MultiDict()) is None


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ([("limit", "0")], ("?limit", "out_of_range")),
        ([("limit", "501")], ("?limit", "out_of_range")),
        ([("limit", "x")], ("?limit", "invalid_value")),
        ([("limit", "5"), ("limit", "6")], ("?limit", "given_twice")),
        ([("page", "1")], ("?page", "unknown_field")),
        ([("page_token", "\0")], ("?page_token", "invalid_value")),
    ],
)
def test_a_query_that_does_not_fit(query: list[tuple[str, str]], fault: tuple[str, str]) -> None:
    with pytest.raises(Invalid) as caught:
        parse_query(PageQuery, MultiDict(query))
    assert faults(caught.value) == {fault}


def test_where_no_query_is_declared_none_is_accepted() -> None:
    with pytest.raises(Invalid) as caught:
        parse_query(None, MultiDict([("purge", "true")]))
    assert faults(caught.value) == {("?purge", "unknown_field")}


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": "x"}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    ],
)
def test_merge_patches_as_rfc_7396_shows_them(
    target: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]
) -> None:
    before = orjson.dumps(target)
    assert MergePatch(patch).apply_to(target) == result
    assert orjson.dumps(target) == before
