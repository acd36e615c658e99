"""Every table, in one place.

Rules that hold for all of them:

* The primary key begins with the tenant, and every query carries it. ``service``, ``held_events``,
  ``quarantine``, ``imports`` and ``import_refusals`` belong to no tenant: what they hold has not been
  attributed to one yet.
* ``owner`` is whose endpoint it is: a tenant, or the empty string for the platform. With ``endpoint_ref`` it
  names an endpoint, while ``tenant`` beside it is whose events are delivered there.
* ``tenant``, ``slug_key`` and other ``…_key`` columns hold the ASCII lower-case form, because names are
  compared without regard to case; the form that OpenMeet gave stands beside it.
* ``…_at`` columns are milliseconds since the epoch. ``…_ref`` columns hold a generated id of ours;
  ``room_id``, ``user_id`` and ``event_id`` are always Matrix's.
* JSON is stored as text, exactly as it was written: PostgreSQL's ``jsonb`` reorders keys, which breaks
  signatures, and refuses NUL characters, which Matrix allows.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column declared INTEGER.
_serial = BigInteger().with_variant(Integer, "sqlite")


service = Table(
    "service",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
    comment="Facts about this installation: the homeserver it is for, the control room.",
)

tenants = Table(
    "tenants",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("tenant_id", String(64), nullable=False, comment="as given"),
    Column("name", Text, nullable=False),
    Column("settings", Text, nullable=False, comment="JSON"),
    Column("revision", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("tenant", String(64), nullable=False, comment="empty for a platform key"),
    Column("id", String(64), nullable=False),
    Column("scope", String(16), nullable=False, comment="platform or tenant"),
    Column("name", Text, nullable=False),
    Column("digest", String(64), nullable=False, comment="SHA-256 of the key, hex"),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("digest"),
)

users = Table(
    "users",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("id", String(64), nullable=False),
    Column("slug", String(255), nullable=False),
    Column("slug_key", String(255), nullable=False),
    Column("placeholder", Boolean, nullable=False, comment="named by a member list, never PUT"),
    Column("external_id", Text),
    Column("spec", Text, nullable=False, comment="JSON"),
    Column("as_of", BigInteger),
    Column("revision", BigInteger, nullable=False),
    Column("user_id", String(255), nullable=False),
    Column("registered_at", BigInteger, comment="when Synapse said that the account exists"),
    Column("profile_name", Text, comment="the display name Synapse has accepted last"),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("tenant", "slug_key"),
    UniqueConstraint("user_id"),
)

entities = Table(
    "entities",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("id", String(64), nullable=False),
    Column("kind", String(16), nullable=False, comment="event, group or direct"),
    Column("slug", String(511), nullable=False, comment="a direct room's: those of its two users"),
    Column("slug_key", String(511), nullable=False),
    Column("alias", String(255), comment="in full, by the template of its time; direct rooms have none"),
    Column("external_id", Text),
    Column("spec", Text, nullable=False, comment="JSON"),
    Column("as_of", BigInteger),
    Column("revision", BigInteger, nullable=False),
    Column("members_as_of", BigInteger),
    Column("members_revision", BigInteger, nullable=False),
    Column(
        "removals_confirmed",
        BigInteger,
        nullable=False,
        comment="the generation up to which a bulk removal was confirmed",
    ),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("archived_at", BigInteger),
    Column("members_listed", Boolean, nullable=False, default=False, comment="a whole list of members came"),
    Column(
        "former_alias",
        String(255),
        comment="in full: a former service may have made a room with it; until adopt has looked",
    ),
    Column("purge_at", BigInteger, comment="when it was asked to be deleted for good; it is archived too"),
    PrimaryKeyConstraint("tenant", "id"),
)
Index(
    "uq_entities_live",
    entities.c.tenant,
    entities.c.kind,
    entities.c.slug_key,
    unique=True,
    sqlite_where=text("archived_at IS NULL"),
    postgresql_where=text("archived_at IS NULL"),
)
Index("ix_entities_alias", entities.c.alias)
Index("ix_entities_slug", entities.c.tenant, entities.c.kind, entities.c.slug_key)

members = Table(
    "members",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("entity_ref", String(64), nullable=False),
    Column("user_ref", String(64), nullable=False),
    Column("role", String(16), nullable=False),
    Column("status", String(16), comment="an attendee's; groups have none"),
    Column("banned", Boolean, nullable=False, default=False),
    Column("muted", Boolean, nullable=False, default=False),
    PrimaryKeyConstraint("tenant", "entity_ref", "user_ref"),
    Index("ix_members_user", "tenant", "user_ref"),
)

sync = Table(
    "sync",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("subject", String(8), nullable=False, comment="user, entity or invite"),
    Column("ref", String(64), nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("observed_generation", BigInteger, nullable=False),
    Column("due_at", BigInteger, comment="NULL: nothing to do"),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, comment="JSON {code, detail, at, …}; NULL once Synapse agrees"),
    Column("announced", String(16), comment="what OpenMeet was told last: ready, lacking, …"),
    Column("memory", Text, comment="JSON; what the reconciler remembers of an entity's room"),
    Column("compared_at", BigInteger, comment="an entity's turn in the full check; NULL: it takes none"),
    Column("touches", BigInteger, nullable=False, default=0, comment="counts what made it due"),
    Column(
        "whole_touch",
        BigInteger,
        nullable=False,
        default=0,
        comment="the last of them after which not only single people have to be compared",
    ),
    Column("seen_touch", BigInteger, nullable=False, default=0, comment="the last that was dealt with"),
    Column("lease_until", BigInteger),
    Column("lease_epoch", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "subject", "ref"),
)
Index(
    "ix_sync_due",
    sync.c.due_at,
    sqlite_where=text("due_at IS NOT NULL"),
    postgresql_where=text("due_at IS NOT NULL"),
)
Index(
    "ix_sync_compared",
    sync.c.compared_at,
    sqlite_where=text("compared_at IS NOT NULL"),
    postgresql_where=text("compared_at IS NOT NULL"),
)

rooms = Table(
    "rooms",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("id", String(64), nullable=False),
    Column("entity_ref", String(64), nullable=False),
    Column("state", String(16), nullable=False, comment="see store.rooms"),
    Column("claim", String(64), nullable=False),
    Column("lock_alias", String(255), nullable=False, comment="sent with createRoom, in full"),
    Column("alias", String(255), comment="the public one that OpenMeet was told, in full"),
    Column("room_id", String(255)),
    Column("room_version", String(32)),
    Column("log_id", String(64), nullable=False),
    Column("replaces", String(64), comment="whose place it takes, until OpenMeet was told"),
    Column("last_sequence", BigInteger, nullable=False),
    Column("last_event_at", BigInteger, comment="when the newest event was stored"),
    Column(
        "complete_event_id",
        String(255),
        comment="the log holds everything of the room's history up to this event",
    ),
    Column(
        "checked_at",
        BigInteger,
        default=0,
        comment="when gap repair looked at it last; 0: never; NULL: it rests for good",
    ),
    Column(
        "check_lease_until",
        BigInteger,
        comment="until when somebody is checking it, or it is left alone; once that is past it is due",
    ),
    Column("check_error", String(64), comment="why it could not be read the last time: an errcode"),
    Column(
        "guarded",
        Boolean,
        nullable=False,
        default=False,
        comment="adopted, not enforced yet: nobody is removed or lowered",
    ),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("room_id"),
    Index("ix_rooms_entity", "tenant", "entity_ref"),
    Index("ix_rooms_claim", "claim"),
    Index("ix_rooms_alias", "alias"),
)
Index(
    "ix_rooms_checked_at",
    rooms.c.checked_at,
    sqlite_where=text("state = 'open'"),
    postgresql_where=text("state = 'open'"),
)
Index(
    "ix_rooms_check_lease",
    rooms.c.check_lease_until,
    sqlite_where=text("check_lease_until IS NOT NULL"),
    postgresql_where=text("check_lease_until IS NOT NULL"),
)
Index(
    "uq_rooms_in_use",
    rooms.c.tenant,
    rooms.c.entity_ref,
    unique=True,
    sqlite_where=text("state IN ('claimed', 'open')"),
    postgresql_where=text("state IN ('claimed', 'open')"),
)

room_events = Table(
    "room_events",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("room_ref", String(64), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("event_id", String(255), nullable=False),
    Column("type", Text, nullable=False, comment="NUL replaced; the body has it exactly"),
    Column("sender", Text, nullable=False),
    Column("origin", String(8), nullable=False, comment="openmeet or matrix"),
    Column("received_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False, comment="the client event, JSON"),
    Column(
        "repaired_after",
        String(255),
        comment="gap repair added it: the event it comes after, empty for none; NULL: Synapse pushed it",
    ),
    PrimaryKeyConstraint("tenant", "position"),
    UniqueConstraint("tenant", "event_id"),
    UniqueConstraint("tenant", "room_ref", "sequence"),
    # One tree less to write for each event: the rows are kept in the order of the primary key.
    sqlite_with_rowid=False,
)

held_events = Table(
    "held_events",
    metadata,
    Column("id", _serial, primary_key=True, autoincrement=True),
    Column("room_id", String(255), nullable=False),
    Column("event_id", String(255), nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    UniqueConstraint("room_id", "event_id"),
    Index("ix_held_events_received_at", "received_at"),
    comment="Events of rooms not known yet, in the order of their arrival.",
)

quarantine = Table(
    "quarantine",
    metadata,
    Column("id", _serial, primary_key=True, autoincrement=True),
    Column("received_at", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("body", Text, nullable=False),
    Index("ix_quarantine_received_at", "received_at"),
    comment="Elements of transactions that are no events, raw.",
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("tenant", String(64), nullable=False, comment="empty for the platform's"),
    Column("id", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False, comment="encrypted"),
    Column("old_secret", Text, comment="encrypted; signs as well until old_secret_until"),
    Column("old_secret_until", BigInteger),
    Column("headers", Text, comment="JSON, encrypted"),
    Column("types", Text, comment="JSON list of the types it takes; NULL: all"),
    Column(
        "takes_events", Boolean, nullable=False, default=True, comment="whether room.events is among them"
    ),
    Column(
        "every_tenant",
        Boolean,
        nullable=False,
        default=False,
        comment="the platform's: else endpoint_tenants tells",
    ),
    Column("max_batch", Integer),
    Column("max_batch_bytes", Integer),
    Column("on_exhausted", String(8), comment="park or skip; NULL: as configured"),
    Column("paused_at", BigInteger),
    Column("disabled_at", BigInteger, comment="when it answered 410"),
    Column("rest_until", BigInteger, comment="it asked to be left alone until then"),
    Column("breaker", String(12), nullable=False, default="closed", comment="closed, open or half_open"),
    Column("breaker_failures", Integer, nullable=False, default=0, comment="in a row, from changing rooms"),
    Column("breaker_room", String(64), comment="the room of the last failure"),
    Column("breaker_until", BigInteger, comment="open: when to probe; half_open: when the probe ends"),
    Column(
        "breaker_opens",
        Integer,
        nullable=False,
        default=0,
        comment="how often it opened without a success since",
    ),
    Column("revision", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("tenant", "name"),
)

endpoint_tenants = Table(
    "endpoint_tenants",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("endpoint_ref", String(64), nullable=False),
    PrimaryKeyConstraint("tenant", "endpoint_ref"),
    Index("ix_endpoint_tenants_endpoint", "endpoint_ref"),
    comment="Whose events a platform endpoint gets that does not get every tenant's.",
)

lanes = Table(
    "lanes",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("endpoint_ref", String(64), nullable=False),
    Column("room_ref", String(64), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("began_after", BigInteger, nullable=False, comment="what came up to here was never meant for it"),
    Column("acked_sequence", BigInteger, nullable=False, comment="the last one OpenMeet took"),
    Column("due_at", BigInteger, comment="NULL: nothing to send, or parked"),
    Column("attempts", Integer, nullable=False, comment="of the batch under way"),
    Column(
        "refusals", Integer, nullable=False, default=0, comment="how many of them were answered 400 or 422"
    ),
    Column("narrow", Integer, comment="no more events than this in a batch"),
    Column("narrow_through", BigInteger, comment="up to this sequence"),
    Column("parked_at", BigInteger),
    Column("waiting_since", BigInteger, comment="when the oldest event not taken came in"),
    Column("lease_until", BigInteger),
    Column("lease_epoch", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "endpoint_ref", "room_ref"),
)
Index(
    "ix_lanes_due",
    lanes.c.owner,
    lanes.c.endpoint_ref,
    lanes.c.due_at,
    sqlite_where=text("due_at IS NOT NULL"),
    postgresql_where=text("due_at IS NOT NULL"),
)
Index(
    "ix_lanes_waiting",
    lanes.c.owner,
    lanes.c.endpoint_ref,
    lanes.c.waiting_since,
    sqlite_where=text("waiting_since IS NOT NULL"),
    postgresql_where=text("waiting_since IS NOT NULL"),
)
Index(
    "ix_lanes_parked",
    lanes.c.owner,
    lanes.c.endpoint_ref,
    sqlite_where=text("parked_at IS NOT NULL"),
    postgresql_where=text("parked_at IS NOT NULL"),
)

batches = Table(
    "batches",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("endpoint_ref", String(64), nullable=False),
    Column("room_ref", String(64), nullable=False),
    Column("webhook_id", String(64), nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("body", Text, nullable=False, comment="exactly as it is signed"),
    Column("replay_ref", String(64), comment="the replay that it is a part of; NULL: new events"),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "endpoint_ref", "room_ref"),
    comment="The batch of each lane that is under way; every retry sends the same bytes.",
)

replays = Table(
    "replays",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("endpoint_ref", String(64), nullable=False),
    Column("room_ref", String(64), nullable=False),
    Column("id", String(64), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("next_sequence", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "endpoint_ref", "room_ref", "id"),
    Index("ix_replays_endpoint", "owner", "endpoint_ref"),
    comment="Events that a lane has passed and shall send again.",
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("owner", String(64), nullable=False),
    Column("endpoint_ref", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("id", String(64), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("room_ref", String(64), nullable=False),
    Column("first_sequence", BigInteger, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("reason", String(16), nullable=False, comment="refused, exhausted or truncated"),
    Column("detail", Text, nullable=False),
    PrimaryKeyConstraint("owner", "endpoint_ref", "at", "id"),
    Index("ix_dead_letters_room", "owner", "endpoint_ref", "tenant", "room_ref"),
    comment="Events that were given up for an endpoint; they stay in the log.",
)

notices = Table(
    "notices",
    metadata,
    Column("owner", String(64), nullable=False),
    Column("endpoint_ref", String(64), nullable=False),
    Column("id", String(64), nullable=False, comment="the webhook-id"),
    Column("tenant", String(64), nullable=False, comment="empty where it is no tenant's"),
    Column("type", String(64), nullable=False),
    Column("body", Text, nullable=False, comment="exactly as it is signed"),
    Column("created_at", BigInteger, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("lease_until", BigInteger),
    Column("lease_epoch", BigInteger, nullable=False),
    PrimaryKeyConstraint("owner", "endpoint_ref", "id"),
    Index("ix_notices_due", "owner", "endpoint_ref", "due_at"),
    comment="Operational webhooks that an endpoint has not taken yet; each goes by itself.",
)

delivery_attempts = Table(
    "delivery_attempts",
    metadata,
    Column("owner", String(64), nullable=False),
    Column("endpoint_ref", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("id", String(64), nullable=False),
    Column("tenant", String(64), nullable=False),
    Column("webhook_id", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("room_ref", String(64)),
    Column("first_sequence", BigInteger),
    Column("last_sequence", BigInteger),
    Column("outcome", String(32), nullable=False),
    Column("status", Integer, comment="NULL where nobody answered"),
    Column("milliseconds", BigInteger, nullable=False),
    Column("answer", Text, comment="how the answer began"),
    PrimaryKeyConstraint("owner", "endpoint_ref", "at", "id"),
    sqlite_with_rowid=False,
)

messages = Table(
    "messages",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("id", String(64), nullable=False, comment='content["net.openmeet.id"]'),
    Column("room_ref", String(64), nullable=False),
    Column("user_ref", String(64), nullable=False),
    Column("transaction_id", String(64), nullable=False),
    Column("content", Text, comment="JSON; dropped once it is sent"),
    Column("event_id", String(255)),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    Index("ix_messages_created_at", "created_at"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant", String(64), nullable=False, comment="empty outside tenants"),
    Column("route", Text, nullable=False, comment="method and path"),
    Column("key", String(255), nullable=False),
    Column("body_digest", String(64), nullable=False),
    Column("status", Integer, comment="NULL while the first request runs"),
    Column("response", Text, comment="NULL where it held a secret"),
    Column("created_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "route", "key"),
    Index("ix_idempotency_keys_created_at", "created_at"),
)

former_slugs = Table(
    "former_slugs",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("entity_ref", String(64), nullable=False),
    Column("alias", String(255), nullable=False, comment="in full"),
    Column("kind", String(16), nullable=False),
    Column("slug_key", String(255), nullable=False),
    Column("kept", Boolean, nullable=False, comment="else it is only still to be taken off the room"),
    PrimaryKeyConstraint("tenant", "entity_ref", "alias"),
    Index("ix_former_slugs_alias", "alias"),
    comment="What events and groups were called before, and the aliases that still lead to their rooms.",
)
Index(
    "uq_former_slugs_kept",
    former_slugs.c.tenant,
    former_slugs.c.kind,
    former_slugs.c.slug_key,
    unique=True,
    sqlite_where=text("kept"),
    postgresql_where=text("kept"),
)

imports = Table(
    "imports",
    metadata,
    Column("digest", String(64), primary_key=True, comment="of the file and how it is to be read"),
    Column("line", BigInteger, nullable=False, comment="the last one that was done"),
    Column("bytes", BigInteger, nullable=False, comment="where the next one begins"),
    Column("counts", Text, nullable=False, comment="JSON"),
    Column("updated_at", BigInteger, nullable=False),
    comment="How far a file was imported; gone once that was told.",
)

import_refusals = Table(
    "import_refusals",
    metadata,
    Column("digest", String(64), nullable=False),
    Column("line", BigInteger, nullable=False),
    Column("code", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    PrimaryKeyConstraint("digest", "line"),
    comment="The lines of a file that were refused, until that was told.",
)

pictures = Table(
    "pictures",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("url_hash", String(64), nullable=False, comment="SHA-256 of the URL, which may be long"),
    Column("url", Text, nullable=False),
    Column("mxc", String(255), comment="what was uploaded last; NULL before"),
    Column("content_hash", String(64), comment="SHA-256 of that"),
    Column("etag", Text),
    Column("last_modified", Text),
    Column("due_at", BigInteger, comment="NULL: nothing to do"),
    Column("attempts", Integer, nullable=False),
    Column("error", Text, comment="JSON {code, detail, at}; NULL once it was fetched"),
    Column("used_at", BigInteger, nullable=False, comment="when somebody began to use it last"),
    Column("lease_until", BigInteger),
    Column("lease_epoch", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "url_hash"),
    Index("ix_pictures_content", "tenant", "content_hash"),
    comment="Pictures that OpenMeet names by a URL, and what they are on the homeserver.",
)
Index(
    "ix_pictures_due",
    pictures.c.due_at,
    sqlite_where=text("due_at IS NOT NULL"),
    postgresql_where=text("due_at IS NOT NULL"),
)

picture_uses = Table(
    "picture_uses",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("subject", String(8), nullable=False, comment="user or entity"),
    Column("ref", String(64), nullable=False),
    Column("url_hash", String(64), nullable=False),
    PrimaryKeyConstraint("tenant", "subject", "ref"),
    Index("ix_picture_uses_picture", "tenant", "url_hash"),
    comment="Whose picture it is, so that they are compared again once it was fetched.",
)

invitations = Table(
    "invitations",
    metadata,
    Column("tenant", String(64), nullable=False),
    Column("id", String(64), nullable=False),
    Column("user_ref", String(64), nullable=False, comment="who was invited"),
    Column("room_id", String(255), nullable=False),
    Column("inviter", String(255), nullable=False, comment="a user id"),
    Column("direct", Boolean, nullable=False, comment="whether it is to a direct chat"),
    Column("received_at", BigInteger, nullable=False),
    PrimaryKeyConstraint("tenant", "id"),
    UniqueConstraint("tenant", "user_ref", "room_id"),
    comment="Invitations of puppets into rooms that are not ours, until they are answered.",
)
