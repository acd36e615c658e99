"""Slots are shared so that whoever hangs leaves room for the others."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.delivery.shares import Shares

A, B, C = ("t1", "a"), ("t2", "b"), ("t3", "c")


def fill(shares: Shares, endpoint: tuple[str, str]) -> int:
    started = 0
    while shares.may_start(endpoint):
        shares.start(endpoint)
        started += 1
    return started


def test_one_that_hangs_leaves_half_the_next_a_quarter() -> None:
    shares = Shares(64)
    assert [fill(shares, (str(n), "main")) for n in range(7)] == [32, 16, 8, 4, 2, 1, 1]
    assert shares.free == 0


def test_a_freed_slot_goes_to_whoever_has_none() -> None:
    shares = Shares(2)
    shares.start(A)
    shares.start(B)
    shares.end(A)
    shares.start(A)
    assert not shares.may_start(C)
    shares.end(B)
    assert shares.may_start(C)
    assert not shares.may_start(A)
    assert shares.full() == [A]


def test_a_copy_is_independent() -> None:
    shares = Shares(4)
    shares.copy().start(A)
    assert shares.free == 4


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 5), st.booleans())))
def test_slots_are_neither_lost_nor_overdrawn(slots: int, steps: list[tuple[int, bool]]) -> None:
    shares = Shares(slots)
    held: list[tuple[str, str]] = []
    for number, begins in steps:
        endpoint = (str(number), "main")
        if begins and shares.may_start(endpoint):
            shares.start(endpoint)
            held.append(endpoint)
        elif not begins and endpoint in held:
            shares.end(endpoint)
            held.remove(endpoint)
        assert shares.free == slots - len(held) >= 0
        assert shares.may_start(("new", "one")) == (shares.free > 0)
