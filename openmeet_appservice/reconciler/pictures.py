"""What a room, or whoever else shall have a picture, learns of it.

Pictures are fetched apart from everything else (`picture_worker`), since they come from servers that nobody
here knows: a slow one must not hold up members, nor a broken one keep them out. So a run of the reconciler
never waits for a picture. It does all the rest, and then

* the picture is known: it is shown;
* nobody has tried to fetch it yet: the row waits until its result comes;
* it could not be fetched: what is shown stays, Synapse is said to agree, and ``sync.last_error`` tells of it.
"""

from __future__ import annotations

from openmeet_appservice.domain.moments import Now
from openmeet_appservice.reconciler.results import Result
from openmeet_appservice.store import pictures
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.pictures import Picture
from openmeet_appservice.store.sync import Subject
from openmeet_appservice.store.wakeups import Wakeups


class Pictures:
    """Has pictures fetched, and says what to make of what came."""

    def __init__(self, database: Database, wakeups: Wakeups, *, now: Now) -> None:
        self._database = database
        self._wakeups = wakeups
        self._now = now

    async def want(self, tenant: str, subject: Subject, ref: str, picture: Picture) -> Picture:
        """See to it that the picture is fetched, and return what is known of it now."""
        if picture.is_used:
            return picture
        await self._database.write(pictures.use, tenant, subject, ref, picture.url, now=self._now())
        self._wakeups.wake("pictures")
        return await self._database.read(pictures.of, tenant, subject, ref, picture.url)

    @staticmethod
    def result(generation: int, picture: Picture) -> Result:
        """Return what came of a run that did everything else for *generation*."""
        return Result(generation, lacking=picture.error, is_awaited=picture.is_awaited)
