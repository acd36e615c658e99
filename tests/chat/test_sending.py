"""A message is in its room once, whatever is lost on the way."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, select

from openmeet_appservice.domain.arrival import MARK
from openmeet_appservice.errors import Conflict, HomeserverUnreachable, NotReconciled, Unavailable
from openmeet_appservice.store import messages
from openmeet_appservice.store.idempotency import KEPT_MS
from openmeet_appservice.store.tables import room_events

from .conftest import ADA, ALAN, ROOM, Refusal, Synapse, World


async def test_a_message_is_sent_as_the_user_and_its_content_is_not_kept(world: World) -> None:
    event_id = await world.send("m1", "Hello")
    (event,) = world.synapse.history
    assert event["event_id"] == event_id
    assert (event["room_id"], event["sender"]) == (ROOM, ADA)
    assert event["content"] == {"msgtype": "m.text", "body": "Hello", MARK: "m1"}
    row = await world.row("m1")
    assert row is not None
    assert (row.event_id, row.content, row.transaction_id) == (event_id, None, "txn-m1")


async def test_it_is_committed_before_synapse_is_asked(world: World) -> None:
    seen: list[messages.Message | None] = []

    async def look() -> None:
        seen.append(await world.row("m1"))

    world.synapse.on_send = look
    await world.send("m1", "Hello")
    (row,) = seen
    assert row is not None
    assert (row.event_id, row.room_id, row.user_id) == (None, ROOM, ADA)
    assert row.content == {"msgtype": "m.text", "body": "Hello", MARK: "m1"}


async def test_what_synapse_did_before_its_answer_was_lost_is_found(world: World) -> None:
    world.synapse.faults = ["lost"]
    event_id = await world.send("m1")
    assert [event["event_id"] for event in world.synapse.history] == [event_id]
    assert world.synapse.transactions == ["txn-m1"]


async def test_a_connection_that_breaks_is_tried_again_under_the_same_transaction_id(world: World) -> None:
    world.synapse.faults = ["hang up"]
    event_id = await world.send("m1")
    assert [event["event_id"] for event in world.synapse.history] == [event_id]
    assert set(world.synapse.transactions) == {"txn-m1"}


async def test_it_is_found_after_synapse_forgot_the_transaction_too(world: World) -> None:
    world.synapse.faults = ["lost", "lost", "lost"]
    world.synapse.history_faults = [Refusal(500, "M_UNKNOWN")]
    with pytest.raises(Unavailable) as caught:
        await world.send("m1")
    assert caught.value.code == "homeserver_unreachable"
    world.synapse.restart()
    world.synapse.faults = []
    event_id = await world.send("m1", txn="another-that-is-not-used")
    assert [event["event_id"] for event in world.synapse.history] == [event_id]


async def test_what_synapse_never_heard_is_sent_again_under_the_same_transaction_id(world: World) -> None:
    world.synapse.faults = ["unheard", "unheard"]
    event_id = await world.send("m1")
    assert [event["event_id"] for event in world.synapse.history] == [event_id]
    assert world.synapse.transactions == ["txn-m1"] * 3
    assert world.slept.count(1.0) == 2


@pytest.mark.parametrize("fault", [Refusal(500, "M_UNKNOWN"), Refusal(502, ""), Refusal(504, "M_UNKNOWN")])
async def test_an_error_of_the_server_is_an_unknown_outcome(world: World, fault: Refusal) -> None:
    world.synapse.faults = [fault]
    event_id = await world.send("m1")
    assert world.synapse.transactions == ["txn-m1"] * 2
    assert [event["event_id"] for event in world.synapse.history] == [event_id]


async def test_a_homeserver_that_stays_away_is_told_and_the_message_kept(world: World) -> None:
    world.synapse.faults = ["unheard"] * 3
    with pytest.raises(Unavailable) as caught:
        await world.send("m1")
    assert caught.value.retryable
    assert "Idempotency-Key" in caught.value.detail
    assert world.synapse.said == []
    row = await world.row("m1")
    assert row is not None
    assert row.event_id is None
    assert await world.send("m1", txn="another") == world.synapse.history[0]["event_id"]
    assert world.synapse.transactions == ["txn-m1"] * 4


async def test_the_event_that_came_back_first_tells_the_id(world: World) -> None:
    async def echo_on_next_look() -> None:
        world.synapse.on_send = None
        event_id = world.synapse.add(ROOM, ADA, {"msgtype": "m.text", "body": "Hello", MARK: "m1"})
        await world.echo(world.synapse.history[-1])
        assert event_id == "$event1"

    world.synapse.on_send = echo_on_next_look
    world.synapse.faults = ["unheard"]
    assert await world.send("m1") == "$event1"
    assert world.synapse.transactions == ["txn-m1"], "the log knew, so nothing was asked"
    assert world.synapse.pages == 0
    row = await world.row("m1")
    assert row is not None
    assert (row.event_id, row.content) == ("$event1", None)


async def test_the_echo_is_known_as_ours(world: World) -> None:
    await world.send("m1")
    await world.echo(world.synapse.history[0])
    copy = {**world.synapse.history[0], "event_id": "$copied", "sender": ALAN}
    await world.echo(copy)
    origins = await world.database.read(_origins)
    assert origins == {"$event1": "openmeet", "$copied": "matrix"}


def _origins(connection: Connection) -> dict[str, str]:
    found = connection.execute(select(room_events.c.event_id, room_events.c.origin))
    return {row.event_id: row.origin for row in found}


async def test_somebody_elses_copy_of_the_mark_is_not_taken_for_it(world: World) -> None:
    world.synapse.add(ROOM, ALAN, {"body": "copied", MARK: "m1"})
    world.synapse.faults = ["unheard"]
    event_id = await world.send("m1")
    assert world.synapse.said == [(ALAN, "copied"), (ADA, "Hello")]
    assert event_id == "$event2"


async def test_the_history_is_searched_as_far_back_as_the_message_can_be(
    world: World, synapse: Synapse
) -> None:
    day = 24 * 3600 * 1000
    synapse.page_size = 10
    for number in range(50):
        synapse.add(ROOM, ALAN, {"body": f"old {number}"}, at=world.clock() - day)
    synapse.faults = ["lost", "unheard", "unheard"]
    synapse.history_faults = ["no answer"] * 2
    with pytest.raises(Unavailable):
        await world.send("m1")
    for number in range(25):
        # A server whose clock is wrong: one old page mark must not end the search.
        synapse.add(ROOM, ALAN, {"body": f"new {number}"}, at=world.clock() - (day if number % 3 else 0))
    synapse.restart()
    assert await world.send("m1") == "$event51"
    assert synapse.pages == 3
    assert len([body for _, body in synapse.said if body == "Hello"]) == 1

    synapse.pages = 0
    synapse.faults = ["unheard"]
    await world.send("m2")
    assert synapse.pages <= 5, "nothing older than the message is read, but for the page that shows it"


async def test_refused_for_good(world: World) -> None:
    world.synapse.faults = [Refusal(403, "M_FORBIDDEN")]
    with pytest.raises(Conflict) as caught:
        await world.send("m1")
    assert caught.value.code == "refused_by_homeserver"
    assert caught.value.refused is not None
    assert caught.value.refused.errcode == "M_FORBIDDEN"
    assert await world.row("m1") is None, "so that it can never be sent"
    assert world.synapse.transactions == ["txn-m1"]


async def test_refused_while_the_sender_is_still_on_the_way(world: World) -> None:
    await world.touch()
    world.synapse.faults = [Refusal(403, "M_FORBIDDEN")]
    with pytest.raises(Unavailable) as caught:
        await world.send("m1")
    assert (caught.value.code, caught.value.retryable) == ("room_not_ready", True)
    assert await world.row("m1") is None
    await world.settle()
    await world.send("m1", txn="second")
    assert world.synapse.said == [(ADA, "Hello")]


async def test_too_large_for_synapse_is_refused_even_while_things_change(world: World) -> None:
    await world.touch()
    world.synapse.faults = [Refusal(413, "M_TOO_LARGE")]
    with pytest.raises(Conflict):
        await world.send("m1")


async def test_a_homeserver_that_asks_for_patience(world: World) -> None:
    world.synapse.faults = [Refusal(429, "M_LIMIT_EXCEEDED", {"Retry-After": "3"})]
    await world.send("m1")
    assert world.synapse.said == [(ADA, "Hello")]
    assert any(seconds >= 3 for seconds in world.slept), "it waited as long as it was asked to"

    world.synapse.faults = [Refusal(429, "M_LIMIT_EXCEEDED", {"Retry-After": "3"})] * 2
    with pytest.raises(Unavailable) as caught:
        await world.send("m2")
    assert (caught.value.code, caught.value.retry_after) == ("homeserver_busy", 3.0)
    await world.send("m2")
    assert len(world.synapse.said) == 2


async def test_a_token_that_synapse_does_not_know_is_no_fault_of_the_message(world: World) -> None:
    world.synapse.faults = [Refusal(401, "M_UNKNOWN_TOKEN")]
    with pytest.raises(Unavailable) as caught:
        await world.send("m1")
    assert caught.value.code == "as_token_refused"
    await world.send("m1")
    assert world.synapse.said == [(ADA, "Hello")]


async def test_an_id_means_the_same_message_for_a_day_only(world: World) -> None:
    first = await world.send("m1")
    world.clock.ms += KEPT_MS - 1
    assert await world.send("m1", txn="second") == first
    world.clock.ms += 1
    second = await world.send("m1", txn="third")
    assert second != first
    assert world.synapse.transactions == ["txn-m1", "third"]
    assert len(await world.rows()) == 1


async def test_two_tenants_may_use_the_same_id(world: World) -> None:
    await world.send("m1")
    assert await world.database.read(messages.get, "t2", "m1") is None
    await world.database.write(messages.drop, "t2", "m1")
    await world.database.write(messages.sent, "t2", "m1", "$other")
    row = await world.row("m1")
    assert row is not None
    assert row.event_id == "$event1"


async def test_rows_are_forgotten_after_a_while(world: World) -> None:
    await world.send("m1")
    world.clock.ms += 1000
    await world.send("m2")
    assert await world.database.write(messages.forget, before=world.clock()) == 1
    assert await world.row("m1") is None
    assert await world.row("m2") is not None


async def test_only_what_is_not_sent_can_be_dropped_and_the_first_id_stays(world: World) -> None:
    await world.send("m1")
    await world.database.write(messages.drop, "t1", "m1")
    await world.database.write(messages.sent, "t1", "m1", "$late")
    row = await world.row("m1")
    assert row is not None
    assert row.event_id == "$event1"


async def test_what_is_known_of_a_sender(world: World) -> None:
    ada = await world.sender("ada")
    assert (ada.user_id, ada.role, ada.status, ada.room_id, ada.settled) == (ADA, "host", None, ROOM, True)
    alan = await world.sender("alan")
    assert (alan.user_id, alan.role, alan.status) == (ALAN, None, None)
    await world.join("alan", "participant", "pending")
    alan = await world.sender("alan")
    assert (alan.role, alan.status) == ("participant", "pending")
    await world.touch()
    assert not (await world.sender("ada")).settled

    read = world.database.read
    assert await read(messages.sender, "t1", "event", "board-games", "nobody") == "no user"
    assert await read(messages.sender, "t1", "event", "other", "ada") == "no entity"
    assert await read(messages.sender, "t1", "group", "board-games", "ada") == "no entity"
    assert await read(messages.sender, "t2", "event", "board-games", "ada") == "no entity"


async def test_who_is_outside_is_let_in_and_then_speaks(world: World) -> None:
    world.doorkeeper.outside = {ADA}
    world.synapse.faults = [Refusal(403, "M_FORBIDDEN")]
    await world.send("m1")
    assert world.synapse.said == [(ADA, "Hello")]
    assert world.doorkeeper.asked == [("t1", world.entity.ref, ADA)]
    assert world.synapse.transactions == ["txn-m1"] * 2


async def test_who_has_no_account_is_let_in_before_anything_is_sent(world: World) -> None:
    await world.unregister("ada")
    world.doorkeeper.outside = {ADA}
    await world.send("m1")
    assert world.synapse.transactions == ["txn-m1"]
    assert world.doorkeeper.asked == [("t1", world.entity.ref, ADA)]


async def test_who_is_inside_and_may_not_speak_is_refused(world: World) -> None:
    world.synapse.faults = [Refusal(403, "M_FORBIDDEN")]
    with pytest.raises(Conflict) as caught:
        await world.send("m1")
    assert caught.value.code == "refused_by_homeserver"
    assert world.synapse.transactions == ["txn-m1"]


async def test_who_does_not_belong_into_the_room_is_not_let_in(world: World) -> None:
    world.doorkeeper.fault = NotReconciled("member_banned", "banned by a moderator")
    world.synapse.faults = [Refusal(403, "M_FORBIDDEN")]
    with pytest.raises(Conflict) as caught:
        await world.send("m1")
    assert (caught.value.code, caught.value.detail) == ("sender_may_not_chat", "banned by a moderator")
    assert await world.row("m1") is None


async def test_nobody_can_be_let_in_while_synapse_is_away(world: World) -> None:
    world.doorkeeper.fault = HomeserverUnreachable("away")
    world.synapse.faults = [Refusal(403, "M_FORBIDDEN")] * 3
    with pytest.raises(Unavailable):
        await world.send("m1")
    world.doorkeeper.fault, world.doorkeeper.outside = None, {ADA}
    await world.send("m1", txn="another")
    assert world.synapse.said == [(ADA, "Hello")]
    assert set(world.synapse.transactions) == {"txn-m1"}
