"""What of a room is sent again, against the plain meaning of the words, number by number."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from openmeet_appservice.domain.ranges import Range, common, is_empty, merged, size, without
from openmeet_appservice.domain.replay import Letter, Only, Standing, again

MOST = 20
ranges = st.tuples(st.integers(1, MOST), st.integers(1, MOST))
some_ranges = st.lists(ranges, max_size=4)


def numbers(some: Sequence[Range]) -> set[int]:
    return {n for first, last in some for n in range(first, last + 1)}


@given(some_ranges, some_ranges)
def test_ranges_are_sets_of_numbers(some: list[Range], others: list[Range]) -> None:
    for result, meant in (
        (merged(some), numbers(some)),
        (without(some, others), numbers(some) - numbers(others)),
    ):
        assert numbers(result) == meant
        assert size(result) == len(meant)
        # In order, none empty, and none that could be one with the next.
        ends = [end for pair in result for end in pair]
        assert ends == sorted(ends)
        if result == merged(some):
            assert all(b[0] > a[1] + 1 for a, b in itertools.pairwise(result))


@given(ranges, ranges)
def test_what_two_ranges_have_in_common(one: Range, other: Range) -> None:
    both = numbers([one]) & numbers([other])
    assert numbers([common(one, other)]) == both
    assert is_empty(common(one, other)) == (not both)


@st.composite
def standings(draw: st.DrawFn) -> Standing:
    acked = draw(st.integers(0, MOST))
    letters = [
        Letter(at, f"l{at}", (first, draw(st.integers(first, acked))))
        for at, first in enumerate(
            draw(st.lists(st.integers(1, acked), max_size=3) if acked else st.just([]))
        )
    ]
    return Standing(
        oldest=draw(st.integers(1, MOST)),
        acked=acked,
        began_after=draw(st.integers(0, acked)),
        letters=letters,
        queued=draw(some_ranges),
    )


@given(standings(), ranges, st.sampled_from(Only))
def test_what_is_queued_is_what_is_meant_and_not_queued_yet(
    standing: Standing, window: Range, only: Only
) -> None:
    there = numbers([(standing.oldest, standing.acked)])
    meant = there & numbers([window])
    touched = [letter for letter in standing.letters if numbers([letter.events]) & meant]
    failed = numbers([letter.events for letter in touched]) & there
    wanted = {
        Only.FAILED: failed,
        Only.MISSING: failed | {n for n in meant if n <= standing.began_after},
        Only.ALL: meant,
    }[only]
    decided = again(standing, window, only)
    assert numbers(decided.ranges) == wanted - numbers(standing.queued)
    # A letter goes when everything that is left of it is sent again, and not before.
    for letter in standing.letters:
        left = numbers([letter.events]) & there
        assert (letter in decided.letters) == (bool(left) and left <= wanted)
    # Nothing is missing no more that is not sent again, unless it is gone or was queued before.
    forgotten = {n for n in there if decided.began_after < n <= standing.began_after}
    assert forgotten <= wanted
    assert decided.began_after <= standing.began_after


@given(standings(), st.sampled_from(Only))
def test_asking_for_everything_twice_adds_nothing(standing: Standing, only: Only) -> None:
    everything = (1, MOST)
    first = again(standing, everything, only)
    used = set(first.letters)
    then = Standing(
        oldest=standing.oldest,
        acked=standing.acked,
        began_after=first.began_after,
        letters=[letter for letter in standing.letters if letter not in used],
        queued=[*standing.queued, *first.ranges],
    )
    assert again(then, everything, only).ranges == ()
    if only is not Only.ALL:
        # Not even when everything was sent meanwhile.
        sent = Standing(then.oldest, then.acked, then.began_after, then.letters)
        assert again(sent, everything, only).ranges == ()
