"""Answering people who invite a puppet into a room of their own, and telling OpenMeet."""

from __future__ import annotations

import logging

from sqlalchemy import Connection

from openmeet_appservice.domain.invitations import InvitationPolicy, accepts
from openmeet_appservice.domain.moments import Now
from openmeet_appservice.domain.tenant_settings import invitation_policy
from openmeet_appservice.domain.webhook_types import USER_INVITED
from openmeet_appservice.errors import HomeserverError, HomeserverLimited, HomeserverRefused
from openmeet_appservice.homeserver import Homeserver
from openmeet_appservice.metrics import INVITATIONS
from openmeet_appservice.reconciler.puppets import Puppets
from openmeet_appservice.store import invitations, notices
from openmeet_appservice.store import puppets as puppet_store
from openmeet_appservice.store.database import Database
from openmeet_appservice.store.ids import NewId
from openmeet_appservice.store.invitations import Invitation
from openmeet_appservice.store.wakeups import Wakeups

logger = logging.getLogger(__name__)

GIVEN_UP_AFTER = 24 * 3600 * 1000
"""Milliseconds for which it is tried to answer: what invites may be a server that is gone."""


class Invitations:
    """Answers invitations, each once in effect.

    Parameters
    ----------
    wakeups
        Woken for ``notify``.
    policy
        Of tenants that chose none themselves.
    new_id
        Makes the ids of webhooks.
    """

    def __init__(
        self,
        database: Database,
        homeserver: Homeserver,
        puppets: Puppets,
        wakeups: Wakeups,
        *,
        policy: InvitationPolicy,
        now: Now,
        new_id: NewId,
    ) -> None:
        self._database = database
        self._homeserver = homeserver
        self._puppets = puppets
        self._wakeups = wakeups
        self._policy = policy
        self._now = now
        self._new_id = new_id

    async def answer(self, tenant: str, ref: str) -> int:
        """Answer one invitation, and tell OpenMeet; return 0, for there are no generations of it.

        Raises
        ------
        HomeserverError
            Synapse does not say that it is answered; try again.
        """
        invitation = await self._database.read(invitations.get, tenant, ref)
        if invitation is None or invitation.is_ours:
            await self._database.write(invitations.forget, tenant, ref)
            return 0
        policy = invitation_policy(self._policy, invitation.settings)
        accepted = accepts(policy, direct=invitation.direct)
        try:
            await self._ensure_puppet(invitation)
            accepted = accepted and await self._join(invitation)
            if not accepted:
                await self._decline(invitation)
        except HomeserverError as error:
            if self._now() - invitation.received_at < GIVEN_UP_AFTER:
                raise
            accepted = False
            logger.warning("gave up answering an invitation into %s: %s", invitation.room_id, error)
        told = await self._database.write(
            _answered, invitation, accepted, now=self._now(), new_id=self._new_id
        )
        answer = "accepted" if accepted else "declined"
        INVITATIONS.labels(answer).inc()
        logger.info("%s has %s an invitation into %s", invitation.user_id, answer, invitation.room_id)
        if told:
            self._wakeups.wake("notify")
        return 0

    async def _ensure_puppet(self, invitation: Invitation) -> None:
        """Register the puppet, which Synapse lets anybody invite before it exists."""
        puppet = await self._database.read(puppet_store.get, invitation.tenant, invitation.user_ref)
        if puppet is not None and (not puppet.registered or puppet.profile_name is None):
            await self._puppets.ensure(puppet)

    async def _join(self, invitation: Invitation) -> bool:
        """Accept; False where that is refused for good, as when the invitation was taken back."""
        try:
            await self._homeserver.join(invitation.room_id, invitation.user_id)
        except HomeserverRefused as error:
            if not _is_final(error):
                raise
            logger.info("%s cannot be entered: %s", invitation.room_id, error)
            return False
        return True

    async def _decline(self, invitation: Invitation) -> None:
        try:
            await self._homeserver.leave(invitation.room_id, invitation.user_id)
        except HomeserverRefused as error:
            if not _is_final(error):
                raise
            logger.info("there is nothing to decline in %s: %s", invitation.room_id, error)


def _is_final(error: HomeserverRefused) -> bool:
    return error.status in (400, 403, 404) and not isinstance(error, HomeserverLimited)


def _answered(
    connection: Connection, invitation: Invitation, accepted: bool, *, now: int, new_id: NewId
) -> int:
    """Forget the invitation and store what is told of it, unless another process has; return how many."""
    if invitations.get(connection, invitation.tenant, invitation.ref) is None:
        return 0
    invitations.forget(connection, invitation.tenant, invitation.ref)
    data = {
        "user": {
            "user": invitation.slug,
            "external_id": invitation.external_id,
            "user_id": invitation.user_id,
        },
        "room_id": invitation.room_id,
        "inviter": {"user_id": invitation.inviter, "user": None, "external_id": None},
        "direct": invitation.direct,
        "accepted": accepted,
    }
    return notices.add(connection, invitation.tenant, USER_INVITED, data, now=now, new_id=new_id)
