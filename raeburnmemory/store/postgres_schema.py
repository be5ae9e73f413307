"""The tables of a PostgreSQL store, and how a session, a new store and an older one get ready."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import uuid
import zlib
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.errors import Error, OperationalError

from ..errors import (
    GraphClosed,
    InvalidInput,
    LockTimeout,
    MemoryGraphError,
    MissingDependency,
    NotAStore,
    ReadOnly,
    StoreCorrupt,
    StoreMissing,
    StoreTooNew,
    StoreUnreachable,
    StoreWriteFailed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .postgres_url import Address

__all__ = [
    "LOCK",
    "POOLED",
    "SCHEMA_VERSION",
    "SEARCH_PATH",
    "SESSION",
    "TABLES",
    "check_pgvector",
    "escaped",
    "is_lost",
    "key_of",
    "lock_of",
    "plain",
    "prepare",
    "schema_version",
    "translated",
    "unescaped",
    "unreachable",
]

SCHEMA_VERSION = 1
LOCK = 0x5261_654D  # "RaeM": the class of our advisory locks; the schema's checksum is the other half

# Text is compared by its code points whatever the database's language is, so that order is the same everywhere. Nodes
# and edges are found by a hash of what names them, because a tree over the names holds none longer than 2,700 bytes.
# Attributes are `json` and not `jsonb`, which keeps neither the order of keys nor the digits of numbers nor \u0000.
# `vector` has no length, because a set has one: the index of each large set is over a cast to its own length.
TABLES = """
CREATE TABLE meta(key text COLLATE "C" PRIMARY KEY, value json NOT NULL);
CREATE TABLE state(version bigint NOT NULL, next_row bigint NOT NULL, next_edge bigint NOT NULL);
INSERT INTO state VALUES (0, 0, 0);
CREATE TABLE nodes(
    "row" bigint PRIMARY KEY, key uuid NOT NULL UNIQUE, namespace text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL, kind text COLLATE "C" NOT NULL, text text, attributes json NOT NULL,
    expires_at double precision,
    words tsvector GENERATED ALWAYS AS (to_tsvector({language}::regconfig, left(text, {characters}))) STORED);
CREATE INDEX nodes_kind ON nodes(namespace, kind, "row");
CREATE INDEX nodes_words ON nodes USING gin(words);
CREATE TABLE edges(
    "row" bigint PRIMARY KEY, key uuid NOT NULL UNIQUE, namespace text COLLATE "C" NOT NULL,
    source bigint NOT NULL, target bigint NOT NULL,
    relation text COLLATE "C" NOT NULL, data json NOT NULL);
CREATE INDEX edges_source ON edges(source, "row");
CREATE INDEX edges_target ON edges(target, "row");
CREATE TABLE sets(
    number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, field text COLLATE "C" NOT NULL UNIQUE,
    dim integer NOT NULL, reset_at bigint NOT NULL, next_slot bigint NOT NULL);
CREATE TABLE vectors(
    "set" integer NOT NULL, slot bigint NOT NULL, "row" bigint NOT NULL, part integer NOT NULL,
    start integer NOT NULL, "end" integer NOT NULL, vector vector NOT NULL, PRIMARY KEY ("set", slot));
ALTER TABLE vectors ALTER COLUMN vector SET STORAGE MAIN;
CREATE INDEX vectors_row ON vectors("row");
CREATE TABLE history(
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "row" bigint NOT NULL,
    kind text COLLATE "C" NOT NULL, text text, attributes json NOT NULL, expires_at double precision);
CREATE INDEX history_row ON history("row");
CREATE TABLE log(version bigint PRIMARY KEY, mark text NOT NULL, changes json NOT NULL);
"""
NAMES = ("meta", "state", "nodes", "edges", "sets", "vectors", "history", "log")

_PGVECTOR = (0, 8)  # the first that goes on searching where a filter lets too little through
# Names without a schema mean the tables in ours (%s), and pgvector's types, wherever that was put.
SEARCH_PATH = (
    "concat_ws(', ', quote_ident(%s), (SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n "
    "ON n.oid = e.extnamespace WHERE e.extname = 'vector'))"
)
_CHARACTERS = 50_000  # of a text that get into its tsvector, which holds a megabyte; compounds are in it twice

SESSION = "raeburnmemory.session"  # a setting of ours, by which a session is known again
POOLED = (
    "The URL leads to a pool that gives a session of the server to others between two transactions, and with it the "
    "lock of the memory and the schema that it is in. Name the server itself, or a pool that keeps a session for one "
    "client (PgBouncer's pool_mode = session)."
)

# --- how texts are written --------------------------------------------------------------------------------------
# PostgreSQL's text holds every character but U+0000. U+001A, "substitute", stands for it, followed by a 0; by itself
# it is followed by a 1.


def escaped(text: str) -> str:
    """Return *text* as PostgreSQL can hold it."""
    if "\0" in text or "\x1a" in text:
        return text.replace("\x1a", "\x1a1").replace("\0", "\x1a0")
    return text


def unescaped(text: str) -> str:
    """Return what was `escaped`."""
    return text.replace("\x1a0", "\0").replace("\x1a1", "\x1a") if "\x1a" in text else text


def plain(text: str | None) -> str | None:
    """Return a text that may be missing, as it was before it was escaped."""
    return None if text is None else unescaped(text)


def key_of(*names: str) -> uuid.UUID:
    r"""Return the hash under which what *names* name is found: the first 16 bytes of a SHA-256 over them.

    In SQL: `substring(sha256(convert_to(namespace, 'UTF8') || '\x00' || convert_to(id, 'UTF8')) for 16)`, in hex.
    """
    raw = "\0".join(map(escaped, names)).encode()
    return uuid.UUID(bytes=hashlib.sha256(raw).digest()[:16])


def lock_of(schema: str) -> tuple[int, int]:
    """Return the two halves of the advisory lock under which the store in *schema* is written."""
    half = zlib.crc32(schema.encode())
    return LOCK, half - (1 << 32) if half >= 1 << 31 else half


# --- getting ready ----------------------------------------------------------------------------------------------


def schema_version(db: psycopg.Connection[Any], address: Address) -> int | None:
    """Return the version of the tables in the schema of *address*, None if there is no store.

    Raises:
        NotAStore: The schema holds something else.
    """
    found = db.execute(
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s "
        "AND c.relkind IN ('r', 'v', 'm', 'p')",
        (address.schema,),
    ).fetchall()
    names = {name for (name,) in found}
    if not names:
        return None
    if "meta" in names and "nodes" in names:
        query = sql.SQL("SELECT value FROM {}.meta WHERE key = 'schema'").format(sql.Identifier(address.schema))
        with contextlib.suppress(psycopg.errors.UndefinedColumn):
            row = db.execute(query).fetchone()
            if row is not None:
                return int(row[0])
    raise NotAStore(
        f"The schema {address.schema!r} of {address.shown!r} holds tables of another program "
        f"({', '.join(sorted(names)[:3])}). Nothing was changed. Name another one: ?schema=memory"
    )


def prepare(db: psycopg.Connection[Any], address: Address, language: str) -> None:
    """Create the store or bring it up to date, whoever else is at it: one does it, the others wait.

    Raises:
        StoreTooNew: A newer version of this library made it.
        MissingDependency: The server has no pgvector.
    """
    with db.transaction():
        db.execute("SELECT pg_advisory_xact_lock(%s, 0)", (LOCK + 2,))  # for what a database has once: pgvector
        db.execute("SELECT pg_advisory_xact_lock(%s, %s)", lock_of(address.schema))
        found = schema_version(db, address)
        check_version(found, address)
        if found is None:
            _create(db, address, address.language or language)


def check_version(found: int | None, address: Address) -> None:
    """Refuse a store that a newer version of this library made."""
    if found is not None and found > SCHEMA_VERSION:
        raise StoreTooNew(
            f"{address.shown!r} has schema {found}, this version of raeburnmemory knows up to {SCHEMA_VERSION}. "
            f"Install a newer one: pip install -U raeburnmemory"
        )


def check_pgvector(found: str, address: Address) -> None:
    """Refuse a pgvector that is too old; a dump may have been put back where there is such a one."""
    if tuple(map(int, found.split(".")[:2])) < _PGVECTOR:
        raise MissingDependency(
            f"pgvector in the database of {address.shown!r} is {found}, and 0.8 is needed, which can search with "
            f"filters. Install it on the server, then run: ALTER EXTENSION vector UPDATE"
        )


def _create(db: psycopg.Connection[Any], address: Address, language: str) -> None:
    encoding = db.execute("SHOW server_encoding").fetchone()
    if encoding != ("UTF8",):
        raise NotAStore(
            f"The database of {address.shown!r} is encoded in {encoding and encoding[0]}, which does not hold every "
            f"text. Make one with: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    there = db.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    if there is not None:
        check_pgvector(there[0], address)
    else:
        if db.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'vector'").fetchone() is None:
            raise MissingDependency(
                f"The server of {address.shown!r} has no pgvector. Install it there, as "
                f"https://github.com/pgvector/pgvector says."
            )
        try:
            db.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        except psycopg.errors.InsufficientPrivilege as exc:
            raise StoreWriteFailed(
                errno.EACCES,
                f"You may not add pgvector to the database of {address.shown!r}. Let a superuser run, or its owner "
                f"where the server lets owners: CREATE EXTENSION vector",
            ) from exc
        except psycopg.errors.InvalidSchemaName as exc:
            raise StoreWriteFailed(
                errno.ENOENT,
                f"The database of {address.shown!r} has neither pgvector nor a schema 'public' to put it in. Put it in "
                f"another one: CREATE EXTENSION vector SCHEMA …",
            ) from exc
    # Whoever may write in a schema that was made for him need not be allowed to make one.
    if db.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (address.schema,)).fetchone() is None:
        db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(address.schema)))
    search(db, address.schema)
    config = _text_search(db, language)
    tables = TABLES.format(language=sql.Literal(config).as_string(db), characters=_CHARACTERS)
    db.execute(tables.encode())
    for key, value in (("store", uuid.uuid4().hex), ("schema", SCHEMA_VERSION), ("language", config)):
        db.execute("INSERT INTO meta VALUES (%s, %s)", (key, json.dumps(value)))


def _text_search(db: psycopg.Connection[Any], language: str) -> str:
    """Return the server's name for a language, `simple`, which leaves words as they are, for one it does not know."""
    found = db.execute("SELECT 1 FROM pg_ts_config WHERE cfgname = %s", (language,)).fetchone()
    return f"pg_catalog.{language if found else 'simple'}"


def search(db: psycopg.Connection[Any], schema: str) -> None:
    """Let names without a schema mean ours, and pgvector's, in the rest of a transaction."""
    db.execute(f"SELECT set_config('search_path', {SEARCH_PATH}, true)", (schema,))


# --- what the server says, in our words -------------------------------------------------------------------------

# Connection exceptions; the administrator or a crash ended the session, or the server is starting; it ended the session
# because its transaction was idle, or open, for longer than it allows.
_LOST = ("08", "57P", "25P03", "25P04")


def is_lost(exc: BaseException, db: psycopg.Connection[Any] | None = None) -> bool:
    """Tell whether *exc* means that the session is gone, and with it what was not committed."""
    if not isinstance(exc, Error) or isinstance(exc, psycopg.errors.PipelineAborted):  # what came before it says why
        return False
    if db is not None and (db.closed or db.broken):
        return True
    if exc.sqlstate is None:
        return isinstance(exc, OperationalError)
    return bool(exc.sqlstate.startswith(_LOST)) and exc.sqlstate != "57P04"


def unreachable(exc: BaseException, address: Address) -> StoreUnreachable:
    """Return our error for a session that could not be had."""
    said = address.clean(" ".join(str(exc).split()))
    return StoreUnreachable(
        errno.ECONNREFUSED,
        f"The server of {address.shown!r} cannot be reached: {said}. See that it runs, and check the URL",
    )


def translated(exc: Error, address: Address, holder: str = "") -> Exception:
    """Return our error for what the server or the driver said."""
    where, state = repr(address.shown), exc.sqlstate or ""
    said = address.clean(" ".join(str(exc.diag.message_primary or exc).split()))
    if is_lost(exc):
        return StoreUnreachable(
            errno.ECONNREFUSED,
            f"The session with the server of {where} was lost: {said}. What was not acknowledged is not written, and "
            f"nothing is half written. Try again",
        )
    kinds: Sequence[tuple[tuple[str, ...], MemoryGraphError]] = (
        (
            ("55P03",),
            LockTimeout(
                f"{where} is held by {holder or 'somebody else'} ({said}). Try again later, or pass a larger timeout=."
            ),
        ),
        (
            ("57014",),
            LockTimeout(
                f"The server of {where} broke off what it was asked for: {said}."
                f"{f' Meanwhile the memory is held by {holder}.' if holder else ''} Try again later, or have "
                f"statement_timeout raised for this user (ALTER ROLE … SET statement_timeout)."
            ),
        ),
        (
            ("3D",),
            StoreMissing(errno.ENOENT, f"There is no such database: {where} ({said}). Make it with CREATE DATABASE"),
        ),
        (
            ("28", "0P"),
            StoreUnreachable(errno.EACCES, f"{where} lets nobody in with these credentials: {said}. Check them"),
        ),
        (("25006",), ReadOnly(f"{where} takes no writes: {said}. It may be a replica: name the primary.")),
        (("42501",), StoreWriteFailed(errno.EACCES, f"You may not do that in {where}: {said}. Ask its owner")),
        (
            ("53100", "53400"),
            StoreWriteFailed(errno.ENOSPC, f"The disk of the server of {where} is full: {said}. Make room there"),
        ),
        (("53",), StoreUnreachable(errno.EAGAIN, f"The server of {where} is overloaded: {said}. Try again later")),
        (("54", "22001"), InvalidInput(f"{where} cannot hold that: {said}. Store something shorter.")),
        (
            ("42P01", "3F", "42703"),
            StoreCorrupt(f"Tables of {where} are missing: {said}. Nothing was changed. Put back a copy (pg_restore)."),
        ),
        (
            ("XX", "22", "23", "58"),
            StoreCorrupt(f"{where} is damaged: {said}. Nothing was changed. Put back a copy (pg_restore)."),
        ),
        (("40",), StoreWriteFailed(errno.EAGAIN, f"{where} was not written, because others wrote: {said}. Try again")),
    )
    for states, error in kinds:
        if state.startswith(states):
            return error
    if "is closed" in said:
        return GraphClosed(f"The memory {where} was closed. Open it again.")
    return StoreWriteFailed(errno.EIO, f"{where} refused: {said}")
