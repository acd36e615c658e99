"""What delivery is told by the configuration."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How to deliver.

    Parameters
    ----------
    bot
        The bot's user id.
    retry
        The waits between tries, in seconds. A batch is sent once more than there are waits, then its
        room is parked.
    max_batch
        The most events in one batch.
    max_batch_bytes
        The most bytes of a body; one event alone may be larger.
    concurrency
        How many batches may be on their way at once. A single endpoint gets at most half of them, see
        `openmeet_appservice.delivery.shares`.
    lease
        How long a lane is held for one try, in milliseconds. It has to be longer than the HTTP client's
        time limit, or a slow answer comes when the lane is no longer ours and the batch is repeated.
    poll
        Seconds between looks at the database when nothing wakes the worker.
    pause
        Seconds to wait when the database is away.
    """

    bot: str
    retry: tuple[float, ...]
    max_batch: int = 50
    max_batch_bytes: int = 65536
    concurrency: int = 64
    lease: int = 90_000
    poll: float = 5.0
    pause: float = 1.0
