from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from openmeet_appservice.ops.logs import Format, redact, set_up_logging
from openmeet_appservice.web.context import bind

log = logging.getLogger("openmeet_appservice.test")

KEY = "omk_tenant_" + "0123456789abcdef" * 4
SECRET = "whsec_" + "QUJDREVG" * 6 + "=="
TOKEN = "f00dcafe" * 8


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in ("aiohttp.access", "mau", "mautrix")}
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    for name, former in levels.items():
        logging.getLogger(name).setLevel(former)


def lines(style: Format, level: str = "INFO") -> io.StringIO:
    stream = io.StringIO()
    set_up_logging(level, style, stream)
    return stream


def test_a_text_line() -> None:
    stream = lines("text")
    with bind(request_id="r1", tenant="t1"):
        log.info("hello %s", "Ada", extra={"room": "!r", "attempt": 3})
    line = stream.getvalue()
    assert line.endswith(
        "Z INFO openmeet_appservice.test: hello Ada [tenant=t1 room=!r request_id=r1 attempt=3]\n"
    )
    assert line[10] == "T"
    assert len(line.partition(" ")[0]) == len("2026-11-22T19:00:00.123Z")


def test_a_json_line() -> None:
    stream = lines("json")
    with bind(request_id="r1", tenant="t1"):
        log.warning("hello %s", "Ada", extra={"tenant": "t2", "attempt": 3, "thing": {"a": (1,)}})
    entry = json.loads(stream.getvalue())
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "level": "WARNING",
        "logger": "openmeet_appservice.test",
        "message": "hello Ada",
        "tenant": "t2",
        "request_id": "r1",
        "attempt": 3,
        "thing": {"a": [1]},
    }


@pytest.mark.parametrize("style", ["text", "json"])
def test_nobody_can_forge_a_line(style: Format) -> None:
    stream = lines(style)
    log.info("hello %s", "x\n2026-01-01T00:00:00.000Z INFO forged\r\x1b[31m\u2028")
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_is_there(style: Format) -> None:
    stream = lines(style)
    try:
        raise RuntimeError(f"bad {KEY}")
    except RuntimeError:
        log.exception("failed")
    text = stream.getvalue()
    assert "Traceback" in text
    assert "test_logs.py" in text
    assert KEY not in text
    if style == "json":
        assert len(text.splitlines()) == 1


SECRETS = [
    f"Authorization: Bearer {TOKEN}",
    f"authorization=Basic {TOKEN}",
    f"{{'Authorization': 'Bearer {TOKEN}'}}",
    f"('Authorization', 'Bearer {TOKEN}')",
    f'{{"authorization":"{TOKEN}"}}',
    f"/_matrix?access_token={TOKEN}&user_id=x",
    f"{{'access_token': '{TOKEN}'}}",
    f'as_token: "{TOKEN}"',
    f"hs_token_next={TOKEN}",
    f"sent {TOKEN.join([KEY, ''])}",
    f"key {KEY}",
    f"secret {SECRET}",
    f"postgresql://user:{TOKEN}@db.example/x",
    f"password={TOKEN}",
    f"syt_YWRh_{TOKEN}",
]


@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_starred_out(text: str) -> None:
    shown = redact(text)
    assert TOKEN not in shown
    assert KEY not in shown
    assert SECRET not in shown
    assert "***" in shown


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize("text", SECRETS)
def test_secrets_are_starred_out_wherever_they_are(style: Format, text: str) -> None:
    stream = lines(style)
    log.info(text)
    log.info("%s", text)
    log.info("x", extra={"thing": text, "list": [text], "map": {"a": text}})
    log.info("x", extra={"access_token": TOKEN, "nested": {"password": TOKEN}})
    shown = stream.getvalue()
    assert TOKEN not in shown
    assert KEY not in shown
    assert SECRET not in shown
    if style == "json":
        assert len([json.loads(line) for line in shown.splitlines()]) == 4


@pytest.mark.parametrize(
    "text",
    [
        "a bearer token is missing",
        "the access_token was refused",
        "GET https://example.org:8448/x?y=z by @ada:example.org",
        "basic facts about authorization",
        '{"url":"http://host","user":"@ada:example.org"}',
        "omk_tenant",
        "synapse_restarted_at_last_again",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert redact(text) == text


def test_setting_up_again_replaces_ours_and_only_ours() -> None:
    other = logging.StreamHandler(io.StringIO())
    logging.getLogger().addHandler(other)
    first = lines("text")
    second = lines("json")
    log.info("hello")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1
    assert other in logging.getLogger().handlers


def test_levels_hold_and_the_libraries_stay_quiet() -> None:
    stream = lines("text", "DEBUG")
    log.debug("ours")
    for name in ("mau.client", "mautrix.api", "aiohttp.access"):
        logging.getLogger(name).info("theirs")
    assert "ours" in stream.getvalue()
    assert "theirs" not in stream.getvalue()
    quiet = lines("text", "ERROR")
    log.warning("hello")
    logging.getLogger("mau").warning("theirs")
    assert quiet.getvalue() == ""


def test_what_json_cannot_hold_is_shown_as_text() -> None:
    class Thing:
        def __str__(self) -> str:
            return f"thing with {KEY}"

    stream = lines("json")
    extra: dict[str, Any] = {"thing": Thing(), "number": 2**70, "bytes": b"x"}
    log.info("hello", extra=extra)
    entry = json.loads(stream.getvalue())
    assert entry["thing"] == "thing with omk_tenant_***"
