from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.domain.moments import from_rfc3339, to_rfc3339

YEAR_1, YEAR_9999 = -62135596800000, 253402300799999


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1795374000123, "2026-11-22T19:00:00.123Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (YEAR_1, "0001-01-01T00:00:00.000Z"),
        (YEAR_9999, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_both_ways(ms: int, text: str) -> None:
    assert to_rfc3339(ms) == text
    assert from_rfc3339(text) == ms


@given(st.integers(YEAR_1, YEAR_9999))
def test_nothing_is_lost(ms: int) -> None:
    assert from_rfc3339(to_rfc3339(ms)) == ms


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T20:00:00.123+01:00",
        "2026-11-22t19:00:00.1239999z",
        "2026-11-22 19:00:00.123456789Z",
        "2026-11-22T13:30:00.123-05:30",
    ],
)
def test_other_spellings(text: str) -> None:
    assert from_rfc3339(text) == 1795374000123


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-11-22",
        "2026-11-22T19:00:00",
        "2026-11-22T19:00Z",
        "2026-11-22T19:00:00.Z",
        "2026-11-22T19:00:00Z\n",
        "2026-02-30T19:00:00Z",
        "2026-11-22T25:00:00Z",
        "2026-11-22T19:00:00+25:00",
        "20261122T190000Z",
        "٢٠٢٦-11-22T19:00:00Z",
        "1795374000123",
    ],
)
def test_no_moments(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        from_rfc3339(text)
