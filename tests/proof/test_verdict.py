"""The verdict of the delivery proof finds what it is there to find."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.delivery_proof.receiver import is_signed
from benchmarks.delivery_proof.verdict import (
    Fault,
    Judge,
    Outcome,
    Request,
    Room,
    Seen,
    Verdict,
    digest_of_event,
    read_request,
)
from openmeet_appservice.outbound.signing import signed_headers

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TAKEN, FAILED, REFUSED, TOO_LARGE = Outcome.TAKEN, Outcome.FAILED, Outcome.REFUSED, Outcome.TOO_LARGE


def digest(room_id: str, sequence: int) -> bytes:
    return f"digest of {room_id} {sequence}".encode()


def room(tenant: str, room_id: str, events: int) -> Room:
    numbers = range(1, events + 1)
    return Room(tenant, [(f"${room_id}-{number}", digest(room_id, number)) for number in numbers])


class Watched:
    """A judge of one tenant's endpoint ``a``, another's ``b`` and the platform's ``p``; one room each."""

    def __init__(self, events: int = 6) -> None:
        self.rooms = {"!a": room("A", "!a", events), "!b": room("B", "!b", 0)}
        self.judge = Judge({"a": "A", "b": "B"}, self.rooms)

    def batch(self, webhook_id: str, first: int, last: int, **changes: Any) -> Request:
        request = Request(
            endpoint="a",
            webhook_id=webhook_id,
            digest=webhook_id.encode(),
            signed=True,
            header_tenant="A",
            tenant="A",
            room_id="!a",
            events=tuple(Seen(n, f"$!a-{n}", digest("!a", n)) for n in range(first, last + 1)),
        )
        return replace(request, **changes)

    def send(
        self, webhook_id: str, first: int, last: int, outcome: Outcome = TAKEN, **changes: Any
    ) -> Request:
        request = self.batch(webhook_id, first, last, **changes)
        self.judge.came(request)
        self.judge.answering(request, outcome)
        return request

    def verdict(self) -> Verdict:
        return self.judge.verdict()

    @property
    def faults(self) -> Mapping[Fault, int]:
        return self.verdict().faults


def test_everything_in_order_holds() -> None:
    watched = Watched()
    watched.send("one", 1, 2)
    watched.send("two", 3, 5)
    watched.send("three", 6, 6)
    verdict = watched.verdict()
    assert verdict.holds
    assert (verdict.events, verdict.arrived, verdict.requests, verdict.repeats) == (6, 6, 3, 0)


def test_a_repeat_with_the_same_bytes_holds() -> None:
    watched = Watched()
    watched.send("one", 1, 3, FAILED)
    watched.send("one", 1, 3)
    watched.send("one", 1, 3)
    watched.send("two", 4, 6)
    verdict = watched.verdict()
    assert verdict.holds
    assert (verdict.repeats, verdict.needless, verdict.late) == (2, 1, 0)


def test_a_late_repeat_holds_and_is_counted() -> None:
    watched = Watched()
    watched.send("one", 1, 3)
    watched.send("two", 4, 6)
    watched.send("one", 1, 3)
    assert watched.verdict().holds
    assert watched.verdict().late == 1


def test_what_is_missing_at_the_end_is_lost() -> None:
    watched = Watched()
    watched.send("one", 1, 4)
    watched.send("two", 5, 6, FAILED)
    assert watched.faults == {Fault.LOST: 2}


def test_what_never_came_at_all_is_lost() -> None:
    assert Watched().faults == {Fault.LOST: 6}


def test_an_event_that_is_left_out_is_a_gap() -> None:
    watched = Watched()
    watched.send("one", 1, 2)
    watched.send("two", 4, 6)
    assert Fault.GAP in watched.faults


def test_an_event_that_is_left_out_inside_a_batch_is_a_gap() -> None:
    watched = Watched()
    whole = watched.batch("one", 1, 6)
    watched.send("one", 1, 6, events=whole.events[:2] + whole.events[3:])
    assert Fault.GAP in watched.faults


def test_the_second_batch_before_the_first_is_a_gap() -> None:
    watched = Watched()
    watched.send("two", 4, 6)
    watched.send("one", 1, 3)
    assert Fault.GAP in watched.faults


def test_the_next_batch_before_the_last_was_taken_is_early() -> None:
    watched = Watched()
    watched.send("one", 1, 3, FAILED)
    watched.send("two", 4, 6)
    assert Fault.EARLY in watched.faults


def test_the_next_batch_before_the_answer_to_the_last_is_early() -> None:
    watched = Watched()
    first = watched.batch("one", 1, 3)
    watched.judge.came(first)
    watched.send("two", 4, 6)
    watched.judge.answering(first, TAKEN)
    assert watched.faults == {Fault.EARLY: 1}


def test_events_that_changed_places_are_found() -> None:
    watched = Watched()
    one, two, *rest = watched.batch("one", 1, 6).events
    swapped = (replace(two, sequence=1), replace(one, sequence=2), *rest)
    watched.send("one", 1, 6, events=swapped)
    assert watched.faults == {Fault.ORDER: 2}


def test_an_altered_event_is_found() -> None:
    watched = Watched()
    events = list(watched.batch("one", 1, 6).events)
    events[3] = replace(events[3], digest=b"other")
    watched.send("one", 1, 6, events=tuple(events))
    assert watched.faults == {Fault.ALTERED: 1}


def test_an_event_that_nobody_sent_is_found() -> None:
    watched = Watched()
    watched.send("one", 1, 7)
    assert watched.faults == {Fault.UNKNOWN: 1}


def test_a_request_without_events_is_found() -> None:
    watched = Watched()
    watched.send("one", 1, 6)
    watched.send("none", 1, 0)
    assert watched.faults == {Fault.UNKNOWN: 1}


def test_an_event_under_a_second_id_is_found() -> None:
    watched = Watched()
    watched.send("one", 1, 6)
    watched.send("again", 6, 6)
    assert watched.faults == {Fault.DOUBLED: 1}


def test_a_batch_made_anew_after_a_failure_is_found() -> None:
    watched = Watched()
    watched.send("one", 1, 6, FAILED)
    watched.send("again", 1, 6)
    assert watched.faults == {Fault.DOUBLED: 1}


def test_other_bytes_under_the_same_id_are_found() -> None:
    watched = Watched()
    watched.send("one", 1, 6, FAILED)
    watched.send("one", 1, 6, digest=b"other")
    assert watched.faults == {Fault.REWRITTEN: 1}


def test_one_id_for_two_endpoints_is_found() -> None:
    rooms = {"!a": room("A", "!a", 6)}
    watched = Watched()
    watched.judge = Judge({"a": "A", "p": None}, rooms)
    watched.send("one", 1, 6)
    watched.send("one", 1, 6, endpoint="p")
    assert Fault.REWRITTEN in watched.faults


def test_a_wrong_signature_is_found() -> None:
    watched = Watched()
    watched.send("one", 1, 6, signed=False)
    assert watched.faults == {Fault.UNSIGNED: 1}


@pytest.mark.parametrize(
    "changes", [{"endpoint": "b"}, {"tenant": "B"}, {"header_tenant": "B"}, {"room_id": "!elsewhere"}]
)
def test_what_is_not_this_tenants_is_found(changes: dict[str, Any]) -> None:
    watched = Watched()
    watched.send("one", 1, 6)
    watched.send("two", 1, 1, **changes)
    assert watched.faults == {Fault.FOREIGN: 1}


def test_the_platforms_endpoint_gets_every_tenants_events() -> None:
    watched = Watched()
    watched.rooms["!b"].events.append(("$!b-1", digest("!b", 1)))
    watched.judge = Judge({"p": None}, watched.rooms)
    watched.send("one", 1, 6, endpoint="p")
    assert watched.faults == {Fault.LOST: 1}
    theirs = (Seen(1, "$!b-1", digest("!b", 1)),)
    watched.send("two", 1, 1, endpoint="p", tenant="B", header_tenant="B", room_id="!b", events=theirs)
    assert watched.verdict().holds


def test_a_batch_that_is_too_large_comes_again_in_halves() -> None:
    watched = Watched()
    watched.send("one", 1, 4, TOO_LARGE)
    watched.send("two", 1, 2, FAILED)
    watched.send("two", 1, 2)
    watched.send("three", 3, 4)
    watched.send("four", 5, 6)
    verdict = watched.verdict()
    assert verdict.holds
    assert verdict.splits == 2


def test_a_batch_that_is_refused_three_times_comes_again_in_single_events() -> None:
    watched = Watched()
    for _ in range(3):
        watched.send("one", 1, 3, REFUSED)
    for number in range(1, 4):
        watched.send(f"single {number}", number, number)
    watched.send("rest", 4, 6)
    assert watched.verdict().holds


def test_a_batch_that_is_refused_twice_must_not_be_split() -> None:
    watched = Watched()
    for _ in range(2):
        watched.send("one", 1, 3, REFUSED)
    watched.send("single", 1, 1)
    assert Fault.DOUBLED in watched.faults


def test_what_comes_in_place_of_a_split_batch_has_to_be_smaller() -> None:
    watched = Watched()
    watched.send("one", 1, 4, TOO_LARGE)
    watched.send("two", 1, 3)
    assert Fault.DOUBLED in watched.faults


def test_a_batch_that_was_taken_is_not_split() -> None:
    watched = Watched()
    watched.send("one", 1, 4, TOO_LARGE)
    watched.send("one", 1, 4)
    watched.send("two", 1, 2)
    assert Fault.DOUBLED in watched.faults


def test_a_split_must_not_leave_anything_out() -> None:
    watched = Watched()
    watched.send("one", 1, 4, TOO_LARGE)
    watched.send("two", 3, 4)
    assert Fault.EARLY in watched.faults


def test_a_body_is_read_as_it_is_sent() -> None:
    event = {"event_id": "$e", "room_id": "!a", "content": {"b": 1, "a": "\N{EURO SIGN}"}}
    raw = (
        b'{"type":"room.events","data":{"tenant":"A","room":{"room_id":"!a"},"events":'
        b'[{"sequence":7,"event":{"event_id":"$e","room_id":"!a","content":{"b":1,"a":"\xe2\x82\xac"}}}]}}'
    )
    request = read_request("a", "one", "A", raw, signed=True)
    assert (request.tenant, request.room_id) == ("A", "!a")
    assert request.events == (Seen(7, "$e", digest_of_event(event)),)
    assert request.digest != read_request("a", "one", "A", raw + b" ", signed=True).digest
    reordered = event | {"content": {"a": "\N{EURO SIGN}", "b": 1}}
    assert request.events[0].digest != digest_of_event(reordered)


def test_the_receiver_tells_a_wrong_signature() -> None:
    body = b"{}"
    headers = signed_headers([bytes(range(32))], "one", int(time.time() * 1000), body)
    assert is_signed(SECRET, body, headers)
    assert not is_signed(SECRET, b"{ }", headers)
    assert not is_signed("whsec_" + base64.b64encode(bytes(32)).decode(), body, headers)
    assert not is_signed(SECRET, body, {})
