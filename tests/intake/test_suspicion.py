"""The signs that Synapse may have lost events: what is one, and what is none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from openmeet_appservice.dev.ports import any_free_port
from openmeet_appservice.domain.addresses import Address
from openmeet_appservice.domain.arrival import Arrival, read_event
from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.intake.suspicion import LATE_MS, MOST_IN_LINE, Suspicion, TransactionIds
from openmeet_appservice.metrics import REGISTRY
from openmeet_appservice.web.server import Listener

BASE = "/_matrix/app/v1"


@pytest.mark.parametrize(
    ("ids", "odd"),
    [
        pytest.param([5, 6, 7, 8], [], id="one by one"),
        pytest.param([5, 6, 6], [6], id="repeated"),
        pytest.param([55, 5], [5], id="begun again"),
        pytest.param([5, 6, 7, 8, 5, 8, 9], [5], id="an old one, and on"),
        pytest.param([5, 6, 7, 9], [9], id="left out where none is"),
        pytest.param([5, 7, 9, 12], [], id="left out all the time, for others get them"),
        pytest.param([1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 13, 15], [5, 15], id="rarer after each"),
        pytest.param(["x", "7", "-1", "٣", "7.5", "9" * 40, "8"], [], id="no numbers"),
    ],
)
def test_transaction_ids(ids: list[Any], odd: list[int]) -> None:
    kept = TransactionIds()
    assert [each for each in ids if kept.are_odd(str(each))] == odd


def test_ids_left_out_for_others_soon_say_nothing() -> None:
    kept, number, signs = TransactionIds(), 0, 0
    for _ in range(500):
        for _ in range(30):
            number += 1
            signs += kept.are_odd(str(number))
        number += 1
    assert signs < 6
    assert MOST_IN_LINE > 30


def arrival(age: Any) -> Arrival:
    found = read_event({"event_id": "$1", "room_id": "!r", "unsigned": {"age": age}})
    assert isinstance(found, Arrival)
    return found


@pytest.mark.parametrize(
    ("age", "late"), [(0, False), (LATE_MS - 1, False), (LATE_MS, True), (None, False), ("old", False)]
)
def test_late_events(age: Any, late: bool) -> None:
    suspicion = Suspicion()
    suspicion.transaction("1", [arrival(0), arrival(age)])
    assert suspicion.take_late() is suspicion.take() is late
    assert not suspicion.take_late()


async def test_a_sign_is_waited_for() -> None:
    suspicion = Suspicion()
    await suspicion.wait(0.001)
    assert not suspicion.take()
    waiting = asyncio.create_task(suspicion.wait(60))
    await asyncio.sleep(0)
    suspicion.suspect("start")
    await waiting
    assert suspicion.take()
    assert not suspicion.take()


def test_signs_are_counted_once_until_they_are_taken() -> None:
    def counted() -> float:
        labels = {"reason": "homeserver"}
        return REGISTRY.get_sample_value("openmeet_as_repair_suspicions_total", labels) or 0

    before, suspicion = counted(), Suspicion()
    for _ in range(3):
        suspicion.suspect("homeserver")
    assert counted() == before + 1
    suspicion.take()
    suspicion.suspect("homeserver")
    assert counted() == before + 2


def event(event_id: str, **unsigned: Any) -> dict[str, Any]:
    plain = {"type": "m.room.message", "sender": "@x:hs.test", "content": {}}
    return {"event_id": event_id, "room_id": "!a", **plain, "unsigned": unsigned}


async def test_what_comes_as_it_should_is_no_sign(intake: Any) -> None:
    for number in range(5, 9):
        assert await intake.push(str(number), event(f"${number}", age=20)) == (200, {})
    assert (await intake.push("9", "junk", None))[0] == 200
    assert not intake.suspicion.take()


async def test_ids_and_ages_of_what_comes_are_looked_at(intake: Any) -> None:
    await intake.push("7", event("$1"))
    await intake.push("7", event("$1"))
    assert intake.suspicion.take()
    await intake.push("8", event("$2", age=LATE_MS))
    assert intake.suspicion.take()


async def test_strangers_raise_no_suspicion(intake: Any) -> None:
    await intake.push("7", event("$1"))
    for body in (b"{", b"{}", b'{"events": []}'):
        await intake.request("PUT", f"{BASE}/transactions/3", token="wrong", data=body)
    assert (await intake.request("PUT", f"{BASE}/transactions/8", data=b"{"))[0] == 400
    assert not intake.suspicion.take()


@pytest.mark.parametrize(("error", "status"), [(DatabaseUnavailable("gone"), 503), (KeyError("x"), 500)])
async def test_what_could_not_be_stored_is_a_sign(
    intake: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    async def fails(*args: Any, **kwargs: Any) -> Any:
        raise error

    monkeypatch.setattr(intake.database, "write_promptly", fails)
    assert (await intake.push("1", event("$1")))[0] == status
    assert intake.suspicion.take()


async def test_hanging_up_before_the_answer_is_a_sign(intake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stored, go_on = asyncio.Event(), asyncio.Event()
    write = intake.database.write_promptly

    async def slow(*args: Any, **kwargs: Any) -> Any:
        stored.set()
        await go_on.wait()
        return await write(*args, **kwargs)

    monkeypatch.setattr(intake.database, "write_promptly", slow)
    # The listener of the program: that of tests breaks off what nobody waits for.
    listener = Listener("tests", intake.app, Address("127.0.0.1", any_free_port()), drain_seconds=1)
    await listener.start()
    intake.url = listener.url
    pushing = asyncio.create_task(intake.push("1", event("$1", age=20)))
    await asyncio.wait_for(stored.wait(), 20)
    pushing.cancel()
    await asyncio.gather(pushing, return_exceptions=True)
    for _ in range(50):
        # The end of the connection is there at once; the loop has to come by it.
        await asyncio.sleep(0)
    go_on.set()
    async with asyncio.timeout(20):
        while not intake.suspicion.take():
            await asyncio.sleep(0.01)
    await listener.stop()
    assert await intake.logged() == ["$1"]
