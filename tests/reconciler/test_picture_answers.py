"""What the answers of picture servers are taken for."""

from __future__ import annotations

from typing import Any

import pytest

from openmeet_appservice.domain.pictures import LONGEST_WAIT_MS, MAX_BYTES
from openmeet_appservice.outbound.client import Answer, NoAnswer, Reason
from openmeet_appservice.reconciler.picture_answers import Image, NoImage, Unchanged, judge

NOW = 1_795_374_000_000
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def answer(status: int = 200, body: bytes = PNG, end: Any = "whole", **headers: str) -> Answer:
    given = {"content-type": "image/png"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, body, given, 0.1, end)


def test_a_picture() -> None:
    assert judge(answer(etag='"v1"', last_modified="Sun, 22 Nov 2026 19:00:00 GMT"), now=NOW) == Image(
        PNG, "image/png", '"v1"', "Sun, 22 Nov 2026 19:00:00 GMT"
    )


def test_the_bytes_say_which_kind_it_is() -> None:
    assert judge(answer(content_type="image/jpeg"), now=NOW) == Image(PNG, "image/png", None, None)


@pytest.mark.parametrize("etag", ["x" * 256, "caf\udce9", '"a\x7f"', ""])
def test_a_tag_that_cannot_be_sent_back_is_dropped(etag: str) -> None:
    found = judge(answer(etag=etag), now=NOW)
    assert isinstance(found, Image)
    assert found.etag is None


def test_unchanged() -> None:
    assert judge(answer(304, b""), now=NOW) == Unchanged()


@pytest.mark.parametrize(
    ("given", "code", "detail"),
    [
        (answer(404), "image_unavailable", "404"),
        (answer(500), "image_unavailable", "500"),
        (answer(206), "image_unavailable", "206"),
        (answer(302, location="https://internal.test/"), "image_unavailable", "redirects are not followed"),
        (answer(end="broken_off"), "image_unavailable", "in time"),
        (answer(end="longer"), "image_unusable", f"{MAX_BYTES // 1024**2} MiB"),
        (answer(body=b"<html>"), "image_unusable", "none of these"),
        (answer(body=b""), "image_unusable", "none of these"),
        (answer(body=b"<svg/>", content_type="image/svg+xml"), "image_unusable", "PNG"),
        (answer(content_type="text/html"), "image_unusable", "Content-Type"),
        (NoAnswer(Reason.TIMED_OUT, "There was no answer in time.", 9), "image_unavailable", "in time"),
        (NoAnswer(Reason.UNKNOWN_HOST, "unknown", 9), "image_unavailable", "unknown"),
        (NoAnswer(Reason.ADDRESS_REFUSED, "10.0.0.1 is not public", 0), "image_refused", "10.0.0.1"),
        (NoAnswer(Reason.URL_REFUSED, "no", 0), "image_refused", "no"),
    ],
)
def test_what_is_none(given: Answer | NoAnswer, code: str, detail: str) -> None:
    found = judge(given, now=NOW)
    assert isinstance(found, NoImage)
    assert (found.code, detail in found.detail, found.wait_ms) == (code, True, 0)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        ("120", 120_000),
        ("Sun, 22 Nov 2026 19:02:00 GMT", 120_000),
        ("9" * 5000, LONGEST_WAIT_MS),
        ("soon", 0),
        ("-5", 0),
    ],
)
def test_whoever_asks_for_patience_gets_it(after: str, expected: int) -> None:
    found = judge(answer(503, retry_after=after), now=NOW)
    assert isinstance(found, NoImage)
    assert found.wait_ms == expected
