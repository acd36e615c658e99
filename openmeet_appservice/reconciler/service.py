"""The reconciler as a whole: its parts joined, started and stopped."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable

from openmeet_appservice.domain.explanation import Explanation
from openmeet_appservice.domain.kinds import EntityKind
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.names import key
from openmeet_appservice.errors import DatabaseUnavailable
from openmeet_appservice.homeserver import AdminCalls, Homeserver
from openmeet_appservice.reconciler.admitting import Admission
from openmeet_appservice.reconciler.aliases import Aliases
from openmeet_appservice.reconciler.announcing import Announcer
from openmeet_appservice.reconciler.apply import Applier
from openmeet_appservice.reconciler.direct import DirectRooms
from openmeet_appservice.reconciler.drift import DriftKeeper
from openmeet_appservice.reconciler.ending import Endings
from openmeet_appservice.reconciler.failures import OUTAGES
from openmeet_appservice.reconciler.full_check import FullCheck
from openmeet_appservice.reconciler.invitations import Invitations
from openmeet_appservice.reconciler.making import RoomMaker
from openmeet_appservice.reconciler.outage import Outage
from openmeet_appservice.reconciler.parts import PartReconciler
from openmeet_appservice.reconciler.pictures import Pictures
from openmeet_appservice.reconciler.puppets import Puppets
from openmeet_appservice.reconciler.purging import Purger
from openmeet_appservice.reconciler.results import Result
from openmeet_appservice.reconciler.rooms import RoomReconciler
from openmeet_appservice.reconciler.settings import ReconcilerSettings
from openmeet_appservice.reconciler.versions import DefaultVersion
from openmeet_appservice.reconciler.worker import Worker
from openmeet_appservice.store import ids, sync, wanted
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.sync import Lease
from openmeet_appservice.store.wakeups import Wakeups

logger = logging.getLogger(__name__)


def new_claim() -> str:
    """Return a fresh claim: 128 random bits as lower-case hex."""
    return secrets.token_hex(16)


def _epoch_milliseconds() -> int:
    return time.time_ns() // 1_000_000


class Reconciler:
    """Makes Synapse agree with what OpenMeet wants, from `start` to `stop`.

    Parameters
    ----------
    wakeups
        Listened to for ``reconcile``, woken for ``reconciled`` and ``notify``.
    admin
        The homeserver as its admin has it, None where no admin's token is configured.
    now, monotonic, sleep, random_number, new_id, new_claim
        Time, randomness and ids.
    """

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        wakeups: Wakeups,
        settings: ReconcilerSettings,
        *,
        admin: AdminCalls | None = None,
        now: Now = _epoch_milliseconds,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        random_number: Callable[[], float] = random.random,
        new_id: NewId = ids.new_id,
        new_claim: Callable[[], str] = new_claim,
    ) -> None:
        self._database = database
        self._wakeups = wakeups
        self._settings = settings
        self._now = now
        announcer = Announcer(database, wakeups, now=now, new_id=new_id)
        self._puppets = Puppets(database, homeserver, announcer, now=now)
        aliases = Aliases(database, homeserver, now=now, poked=lambda: wakeups.wake("reconcile"))
        applier = Applier(
            database,
            homeserver,
            aliases,
            self._puppets,
            announcer,
            member_concurrency=settings.member_concurrency,
        )
        self._rooms = _room_reconciler(
            database,
            homeserver,
            admin,
            wakeups,
            settings,
            self._puppets,
            announcer,
            aliases,
            applier,
            now,
            sleep,
            new_id,
            new_claim,
        )
        self._admission = Admission(
            database,
            homeserver,
            settings,
            applier,
            now=now,
            changed=lambda: wakeups.wake("reconcile"),
        )
        self._invitations = Invitations(
            database,
            homeserver,
            self._puppets,
            wakeups,
            policy=settings.direct_invitations,
            now=now,
            new_id=new_id,
        )
        self._outage = Outage(homeserver.whoami, self._outage_ended, sleep=sleep, random_number=random_number)
        self._worker = Worker(
            database,
            wakeups,
            self._outage,
            self._reconcile,
            announcer,
            settings,
            now=now,
            monotonic=monotonic,
            sleep=sleep,
            random_number=random_number,
        )
        self._checking: asyncio.Task[None] | None = None
        self._full_check: FullCheck | None = None
        if settings.full_check is not None:
            self._full_check = FullCheck(
                database,
                wakeups,
                settings.full_check,
                is_away=lambda: self._outage.reason is not None,
                now=now,
                sleep=sleep,
            )

    async def start(self) -> None:
        """Begin; neither a bad room nor an absent homeserver or database stops this."""
        self._outage.start()
        self._worker.start()
        if self._full_check is not None:
            self._checking = asyncio.create_task(self._full_check.run(), name="full check")

    async def stop(self, timeout: float) -> None:
        """Take nothing new, let running work end for *timeout* seconds, then give it back undone."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
        await self._worker.stop(timeout)
        await self._outage.stop()

    @property
    def trouble(self) -> str | None:
        """Why the homeserver cannot be used at present, None while it can."""
        return None if self._outage.reason is None else str(self._outage.reason)

    @property
    def busy(self) -> int:
        """How many users and entities are being worked on."""
        return self._worker.busy

    async def explain(self, tenant: str, kind: EntityKind, slug: str) -> Explanation | None:
        """Return what is wanted, what there is, and what would be done, without doing it.

        None when there is no such event, group or direct room. Where the alias leads to another room, that
        shows only in the outcome of a real run.
        """
        entity = await self._database.read(
            wanted.entity_by_slug, key(tenant), kind, key(slug), defaults=self._settings.rooms
        )
        if entity is None:
            return None
        return await self._rooms.explain(entity)

    async def admit(self, tenant: str, entity_ref: str, user_id: str) -> bool:
        """Let a member in at once, who has not joined so far; see `Admission.admit`."""
        return await self._admission.admit(tenant, entity_ref, user_id)

    async def _reconcile(self, lease: Lease, is_outdated: Callable[[int], bool]) -> Result:
        if lease.subject == "user":
            return Result(await self._puppets.reconcile(lease.tenant, lease.ref))
        if lease.subject == "invite":
            return Result(await self._invitations.answer(lease.tenant, lease.ref))
        return await self._rooms.reconcile(
            lease.tenant, lease.ref, attempts=lease.attempts, is_outdated=is_outdated
        )

    async def _outage_ended(self) -> None:
        try:
            for code in OUTAGES:
                await self._database.write(sync.retry_failed, now=self._now(), code=code)
        except DatabaseUnavailable as error:
            logger.warning("what failed meanwhile is tried again when it is due: %s", error)
        self._wakeups.wake("reconcile")


def _room_reconciler(
    database: Database,
    homeserver: Homeserver,
    admin: AdminCalls | None,
    wakeups: Wakeups,
    settings: ReconcilerSettings,
    puppets: Puppets,
    announcer: Announcer,
    aliases: Aliases,
    applier: Applier,
    now: Now,
    sleep: Callable[[float], Awaitable[None]],
    new_id: NewId,
    new_claim: Callable[[], str],
) -> RoomReconciler:
    maker = RoomMaker(
        database,
        homeserver,
        aliases,
        bot=settings.bot_user_id,
        server_name=settings.server_name,
        now=now,
        new_id=new_id,
        new_claim=new_claim,
    )
    direct = DirectRooms(
        database,
        homeserver,
        maker,
        aliases,
        puppets,
        server_name=settings.server_name,
        settled=lambda: wakeups.wake("reconciled"),
    )
    return RoomReconciler(
        database,
        homeserver,
        settings,
        maker,
        applier,
        Endings(
            database,
            homeserver,
            maker,
            applier,
            bot=settings.bot_user_id,
            server_name=settings.server_name,
        ),
        Pictures(database, wakeups, now=now),
        Purger(database, admin, announcer, sleep=sleep),
        DefaultVersion(homeserver, now=now),
        direct,
        DriftKeeper(database, now=now),
        PartReconciler(database, homeserver, settings, applier, now=now),
        now=now,
        settled=lambda: wakeups.wake("reconciled"),
    )
