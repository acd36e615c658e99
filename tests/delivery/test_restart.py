"""Workers that die, are stopped, or are several at once."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from cryptography.fernet import Fernet

from openmeet_appservice.delivery.claim import Job, claim
from openmeet_appservice.delivery.loop import Claimed
from openmeet_appservice.delivery.policy import Disable, Park, Refused, Retry, Skip, Split, Taken
from openmeet_appservice.delivery.results import Result, record
from openmeet_appservice.delivery.settings import DeliverySettings
from openmeet_appservice.delivery.shares import Shares
from openmeet_appservice.outbound.client import Answer
from openmeet_appservice.store import lanes
from openmeet_appservice.store.resealing import reseal
from openmeet_appservice.store.secretbox import SecretBox

SETTINGS = DeliverySettings(bot="@openmeet-bot:example.org", retry=(5.0,), lease=60_000)


async def claim_now(world: Any, slots: int = 64) -> Claimed[Job]:
    """Do what a worker does first, and no more: it then dies."""
    claimed: Claimed[Job] = await world.database.write(
        claim, Shares(slots), SETTINGS, now=world.clock(), new_id=world.new_id
    )
    return claimed


async def claim_one(world: Any) -> Job:
    [job] = (await claim_now(world)).jobs
    return job


async def settle(world: Any, job: Job, decision: Any) -> bool:
    held: bool = await world.database.write(
        record, Result(job, ANSWER, decision, world.clock()), new_id=world.new_id
    )
    return held


async def test_a_worker_that_died_before_sending_is_replaced_when_its_lease_ends(world: Any) -> None:
    await world.say("!a", "one")
    dead = await claim_one(world)
    await world.say("!a", "two")
    world.worker()
    await world.say("!b", "other")
    await world.until_idle("!b")
    assert world.receiver.of("!a") == []
    await world.turn(SETTINGS.lease)
    await world.until_idle("!a")
    first, second = world.receiver.of("!a")
    assert (first.webhook_id, first.raw.decode()) == (dead.batch.webhook_id, dead.batch.body)
    assert (first.sequences, second.sequences) == ([1], [2])


ANSWER = Answer(500, b"", {}, 0.1)


@pytest.mark.parametrize("decision", [Taken(), Retry(0), Park(), Skip(), Refused(), Split(1), Disable()])
async def test_the_late_result_of_a_lost_lease_is_refused(world: Any, decision: Any) -> None:
    await world.say("!a", "one")
    late = await claim_one(world)
    world.clock.turn(SETTINGS.lease)
    current = await claim_one(world)
    assert current.batch == late.batch
    before = await world.lane("!a")
    assert not await settle(world, late, decision)
    assert await world.lane("!a") == before
    assert len(await world.batches()) == 1
    assert await settle(world, current, Taken())
    after = await world.lane("!a")
    assert (after.acked_sequence, after.due_at) == (1, None)
    # And once it is recorded, saying it again changes nothing.
    assert not await settle(world, current, Retry(0))
    assert await world.lane("!a") == after


async def test_what_is_leased_is_not_given_to_another(world: Any) -> None:
    await world.say("!a", "one")
    await world.say("!b", "one")
    first = await claim_now(world, slots=1)
    second = await claim_now(world)
    assert len(first.jobs) == len(second.jobs) == 1
    assert first.jobs[0].lane.room_ref != second.jobs[0].lane.room_ref
    assert (await claim_now(world)) == Claimed((), more=False, next_due=world.clock() + SETTINGS.lease)


async def test_one_claim_finds_those_whom_an_endpoint_with_much_to_send_hides(world: Any) -> None:
    await world.add_tenant("T2")
    await world.add_endpoint("t2")
    await world.add_room("!late", "t2")
    for n in range(30):
        await world.add_room(f"!r{n}")
        await world.say(f"!r{n}", "early")
    world.clock.turn(1)
    await world.say("!late", "late")
    tenants = [job.lane.tenant for job in (await claim_now(world, slots=8)).jobs]
    assert tenants == ["t1", "t1", "t1", "t1", "t2"]


async def test_a_sole_process_takes_everything_back_at_its_start(world: Any) -> None:
    await world.say("!a", "one")
    dead = await claim_one(world)
    assert await world.database.write(lanes.release_all, now=world.clock()) == 1
    world.worker()
    await world.until_idle("!a")
    assert [got.webhook_id for got in world.receiver.received] == [dead.batch.webhook_id]


async def test_a_retry_survives_a_restart(world: Any) -> None:
    statuses = iter([500, 200])

    async def answer(got: Any) -> int:
        return next(statuses)

    world.receiver.answer = answer
    await world.say("!a", "one")
    first = world.worker()
    await world.until_tried("!a", 1)
    await first.stop(10)
    world.worker()
    await world.turn(5_000)
    await world.until_idle("!a")
    one, two = world.receiver.received
    assert (one.webhook_id, one.raw) == (two.webhook_id, two.raw)


async def test_stopping_lets_what_is_on_its_way_end(world: Any) -> None:
    in_flight, go_on = asyncio.Event(), asyncio.Event()

    async def answer(got: Any) -> int:
        in_flight.set()
        await go_on.wait()
        return 200

    world.receiver.answer = answer
    await world.say("!a", "one", "two")
    worker = world.worker(max_batch=1)
    await asyncio.wait_for(in_flight.wait(), 10)
    # Only when stopping has come to wait for it; were it not waited for, it would be broken off by then.
    asyncio.get_running_loop().call_later(0.3, go_on.set)
    await worker.stop(20)
    assert go_on.is_set()
    lane = await world.lane("!a")
    assert (lane.acked_sequence, lane.lease_until, lane.due_at) == (1, None, world.clock())
    assert len(world.receiver.received) == 1


async def test_what_does_not_end_in_time_is_given_back(world: Any) -> None:
    in_flight = asyncio.Event()

    async def answer(got: Any) -> int:
        in_flight.set()
        await asyncio.Event().wait()
        return 200

    world.receiver.answer = answer
    await world.say("!a", "one")
    worker = world.worker()
    await asyncio.wait_for(in_flight.wait(), 10)
    await worker.stop(0.01)
    lane = await world.lane("!a")
    assert (lane.acked_sequence, lane.attempts, lane.lease_until, lane.due_at) == (
        0,
        0,
        None,
        world.clock(),
    )
    world.receiver.answer = None
    world.worker()
    await world.until_idle("!a")
    first, second = world.receiver.received
    assert (first.webhook_id, first.raw) == (second.webhook_id, second.raw)


async def test_a_worker_that_was_never_started_can_be_stopped(world: Any) -> None:
    await world.worker(start=False).stop(1)


async def test_several_workers_keep_every_room_in_order_while_events_come_in(world: Any) -> None:
    dice = random.Random(7)

    async def answer(got: Any) -> int:
        await asyncio.sleep(dice.random() * 0.005)
        return 500 if dice.random() < 0.2 else 200

    world.receiver.answer = answer
    room_ids = [f"!r{n}" for n in range(8)]
    for room_id in room_ids:
        await world.add_room(room_id)
    for _ in range(3):
        world.worker(max_batch=3, retry=(0.001,) * 1000)
    for n in range(20):
        for room_id in room_ids:
            await world.say(room_id, *(f"{n}.{k}" for k in range(dice.randrange(3))), "x")
        await world.turn(1)

    async def all_idle() -> bool:
        # By enough to outlast the breaker, which chance opens now and then.
        await world.turn(500)
        return bool((await world.database.read(lanes.backlog)).waiting == 0)

    await world.until(all_idle)
    for room_id in room_ids:
        seen = 0
        last_of: dict[str, list[int]] = {}
        for got in world.receiver.of(room_id):
            if got.webhook_id in last_of:
                assert got.sequences == last_of[got.webhook_id]
            else:
                assert got.sequences[0] == seen + 1
                seen = got.sequences[-1]
            last_of[got.webhook_id] = got.sequences
        assert seen == (await world.lane(room_id)).last_sequence


async def test_webhooks_are_signed_as_before_once_the_encryption_key_was_replaced(world: Any) -> None:
    old, new = (Fernet.generate_key().decode() for _ in range(2))
    world.box = SecretBox([old])
    await world.add_tenant("T2")
    await world.add_endpoint("t2")
    await world.add_room("!late", "t2")
    await world.say("!late", "under the old key")
    first = world.worker(box=SecretBox([old]))
    await world.until_idle("!late", "t2")
    await first.stop(5)

    assert await reseal(world.database, SecretBox([new, old])) == 1
    world.worker(box=SecretBox([new]))
    await world.say("!late", "under the new key")
    await world.until_idle("!late", "t2")
    assert [got.sequences for got in world.receiver.of("!late")] == [[1], [2]]


async def test_the_late_result_of_a_lane_that_was_given_up_is_nothing_to_the_one_made_anew(
    world: Any,
) -> None:
    await world.say("!a", "one")
    late = await claim_one(world)
    await world.add_endpoint(types=("endpoint.disabled",))
    await world.add_endpoint()
    # At the very same moment: the clock tells nothing apart.
    await world.say("!a", "two")
    current = await claim_one(world)
    before = await world.lane("!a")
    assert not await settle(world, late, Taken())
    assert await world.lane("!a") == before
    assert await settle(world, current, Taken())
