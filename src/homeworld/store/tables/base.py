"""The metadata and the column types that both databases store alike.

Invariants: every time is aware and UTC; every name of a constraint is deterministic, so that migrations and
metadata can be compared.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import CheckConstraint, Column, DateTime, Dialect, MetaData, String
from sqlalchemy.types import TypeDecorator

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

S = TypeVar("S", bound=StrEnum)


class Utc(TypeDecorator[datetime]):
    """An aware datetime in UTC. SQLite keeps it as text without a zone, which sorts as time does."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; convert the rest.

        :raises ValueError: the time has no zone, or no place in the calendar once it is in UTC.
        """
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise ValueError(f"the time {value} cannot be told in UTC") from None
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Give the zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class EnumText(TypeDecorator[StrEnum]):
    """A StrEnum as its text, read back as the member."""

    impl = String(40)
    cache_ok = True

    def __init__(self, members: type[StrEnum]) -> None:
        super().__init__()
        self.members = members

    def process_bind_param(self, value: StrEnum | str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - SQLAlchemy's signature
        """Only a member's text is stored.

        :raises ValueError: not a member.
        """
        return None if value is None else self.members(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> StrEnum | None:  # noqa: ARG002 - SQLAlchemy's signature
        """The member."""
        return None if value is None else self.members(value)


def one_of(column: str, members: type[StrEnum]) -> CheckConstraint:
    """A check that the column holds one of the members' texts."""
    texts = ", ".join(f"'{member.value}'" for member in members)
    return CheckConstraint(f"{column} IN ({texts})", name=column)


def created() -> Column[Any]:
    """The column for when a row was made."""
    return Column("created_at", Utc, nullable=False)


def updated() -> Column[Any]:
    """The column for when a row was last changed."""
    return Column("updated_at", Utc, nullable=False)


def public_id() -> Column[Any]:
    """The primary key column: 12 characters, made by ``model.names.new_id``."""
    return Column("id", String(12), primary_key=True)
