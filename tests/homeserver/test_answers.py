"""What an HTTP answer means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from openmeet_appservice.errors import (
    HomeserverError,
    HomeserverLimited,
    HomeserverRefused,
    HomeserverUnreachable,
)
from openmeet_appservice.homeserver.answers import read_answer

NOW = 1_795_377_600_000  # 2026-11-22T20:00:00Z
HTML = b"<html><body>Bad gateway</body></html>"


def read(status: int, body: bytes, **headers: str) -> object:
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return read_answer(status, named, body, NOW)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"room_id": "!a"}'])
def test_json_with_2xx_is_the_result(body: bytes) -> None:
    assert read(200, body) is not None


@pytest.mark.parametrize("body", [b"", HTML, b"null", b"{", b"[" * 100_000, b"\xff"])
def test_2xx_without_json_is_no_usable_answer(body: bytes) -> None:
    with pytest.raises(HomeserverUnreachable):
        read(200, body)


def test_a_refusal_keeps_what_the_homeserver_said() -> None:
    with pytest.raises(HomeserverRefused) as caught:
        read(403, b'{"errcode": "M_FORBIDDEN", "error": "not in room"}')
    assert (caught.value.status, caught.value.errcode) == (403, "M_FORBIDDEN")
    assert caught.value.error == "not in room"


@pytest.mark.parametrize(
    "body",
    [HTML, b"[]", b'"M_NOT_FOUND"', b"{}", b'{"errcode": 7}', b'{"errcode": "no code"}', b"null"],
)
def test_an_error_that_is_not_matrix_s_never_says_not_found(body: bytes) -> None:
    with pytest.raises(HomeserverRefused) as caught:
        read(404, body)
    assert caught.value.errcode == "M_UNKNOWN"


@pytest.mark.parametrize("status", [500, 502, 503, 504, 522])
@pytest.mark.parametrize("body", [HTML, b"", b"[]"])
def test_a_broken_proxy_is_no_usable_answer(status: int, body: bytes) -> None:
    with pytest.raises(HomeserverUnreachable):
        read(status, body)


def test_a_matrix_error_of_500_and_above_keeps_its_code() -> None:
    with pytest.raises(HomeserverRefused) as caught:
        read(502, b'{"errcode": "M_BAD_STATUS", "error": "HTTP 500"}')
    assert (caught.value.status, caught.value.errcode) == (502, "M_BAD_STATUS")


@pytest.mark.parametrize(
    ("header", "body", "seconds"),
    [
        ("7", b'{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 2500}', 7.0),
        (None, b'{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 2500}', 2.5),
        ("soon", b'{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 2500}', 2.5),
        ("Sun, 22 Nov 2026 20:00:30 GMT", HTML, 30.0),
        ("Sun, 22 Nov 2026 19:59:30 GMT", HTML, 0.0),
        (None, b'{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": -5}', 0.0),
        (None, b'{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": "5"}', None),
        (None, b'{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": Infinity}', None),
        (None, HTML, None),
        ("-3", HTML, None),
    ],
)
def test_how_long_a_429_asks_to_wait(header: str | None, body: bytes, seconds: float | None) -> None:
    headers = {} if header is None else {"Retry_After": header}
    with pytest.raises(HomeserverLimited) as caught:
        read(429, body, **headers)
    assert caught.value.retry_after == seconds


@given(status=st.integers(100, 599), body=st.binary(max_size=200), header=st.text(max_size=20))
def test_whatever_comes_is_a_result_or_one_of_our_errors(status: int, body: bytes, header: str) -> None:
    try:
        read(status, body, Retry_After=header)
    except HomeserverError as error:
        assert 200 <= status < 300 or isinstance(  # noqa: PT017 # a result is allowed too
            error, HomeserverRefused | HomeserverUnreachable
        )
