"""How the slots for batches on their way are shared between endpoints.

An endpoint may start another batch while it has fewer under way than slots are free; one that has none
under way may always take a free slot. So an endpoint that hangs holds at most half of all slots, a second
one a quarter, and so on; and whoever has nothing under way gets the next slot that is given back. (This
is the dynamic threshold by which switches share a packet buffer.)
"""

from __future__ import annotations

from collections.abc import Mapping

from openmeet_appservice.store.endpoint_key import EndpointKey


class Shares:
    """The slots, and who has them.

    Parameters
    ----------
    slots
        How many there are.
    under_way
        How many of them each endpoint has already.
    """

    __slots__ = ("_slots", "_under_way")

    def __init__(self, slots: int, under_way: Mapping[EndpointKey, int] | None = None) -> None:
        self._slots = slots
        self._under_way = dict(under_way or {})

    @property
    def free(self) -> int:
        """How many slots nobody has."""
        return self._slots - sum(self._under_way.values())

    def has(self, endpoint: EndpointKey) -> bool:
        """Tell whether the endpoint has any slot."""
        return endpoint in self._under_way

    def may_start(self, endpoint: EndpointKey) -> bool:
        """Tell whether the endpoint may take another slot now."""
        has = self._under_way.get(endpoint, 0)
        return self.free > has

    def allowance(self, endpoint: EndpointKey, *, most: int) -> int:
        """Return how many slots the endpoint may take now, at most *most*."""
        tried = self.copy()
        for number in range(most):
            if not tried.may_start(endpoint):
                return number
            tried.start(endpoint)
        return most

    def full(self) -> list[EndpointKey]:
        """Return the endpoints with batches under way that may not take another slot now."""
        return [endpoint for endpoint in self._under_way if not self.may_start(endpoint)]

    def start(self, endpoint: EndpointKey) -> None:
        """Take a slot for the endpoint."""
        self._under_way[endpoint] = self._under_way.get(endpoint, 0) + 1

    def end(self, endpoint: EndpointKey) -> None:
        """Give one of the endpoint's slots back."""
        left = self._under_way[endpoint] - 1
        if left:
            self._under_way[endpoint] = left
        else:
            # Endpoints come and go; none that is idle takes up memory.
            del self._under_way[endpoint]

    def copy(self) -> Shares:
        """Return the same shares, to be tried out."""
        return Shares(self._slots, self._under_way)
