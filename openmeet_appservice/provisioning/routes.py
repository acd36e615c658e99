"""All routes of this package."""

from __future__ import annotations

from openmeet_appservice.provisioning.batch import batches
from openmeet_appservice.provisioning.changes import ChangesRoute
from openmeet_appservice.provisioning.direct import Direct
from openmeet_appservice.provisioning.entities import Entities
from openmeet_appservice.provisioning.keys import Keys
from openmeet_appservice.provisioning.kinds import EVENTS, GROUPS
from openmeet_appservice.provisioning.life import LifeCycle
from openmeet_appservice.provisioning.members import Members
from openmeet_appservice.provisioning.parts import Parts
from openmeet_appservice.provisioning.plans import Plans
from openmeet_appservice.provisioning.resolve import Resolve
from openmeet_appservice.provisioning.tenants import Tenants
from openmeet_appservice.provisioning.users import Users
from openmeet_appservice.provisioning.webhook_actions import WebhookActions
from openmeet_appservice.provisioning.webhook_records import WebhookRecords
from openmeet_appservice.provisioning.webhook_replay import WebhookReplay
from openmeet_appservice.provisioning.webhooks import OF_PLATFORM, OF_TENANTS, Webhooks
from openmeet_appservice.web.routes import Route


def routes(parts: Parts) -> list[Route]:
    """Return the routes of tenants, keys, users, rooms of every kind, members, webhooks and so on."""
    found = [
        *Tenants(parts).routes(),
        *Keys(parts).routes(),
        *Users(parts).routes(),
        *Direct(parts).routes(),
        *Resolve(parts).routes(),
        *ChangesRoute(parts).routes(),
    ]
    for place in (OF_TENANTS, OF_PLATFORM):
        found += Webhooks(parts, place).routes()
        found += WebhookActions(parts, place).routes()
        found += WebhookReplay(parts, place).routes()
        found += WebhookRecords(parts, place).routes()
    for kind in (EVENTS, GROUPS):
        entities = Entities(parts, kind)
        found += entities.routes()
        found += LifeCycle(entities).routes()
        found += Plans(parts, kind).routes()
        found += Members(parts, kind).routes()
    return [*found, *batches(parts, found).routes()]
