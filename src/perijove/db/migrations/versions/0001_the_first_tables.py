"""The first tables

Revision: 0001, the first.
"""

import sqlalchemy as sa
from alembic import op

from perijove.db.types import Id, Instant, Json

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_events",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target", sa.String(length=255), nullable=False),
        sa.Column("params", Json, nullable=False),
        sa.Column("token_id", Id, nullable=True),
        sa.Column("address", sa.String(length=64), server_default="", nullable=False),
        sa.Column("request_id", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
    )
    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_events_at"), ["at"], unique=False)

    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "groups",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("properties", Json, server_default=sa.text("'{}'"), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
        sa.UniqueConstraint("name", name=op.f("uq_groups_name")),
    )
    op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("hearing_since", Instant(), nullable=False),
        sa.Column("heard_until", Instant(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_installation_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("token", sa.String(length=40), nullable=False),
        sa.Column("until", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "orphans",
        sa.Column("spawner", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("first_seen_at", Instant(), nullable=False),
        sa.Column("owner", sa.String(length=255), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("spawner", "name", name=op.f("pk_orphans")),
    )
    op.create_table(
        "policies",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("retired_at", Instant(), nullable=True),
        sa.CheckConstraint(
            "source IN ('builtin', 'file', 'browser')", name=op.f("ck_policies_source")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
        sa.UniqueConstraint("name", name=op.f("uq_policies_name")),
    )
    op.create_table(
        "profiles",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("retired_at", Instant(), nullable=True),
        sa.CheckConstraint(
            "source IN ('builtin', 'file', 'browser')", name=op.f("ck_profiles_source")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_profiles")),
        sa.UniqueConstraint("name", name=op.f("uq_profiles_name")),
    )
    op.create_table(
        "proxy_workers",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proxy_workers")),
    )
    op.create_table(
        "roles",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("description", sa.Text(), server_default="", nullable=False),
        sa.Column("scopes", Json, nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.CheckConstraint(
            "source IN ('builtin', 'file', 'browser')", name=op.f("ck_roles_source")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roles")),
        sa.UniqueConstraint("name", name=op.f("uq_roles_name")),
    )
    op.create_table(
        "routes",
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("prefix", sa.String(length=1023), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("launch_id", sa.String(length=40), nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("removed_at", Instant(), nullable=True),
        sa.PrimaryKeyConstraint("host", "prefix", name=op.f("pk_routes")),
    )
    with op.batch_alter_table("routes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_routes_launch_id"), ["launch_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_routes_revision"), ["revision"], unique=False)

    op.create_table(
        "services",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("admin", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.CheckConstraint(
            "source IN ('builtin', 'file', 'browser')", name=op.f("ck_services_source")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_services")),
        sa.UniqueConstraint("name", name=op.f("uq_services_name")),
    )
    op.create_table(
        "signin_failures",
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_signin_failures")),
    )
    op.create_table(
        "spawner_states",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("answered_at", Instant(), nullable=True),
        sa.Column("complete_at", Instant(), nullable=True),
        sa.Column("failing_since", Instant(), nullable=True),
        sa.Column("answering_since", Instant(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("breaker_since", Instant(), nullable=True),
        sa.Column("breaker_count", sa.Integer(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_spawner_states")),
    )
    op.create_table(
        "unknown_volumes",
        sa.Column("spawner", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("used_bytes", sa.BigInteger(), nullable=True),
        sa.Column("labels", Json, nullable=False),
        sa.Column("first_seen_at", Instant(), nullable=False),
        sa.PrimaryKeyConstraint("spawner", "name", name=op.f("pk_unknown_volumes")),
    )
    op.create_table(
        "users",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("admin", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("blocked", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("last_activity", Instant(), nullable=True),
        sa.Column("user_info", Json, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
    )
    op.create_table(
        "discoveries",
        sa.Column("spawner", sa.String(length=64), nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("body", Json, nullable=True),
        sa.Column("as_of", Instant(), nullable=True),
        sa.Column("asked_at", Instant(), nullable=False),
        sa.Column("failing_since", Instant(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_discoveries_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("spawner", "user_id", name=op.f("pk_discoveries")),
    )
    op.create_table(
        "environments",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("place", sa.String(length=128), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("maker", sa.String(length=8), nullable=False),
        sa.Column("packages", Json, nullable=False),
        sa.Column("lock", sa.Text(), server_default="", nullable=False),
        sa.Column("is_locked", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("is_wanted", sa.Boolean(), server_default=sa.text("(true)"), nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("shared", Json, nullable=False),
        sa.Column("is_shared", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("changed_at", Instant(), nullable=False),
        sa.Column("seen_at", Instant(), nullable=True),
        sa.CheckConstraint("maker IN ('hub', 'hand')", name=op.f("ck_environments_maker")),
        sa.CheckConstraint(
            "state IN ('wanted', 'building', 'ready', 'failed', 'removing')",
            name=op.f("ck_environments_state"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_environments_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_environments")),
        sa.UniqueConstraint(
            "user_id", "place", "name", name=op.f("uq_environments_user_id_place_name")
        ),
    )
    with op.batch_alter_table("environments", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_environments_is_shared"), ["is_shared"], unique=False)

    op.create_table(
        "group_members",
        sa.Column("group_id", Id, nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("authenticator", sa.String(length=64), nullable=True),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_group_members_group_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_group_members_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("group_id", "user_id", name=op.f("pk_group_members")),
    )
    with op.batch_alter_table("group_members", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_group_members_user_id"), ["user_id"], unique=False)

    op.create_table(
        "identities",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("authenticator", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("last_login_at", Instant(), nullable=True),
        sa.Column("gave_admin", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_identities_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identities")),
        sa.UniqueConstraint(
            "authenticator", "subject", name=op.f("uq_identities_authenticator_subject")
        ),
    )
    with op.batch_alter_table("identities", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_identities_user_id"), ["user_id"], unique=False)

    op.create_table(
        "passwords",
        sa.Column("user_id", Id, nullable=False),
        sa.Column("hash", sa.String(length=255), nullable=False),
        sa.Column("changed_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_passwords_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_passwords")),
    )
    op.create_table(
        "policy_revisions",
        sa.Column("policy_id", Id, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("body", Json, nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["policy_id"],
            ["policies.id"],
            name=op.f("fk_policy_revisions_policy_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("policy_id", "revision", name=op.f("pk_policy_revisions")),
    )
    op.create_table(
        "profile_revisions",
        sa.Column("profile_id", Id, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("body", Json, nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.ForeignKeyConstraint(
            ["profile_id"],
            ["profiles.id"],
            name=op.f("fk_profile_revisions_profile_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("profile_id", "revision", name=op.f("pk_profile_revisions")),
    )
    op.create_table(
        "role_grants",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("role_id", Id, nullable=False),
        sa.Column("user_id", Id, nullable=True),
        sa.Column("group_id", Id, nullable=True),
        sa.Column("service_id", Id, nullable=True),
        sa.CheckConstraint(
            "(CASE WHEN user_id IS NULL THEN 0 ELSE 1 END) + (CASE WHEN group_id IS NULL THEN 0 ELSE 1 END) + (CASE WHEN service_id IS NULL THEN 0 ELSE 1 END) = 1",
            name=op.f("ck_role_grants_one_holder"),
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_role_grants_group_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["role_id"], ["roles.id"], name=op.f("fk_role_grants_role_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["service_id"],
            ["services.id"],
            name=op.f("fk_role_grants_service_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_role_grants_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_role_grants")),
    )
    with op.batch_alter_table("role_grants", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_role_grants_group_id_role_id"), ["group_id", "role_id"], unique=True
        )
        batch_op.create_index(
            batch_op.f("ix_role_grants_service_id_role_id"), ["service_id", "role_id"], unique=True
        )
        batch_op.create_index(
            batch_op.f("ix_role_grants_user_id_role_id"), ["user_id", "role_id"], unique=True
        )

    op.create_table(
        "servers",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("display_name", sa.String(length=255), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("last_activity", Instant(), nullable=True),
        sa.Column("user_options", Json, nullable=True),
        sa.Column("launch_id", sa.String(length=40), nullable=True),
        sa.Column("remove", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_servers_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_servers")),
        sa.UniqueConstraint("user_id", "name", name=op.f("uq_servers_user_id_name")),
    )
    op.create_table(
        "sessions",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("session_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("last_seen_at", Instant(), nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.Column("authenticator", sa.String(length=64), nullable=False),
        sa.Column("device", sa.String(length=255), server_default="", nullable=False),
        sa.Column("address", sa.String(length=64), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_sessions_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("hash", name=op.f("uq_sessions_hash")),
    )
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sessions_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_sessions_user_id"), ["user_id"], unique=False)

    op.create_table(
        "signin_links",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_signin_links_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_signin_links")),
    )
    op.create_table(
        "launches",
        sa.Column("id", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("wanted", sa.String(length=8), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("spawner", sa.String(length=64), nullable=False),
        sa.Column("user_id", Id, nullable=True),
        sa.Column("user_name", sa.String(length=255), nullable=False),
        sa.Column("server_id", Id, nullable=True),
        sa.Column("server_name", sa.String(length=255), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("spec", Json, nullable=False),
        sa.Column("after", sa.String(length=40), nullable=True),
        sa.Column("node", sa.String(length=255), server_default="", nullable=False),
        sa.Column("url", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", Json, nullable=True),
        sa.Column("expected_start", Instant(), nullable=True),
        sa.Column("estimated_at", Instant(), nullable=True),
        sa.Column("ends_at", Instant(), nullable=True),
        sa.Column("queue_asked_at", Instant(), nullable=True),
        sa.Column("queue_extended_at", Instant(), nullable=True),
        sa.Column("unknown_since", Instant(), nullable=True),
        sa.Column("absences", sa.Integer(), server_default="0", nullable=False),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("seq", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", Instant(), nullable=True),
        sa.Column("lease_token", sa.String(length=40), nullable=True),
        sa.Column("lease_until", Instant(), nullable=True),
        sa.Column("requested_at", Instant(), nullable=False),
        sa.Column("submitted_at", Instant(), nullable=True),
        sa.Column("queued_at", Instant(), nullable=True),
        sa.Column("starting_at", Instant(), nullable=True),
        sa.Column("connecting_at", Instant(), nullable=True),
        sa.Column("ready_at", Instant(), nullable=True),
        sa.Column("ending_at", Instant(), nullable=True),
        sa.Column("ended_at", Instant(), nullable=True),
        sa.Column("end_cause", sa.String(length=24), nullable=True),
        sa.Column("end", Json, nullable=True),
        sa.Column("route_revision", sa.BigInteger(), nullable=True),
        sa.Column("last_activity", Instant(), nullable=True),
        sa.Column("activity_source", sa.String(length=32), server_default="", nullable=False),
        sa.Column("heard_at", Instant(), nullable=True),
        sa.Column("server_version", sa.String(length=32), server_default="", nullable=False),
        sa.CheckConstraint(
            "(status = 'ended') = (end_cause IS NOT NULL)", name=op.f("ck_launches_end_cause_given")
        ),
        sa.CheckConstraint(
            "(status = 'ended') = (ended_at IS NOT NULL)", name=op.f("ck_launches_ended")
        ),
        sa.CheckConstraint(
            "end_cause IS NULL OR end_cause IN ('user', 'admin', 'idle', 'max-age', 'walltime', 'out-of-memory', 'node-fail', 'preempted', 'cancelled-outside', 'exited', 'signal', 'never-started', 'policy', 'maintenance', 'unknown')",
            name=op.f("ck_launches_end_cause"),
        ),
        sa.CheckConstraint(
            "kind IN ('server', 'job', 'build', 'probe')", name=op.f("ck_launches_kind")
        ),
        sa.CheckConstraint(
            "status IN ('requested', 'submitted', 'queued', 'held', 'starting', 'connecting', 'ready', 'suspended', 'ending', 'ended')",
            name=op.f("ck_launches_status"),
        ),
        sa.CheckConstraint("wanted IN ('run', 'end')", name=op.f("ck_launches_wanted")),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_launches_server_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_launches_user_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_launches")),
        sa.UniqueConstraint("name", name=op.f("uq_launches_name")),
    )
    with op.batch_alter_table("launches", schema=None) as batch_op:
        batch_op.create_index(
            "ix_launches_due_at",
            ["due_at"],
            unique=False,
            sqlite_where=sa.text("due_at IS NOT NULL"),
            postgresql_where=sa.text("due_at IS NOT NULL"),
        )
        batch_op.create_index(batch_op.f("ix_launches_ended_at"), ["ended_at"], unique=False)
        batch_op.create_index(
            "ix_launches_live",
            ["spawner", "status"],
            unique=False,
            sqlite_where=sa.text("status <> 'ended'"),
            postgresql_where=sa.text("status <> 'ended'"),
        )
        batch_op.create_index(batch_op.f("ix_launches_server_id"), ["server_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_launches_user_id"), ["user_id"], unique=False)
        batch_op.create_index("ix_launches_waits", ["spawner", "requested_at"], unique=False)
        batch_op.create_index(
            "uq_launches_server_id_wanted",
            ["server_id"],
            unique=True,
            sqlite_where=sa.text("wanted = 'run' AND status <> 'ended'"),
            postgresql_where=sa.text("wanted = 'run' AND status <> 'ended'"),
        )

    op.create_table(
        "volumes",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("spawner", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("user_id", Id, nullable=True),
        sa.Column("user_name", sa.String(length=255), nullable=False),
        sa.Column("server_id", Id, nullable=True),
        sa.Column("server_name", sa.String(length=255), nullable=False),
        sa.Column("attached", sa.Boolean(), server_default=sa.text("(true)"), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("storage_class", sa.String(length=64), server_default="", nullable=False),
        sa.Column("retention_seconds", sa.Integer(), nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("last_used_at", Instant(), nullable=True),
        sa.Column("seen_at", Instant(), nullable=True),
        sa.Column("missing_since", Instant(), nullable=True),
        sa.Column("used_bytes", sa.BigInteger(), nullable=True),
        sa.Column("measured_at", Instant(), nullable=True),
        sa.Column("enforced", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("held_by", sa.String(length=64), server_default="", nullable=False),
        sa.Column("delete_after", Instant(), nullable=True),
        sa.Column("removing_at", Instant(), nullable=True),
        sa.Column("deleted_at", Instant(), nullable=True),
        sa.CheckConstraint("kind IN ('user', 'server')", name=op.f("ck_volumes_kind")),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_volumes_server_id"), ondelete="SET NULL"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_volumes_user_id"), ondelete="SET NULL"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volumes")),
        sa.UniqueConstraint("name", name=op.f("uq_volumes_name")),
    )
    with op.batch_alter_table("volumes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_volumes_server_id"), ["server_id"], unique=False)
        batch_op.create_index(
            "ix_volumes_there",
            ["spawner"],
            unique=False,
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        )
        batch_op.create_index(batch_op.f("ix_volumes_user_id"), ["user_id"], unique=False)
        batch_op.create_index(
            "uq_volumes_of_server",
            ["server_id", "spawner"],
            unique=True,
            sqlite_where=sa.text("attached AND kind = 'server'"),
            postgresql_where=sa.text("attached AND kind = 'server'"),
        )
        batch_op.create_index(
            "uq_volumes_of_user",
            ["user_id", "spawner"],
            unique=True,
            sqlite_where=sa.text("attached AND kind = 'user'"),
            postgresql_where=sa.text("attached AND kind = 'user'"),
        )

    op.create_table(
        "events",
        sa.Column("launch_id", sa.String(length=40), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("at", Instant(), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("params", Json, nullable=False),
        sa.Column("actor", sa.String(length=255), nullable=False),
        sa.Column("token_id", Id, nullable=True),
        sa.Column("session_id", sa.String(length=64), nullable=True),
        sa.Column("on_behalf", sa.String(length=255), nullable=True),
        sa.Column("request_id", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(
            ["launch_id"], ["launches.id"], name=op.f("fk_events_launch_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("launch_id", "seq", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_events_at"), ["at"], unique=False)

    op.create_table(
        "handles",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("launch_id", sa.String(length=40), nullable=False),
        sa.Column("body", Json, nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("registered_at", Instant(), nullable=True),
        sa.Column("stopped_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["launch_id"], ["launches.id"], name=op.f("fk_handles_launch_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_handles")),
    )
    with op.batch_alter_table("handles", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_handles_launch_id"), ["launch_id"], unique=False)

    op.create_table(
        "notices",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("launch_id", sa.String(length=40), nullable=False),
        sa.Column("occasion", sa.String(length=16), nullable=False),
        sa.Column("channel", sa.String(length=16), nullable=False),
        sa.Column("words", Json, nullable=False),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("outcome", sa.String(length=16), server_default="", nullable=False),
        sa.Column("occurred_at", Instant(), nullable=True),
        sa.Column("due_at", Instant(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sent_at", Instant(), nullable=True),
        sa.Column("dropped_at", Instant(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.ForeignKeyConstraint(
            ["launch_id"], ["launches.id"], name=op.f("fk_notices_launch_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
        sa.UniqueConstraint(
            "launch_id", "occasion", "channel", name=op.f("uq_notices_launch_id_occasion_channel")
        ),
    )
    with op.batch_alter_table("notices", schema=None) as batch_op:
        batch_op.create_index(
            "ix_notices_open",
            ["due_at"],
            unique=False,
            sqlite_where=sa.text("sent_at IS NULL AND dropped_at IS NULL"),
            postgresql_where=sa.text("sent_at IS NULL AND dropped_at IS NULL"),
        )

    op.create_table(
        "oauth_clients",
        sa.Column("id", sa.String(length=1023), nullable=False),
        sa.Column("secret_hash", sa.String(length=64), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("allowed_scopes", Json, nullable=False),
        sa.Column("launch_id", sa.String(length=40), nullable=True),
        sa.Column("service_id", Id, nullable=True),
        sa.ForeignKeyConstraint(
            ["launch_id"],
            ["launches.id"],
            name=op.f("fk_oauth_clients_launch_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["service_id"],
            ["services.id"],
            name=op.f("fk_oauth_clients_service_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_oauth_clients")),
    )
    with op.batch_alter_table("oauth_clients", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_oauth_clients_launch_id"), ["launch_id"], unique=False)

    op.create_table(
        "registrations",
        sa.Column("launch_id", sa.String(length=40), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("nonce_hash", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("wrapper", sa.String(length=64), server_default="", nullable=False),
        sa.Column("registered_at", Instant(), nullable=False),
        sa.Column("listening_at", Instant(), nullable=True),
        sa.ForeignKeyConstraint(
            ["launch_id"],
            ["launches.id"],
            name=op.f("fk_registrations_launch_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("launch_id", name=op.f("pk_registrations")),
    )
    op.create_table(
        "oauth_codes",
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("client_id", sa.String(length=1023), nullable=False),
        sa.Column("user_id", Id, nullable=False),
        sa.Column("session_id", sa.String(length=64), nullable=False),
        sa.Column("redirect_uri", sa.Text(), nullable=False),
        sa.Column("scopes", Json, nullable=False),
        sa.Column("challenge", sa.String(length=128), nullable=True),
        sa.Column("challenge_method", sa.String(length=8), nullable=True),
        sa.Column("expires_at", Instant(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["oauth_clients.id"],
            name=op.f("fk_oauth_codes_client_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_oauth_codes_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_oauth_codes")),
    )
    op.create_table(
        "tokens",
        sa.Column("id", Id, autoincrement=True, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
        sa.Column("scheme", sa.String(length=8), nullable=False),
        sa.Column("user_id", Id, nullable=True),
        sa.Column("service_id", Id, nullable=True),
        sa.Column("scopes", Json, nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("created_at", Instant(), nullable=False),
        sa.Column("last_activity", Instant(), nullable=True),
        sa.Column("expires_at", Instant(), nullable=True),
        sa.Column("session_id", sa.String(length=64), nullable=True),
        sa.Column("client_id", sa.String(length=1023), nullable=True),
        sa.Column("launch_id", sa.String(length=40), nullable=True),
        sa.Column("source", sa.String(length=8), server_default="browser", nullable=False),
        sa.CheckConstraint("scheme IN ('random', 'derived')", name=op.f("ck_tokens_scheme")),
        sa.CheckConstraint(
            "source IN ('builtin', 'file', 'browser')", name=op.f("ck_tokens_source")
        ),
        sa.CheckConstraint(
            "(user_id IS NULL) <> (service_id IS NULL)", name=op.f("ck_tokens_one_owner")
        ),
        sa.ForeignKeyConstraint(
            ["client_id"],
            ["oauth_clients.id"],
            name=op.f("fk_tokens_client_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["launch_id"], ["launches.id"], name=op.f("fk_tokens_launch_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["service_id"], ["services.id"], name=op.f("fk_tokens_service_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_tokens_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        sa.UniqueConstraint("hash", name=op.f("uq_tokens_hash")),
    )
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tokens_client_id"), ["client_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_tokens_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_tokens_launch_id"), ["launch_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_tokens_service_id"), ["service_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_tokens_session_id"), ["session_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_tokens_user_id"), ["user_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("tokens", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tokens_user_id"))
        batch_op.drop_index(batch_op.f("ix_tokens_session_id"))
        batch_op.drop_index(batch_op.f("ix_tokens_service_id"))
        batch_op.drop_index(batch_op.f("ix_tokens_launch_id"))
        batch_op.drop_index(batch_op.f("ix_tokens_expires_at"))
        batch_op.drop_index(batch_op.f("ix_tokens_client_id"))

    op.drop_table("tokens")
    op.drop_table("oauth_codes")
    op.drop_table("registrations")
    with op.batch_alter_table("oauth_clients", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_oauth_clients_launch_id"))

    op.drop_table("oauth_clients")
    with op.batch_alter_table("notices", schema=None) as batch_op:
        batch_op.drop_index(
            "ix_notices_open",
            sqlite_where=sa.text("sent_at IS NULL AND dropped_at IS NULL"),
            postgresql_where=sa.text("sent_at IS NULL AND dropped_at IS NULL"),
        )

    op.drop_table("notices")
    with op.batch_alter_table("handles", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_handles_launch_id"))

    op.drop_table("handles")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_events_at"))

    op.drop_table("events")
    with op.batch_alter_table("volumes", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_volumes_of_user",
            sqlite_where=sa.text("attached AND kind = 'user'"),
            postgresql_where=sa.text("attached AND kind = 'user'"),
        )
        batch_op.drop_index(
            "uq_volumes_of_server",
            sqlite_where=sa.text("attached AND kind = 'server'"),
            postgresql_where=sa.text("attached AND kind = 'server'"),
        )
        batch_op.drop_index(batch_op.f("ix_volumes_user_id"))
        batch_op.drop_index(
            "ix_volumes_there",
            sqlite_where=sa.text("deleted_at IS NULL"),
            postgresql_where=sa.text("deleted_at IS NULL"),
        )
        batch_op.drop_index(batch_op.f("ix_volumes_server_id"))

    op.drop_table("volumes")
    with op.batch_alter_table("launches", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_launches_server_id_wanted",
            sqlite_where=sa.text("wanted = 'run' AND status <> 'ended'"),
            postgresql_where=sa.text("wanted = 'run' AND status <> 'ended'"),
        )
        batch_op.drop_index("ix_launches_waits")
        batch_op.drop_index(batch_op.f("ix_launches_user_id"))
        batch_op.drop_index(batch_op.f("ix_launches_server_id"))
        batch_op.drop_index(
            "ix_launches_live",
            sqlite_where=sa.text("status <> 'ended'"),
            postgresql_where=sa.text("status <> 'ended'"),
        )
        batch_op.drop_index(batch_op.f("ix_launches_ended_at"))
        batch_op.drop_index(
            "ix_launches_due_at",
            sqlite_where=sa.text("due_at IS NOT NULL"),
            postgresql_where=sa.text("due_at IS NOT NULL"),
        )

    op.drop_table("launches")
    op.drop_table("signin_links")
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sessions_user_id"))
        batch_op.drop_index(batch_op.f("ix_sessions_expires_at"))

    op.drop_table("sessions")
    op.drop_table("servers")
    with op.batch_alter_table("role_grants", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_role_grants_user_id_role_id"))
        batch_op.drop_index(batch_op.f("ix_role_grants_service_id_role_id"))
        batch_op.drop_index(batch_op.f("ix_role_grants_group_id_role_id"))

    op.drop_table("role_grants")
    op.drop_table("profile_revisions")
    op.drop_table("policy_revisions")
    op.drop_table("passwords")
    with op.batch_alter_table("identities", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_identities_user_id"))

    op.drop_table("identities")
    with op.batch_alter_table("group_members", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_group_members_user_id"))

    op.drop_table("group_members")
    with op.batch_alter_table("environments", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_environments_is_shared"))

    op.drop_table("environments")
    op.drop_table("discoveries")
    op.drop_table("users")
    op.drop_table("unknown_volumes")
    op.drop_table("spawner_states")
    op.drop_table("signin_failures")
    op.drop_table("services")
    with op.batch_alter_table("routes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_routes_revision"))
        batch_op.drop_index(batch_op.f("ix_routes_launch_id"))

    op.drop_table("routes")
    op.drop_table("roles")
    op.drop_table("proxy_workers")
    op.drop_table("profiles")
    op.drop_table("policies")
    op.drop_table("orphans")
    op.drop_table("leases")
    op.drop_table("installation")
    op.drop_table("groups")
    op.drop_table("counters")
    with op.batch_alter_table("audit_events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_events_at"))

    op.drop_table("audit_events")
