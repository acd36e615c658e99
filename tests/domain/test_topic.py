"""Topics: what a template makes of an event."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from openmeet_appservice.domain.topic import DEFAULT_TEMPLATE, Schedule, check_template, fill_topic, when


def at(*moment: int) -> int:
    """Milliseconds since the epoch of a moment in UTC."""
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (Schedule(at(2026, 11, 27, 18, 0)), "Fri, 27 Nov 2026, 18:00 (UTC)"),
        (
            Schedule(at(2026, 11, 27, 18, 0), at(2026, 11, 27, 21, 5), "Europe/Berlin"),
            "Fri, 27 Nov 2026, 19:00–22:05 (Europe/Berlin)",
        ),
        (
            Schedule(at(2026, 11, 27, 23, 30), at(2026, 11, 28, 1, 0), "Europe/Berlin"),
            "Sat, 28 Nov 2026, 00:30–02:00 (Europe/Berlin)",
        ),
        (
            Schedule(at(2026, 7, 1, 22, 0), at(2026, 7, 3, 8, 0), "America/New_York"),
            "Wed, 1 Jul 2026, 18:00 – Fri, 3 Jul 2026, 04:00 (America/New_York)",
        ),
        (Schedule(at(1969, 12, 31, 23, 0)), "Wed, 31 Dec 1969, 23:00 (UTC)"),
    ],
)
def test_when_an_event_is_is_told_in_its_own_zone(schedule: Schedule, text: str) -> None:
    assert when(schedule) == text


@pytest.mark.parametrize(
    ("template", "description", "url", "schedule", "text"),
    [
        (
            DEFAULT_TEMPLATE,
            " Bring dice.\nAnd snacks. ",
            "https://openmeet.net/e",
            Schedule(at(2026, 11, 27, 18, 0)),
            "Fri, 27 Nov 2026, 18:00 (UTC)\nBring dice.\nAnd snacks.\nhttps://openmeet.net/e",
        ),
        (DEFAULT_TEMPLATE, "Bring dice.", "", None, "Bring dice."),
        (DEFAULT_TEMPLATE, "", "", None, ""),
        ("{name} on OpenMeet", "", "", None, "Games on OpenMeet"),
        (
            "When: {when}\nMore: {url}\nBe {{kind}}.",
            "",
            "https://x.example",
            None,
            "More: https://x.example\nBe {kind}.",
        ),
        ("{description} {url}", "{url}", "", None, "{url}"),
    ],
)
def test_a_line_with_nothing_in_it_is_left_out(
    template: str, description: str, url: str, schedule: Schedule | None, text: str
) -> None:
    filled = fill_topic(template, name="Games", description=description, url=url, schedule=schedule)
    assert filled == text


@pytest.mark.parametrize("template", ["{", "}", "{where}", "{}", "{name!r}", "{name:>10}", "{name.x}"])
def test_what_is_no_template_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"brace|its fields are"):
        check_template(template)


def test_a_template_is_returned_as_it_is() -> None:
    assert check_template(DEFAULT_TEMPLATE) == DEFAULT_TEMPLATE
    assert check_template("") == ""
