"""The ledger's tables, as the newest migration leaves them.

Every change here needs a migration in storage/migrations/versions and a new `SCHEMA_VERSION`; a test
compares the two.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

from core.projects import PROJECT_NAME_CHARS_MAX

SCHEMA_VERSION = "0001"
"""The newest migration: four digits, so that a later version is the greater text."""
UUID_CHARS = 36
SHA256_CHARS = 64
SHORT_TEXT_CHARS_MAX = 64
REVISION_ID = 1
"""The id of the only row of `revision`."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcMoment(TypeDecorator[datetime]):
    """An aware moment, to the microsecond: kept as UTC in every database, read back aware and in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """UTC; SQLite drops the zone, which the reader puts back."""
        assert value is None or value.tzinfo is not None, "a moment needs its time zone"
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware and in UTC, whichever zone the database's session speaks."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


projects = Table(
    "projects",
    metadata,
    Column("id", String(UUID_CHARS), primary_key=True),
    Column("organization", String(SHORT_TEXT_CHARS_MAX), nullable=False),
    Column("name", String(PROJECT_NAME_CHARS_MAX), nullable=False, unique=True),
    Column("created_at", UtcMoment, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String(UUID_CHARS), primary_key=True),
    Column("project_id", String(UUID_CHARS), ForeignKey("projects.id"), nullable=False, index=True),
    Column("kind", String(SHORT_TEXT_CHARS_MAX), nullable=False),
    Column("prefix", String(SHORT_TEXT_CHARS_MAX), nullable=False, index=True),
    Column("secret_sha256", String(SHA256_CHARS), nullable=False, unique=True),
    Column("description", Text, nullable=False),
    Column("created_at", UtcMoment, nullable=False),
    Column("expires_at", UtcMoment, nullable=True),
    Column("revoked_at", UtcMoment, nullable=True),
)

revision = Table(
    "revision",
    metadata,
    Column(
        "id", Integer, CheckConstraint(f"id = {REVISION_ID}", name="one_row"), primary_key=True, autoincrement=False
    ),
    Column("value", Integer, nullable=False),
)
"""One row: its value grows with every write transaction, so that readers can tell their copy is old."""
