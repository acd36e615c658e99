"""Ranges of a room's sequences: pairs of the first and the last, both included. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

Range: TypeAlias = tuple[int, int]


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return the same numbers in as few ranges as possible, in order; empty ranges fall away."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if first > last:
            continue
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], last)
        else:
            found.append((first, last))
    return found


def without(ranges: Iterable[Range], taken: Iterable[Range]) -> list[Range]:
    """Return what of *ranges* is in none of *taken*, in order."""
    gone = merged(taken)
    left: list[Range] = []
    for first, last in merged(ranges):
        for gone_first, gone_last in gone:
            if gone_last < first or gone_first > last:
                continue
            if first < gone_first:
                left.append((first, gone_first - 1))
            first = gone_last + 1
        if first <= last:
            left.append((first, last))
    return left


def common(one: Range, other: Range) -> Range:
    """Return what both hold; where that is nothing, a range whose first is above its last."""
    return max(one[0], other[0]), min(one[1], other[1])


def is_empty(numbers: Range) -> bool:
    """Tell whether the range holds no number."""
    return numbers[0] > numbers[1]


def size(ranges: Iterable[Range]) -> int:
    """Return how many numbers these ranges, which have none in common, hold."""
    return sum(last - first + 1 for first, last in ranges)
