from __future__ import annotations

import pytest

from openmeet_appservice.domain.kinds import Wanted
from openmeet_appservice.domain.phase import phase


@pytest.mark.parametrize(
    ("wanted", "archived", "observed", "has_error", "has_room", "expected"),
    [
        ("none", False, 0, False, False, "none"),
        ("none", False, 3, False, False, "none"),
        ("none", True, 0, False, False, "archived"),
        ("open", False, 2, False, False, "pending"),
        ("open", False, 2, False, True, "pending"),
        ("open", False, 3, False, False, "pending"),
        ("open", False, 3, False, True, "ready"),
        ("open", False, 4, False, True, "ready"),
        ("open", False, 2, True, False, "degraded"),
        ("open", False, 3, True, True, "degraded"),
        ("closed", False, 2, False, True, "pending"),
        ("closed", False, 3, False, True, "none"),
        ("closed", True, 2, False, True, "pending"),
        ("closed", True, 3, False, True, "archived"),
        ("closed", True, 2, True, True, "degraded"),
    ],
)
def test_phase(
    wanted: str, archived: bool, observed: int, has_error: bool, has_room: bool, expected: str
) -> None:
    assert (
        phase(
            wanted=Wanted(wanted),
            archived=archived,
            generation=3,
            observed_generation=observed,
            has_error=has_error,
            has_room=has_room,
        )
        == expected
    )


@pytest.mark.parametrize(("has_error", "expected"), [(False, "deleting"), (True, "degraded")])
@pytest.mark.parametrize("observed", [2, 3])
@pytest.mark.parametrize("has_room", [False, True])
def test_what_is_to_be_left_nothing_of_is_being_deleted(
    has_error: bool, expected: str, observed: int, has_room: bool
) -> None:
    found = phase(
        wanted=Wanted.CLOSED if has_room else Wanted.NONE,
        archived=True,
        generation=3,
        observed_generation=observed,
        has_error=has_error,
        has_room=has_room,
        purge=True,
    )
    assert found == expected
