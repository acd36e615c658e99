"""What of a room's history counts as missing: tables.

Events are letters, in the order of history; ``.`` behind one says that the log has it, ``?`` that it is
young.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.domain import history
from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.domain.history import Step, Walk

GRACE = 30_000


def event(event_id: str, age: int | None = GRACE) -> Arrival:
    element = {"event_id": event_id, "room_id": "!r", "type": "t", "unsigned": {"age": age}}
    arrival = read_event(element)
    assert isinstance(arrival, Arrival)
    return arrival


def page(text: str) -> tuple[list[Arrival], set[str]]:
    """Return the events of ``a. b c?`` and the ids of those that the log has."""
    words = text.split()
    events = [event(word[0], 0 if "?" in word else GRACE) for word in words]
    return events, {word[0] for word in words if "." in word}


def taken(walk: Walk, text: str) -> Step:
    events, known = page(text)
    return history.step(walk, events, known, grace=GRACE)


def shown(step: Step) -> str:
    """Return what is missing as ``b(a)``: b, which comes after a."""
    return " ".join(f"{one.event.event_id}({one.after or ''})" for one in step.missing)


@pytest.mark.parametrize(
    ("text", "missing", "point", "pending"),
    [
        pytest.param("", "", "p", False, id="nothing new"),
        pytest.param("a. b. c.", "", "c", False, id="all there"),
        pytest.param("a. b c.", "b(a)", "c", False, id="one in between"),
        pytest.param("a b c", "a(p) b(a) c(b)", "c", False, id="all gone"),
        pytest.param("a. b c", "b(a) c(b)", "c", False, id="the newest gone"),
        pytest.param("a. b?", "", "a", True, id="perhaps on its way"),
        pytest.param("a. b c? d?", "b(a)", "b", True, id="some old, some young"),
        pytest.param("a. b? c.?", "b(a)", "a", False, id="overtaken, so not on its way"),
        pytest.param("a.? b.?", "", "p", False, id="young ones move no point"),
        pytest.param("a? b. c", "a(p) c(b)", "p", False, id="no point behind a young one"),
        pytest.param("a. b? c", "", "a", True, id="in order even behind a young one"),
    ],
)
def test_behind_the_point(text: str, missing: str, point: str, pending: bool) -> None:
    step = taken(history.from_point("p"), text)
    assert (shown(step), step.walk.settled, step.pending) == (missing, point, pending)


def test_from_the_beginning() -> None:
    step = taken(history.from_point(None), "a b. c")
    assert shown(step) == "a() c(b)"
    assert step.walk.settled == "c"


@pytest.mark.parametrize(
    ("pages", "missing", "counting"),
    [
        (["a b c. d"], "d(c)", True),
        (["a b", "c. d"], "d(c)", True),
        (["a. b", "c"], "b(a) c(b)", True),
        (["a b", "c"], "", False),
        (["a? b", "c."], "", True),
    ],
)
def test_without_the_point_only_what_follows_a_known_one(
    pages: list[str], missing: str, counting: bool
) -> None:
    walk, found = history.from_anywhere(), []
    for text in pages:
        step = taken(walk, text)
        walk = step.walk
        found.append(shown(step))
    assert " ".join(filter(None, found)) == missing
    assert walk.counting is counting


@pytest.mark.parametrize(
    ("point", "left"), [("a", "bc"), ("c", ""), ("x", None), (None, None)], ids=["old", "new", "gone", "no"]
)
def test_what_is_newer(point: str | None, left: str | None) -> None:
    found = history.newer_than(point, [event("a"), event("b"), event("c")])
    assert (None if found is None else "".join(one.event_id for one in found)) == left


@pytest.mark.parametrize(
    ("age", "young"), [(0, True), (GRACE - 1, True), (GRACE, False), (-1, False), (None, False)]
)
def test_young(age: int | None, young: bool) -> None:
    assert history.is_young(event("a", age), GRACE) is young


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 2 * GRACE)), max_size=12),
    st.integers(1, 5),
)
def test_however_it_is_cut_into_pages_nothing_old_is_left_out(
    facts: list[tuple[bool, int]], size: int
) -> None:
    events = [event(f"${number}", age) for number, (_, age) in enumerate(facts)]
    known = {one.event_id for one, (is_known, _) in zip(events, facts, strict=True) if is_known}
    walk, pending = history.from_point("p"), False
    missing: list[history.Missing] = []
    for start in range(0, len(events), size):
        step = history.step(walk, events[start : start + size], known, grace=GRACE)
        walk, pending = step.walk, step.pending
        missing += step.missing
        if pending:
            break
    ids = ["p", *(one.event_id for one in events)]
    point = ids.index(walk.settled or "")
    added = known | {one.event.event_id for one in missing}
    # All up to the point is there, and each was put where it belongs.
    assert set(ids[1 : point + 1]) <= added
    assert all(one.after == ids[ids.index(one.event.event_id) - 1] for one in missing)
    if not pending:
        assert set(ids[1:]) == added
    if all(age >= GRACE for _, age in facts):
        assert point == len(events)
