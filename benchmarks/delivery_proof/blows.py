"""The blows that fall during a run, chosen by the seed: kills, restarts of the database, outages."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum


class Blow(Enum):
    """What happens."""

    KILL = "kill"
    RESTART = "database restart"
    OUTAGE = "endpoint down"


@dataclass(frozen=True, slots=True)
class Planned:
    """A blow.

    Parameters
    ----------
    at
        How much of everything has arrived when it falls, from 0 to 1.
    delay
        So many seconds later still.
    pause
        So many seconds until what was ended is started again, or the endpoint is back.
    target
        Which replica or endpoint, of those there are.
    mode
        How the database is restarted.
    """

    at: float
    blow: Blow
    delay: float
    pause: float
    target: int
    mode: str = "fast"


def plan_blows(seed: int, *, kills: int, restarts: int, outages: int) -> list[Planned]:
    """Return the blows in the order in which they fall."""
    chance = random.Random(f"{seed} blows")
    planned: list[Planned] = []
    for number in range(kills):
        at = 0.95 * (number + chance.random()) / kills
        target = chance.randrange(1000)
        if planned and chance.random() < 0.2:
            # Once more, while it is only just starting.
            at, target = planned[-1].at, planned[-1].target
            delay = chance.uniform(0, 1.5)
        else:
            delay = chance.uniform(0, 0.2)
        pause = 0 if chance.random() < 0.7 else chance.uniform(0, 1)
        planned.append(Planned(at, Blow.KILL, delay, pause, target))
    for number in range(restarts):
        at = 0.95 * (number + chance.random()) / restarts
        mode = "immediate" if number % 2 == 0 else "fast"
        planned.append(Planned(at, Blow.RESTART, chance.uniform(0, 0.2), 0, 0, mode))
    for number in range(outages):
        at = 0.9 * (number + chance.random()) / outages
        planned.append(Planned(at, Blow.OUTAGE, 0, chance.uniform(2, 8), chance.randrange(1000)))
    return sorted(planned, key=lambda each: each.at)
