"""The address of a PostgreSQL store: what the URL says, what the driver is told, what a message may show."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from .._optional import extra
from ..errors import InvalidInput

__all__ = ["SCHEMA", "Address", "parse"]

SCHEMA = "raeburnmemory"  # where the tables are, if the URL names no schema
_OWN = {"schema", "language"}
_SECRET = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)
_LONGEST = 63  # bytes of a name; PostgreSQL would cut off the rest in silence


@dataclass(frozen=True)
class Address:
    """Where a store is. `shown` holds no secret; `conninfo` may, and is left out of what is printed."""

    shown: str
    schema: str
    language: str | None
    conninfo: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    def clean(self, text: str) -> str:
        """Return *text* without the secrets of this address."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def parse(location: str) -> Address:
    """Take a URL such as `postgresql://user:password@host/database?schema=team` apart.

    Beside what PostgreSQL itself understands, `schema` names where the tables are, so that one database may hold
    several memories, and `language` the language of the texts for the full text search of a new one.

    Raises:
        InvalidInput: It is no such URL. The message does not repeat it, because it may hold a password.
        MissingDependency: psycopg is not installed.
    """
    with extra("postgres", module="psycopg"):
        import psycopg
        from psycopg.conninfo import conninfo_to_dict, make_conninfo
    try:
        parts = urlsplit(location)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        rest = [(key, value) for key, value in query if key not in _OWN]
        bare = f"postgresql://{parts.netloc}{parts.path}"
        known: dict[str, Any] = conninfo_to_dict(bare + _joined(rest))
    except (ValueError, psycopg.Error):
        # The driver's words may hold a piece of the password, so they are neither shown nor kept.
        raise InvalidInput(
            "This is no URL of a PostgreSQL database. Write it as postgresql://user:password@host:5432/database, "
            "with special characters of a password as %40 and so on."
        ) from None
    own = {key: value for key, value in query if key in _OWN}
    schema = own.get("schema", SCHEMA)
    if not schema or "\0" in schema or len(schema.encode()) > _LONGEST or schema.startswith("pg_"):
        raise InvalidInput(
            f"{schema!r} can be no schema of ours. Give it a name of 1 to {_LONGEST} bytes that does not begin with "
            f"'pg_': postgresql://…/database?schema=team"
        )
    told = [(key, value) for key, value in query if not _SECRET.search(key)]
    where = parts.netloc
    if "@" in where:
        user, _, host = where.rpartition("@")
        where = f"{user.partition(':')[0]}@{host}"
    secrets = {str(value) for key, value in known.items() if value and _SECRET.search(key)}
    secrets |= {value for key, value in query if value and _SECRET.search(key)}
    if parts.password:
        secrets |= {parts.password, unquote(parts.password)}
    return Address(
        f"postgresql://{where}{parts.path}{_joined(told)}",
        schema,
        own.get("language"),
        make_conninfo(**known),
        tuple(sorted(secrets, key=len, reverse=True)),
    )


def _joined(query: list[tuple[str, str]]) -> str:
    told = "&".join(f"{quote(key, safe='')}={quote(value, safe='/,:')}" for key, value in query)
    return f"?{told}" if told else ""
