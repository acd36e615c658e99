from __future__ import annotations

import asyncio

import pytest

from openmeet_appservice.web.context import bind, current


def test_fields_are_added_and_taken_away_again() -> None:
    with bind(request_id="r", tenant="t1"):
        with bind(tenant="t2", room="!r"):
            assert dict(current()) == {"request_id": "r", "tenant": "t2", "room": "!r"}
        assert dict(current()) == {"request_id": "r", "tenant": "t1"}
    assert dict(current()) == {}


def test_a_fault_takes_them_away_too() -> None:
    with pytest.raises(RuntimeError), bind(tenant="t1"):
        raise RuntimeError
    assert dict(current()) == {}


async def test_tasks_do_not_see_each_others_fields() -> None:
    async def work(tenant: str) -> str:
        with bind(tenant=tenant):
            await asyncio.sleep(0)
            return current()["tenant"]

    assert list(await asyncio.gather(work("a"), work("b"))) == ["a", "b"]
