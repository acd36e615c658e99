"""The body of ``room.events``."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.delivery.batch import build, candidates
from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.store.batches import LoggedEvent, Puppet, Route

BOT = "@openmeet-bot:example.org"
ROUTE = Route(
    tenant_id="T1",
    kind="event",
    slug="Board-Games-k3v9ab",
    external_id=None,
    room_id="!room",
    alias="#event-board-games-k3v9ab-t1:example.org",
    log_id="log_1",
)
NOW = 1_795_374_000_123


def event(
    sequence: int,
    body: str = '{"type":"m.room.message"}',
    sender: str = "@x:y",
    type_: str = "m.room.message",
) -> LoggedEvent:
    return LoggedEvent(sequence, "matrix", sender, type_, body)


def body_of(*events: LoggedEvent, max_bytes: int = 65536, puppets: dict[str, Puppet] | None = None) -> str:
    return build(ROUTE, events, puppets or {}, bot=BOT, max_bytes=max_bytes, now=NOW).body


def test_the_body_is_what_the_contract_says() -> None:
    text = '{"type":"m.room.message","event_id":"$1","content":{"body":"hi"}}'
    puppets = {"@ada:y": Puppet("Ada-x8z1q0", "42")}
    body = body_of(event(41, text, "@ada:y"), puppets=puppets)
    assert json.loads(body) == {
        "type": "room.events",
        "timestamp": "2026-11-22T19:00:00.123Z",
        "data": {
            "tenant": "T1",
            "room": {
                "kind": "event",
                "slug": "Board-Games-k3v9ab",
                "external_id": None,
                "room_id": "!room",
                "alias": "#event-board-games-k3v9ab-t1:example.org",
                "log_id": "log_1",
            },
            "events": [
                {
                    "sequence": 41,
                    "origin": "matrix",
                    "sender": {
                        "user_id": "@ada:y",
                        "kind": "puppet",
                        "user": "Ada-x8z1q0",
                        "external_id": "42",
                    },
                    "event": {"type": "m.room.message", "event_id": "$1", "content": {"body": "hi"}},
                }
            ],
        },
    }
    # The event is put in letter by letter.
    assert f'"event":{text}}}]}}}}' in body


@pytest.mark.parametrize(("sender", "kind"), [(BOT, "bot"), ("@bob:elsewhere", "other"), ("", "other")])
def test_senders_who_are_no_puppet(sender: str, kind: str) -> None:
    found = json.loads(body_of(event(1, sender=sender)))["data"]["events"][0]["sender"]
    assert found == {"user_id": sender, "kind": kind, "user": None, "external_id": None}


@pytest.mark.parametrize(("stored", "told"), [("$before", "$before"), ("", None)])
def test_what_gap_repair_added_says_so(stored: str, told: str | None) -> None:
    added = LoggedEvent(2, "matrix", "@x:y", "m.room.message", "{}", stored)
    plain, repaired = json.loads(body_of(event(1), added))["data"]["events"]
    assert not plain.keys() & {"repaired", "after_event_id"}
    assert (repaired["repaired"], repaired["after_event_id"]) == (True, told)


@pytest.mark.parametrize(
    "content",
    [
        {"body": "a\0b"},
        {"body": "\ud800 alone"},
        {"body": "\N{GRINNING FACE} \u2028 </script>"},
        {"big": 2**70, "small": 1e-320, "\0key": None},
        {"closing": '"}]}}'},
    ],
)
def test_unusual_events_arrive_as_they_are(content: dict[str, object]) -> None:
    element = {"event_id": "$1", "room_id": "!room", "type": "x\0y", "sender": "@x:y", "content": content}
    arrival = read_event(element)
    assert isinstance(arrival, Arrival)
    body = body_of(event(1, arrival.body), event(2))
    body.encode()
    assert json.loads(body)["data"]["events"][0]["event"] == json.loads(json.dumps(element))


def test_a_body_is_exactly_as_long_as_allowed_or_ends_one_event_sooner() -> None:
    events = [event(n, json.dumps({"body": "ü" * 50})) for n in range(1, 5)]
    whole = len(body_of(*events).encode())
    fits = build(ROUTE, events, {}, bot=BOT, max_bytes=whole, now=NOW)
    assert (fits.first, fits.last, len(fits.body.encode())) == (1, 4, whole)
    cut = build(ROUTE, events, {}, bot=BOT, max_bytes=whole - 1, now=NOW)
    assert (cut.first, cut.last) == (1, 3)
    assert len(json.loads(cut.body)["data"]["events"]) == 3


def test_an_event_that_is_too_large_goes_alone() -> None:
    large = event(2, json.dumps({"body": "x" * 5000}))
    before = build(ROUTE, [event(1), large, event(3)], {}, bot=BOT, max_bytes=2000, now=NOW)
    assert (before.first, before.last) == (1, 1)
    alone = build(ROUTE, [large, event(3)], {}, bot=BOT, max_bytes=2000, now=NOW)
    assert (alone.first, alone.last) == (2, 2)
    assert len(alone.body) > 5000


def test_no_more_is_read_than_can_fit() -> None:
    read: list[int] = []

    def log() -> Iterator[LoggedEvent]:
        for sequence in range(1, 1000):
            read.append(sequence)
            yield event(sequence, "x" * 100)

    assert len(candidates(log(), max_events=5, max_bytes=10**6)) == 5
    assert read == [1, 2, 3, 4, 5]
    read.clear()
    assert len(candidates(log(), max_events=50, max_bytes=350)) == 3
    assert read == [1, 2, 3, 4]
    assert len(candidates(log(), max_events=50, max_bytes=1)) == 1
    assert candidates(iter(()), max_events=5, max_bytes=10) == []


@given(
    st.lists(st.text(max_size=300), min_size=1, max_size=20),
    st.integers(1, 10),
    st.integers(300, 3000),
)
def test_batches_one_after_the_other_hold_every_event_once(
    texts: list[str], max_events: int, max_bytes: int
) -> None:
    left = [event(n, json.dumps({"body": text})) for n, text in enumerate(texts, 1)]
    got: list[str] = []
    while left:
        some = candidates(left, max_events=max_events, max_bytes=max_bytes)
        built = build(ROUTE, some, {}, bot=BOT, max_bytes=max_bytes, now=NOW)
        items = json.loads(built.body)["data"]["events"]
        assert [item["sequence"] for item in items] == list(range(built.first, built.last + 1))
        assert built.first == left[0].sequence
        assert len(items) <= max_events
        assert len(items) == 1 or len(built.body.encode()) <= max_bytes
        got += [item["event"]["body"] for item in items]
        left = left[len(items) :]
    assert got == texts
