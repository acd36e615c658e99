"""Durations, addresses, networks and what is shown of a database URL."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from openmeet_appservice.config.values import (
    check_host_name,
    check_http_url,
    check_server_name,
    parse_address,
    parse_rate,
    rate_text,
    shown_url,
)
from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.domain.durations import duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15s", 15),
        ("250ms", 0.25),
        ("5m", 300),
        ("24h", 86400),
        ("7d", 604800),
        ("1h30m", 5400),
        ("1.5s", 1.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["15", "", "s", "-5s", "5 s", "5w", "1s2", 15, None, True, "9" * 30 + "d"])
def test_what_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match=r"must be a time with its unit|longer than any time"):
        parse_duration(text)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_written_duration_reads_back(milliseconds: int) -> None:
    value = timedelta(milliseconds=milliseconds)
    assert parse_duration(duration_text(value)) == value


@pytest.mark.parametrize(
    ("text", "a_second"), [("2/s", 2), ("0.5/s", 0.5), ("30/m", 0.5), ("1/m", 1 / 60), ("3600/h", 1)]
)
def test_rates(text: str, a_second: float) -> None:
    assert parse_rate(text) == a_second
    assert parse_rate(rate_text(a_second)) == pytest.approx(a_second)


@pytest.mark.parametrize("text", ["2", "", "/s", "2/d", "0/s", "101/s", "59/h", 2, None, True, 0.0])
def test_what_is_no_rate(text: object) -> None:
    with pytest.raises(ValueError, match="must be a number and its time"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:29350", Address("127.0.0.1", 29350)),
        ("[::1]:1", Address("::1", 1)),
        ("localhost:65535", Address("localhost", 65535)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", ["localhost", ":80", "::1:80", "x:0", "x:65536", "x:y", "a b:80", 80])
def test_what_is_no_address(text: object) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        parse_address(text)


@pytest.mark.parametrize("text", ["https://h/", "http://[::1]:8008", "http://h:1/path/"])
def test_http_urls_lose_their_closing_slash(text: str) -> None:
    assert check_http_url(text) == text.rstrip("/")


@pytest.mark.parametrize(
    "text",
    [
        "ftp://h",
        "h",
        "http://",
        "http://h:x",
        "http://[::1",
        "http://a b",
        "http://h\n",
        "http://h#",
        "http://u@h",
    ],
)
def test_what_is_no_http_url(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|is not a URL"):
        check_http_url(text)


@pytest.mark.parametrize(
    "name", ["example.org", "localhost:8448", "192.0.2.1", "[2001:db8::1]:8448", "Example.ORG"]
)
def test_server_names(name: str) -> None:
    assert check_server_name(name) == name


@pytest.mark.parametrize("name", ["", "a b", "a:b", "http://a", "a/b", "@ada:a", "a_b", "a.org\n"])
def test_what_is_no_server_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"must be a server name|is the name in user ids"):
        check_server_name(name)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:p%40ss@db/openmeet", "postgresql://me:***@db/openmeet"),
        ("postgresql://me:p@ss@db/openmeet", "postgresql://me:***@db/openmeet"),
        ("postgresql://me@db:5432/openmeet", "postgresql://me@db:5432/openmeet"),
        (
            "postgresql:///openmeet?host=/run&password=abc&user=me",
            "postgresql:///openmeet?host=/run&password=***&user=me",
        ),
        ("sqlite:////srv/x.db", "sqlite:////srv/x.db"),
    ],
)
def test_a_database_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert shown_url(SecretStr(url)) == shown


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("openmeet.internal", "openmeet.internal"),
        ("OpenMeet.Internal.", "openmeet.internal"),
        ("api", "api"),
        ("open_meet-api", "open_meet-api"),
        ("bücher.example", "xn--bcher-kva.example"),
    ],
)
def test_host_names(name: str, meant: str) -> None:
    assert check_host_name(name) == meant


@pytest.mark.parametrize(
    "name",
    ["", ".", "a b", "a/b", "http://a", "a:80", "u@a", "*.a", "-a", "a-", "a..b", "127.1", "2130706433",
     "0x7f.1", "127.0.0.1", "::1", "[::1]", "a" * 64, "a.b\n", "a?b", "a%62"],
)  # fmt: skip
def test_what_is_no_host_name(name: str) -> None:
    with pytest.raises(ValueError, match="must be a"):
        check_host_name(name)
