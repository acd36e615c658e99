"""Following one hint: asking OpenMeet, writing what it answers, and deciding when to ask again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Connection

from openmeet_appservice.domain.moments import to_rfc3339
from openmeet_appservice.errors import ApiError, InvalidName
from openmeet_appservice.provisioning import lookup_writes
from openmeet_appservice.provisioning.lookup import Absent, Found, Lookup, Outcome, Unknown
from openmeet_appservice.provisioning.lookup_rest import Rests
from openmeet_appservice.provisioning.lookup_writes import Before, Followed, Result, Topic
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.specs import UserSpec
from openmeet_appservice.store import hints, users
from openmeet_appservice.store.hints import Hint

log = logging.getLogger(__name__)

FIRST_WAIT = 1_000
LONGEST_WAIT = 3_600_000
"""Milliseconds until the next try: after the first failure, and at most."""

OUTDATED_WAIT = 200
"""Milliseconds after which it is asked again when somebody wrote meanwhile; doubles as the others do."""

UNASKED_WAIT = 3_600_000
"""Milliseconds after which it is seen whether there is an endpoint to ask now."""


@dataclass(frozen=True, slots=True)
class HintWork:
    """Follows hints, one at a time each.

    Parameters
    ----------
    random
        A number in [0, 1); spreads what failed together.
    """

    parts: Parts
    lookup: Lookup
    rests: Rests
    random: Callable[[], float]

    async def follow(self, hint: Hint) -> None:
        """Ask about it and record what comes of that.

        Raises
        ------
        DatabaseUnavailable
            The lease has to end; then it is done again.
        """
        topic = Topic(hint.tenant, hint.kind, hint.slug, hint.user)
        known = await self.parts.database.read(lookup_writes.before, topic)
        if known is None or (hint.hinted_at is None and known.ref is None):
            # It is not in use any more, and nobody has hinted that it should be.
            await self._finish(hint, None)
            return
        if self.lookup.settings(known.tenant).url is None:
            await self._fail(hint, self.parts.now() + UNASKED_WAIT, hint.attempts)
            return
        if topic.user is not None and known.ref is None:
            # What is not known here has to be known whole.
            topic = Topic(hint.tenant, hint.kind, hint.slug)
        began = self.parts.now()
        reason = "turn" if hint.hinted_at is None else "hint"
        outcome = await self.lookup.ask(known.tenant, hint.kind, topic.slug, topic.user, reason=reason)
        if isinstance(outcome, Unknown):
            await self._unknown(hint, outcome)
            return
        self.rests.answered(hint.tenant)
        try:
            followed = await self._write(hint, topic, outcome, known, began)
        except (ApiError, InvalidName) as refusal:
            code = refusal.code if isinstance(refusal, ApiError) else "invalid_name"
            log.warning("%s %s cannot be as OpenMeet says: %s", hint.kind, hint.slug, code)
            await self._fail(hint, self._again(hint), hint.attempts + 1)
            return
        # Who belongs to it may be left out; then hints at single members are still to be followed.
        whole = topic.user is None and not (isinstance(outcome, Found) and outcome.members is None)
        await self._followed(hint, topic, followed, known, began if whole else None)

    async def _write(self, hint: Hint, topic: Topic, outcome: Outcome, known: Before, began: int) -> Followed:
        write, now = self.parts.database.write, self.parts.now()
        if isinstance(outcome, Found) and isinstance(outcome.spec, UserSpec):
            return await write(
                lookup_writes.follow_user, self.parts, topic, outcome.spec, known, began=began, now=now
            )
        if hint.kind == "user":
            return await write(_user_is_gone, hint, now=now)

        async def absent() -> Followed:
            return await write(
                lookup_writes.follow_absence, topic, known, deleted=hint.deleted, began=began, now=now
            )

        if isinstance(outcome, Absent):
            return await absent()
        assert isinstance(outcome, Found)
        done = await write(
            lookup_writes.follow,
            self.parts,
            topic,
            outcome,
            known,
            previous=hint.previous_slug,
            began=began,
            now=now,
        )
        if done.result is Result.ANOTHER:
            # The one that is known here is not there any more; what has its name now comes after it.
            done = await absent()
            if done.result is Result.ARCHIVED:
                return Followed(Result.OUTDATED, done.touched)
        return done

    async def _followed(
        self, hint: Hint, topic: Topic, done: Followed, known: Before, began: int | None
    ) -> None:
        """Record what became of an answer; *began*: when all members were asked about, None: not all."""
        if done.touched:
            self.parts.wakeups.wake("reconcile")
        now = self.parts.now()
        match done.result:
            case Result.OUTDATED:
                await self._fail(hint, now + self._wait(hint.attempts, OUTDATED_WAIT), hint.attempts + 1)
                return
            case Result.MISSING | Result.HELD:
                assert done.again_at is not None
                if done.result is Result.HELD:
                    log.warning(
                        "OpenMeet does not know %s %s any more, nor too many others: it is held until %s",
                        hint.kind,
                        hint.slug,
                        to_rfc3339(done.again_at),
                    )
                await self._fail(hint, max(done.again_at, now + FIRST_WAIT), hint.attempts)
                return
            case Result.ARCHIVED:
                log.info("%s %s is archived: OpenMeet does not know it", hint.kind, hint.slug)
        stays = hint.kind != "user" and hint.user is None and done.result is Result.DONE
        live = stays and await self.parts.database.read(_is_live, topic)
        interval = self.lookup.settings(known.tenant).resync_interval
        await self._finish(hint, now + round(interval * 1000) if live else None, began=began)

    async def _unknown(self, hint: Hint, outcome: Unknown) -> None:
        log.log(
            logging.WARNING if hint.attempts in (0, 5) else logging.DEBUG,
            "OpenMeet could not be asked about %s %s: %s: %s",
            hint.kind,
            hint.slug,
            outcome.result,
            outcome.detail,
        )
        again = self._again(hint)
        if outcome.down:
            # Who waits for the endpoint's rest to end has waited long enough.
            again = self.rests.failed(hint.tenant, outcome.retry_after)
        else:
            self.rests.answered(hint.tenant)
        await self._fail(hint, again, hint.attempts + 1)

    def _again(self, hint: Hint) -> int:
        return self.parts.now() + self._wait(hint.attempts, FIRST_WAIT)

    def _wait(self, attempts: int, first: int) -> int:
        return round(min(LONGEST_WAIT, first << min(attempts, 20)) * (0.5 + self.random() / 2))

    async def _finish(self, hint: Hint, next_at: int | None, *, began: int | None = None) -> None:
        def write(connection: Connection) -> None:
            if not hints.finish(connection, hint, next_at=next_at):
                return
            if began is not None:
                hints.covered(connection, hint, began=began)
            if hint.previous_slug is not None:
                # It is not called so any more; whatever is, if anything, has to be asked about.
                hints.add(
                    connection,
                    hint.tenant,
                    hint.kind,
                    hint.previous_slug,
                    deleted=True,
                    now=self.parts.now(),
                )

        await self.parts.database.write(write)

    async def _fail(self, hint: Hint, retry_at: int, attempts: int) -> None:
        await self.parts.database.write(hints.fail, hint, retry_at=retry_at, attempts=attempts)


def _is_live(connection: Connection, topic: Topic) -> bool:
    known = lookup_writes.before(connection, topic)
    return known is not None and known.ref is not None


def _user_is_gone(connection: Connection, hint: Hint, *, now: int) -> Followed:
    """Have the events and groups of a deleted user asked about him; his places are theirs to tell.

    Without a hint that he was deleted nothing is done: nobody is removed for one wrong answer.
    """
    user = users.find(connection, hint.tenant, hint.slug)
    if user is not None and hint.deleted:
        hints.add_places(connection, hint.tenant, user.ref, user.slug, now=now)
    return Followed(Result.DONE)
