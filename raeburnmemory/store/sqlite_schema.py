"""The tables of a SQLite store, and how older files become them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import struct
from typing import TYPE_CHECKING

from ..errors import NotAStore, StoreCorrupt, StoreTooNew
from ._files import database_is_free, write_failed
from .sqlite_connection import connect, translated

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "APPLICATION_ID",
    "ORIGINAL",
    "SCHEMA_VERSION",
    "SLOTS",
    "TABLES",
    "bounds",
    "create",
    "fields",
    "sniff",
]

log = logging.getLogger("raeburnmemory")

APPLICATION_ID = 0x5261_654D  # "RaeM"
SCHEMA_VERSION = 1
SLOTS = 1 << 40  # a vector's key is the number of its set times this, plus its slot
ORIGINAL = 0  # what the original library wrote, which knew no versions

TABLES = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE nodes(
    row INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT NOT NULL, id TEXT NOT NULL, kind TEXT NOT NULL, text TEXT,
    attributes TEXT NOT NULL, expires_at REAL, UNIQUE(namespace, id));
CREATE INDEX nodes_kind ON nodes(namespace, kind, expires_at);
CREATE TABLE edges(
    row INTEGER PRIMARY KEY AUTOINCREMENT, namespace TEXT NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL,
    relation TEXT NOT NULL, data TEXT NOT NULL, UNIQUE(namespace, source, target, relation));
CREATE INDEX edges_target ON edges(namespace, target);
CREATE TABLE sets(
    number INTEGER PRIMARY KEY AUTOINCREMENT, field TEXT NOT NULL UNIQUE, dim INTEGER NOT NULL,
    reset_at INTEGER NOT NULL);
CREATE TABLE vectors(
    key INTEGER PRIMARY KEY, row INTEGER, part INTEGER NOT NULL, start INTEGER NOT NULL, "end" INTEGER NOT NULL,
    vector BLOB);
CREATE INDEX vectors_row ON vectors(row) WHERE row IS NOT NULL;
CREATE TABLE history(
    number INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL, kind TEXT NOT NULL, text TEXT,
    attributes TEXT NOT NULL, expires_at REAL);
CREATE INDEX history_row ON history(row);
CREATE TABLE log(version INTEGER PRIMARY KEY, changes TEXT NOT NULL);
"""


def create(db: sqlite3.Connection, store: str, meta: Mapping[str, str] | None = None) -> None:
    """Create the tables of a new store with the id *store*, and what *meta* says of it."""
    rows = ", ".join(f"('{key}', '{json.dumps(value)}')" for key, value in {"store": store, **(meta or {})}.items())
    db.executescript(
        f"BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION_ID}; "
        f"PRAGMA user_version = {SCHEMA_VERSION}; INSERT INTO meta VALUES {rows}; COMMIT;"
    )


def sniff(path: str, *, may_roll_back: bool = False) -> int:
    """Return the schema version of the file at *path*, without changing it.

    *may_roll_back* lets SQLite undo what a crash left half done, as it would for any program that opens the file.

    Raises:
        StoreCorrupt: It is empty, or SQLite cannot read it.
        NotAStore: It is something else.
        StoreTooNew: A newer version of this library wrote it.
    """
    try:
        with database_is_free(path) as free, contextlib.ExitStack() as stack:
            head = stack.enter_context(open(path, "rb")).read(100) if free else None
    except OSError as exc:
        raise write_failed("read", path, exc) from exc
    if head is None:
        version = _ask(path, may_roll_back=may_roll_back)
        if version > SCHEMA_VERSION:
            raise _too_new(path, version)
        return version
    if not head:
        raise StoreCorrupt(f"{path!r} is empty. Run repair, or put back a copy of it, or delete it to start anew.")
    if head[:16] != b"SQLite format 3\0":
        raise NotAStore(f"{path!r} is no SQLite database. Choose another path.")
    if len(head) < 100:
        raise StoreCorrupt(f"{path!r} is cut off after {len(head)} bytes. Run repair, or put back a copy of it.")
    # The header holds user_version at byte 60 and application_id at byte 68 (sqlite.org/fileformat.html). Commits
    # may still wait in the -wal file, so SQLite is asked where the header does not say that the file is ours.
    version, application = struct.unpack(">4xi4xi", head[56:72])
    if application != APPLICATION_ID:
        version = _ask(path, may_roll_back=may_roll_back)
    if application == APPLICATION_ID and version < 1:
        raise StoreCorrupt(
            f"{path!r} is damaged: it says that its schema is {version}. Run repair, or put back a copy of it."
        )
    page = struct.unpack(">H", head[16:18])[0] or 1  # 1 stands for 65,536
    waiting = os.path.exists(path + "-wal") and os.path.getsize(path + "-wal")
    if not waiting and os.path.getsize(path) % (65_536 if page == 1 else page):
        raise StoreCorrupt(
            f"{path!r} is cut off: its size is not a whole number of pages. Run repair, or put back a copy of it."
        )
    if version > SCHEMA_VERSION:
        raise _too_new(path, version)
    return int(version)


def _too_new(path: str, version: int) -> StoreTooNew:
    return StoreTooNew(
        f"{path!r} has schema {version}, this version of raeburnmemory knows up to {SCHEMA_VERSION}. "
        f"Install a newer one: pip install -U raeburnmemory"
    )


def _ask(path: str, *, may_roll_back: bool, mode: str = "ro") -> int:
    """Ask SQLite what the file is. A crash may have left it a journal, which has to be rolled back before."""
    try:
        with contextlib.closing(connect(path, mode, 5.0)) as db:
            application = db.execute("PRAGMA application_id").fetchone()[0]
            version = db.execute("PRAGMA user_version").fetchone()[0]
            columns = {
                table: {row[1] for row in db.execute(f"PRAGMA table_info({table})")} for table in ("nodes", "edges")
            }
            tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    except sqlite3.Error as exc:
        if mode == "ro" and may_roll_back and "readonly" in str(exc):
            return _ask(path, may_roll_back=False, mode="rw")
        raise translated(exc, path) from exc
    if application == APPLICATION_ID:
        return int(version)
    if {"id", "type", "data"} <= columns["nodes"] and {"src", "dst", "relation"} <= columns["edges"]:
        return ORIGINAL
    what = f"a database of another program, with {tables} tables and indexes" if tables else "an empty database"
    raise NotAStore(f"{path!r} is {what}. Nothing was changed. Choose another path.")


def bounds(number: int) -> tuple[int, int]:
    """Return the keys between which the vectors of set *number* lie, the second not included."""
    return number * SLOTS, (number + 1) * SLOTS


def fields(db: sqlite3.Connection) -> dict[str, tuple[int, int, int]]:
    """Return the number of each field's set, the length of its vectors, and the version since which slots hold."""
    rows = db.execute("SELECT field, number, dim, reset_at FROM sets")
    return {field: (number, dim, reset) for field, number, dim, reset in rows}
