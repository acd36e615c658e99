from __future__ import annotations

import pytest

from openmeet_appservice.errors import BadRequest, PreconditionFailed
from openmeet_appservice.web.conditional import check_if_match, quoted


@pytest.mark.parametrize("header", [None, "*", " * ", '"a"', '"x", "a"', '"x","a" ,"y"', 'W/"x", "a"'])
def test_the_present_tag_passes(header: str | None) -> None:
    check_if_match(header, "a")


@pytest.mark.parametrize("header", ['"b"', 'W/"a"', '""', '"A"', '"b", W/"a"', '"a,b"'])
def test_another_or_a_weak_tag_fails(header: str) -> None:
    with pytest.raises(PreconditionFailed):
        check_if_match(header, "a")


@pytest.mark.parametrize("header", ["a", "", '"a', 'a"', '"a" "b"', '"a",', "*, *", 'w/"a"'])
def test_what_is_no_list_of_tags_is_said_to_be_malformed(header: str) -> None:
    with pytest.raises(BadRequest):
        check_if_match(header, "a")


def test_a_star_needs_something_to_be_there() -> None:
    with pytest.raises(PreconditionFailed):
        check_if_match("*", None)
    with pytest.raises(PreconditionFailed):
        check_if_match('"a"', None)
    check_if_match(None, None)


def test_a_tag_made_by_us_matches() -> None:
    check_if_match(quoted("3-abc"), "3-abc")
