"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make every table."""
    op.create_table(
        "alias_lookups",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("slug_key", sa.String(length=255), nullable=False),
        sa.Column(
            "wait_until",
            sa.BigInteger(),
            nullable=False,
            comment="until when somebody waits for the answer",
        ),
        sa.Column(
            "absent_at",
            sa.BigInteger(),
            nullable=True,
            comment="when OpenMeet said that there is no such thing",
        ),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("tenant", "kind", "slug_key", name=op.f("pk_alias_lookups")),
        comment="Aliases that somebody looks for and nobody has provisioned; each for a minute or so.",
    )
    op.create_table(
        "api_keys",
        sa.Column("tenant", sa.String(length=64), nullable=False, comment="empty for a platform key"),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False, comment="platform or tenant"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False, comment="SHA-256 of the key, hex"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("digest", name=op.f("uq_api_keys_digest")),
    )
    op.create_table(
        "batches",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint_ref", sa.String(length=64), nullable=False),
        sa.Column("room_ref", sa.String(length=64), nullable=False),
        sa.Column("webhook_id", sa.String(length=64), nullable=False),
        sa.Column("first_sequence", sa.BigInteger(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False, comment="exactly as it is signed"),
        sa.Column(
            "replay_ref",
            sa.String(length=64),
            nullable=True,
            comment="the replay that it is a part of; NULL: new events",
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "endpoint_ref", "room_ref", name=op.f("pk_batches")),
        comment="The batch of each lane that is under way; every retry sends the same bytes.",
    )
    op.create_table(
        "dead_letters",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("endpoint_ref", sa.String(length=64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("room_ref", sa.String(length=64), nullable=False),
        sa.Column("first_sequence", sa.BigInteger(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False, comment="refused, exhausted or truncated"),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "endpoint_ref", "at", "id", name=op.f("pk_dead_letters")),
        comment="Events that were given up for an endpoint; they stay in the log.",
    )
    op.create_index(
        "ix_dead_letters_room",
        "dead_letters",
        ["owner", "endpoint_ref", "tenant", "room_ref"],
        unique=False,
    )
    op.create_table(
        "delivery_attempts",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("endpoint_ref", sa.String(length=64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("webhook_id", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("room_ref", sa.String(length=64), nullable=True),
        sa.Column("first_sequence", sa.BigInteger(), nullable=True),
        sa.Column("last_sequence", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.String(length=32), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True, comment="NULL where nobody answered"),
        sa.Column("milliseconds", sa.BigInteger(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=True, comment="how the answer began"),
        sa.PrimaryKeyConstraint("owner", "endpoint_ref", "at", "id", name=op.f("pk_delivery_attempts")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "endpoint_tenants",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint_ref", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "endpoint_ref", name=op.f("pk_endpoint_tenants")),
        comment="Whose events a platform endpoint gets that does not get every tenant's.",
    )
    op.create_index("ix_endpoint_tenants_endpoint", "endpoint_tenants", ["endpoint_ref"], unique=False)
    op.create_table(
        "endpoints",
        sa.Column("tenant", sa.String(length=64), nullable=False, comment="empty for the platform's"),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False, comment="encrypted"),
        sa.Column(
            "old_secret", sa.Text(), nullable=True, comment="encrypted; signs as well until old_secret_until"
        ),
        sa.Column("old_secret_until", sa.BigInteger(), nullable=True),
        sa.Column("headers", sa.Text(), nullable=True, comment="JSON, encrypted"),
        sa.Column("types", sa.Text(), nullable=True, comment="JSON list of the types it takes; NULL: all"),
        sa.Column("takes_events", sa.Boolean(), nullable=False, comment="whether room.events is among them"),
        sa.Column(
            "every_tenant",
            sa.Boolean(),
            nullable=False,
            comment="the platform's: else endpoint_tenants tells",
        ),
        sa.Column("max_batch", sa.Integer(), nullable=True),
        sa.Column("max_batch_bytes", sa.Integer(), nullable=True),
        sa.Column(
            "on_exhausted", sa.String(length=8), nullable=True, comment="park or skip; NULL: as configured"
        ),
        sa.Column("paused_at", sa.BigInteger(), nullable=True),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True, comment="when it answered 410"),
        sa.Column(
            "rest_until", sa.BigInteger(), nullable=True, comment="it asked to be left alone until then"
        ),
        sa.Column("breaker", sa.String(length=12), nullable=False, comment="closed, open or half_open"),
        sa.Column("breaker_failures", sa.Integer(), nullable=False, comment="in a row, from changing rooms"),
        sa.Column(
            "breaker_room", sa.String(length=64), nullable=True, comment="the room of the last failure"
        ),
        sa.Column(
            "breaker_until",
            sa.BigInteger(),
            nullable=True,
            comment="open: when to probe; half_open: when the probe ends",
        ),
        sa.Column(
            "breaker_opens",
            sa.Integer(),
            nullable=False,
            comment="how often it opened without a success since",
        ),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_endpoints")),
        sa.UniqueConstraint("tenant", "name", name=op.f("uq_endpoints_tenant_name")),
    )
    op.create_table(
        "entities",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="event, group or direct"),
        sa.Column(
            "slug", sa.String(length=511), nullable=False, comment="a direct room's: those of its two users"
        ),
        sa.Column("slug_key", sa.String(length=511), nullable=False),
        sa.Column(
            "alias",
            sa.String(length=255),
            nullable=True,
            comment="in full, by the template of its time; direct rooms have none",
        ),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("spec", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("as_of", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("members_as_of", sa.BigInteger(), nullable=True),
        sa.Column("members_revision", sa.BigInteger(), nullable=False),
        sa.Column(
            "removals_confirmed",
            sa.BigInteger(),
            nullable=False,
            comment="the generation up to which a bulk removal was confirmed",
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("archived_at", sa.BigInteger(), nullable=True),
        sa.Column("members_listed", sa.Boolean(), nullable=False, comment="a whole list of members came"),
        sa.Column(
            "former_alias",
            sa.String(length=255),
            nullable=True,
            comment="in full: a former service may have made a room with it; until adopt has looked",
        ),
        sa.Column(
            "purge_at",
            sa.BigInteger(),
            nullable=True,
            comment="when it was asked to be deleted for good; it is archived too",
        ),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_entities")),
    )
    op.create_index("ix_entities_alias", "entities", ["alias"], unique=False)
    op.create_index("ix_entities_slug", "entities", ["tenant", "kind", "slug_key"], unique=False)
    op.create_index(
        "uq_entities_live",
        "entities",
        ["tenant", "kind", "slug_key"],
        unique=True,
        sqlite_where=sa.text("archived_at IS NULL"),
        postgresql_where=sa.text("archived_at IS NULL"),
    )
    op.create_table(
        "former_slugs",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("entity_ref", sa.String(length=64), nullable=False),
        sa.Column("alias", sa.String(length=255), nullable=False, comment="in full"),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("slug_key", sa.String(length=255), nullable=False),
        sa.Column(
            "kept", sa.Boolean(), nullable=False, comment="else it is only still to be taken off the room"
        ),
        sa.PrimaryKeyConstraint("tenant", "entity_ref", "alias", name=op.f("pk_former_slugs")),
        comment="What events and groups were called before, and the aliases that still lead to their rooms.",
    )
    op.create_index("ix_former_slugs_alias", "former_slugs", ["alias"], unique=False)
    op.create_index(
        "uq_former_slugs_kept",
        "former_slugs",
        ["tenant", "kind", "slug_key"],
        unique=True,
        sqlite_where=sa.text("kept"),
        postgresql_where=sa.text("kept"),
    )
    op.create_table(
        "gone",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("entity_ref", sa.String(length=64), nullable=False),
        sa.Column("missing_since", sa.BigInteger(), nullable=False),
        sa.Column(
            "held_at",
            sa.BigInteger(),
            nullable=True,
            comment="since when it is not archived because too many would be",
        ),
        sa.Column("archived_at", sa.BigInteger(), nullable=True, comment="when it was archived for it"),
        sa.PrimaryKeyConstraint("tenant", "entity_ref", name=op.f("pk_gone")),
        comment="Events and groups that look-ups did not find.",
    )
    op.create_table(
        "held_events",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("room_id", sa.String(length=255), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_held_events")),
        sa.UniqueConstraint("room_id", "event_id", name=op.f("uq_held_events_room_id_event_id")),
        comment="Events of rooms not known yet, in the order of their arrival.",
    )
    op.create_index("ix_held_events_received_at", "held_events", ["received_at"], unique=False)
    op.create_table(
        "hints",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False, comment="user, event or group"),
        sa.Column("slug_key", sa.String(length=255), nullable=False),
        sa.Column(
            "user_key", sa.String(length=255), nullable=False, comment="only this member; empty: all of it"
        ),
        sa.Column("slug", sa.String(length=255), nullable=False),
        sa.Column("user", sa.String(length=255), nullable=True, comment="the member's slug as given"),
        sa.Column(
            "previous_slug",
            sa.String(length=255),
            nullable=True,
            comment="what it was called before, as a hint said",
        ),
        sa.Column("deleted", sa.Boolean(), nullable=False, comment="a hint said so"),
        sa.Column(
            "hinted_at",
            sa.BigInteger(),
            nullable=True,
            comment="when OpenMeet hinted last; NULL: it is asked about in turn",
        ),
        sa.Column("version", sa.BigInteger(), nullable=False, comment="counts the hints"),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "kind", "slug_key", "user_key", name=op.f("pk_hints")),
        comment="What OpenMeet is to be asked about: after a hint, and in turn.",
    )
    op.create_index("ix_hints_due", "hints", ["due_at"], unique=False)
    op.create_index(
        "ix_hints_hinted",
        "hints",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("hinted_at IS NOT NULL"),
        postgresql_where=sa.text("hinted_at IS NOT NULL"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant", sa.String(length=64), nullable=False, comment="empty outside tenants"),
        sa.Column("route", sa.Text(), nullable=False, comment="method and path"),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("body_digest", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True, comment="NULL while the first request runs"),
        sa.Column("response", sa.Text(), nullable=True, comment="NULL where it held a secret"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "route", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("ix_idempotency_keys_created_at", "idempotency_keys", ["created_at"], unique=False)
    op.create_table(
        "import_refusals",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("line", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("digest", "line", name=op.f("pk_import_refusals")),
        comment="The lines of a file that were refused, until that was told.",
    )
    op.create_table(
        "imports",
        sa.Column(
            "digest", sa.String(length=64), nullable=False, comment="of the file and how it is to be read"
        ),
        sa.Column("line", sa.BigInteger(), nullable=False, comment="the last one that was done"),
        sa.Column("bytes", sa.BigInteger(), nullable=False, comment="where the next one begins"),
        sa.Column("counts", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_imports")),
        comment="How far a file was imported; gone once that was told.",
    )
    op.create_table(
        "invitations",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("user_ref", sa.String(length=64), nullable=False, comment="who was invited"),
        sa.Column("room_id", sa.String(length=255), nullable=False),
        sa.Column("inviter", sa.String(length=255), nullable=False, comment="a user id"),
        sa.Column("direct", sa.Boolean(), nullable=False, comment="whether it is to a direct chat"),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_invitations")),
        sa.UniqueConstraint(
            "tenant", "user_ref", "room_id", name=op.f("uq_invitations_tenant_user_ref_room_id")
        ),
        comment="Invitations of puppets into rooms that are not ours, until they are answered.",
    )
    op.create_table(
        "lanes",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint_ref", sa.String(length=64), nullable=False),
        sa.Column("room_ref", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column(
            "began_after",
            sa.BigInteger(),
            nullable=False,
            comment="what came up to here was never meant for it",
        ),
        sa.Column("acked_sequence", sa.BigInteger(), nullable=False, comment="the last one OpenMeet took"),
        sa.Column("due_at", sa.BigInteger(), nullable=True, comment="NULL: nothing to send, or parked"),
        sa.Column("attempts", sa.Integer(), nullable=False, comment="of the batch under way"),
        sa.Column(
            "refusals", sa.Integer(), nullable=False, comment="how many of them were answered 400 or 422"
        ),
        sa.Column("narrow", sa.Integer(), nullable=True, comment="no more events than this in a batch"),
        sa.Column("narrow_through", sa.BigInteger(), nullable=True, comment="up to this sequence"),
        sa.Column("parked_at", sa.BigInteger(), nullable=True),
        sa.Column(
            "waiting_since", sa.BigInteger(), nullable=True, comment="when the oldest event not taken came in"
        ),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "endpoint_ref", "room_ref", name=op.f("pk_lanes")),
    )
    op.create_index(
        "ix_lanes_due",
        "lanes",
        ["owner", "endpoint_ref", "due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_lanes_waiting",
        "lanes",
        ["owner", "endpoint_ref", "waiting_since"],
        unique=False,
        sqlite_where=sa.text("waiting_since IS NOT NULL"),
        postgresql_where=sa.text("waiting_since IS NOT NULL"),
    )
    op.create_index(
        "ix_lanes_parked",
        "lanes",
        ["owner", "endpoint_ref"],
        unique=False,
        sqlite_where=sa.text("parked_at IS NOT NULL"),
        postgresql_where=sa.text("parked_at IS NOT NULL"),
    )
    op.create_table(
        "member_checks",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("entity_ref", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column(
            "was",
            sa.Text(),
            nullable=True,
            comment="JSON: the standing when Synapse last agreed, null for none; NULL: not known",
        ),
        sa.Column("touch", sa.BigInteger(), nullable=False, comment="that of sync at the last change"),
        sa.PrimaryKeyConstraint("tenant", "entity_ref", "user_id", name=op.f("pk_member_checks")),
        comment="Those of whom alone it is to be seen whether they are inside as they should be.",
    )
    op.create_table(
        "member_errors",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("entity_ref", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "entity_ref", "user_id", name=op.f("pk_member_errors")),
        comment="What the homeserver refused about single people, until it agrees.",
    )
    op.create_table(
        "member_kicks",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("entity_ref", sa.String(length=64), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "entity_ref", "user_id", "at", name=op.f("pk_member_kicks")),
        comment="Whom the service has removed in the last hour, for those who come back again and again.",
    )
    op.create_index("ix_member_kicks_at", "member_kicks", ["tenant", "at"], unique=False)
    op.create_table(
        "members",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("entity_ref", sa.String(length=64), nullable=False),
        sa.Column("user_ref", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=True, comment="an attendee's; groups have none"),
        sa.Column("banned", sa.Boolean(), nullable=False),
        sa.Column("muted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "entity_ref", "user_ref", name=op.f("pk_members")),
    )
    op.create_index("ix_members_user", "members", ["tenant", "user_ref"], unique=False)
    op.create_table(
        "messages",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False, comment='content["net.openmeet.id"]'),
        sa.Column("room_ref", sa.String(length=64), nullable=False),
        sa.Column("user_ref", sa.String(length=64), nullable=False),
        sa.Column("transaction_id", sa.String(length=64), nullable=False),
        sa.Column("content", sa.Text(), nullable=True, comment="JSON; dropped once it is sent"),
        sa.Column("event_id", sa.String(length=255), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_messages")),
    )
    op.create_index("ix_messages_created_at", "messages", ["created_at"], unique=False)
    op.create_table(
        "notices",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("endpoint_ref", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False, comment="the webhook-id"),
        sa.Column("tenant", sa.String(length=64), nullable=False, comment="empty where it is no tenant's"),
        sa.Column("type", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False, comment="exactly as it is signed"),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("owner", "endpoint_ref", "id", name=op.f("pk_notices")),
        comment="Operational webhooks that an endpoint has not taken yet; each goes by itself.",
    )
    op.create_index("ix_notices_due", "notices", ["owner", "endpoint_ref", "due_at"], unique=False)
    op.create_table(
        "quarantine",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quarantine")),
        comment="Elements of transactions that are no events, raw.",
    )
    op.create_index("ix_quarantine_received_at", "quarantine", ["received_at"], unique=False)
    op.create_table(
        "replays",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("endpoint_ref", sa.String(length=64), nullable=False),
        sa.Column("room_ref", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("next_sequence", sa.BigInteger(), nullable=False),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "endpoint_ref", "room_ref", "id", name=op.f("pk_replays")),
        comment="Events that a lane has passed and shall send again.",
    )
    op.create_index("ix_replays_endpoint", "replays", ["owner", "endpoint_ref"], unique=False)
    op.create_table(
        "room_events",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("room_ref", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.String(length=255), nullable=False),
        sa.Column("type", sa.Text(), nullable=False, comment="NUL replaced; the body has it exactly"),
        sa.Column("sender", sa.Text(), nullable=False),
        sa.Column("origin", sa.String(length=8), nullable=False, comment="openmeet or matrix"),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False, comment="the client event, JSON"),
        sa.Column(
            "repaired_after",
            sa.String(length=255),
            nullable=True,
            comment="gap repair added it: the event it comes after, empty for none; NULL: Synapse pushed it",
        ),
        sa.PrimaryKeyConstraint("tenant", "position", name=op.f("pk_room_events")),
        sa.UniqueConstraint("tenant", "event_id", name=op.f("uq_room_events_tenant_event_id")),
        sa.UniqueConstraint(
            "tenant", "room_ref", "sequence", name=op.f("uq_room_events_tenant_room_ref_sequence")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rooms",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("entity_ref", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False, comment="see store.rooms"),
        sa.Column("claim", sa.String(length=64), nullable=False),
        sa.Column(
            "lock_alias", sa.String(length=255), nullable=False, comment="sent with createRoom, in full"
        ),
        sa.Column(
            "alias",
            sa.String(length=255),
            nullable=True,
            comment="the public one that OpenMeet was told, in full",
        ),
        sa.Column("room_id", sa.String(length=255), nullable=True),
        sa.Column("room_version", sa.String(length=32), nullable=True),
        sa.Column("log_id", sa.String(length=64), nullable=False),
        sa.Column(
            "replaces",
            sa.String(length=64),
            nullable=True,
            comment="whose place it takes, until OpenMeet was told",
        ),
        sa.Column("last_sequence", sa.BigInteger(), nullable=False),
        sa.Column(
            "last_event_at", sa.BigInteger(), nullable=True, comment="when the newest event was stored"
        ),
        sa.Column(
            "complete_event_id",
            sa.String(length=255),
            nullable=True,
            comment="the log holds everything of the room's history up to this event",
        ),
        sa.Column(
            "checked_at",
            sa.BigInteger(),
            nullable=True,
            comment="when gap repair looked at it last; 0: never; NULL: it rests for good",
        ),
        sa.Column(
            "check_lease_until",
            sa.BigInteger(),
            nullable=True,
            comment="until when somebody is checking it, or it is left alone; once that is past it is due",
        ),
        sa.Column(
            "check_error",
            sa.String(length=64),
            nullable=True,
            comment="why it could not be read the last time: an errcode",
        ),
        sa.Column(
            "guarded",
            sa.Boolean(),
            nullable=False,
            comment="adopted, not enforced yet: nobody is removed or lowered",
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_rooms")),
        sa.UniqueConstraint("room_id", name=op.f("uq_rooms_room_id")),
    )
    op.create_index("ix_rooms_alias", "rooms", ["alias"], unique=False)
    op.create_index(
        "ix_rooms_check_lease",
        "rooms",
        ["check_lease_until"],
        unique=False,
        sqlite_where=sa.text("check_lease_until IS NOT NULL"),
        postgresql_where=sa.text("check_lease_until IS NOT NULL"),
    )
    op.create_index(
        "ix_rooms_checked_at",
        "rooms",
        ["checked_at"],
        unique=False,
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index("ix_rooms_claim", "rooms", ["claim"], unique=False)
    op.create_index("ix_rooms_entity", "rooms", ["tenant", "entity_ref"], unique=False)
    op.create_index(
        "uq_rooms_in_use",
        "rooms",
        ["tenant", "entity_ref"],
        unique=True,
        sqlite_where=sa.text("state IN ('claimed', 'open')"),
        postgresql_where=sa.text("state IN ('claimed', 'open')"),
    )
    op.create_table(
        "service",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_service")),
        comment="Facts about this installation: the homeserver it is for, the control room.",
    )
    op.create_table(
        "sync",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=8), nullable=False, comment="user, entity or invite"),
        sa.Column("ref", sa.String(length=64), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("observed_generation", sa.BigInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=True, comment="NULL: nothing to do"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column(
            "error", sa.Text(), nullable=True, comment="JSON {code, detail, at, …}; NULL once Synapse agrees"
        ),
        sa.Column(
            "announced",
            sa.String(length=16),
            nullable=True,
            comment="what OpenMeet was told last: ready, lacking, …",
        ),
        sa.Column(
            "memory",
            sa.Text(),
            nullable=True,
            comment="JSON; what the reconciler remembers of an entity's room",
        ),
        sa.Column(
            "compared_at",
            sa.BigInteger(),
            nullable=True,
            comment="an entity's turn in the full check; NULL: it takes none",
        ),
        sa.Column("touches", sa.BigInteger(), nullable=False, comment="counts what made it due"),
        sa.Column(
            "whole_touch",
            sa.BigInteger(),
            nullable=False,
            comment="the last of them after which not only single people have to be compared",
        ),
        sa.Column("seen_touch", sa.BigInteger(), nullable=False, comment="the last that was dealt with"),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "subject", "ref", name=op.f("pk_sync")),
    )
    op.create_index(
        "ix_sync_due",
        "sync",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_sync_compared",
        "sync",
        ["compared_at"],
        unique=False,
        sqlite_where=sa.text("compared_at IS NOT NULL"),
        postgresql_where=sa.text("compared_at IS NOT NULL"),
    )
    op.create_table(
        "tenants",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("tenant_id", sa.String(length=64), nullable=False, comment="as given"),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("last_position", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_tenants")),
    )
    op.create_table(
        "users",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("slug", sa.String(length=255), nullable=False),
        sa.Column("slug_key", sa.String(length=255), nullable=False),
        sa.Column("placeholder", sa.Boolean(), nullable=False, comment="named by a member list, never PUT"),
        sa.Column("external_id", sa.Text(), nullable=True),
        sa.Column("spec", sa.Text(), nullable=False, comment="JSON"),
        sa.Column("as_of", sa.BigInteger(), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("user_id", sa.String(length=255), nullable=False),
        sa.Column(
            "registered_at",
            sa.BigInteger(),
            nullable=True,
            comment="when Synapse said that the account exists",
        ),
        sa.Column(
            "profile_name", sa.Text(), nullable=True, comment="the display name Synapse has accepted last"
        ),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name=op.f("pk_users")),
        sa.UniqueConstraint("tenant", "slug_key", name=op.f("uq_users_tenant_slug_key")),
        sa.UniqueConstraint("user_id", name=op.f("uq_users_user_id")),
    )
    op.create_table(
        "pictures",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column(
            "url_hash", sa.String(length=64), nullable=False, comment="SHA-256 of the URL, which may be long"
        ),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("mxc", sa.String(length=255), nullable=True, comment="what was uploaded last; NULL before"),
        sa.Column("content_hash", sa.String(length=64), nullable=True, comment="SHA-256 of that"),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("last_modified", sa.Text(), nullable=True),
        sa.Column("due_at", sa.BigInteger(), nullable=True, comment="NULL: nothing to do"),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column(
            "error", sa.Text(), nullable=True, comment="JSON {code, detail, at}; NULL once it was fetched"
        ),
        sa.Column("used_at", sa.BigInteger(), nullable=False, comment="when somebody began to use it last"),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("lease_epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "url_hash", name=op.f("pk_pictures")),
        comment="Pictures that OpenMeet names by a URL, and what they are on the homeserver.",
    )
    op.create_index("ix_pictures_content", "pictures", ["tenant", "content_hash"], unique=False)
    op.create_index(
        "ix_pictures_due",
        "pictures",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("due_at IS NOT NULL"),
        postgresql_where=sa.text("due_at IS NOT NULL"),
    )
    op.create_table(
        "picture_uses",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=8), nullable=False, comment="user or entity"),
        sa.Column("ref", sa.String(length=64), nullable=False),
        sa.Column("url_hash", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "subject", "ref", name=op.f("pk_picture_uses")),
        comment="Whose picture it is, so that they are compared again once it was fetched.",
    )
    op.create_index("ix_picture_uses_picture", "picture_uses", ["tenant", "url_hash"], unique=False)
