"""
All tables, SQLAlchemy Core, one definition for both databases.

Conventions: instants end in ``_at`` and are aware UTC; enumerations are text with a CHECK, so
that a new value is a visible migration; secrets are stored as hashes; a row of the
configuration file has ``source = 'file'``. Names of constraints come from one convention.
"""

from collections.abc import Iterable

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from perijove.db.types import Id, Instant, Json
from perijove.domain.environments import Maker, State
from perijove.domain.launch import Cause, Kind, Status, Wanted

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _one_of(column: str, values: Iterable[str], *, or_null: bool = False) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    null = f"{column} IS NULL OR " if or_null else ""
    return CheckConstraint(f"{null}{column} IN ({listed})", name=column)


def _id() -> Column[int]:
    return Column("id", Id, primary_key=True, autoincrement=True)


def _cascade(target: str, *, nullable: bool = False) -> Column[int]:
    name = target.removesuffix("s.id") + "_id"
    return Column(name, Id, ForeignKey(target, ondelete="CASCADE"), nullable=nullable)


SOURCES = ("builtin", "file", "browser")

installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(16), nullable=False),
    Column("created_at", Instant, nullable=False),
    # Idle limits count only time in which some hub could hear: see services/hearing.py.
    Column("hearing_since", Instant, nullable=False),
    Column("heard_until", Instant, nullable=False),
    CheckConstraint("id = 1", name="single"),
)

# --- people ---------------------------------------------------------------------------------

users = Table(
    "users",
    metadata,
    _id(),
    Column("name", String(255), nullable=False, unique=True),
    Column("admin", Boolean, nullable=False, default=False, server_default=text("false")),
    Column("blocked", Boolean, nullable=False, default=False, server_default=text("false")),
    Column("created_at", Instant, nullable=False),
    Column("last_activity", Instant),
    Column("user_info", Json),
)

identities = Table(
    "identities",
    metadata,
    _id(),
    _cascade("users.id"),
    Column("authenticator", String(64), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("last_login_at", Instant),
    # Whether it is this identity that made its user an administrator.
    Column("gave_admin", Boolean, nullable=False, default=False, server_default=text("false")),
    UniqueConstraint("authenticator", "subject"),
    Index(None, "user_id"),
)

passwords = Table(
    "passwords",
    metadata,
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("hash", String(255), nullable=False),
    Column("changed_at", Instant, nullable=False),
)

groups = Table(
    "groups",
    metadata,
    _id(),
    Column("name", String(255), nullable=False, unique=True),
    Column("properties", Json, nullable=False, default=dict, server_default=text("'{}'")),
    Column("created_at", Instant, nullable=False),
)

group_members = Table(
    "group_members",
    metadata,
    Column("group_id", Id, ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    # The authenticator that said so at a sign-in; without one, somebody of this hub did.
    Column("authenticator", String(64)),
    Index(None, "user_id"),
)

services = Table(
    "services",
    metadata,
    _id(),
    Column("name", String(255), nullable=False, unique=True),
    Column("admin", Boolean, nullable=False, default=False, server_default=text("false")),
    Column("source", String(8), nullable=False),
    Column("created_at", Instant, nullable=False),
    _one_of("source", SOURCES),
)

roles = Table(
    "roles",
    metadata,
    _id(),
    Column("name", String(255), nullable=False, unique=True),
    Column("description", Text, nullable=False, default="", server_default=""),
    Column("scopes", Json, nullable=False),
    Column("source", String(8), nullable=False),
    _one_of("source", SOURCES),
)

role_grants = Table(
    "role_grants",
    metadata,
    _id(),
    _cascade("roles.id"),
    _cascade("users.id", nullable=True),
    _cascade("groups.id", nullable=True),
    _cascade("services.id", nullable=True),
    CheckConstraint(
        "(CASE WHEN user_id IS NULL THEN 0 ELSE 1 END)"
        " + (CASE WHEN group_id IS NULL THEN 0 ELSE 1 END)"
        " + (CASE WHEN service_id IS NULL THEN 0 ELSE 1 END) = 1",
        name="one_holder",
    ),
    Index(None, "user_id", "role_id", unique=True),
    Index(None, "group_id", "role_id", unique=True),
    Index(None, "service_id", "role_id", unique=True),
)

# --- what proves who one is -----------------------------------------------------------------

sessions = Table(
    "sessions",
    metadata,
    _id(),
    Column("hash", String(64), nullable=False, unique=True),
    _cascade("users.id"),
    Column("session_id", String(64), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("last_seen_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("authenticator", String(64), nullable=False),
    Column("device", String(255), nullable=False, default="", server_default=""),
    Column("address", String(64), nullable=False, default="", server_default=""),
    Index(None, "user_id"),
    Index(None, "expires_at"),
)

signin_links = Table(
    "signin_links",
    metadata,
    Column("hash", String(64), primary_key=True),
    _cascade("users.id"),
    Column("expires_at", Instant, nullable=False),
)

signin_failures = Table(
    "signin_failures",
    metadata,
    # 'name:' or 'address:' and a hash: an attacker's text is not kept.
    Column("key", String(80), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("last_at", Instant, nullable=False),
)

oauth_clients = Table(
    "oauth_clients",
    metadata,
    Column("id", String(1023), primary_key=True),
    Column("secret_hash", String(64), nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("allowed_scopes", Json, nullable=False),
    Column("launch_id", String(40), ForeignKey("launches.id", ondelete="CASCADE")),
    _cascade("services.id", nullable=True),
    Index(None, "launch_id"),
)

oauth_codes = Table(
    "oauth_codes",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column(
        "client_id",
        String(1023),
        ForeignKey("oauth_clients.id", ondelete="CASCADE"),
        nullable=False,
    ),
    _cascade("users.id"),
    Column("session_id", String(64), nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("scopes", Json, nullable=False),
    Column("challenge", String(128)),
    Column("challenge_method", String(8)),
    Column("expires_at", Instant, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    _id(),
    Column("hash", String(64), nullable=False, unique=True),
    # 'random': a value made once; 'derived': made again from the keyring by any replica.
    Column("scheme", String(8), nullable=False),
    _cascade("users.id", nullable=True),
    _cascade("services.id", nullable=True),
    Column("scopes", Json, nullable=False),
    Column("note", Text),
    Column("created_at", Instant, nullable=False),
    Column("last_activity", Instant),
    Column("expires_at", Instant),
    Column("session_id", String(64)),
    Column("client_id", String(1023), ForeignKey("oauth_clients.id", ondelete="CASCADE")),
    # The server token of this launch: dies with it.
    Column("launch_id", String(40), ForeignKey("launches.id", ondelete="CASCADE")),
    Column("source", String(8), nullable=False, default="browser", server_default="browser"),
    _one_of("scheme", ("random", "derived")),
    _one_of("source", SOURCES),
    CheckConstraint("(user_id IS NULL) <> (service_id IS NULL)", name="one_owner"),
    Index(None, "user_id"),
    Index(None, "service_id"),
    Index(None, "session_id"),
    Index(None, "client_id"),
    Index(None, "launch_id"),
    Index(None, "expires_at"),
)

# --- what is offered ------------------------------------------------------------------------

profiles = Table(
    "profiles",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("position", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("source", String(8), nullable=False),
    Column("retired_at", Instant),
    _one_of("source", SOURCES),
)

profile_revisions = Table(
    "profile_revisions",
    metadata,
    Column("profile_id", Id, ForeignKey("profiles.id", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("body", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("actor", String(255), nullable=False),
)

policies = Table(
    "policies",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("position", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("source", String(8), nullable=False),
    Column("retired_at", Instant),
    _one_of("source", SOURCES),
)

policy_revisions = Table(
    "policy_revisions",
    metadata,
    Column("policy_id", Id, ForeignKey("policies.id", ondelete="CASCADE"), primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("body", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("actor", String(255), nullable=False),
)

# --- servers and launches -------------------------------------------------------------------

servers = Table(
    "servers",
    metadata,
    _id(),
    _cascade("users.id"),
    Column("name", String(255), nullable=False),
    Column("display_name", String(255), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("last_activity", Instant),
    # The whole request last made for it: {"profile": …, "options": {…}} or a client's own body.
    Column("user_options", Json),
    # The newest launch, live or ended. No foreign key: the two tables would need each other.
    Column("launch_id", String(40)),
    # To be removed as soon as its launch has ended.
    Column("remove", Boolean, nullable=False, default=False, server_default=text("false")),
    UniqueConstraint("user_id", "name"),
)

launches = Table(
    "launches",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("wanted", String(8), nullable=False),
    Column("status", String(16), nullable=False),
    Column("name", String(64), nullable=False, unique=True),
    Column("spawner", String(64), nullable=False),
    Column("user_id", Id, ForeignKey("users.id", ondelete="SET NULL")),
    Column("user_name", String(255), nullable=False),
    Column("server_id", Id, ForeignKey("servers.id", ondelete="SET NULL")),
    Column("server_name", String(255), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("spec", Json, nullable=False),
    Column("after", String(40)),
    Column("node", String(255), nullable=False, default="", server_default=""),
    Column("url", Text, nullable=False, default="", server_default=""),
    Column("reason", Json),
    Column("expected_start", Instant),
    Column("estimated_at", Instant),
    Column("ends_at", Instant),
    Column("queue_asked_at", Instant),
    Column("queue_extended_at", Instant),
    Column("unknown_since", Instant),
    Column("absences", Integer, nullable=False, default=0, server_default="0"),
    Column("failures", Integer, nullable=False, default=0, server_default="0"),
    Column("seq", Integer, nullable=False, default=0, server_default="0"),
    Column("due_at", Instant),
    Column("lease_token", String(40)),
    Column("lease_until", Instant),
    Column("requested_at", Instant, nullable=False),
    Column("submitted_at", Instant),
    Column("queued_at", Instant),
    Column("starting_at", Instant),
    Column("connecting_at", Instant),
    Column("ready_at", Instant),
    Column("ending_at", Instant),
    Column("ended_at", Instant),
    Column("end_cause", String(24)),
    Column("end", Json),
    Column("route_revision", BigInteger),
    Column("last_activity", Instant),
    Column("activity_source", String(32), nullable=False, default="", server_default=""),
    Column("heard_at", Instant),
    Column("server_version", String(32), nullable=False, default="", server_default=""),
    _one_of("kind", Kind),
    _one_of("wanted", Wanted),
    _one_of("status", Status),
    _one_of("end_cause", Cause, or_null=True),
    CheckConstraint("(status = 'ended') = (ended_at IS NOT NULL)", name="ended"),
    CheckConstraint("(status = 'ended') = (end_cause IS NOT NULL)", name="end_cause_given"),
    # A server points to at most one launch that is wanted; a restart may still be ending another.
    Index(
        "uq_launches_server_id_wanted",
        "server_id",
        unique=True,
        sqlite_where=text("wanted = 'run' AND status <> 'ended'"),
        postgresql_where=text("wanted = 'run' AND status <> 'ended'"),
    ),
    Index(
        "ix_launches_due_at",
        "due_at",
        sqlite_where=text("due_at IS NOT NULL"),
        postgresql_where=text("due_at IS NOT NULL"),
    ),
    Index(
        "ix_launches_live",
        "spawner",
        "status",
        sqlite_where=text("status <> 'ended'"),
        postgresql_where=text("status <> 'ended'"),
    ),
    Index("ix_launches_waits", "spawner", "requested_at"),
    Index(None, "user_id"),
    Index(None, "server_id"),
    Index(None, "ended_at"),
)

# What a wrapper said of itself when it registered; the row outlives a requeue, which renews it.
registrations = Table(
    "registrations",
    metadata,
    Column(
        "launch_id", String(40), ForeignKey("launches.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("job_id", String(64), nullable=False),
    Column("nonce_hash", String(64), nullable=False),
    Column("host", String(255), nullable=False),
    Column("port", Integer, nullable=False),
    Column("url", Text, nullable=False),
    Column("wrapper", String(64), nullable=False, default="", server_default=""),
    Column("registered_at", Instant, nullable=False),
    Column("listening_at", Instant),
)

# What a scheduler last said each person can have: the last good answer, and since when there is
# none.
discoveries = Table(
    "discoveries",
    metadata,
    Column("spawner", String(64), primary_key=True),
    Column("user_id", Id, ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("body", Json),
    Column("as_of", Instant),
    Column("asked_at", Instant, nullable=False),
    Column("failing_since", Instant),
    Column("error", Text, nullable=False, default="", server_default=""),
)

handles = Table(
    "handles",
    metadata,
    _id(),
    Column("launch_id", String(40), ForeignKey("launches.id", ondelete="CASCADE"), nullable=False),
    Column("body", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("registered_at", Instant),
    Column("stopped_at", Instant),
    Index(None, "launch_id"),
)

# What people keep beyond a launch. The name is the platform's and is never made again from other
# names; the row outlives its person and its server, so that nothing is lost by deleting those.
volumes = Table(
    "volumes",
    metadata,
    _id(),
    Column("name", String(64), nullable=False, unique=True),
    Column("spawner", String(64), nullable=False),
    Column("kind", String(8), nullable=False),
    Column("user_id", Id, ForeignKey("users.id", ondelete="SET NULL")),
    Column("user_name", String(255), nullable=False),
    Column("server_id", Id, ForeignKey("servers.id", ondelete="SET NULL")),
    Column("server_name", String(255), nullable=False),
    # Whether a start finds it: not if it was deleted, or another one took its place.
    Column("attached", Boolean, nullable=False, default=True, server_default=text("true")),
    Column("path", Text, nullable=False),
    Column("size_bytes", BigInteger),
    Column("storage_class", String(64), nullable=False, default="", server_default=""),
    Column("retention_seconds", Integer, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("last_used_at", Instant),
    # What the platform said last.
    Column("seen_at", Instant),
    Column("missing_since", Instant),
    Column("used_bytes", BigInteger),
    Column("measured_at", Instant),
    Column("enforced", Boolean, nullable=False, default=False, server_default=text("false")),
    Column("held_by", String(64), nullable=False, default="", server_default=""),
    # Its end: to be had back until then; being removed; seen gone.
    Column("delete_after", Instant),
    Column("removing_at", Instant),
    Column("deleted_at", Instant),
    _one_of("kind", ("user", "server")),
    Index(
        "uq_volumes_of_server",
        "server_id",
        "spawner",
        unique=True,
        sqlite_where=text("attached AND kind = 'server'"),
        postgresql_where=text("attached AND kind = 'server'"),
    ),
    Index(
        "uq_volumes_of_user",
        "user_id",
        "spawner",
        unique=True,
        sqlite_where=text("attached AND kind = 'user'"),
        postgresql_where=text("attached AND kind = 'user'"),
    ),
    Index(None, "user_id"),
    Index(None, "server_id"),
    Index(
        "ix_volumes_there",
        "spawner",
        sqlite_where=text("deleted_at IS NULL"),
        postgresql_where=text("deleted_at IS NULL"),
    ),
)

# Volumes of this installation on a platform that no row knows: told, and never touched.
unknown_volumes = Table(
    "unknown_volumes",
    metadata,
    Column("spawner", String(64), primary_key=True),
    Column("name", String(255), primary_key=True),
    Column("used_bytes", BigInteger),
    Column("labels", Json, nullable=False),
    Column("first_seen_at", Instant, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column(
        "launch_id", String(40), ForeignKey("launches.id", ondelete="CASCADE"), primary_key=True
    ),
    Column("seq", Integer, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("code", String(64), nullable=False),
    Column("params", Json, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("token_id", Id),
    Column("session_id", String(64)),
    Column("on_behalf", String(255)),
    Column("request_id", String(40)),
    Index(None, "at"),
)

# What people asked to be told about a launch: an outbox. Without `occurred_at` its occasion has
# not come; `due_at` is when to send it, or to try again.
notices = Table(
    "notices",
    metadata,
    _id(),
    Column("launch_id", String(40), ForeignKey("launches.id", ondelete="CASCADE"), nullable=False),
    Column("occasion", String(16), nullable=False),
    Column("channel", String(16), nullable=False),
    Column("words", Json, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("outcome", String(16), nullable=False, default="", server_default=""),
    Column("occurred_at", Instant),
    Column("due_at", Instant),
    Column("tries", Integer, nullable=False, default=0, server_default="0"),
    Column("sent_at", Instant),
    Column("dropped_at", Instant),
    Column("error", Text, nullable=False, default="", server_default=""),
    UniqueConstraint("launch_id", "occasion", "channel"),
    Index(
        "ix_notices_open",
        "due_at",
        sqlite_where=text("sent_at IS NULL AND dropped_at IS NULL"),
        postgresql_where=text("sent_at IS NULL AND dropped_at IS NULL"),
    ),
)

audit_events = Table(
    "audit_events",
    metadata,
    _id(),
    Column("at", Instant, nullable=False),
    Column("actor", String(255), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(255), nullable=False),
    Column("params", Json, nullable=False),
    Column("token_id", Id),
    Column("address", String(64), nullable=False, default="", server_default=""),
    Column("request_id", String(40)),
    Index(None, "at"),
)

# What people installed to have it again: lies on storage that outlives a launch.
environments = Table(
    "environments",
    metadata,
    _id(),
    _cascade("users.id"),
    # 'volume:<platform name>' or 'homes:<name>'.
    Column("place", String(128), nullable=False),
    Column("name", String(64), nullable=False),
    Column("maker", String(8), nullable=False),
    Column("packages", Json, nullable=False),
    Column("lock", Text, nullable=False, default="", server_default=""),
    Column("is_locked", Boolean, nullable=False, default=False, server_default=text("false")),
    Column("is_wanted", Boolean, nullable=False, default=True, server_default=text("true")),
    Column("revision", Integer, nullable=False, default=1, server_default="1"),
    Column("state", String(16), nullable=False),
    Column("error", Text, nullable=False, default="", server_default=""),
    Column("size_bytes", BigInteger),
    # Names of groups; the flag beside them can be asked for by an index.
    Column("shared", Json, nullable=False),
    Column("is_shared", Boolean, nullable=False, default=False, server_default=text("false")),
    Column("created_at", Instant, nullable=False),
    Column("changed_at", Instant, nullable=False),
    Column("seen_at", Instant),
    _one_of("maker", Maker),
    _one_of("state", State),
    UniqueConstraint("user_id", "place", "name"),
    Index(None, "is_shared"),
)

# --- the machinery --------------------------------------------------------------------------

leases = Table(
    "leases",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("token", String(40), nullable=False),
    Column("until", Instant, nullable=False),
)

spawner_states = Table(
    "spawner_states",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("answered_at", Instant),
    Column("complete_at", Instant),
    Column("failing_since", Instant),
    # When its last silence ended.
    Column("answering_since", Instant),
    Column("error", Text, nullable=False, default="", server_default=""),
    # Since when the mass-loss breaker holds back ends, and how many it holds.
    Column("breaker_since", Instant),
    Column("breaker_count", Integer, nullable=False, default=0, server_default="0"),
)

orphans = Table(
    "orphans",
    metadata,
    Column("spawner", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("first_seen_at", Instant, nullable=False),
    Column("owner", String(255), nullable=False, default="", server_default=""),
)

counters = Table(
    "counters",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

routes = Table(
    "routes",
    metadata,
    Column("host", String(255), primary_key=True),
    Column("prefix", String(1023), primary_key=True),
    Column("target", Text, nullable=False),
    Column("launch_id", String(40)),
    Column("revision", BigInteger, nullable=False),
    # A removed route stays as a tombstone so that proxies can be told only what changed.
    Column("removed_at", Instant),
    Index(None, "revision"),
    Index(None, "launch_id"),
)

proxy_workers = Table(
    "proxy_workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("revision", BigInteger, nullable=False),
    Column("seen_at", Instant, nullable=False),
)
