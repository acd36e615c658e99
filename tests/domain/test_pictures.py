from __future__ import annotations

import itertools

import pytest

from openmeet_appservice.domain.pictures import (
    FIRST_WAIT_MS,
    LONGEST_WAIT_MS,
    is_called_picture,
    media_type,
    wait_ms,
)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        (b"GIF89a\1\0", "image/gif"),
        (b"GIF87a\1\0", "image/gif"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\x24\0\0\0WAVEfmt ", None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", None),
        (b"<html>\x89PNG\r\n\x1a\n", None),
        (b"%PDF-1.7", None),
        (b"\x89PNG", None),
        (b"", None),
    ],
)
def test_a_picture_is_known_by_how_it_begins(content: bytes, expected: str | None) -> None:
    assert media_type(content) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("image/png", True),
        ("IMAGE/JPEG; charset=binary", True),
        ("image/jpg", True),
        ("image/svg+xml", False),
        ("text/html", False),
        ("application/octet-stream", False),
        ("", False),
    ],
)
def test_a_picture_is_known_by_its_header(header: str, expected: bool) -> None:
    assert is_called_picture(header) is expected


def test_a_broken_picture_is_left_alone_longer_and_longer() -> None:
    waits = [wait_ms(attempts, lambda: 1.0, longest=LONGEST_WAIT_MS) for attempts in range(30)]
    assert waits[0] == FIRST_WAIT_MS
    assert all(shorter <= longer for shorter, longer in itertools.pairwise(waits))
    assert waits[-1] == LONGEST_WAIT_MS
    assert wait_ms(0, lambda: 0.0, longest=LONGEST_WAIT_MS) == FIRST_WAIT_MS // 2
