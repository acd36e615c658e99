"""What delivery is told by the configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one batch may hold: *events*, and *size* in bytes of its body."""

    events: int
    size: int


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How to deliver.

    Parameters
    ----------
    bot
        The bot's user id.
    retry
        The waits between tries, in seconds. A batch is sent once more than there are waits.
    skip_exhausted
        Whether a batch that was not taken then is skipped; else its room is parked. For endpoints that do not
        say themselves.
    max_batch
        The most events in one batch.
    max_batch_bytes
        The most bytes of a body; one event alone may be larger. Both for endpoints that do not say
        themselves.
    concurrency
        How many batches may be on their way at once. A single endpoint gets at most half of them, see
        `openmeet_appservice.delivery.shares`.
    notice_concurrency
        How many notices may be on their way besides.
    lease
        How long a lane or notice is held for one try, in milliseconds. It has to be longer than the HTTP
        client's time limit, or a slow answer comes when the lane is no longer ours and the batch is repeated.
    poll
        Seconds between looks at the database when nothing wakes the worker.
    pause
        Seconds to wait when the database is away.
    """

    bot: str
    retry: tuple[float, ...]
    skip_exhausted: bool = False
    max_batch: int = 50
    max_batch_bytes: int = 65536
    concurrency: int = 64
    notice_concurrency: int = 8
    lease: int = 90_000
    poll: float = 5.0
    pause: float = 1.0

    def limits(self, max_batch: int | None, max_batch_bytes: int | None) -> Limits:
        """Return the limits for an endpoint that wants these; None: what is configured."""
        return Limits(max_batch or self.max_batch, max_batch_bytes or self.max_batch_bytes)
