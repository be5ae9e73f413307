"""The tables of a SQLite store, and how older files become them."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import sqlite3
import struct
from typing import TYPE_CHECKING

from ..errors import GraphClosed, LockTimeout, MissingDependency, NotAStore, StoreCorrupt, StoreTooNew
from ._files import database_is_free, write_failed

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "APPLICATION_ID",
    "ORIGINAL",
    "SCHEMA_VERSION",
    "SLOTS",
    "TABLES",
    "bounds",
    "connect",
    "create",
    "fields",
    "readers_of",
    "sniff",
    "translated",
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


def connect(path: str, mode: str, timeout: float, *, synced: bool = True) -> sqlite3.Connection:
    """Open the database at *path* (*mode*: ro or rw) so that nothing checkpoints by itself.

    Commits are synced; without *synced* only checkpoints are, before and after them, which keeps commits in order.
    """
    if sqlite3.sqlite_version_info < (3, 35):  # RETURNING
        raise MissingDependency(
            f"Python's SQLite is {sqlite3.sqlite_version}, and 3.35 is needed. Use a newer Python, or a path that "
            f"ends in .json."
        )
    from urllib.parse import quote

    db = sqlite3.connect(
        f"file:{quote(path)}?mode={mode}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        db.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
        db.execute("PRAGMA wal_autocheckpoint=0")
    except BaseException:
        db.close()
        raise
    return db


_READ_LOCKS = range(123, 128)  # bytes of the -shm file that readers lock (sqlite.org/walformat.html)


def readers_of(path: str) -> list[int]:
    """Return the processes that are reading from the -wal file of the database at *path*, where the system tells."""
    pids = set()
    with contextlib.suppress(OSError, ValueError):
        inode = os.stat(path + "-shm").st_ino
        with open("/proc/locks", encoding="ascii") as file:
            for line in file:  # "1: POSIX  ADVISORY  READ 4711 fe:01:1234 123 123"
                words = line.split()
                if words[1] == "POSIX" and words[3] == "READ" and int(words[5].rpartition(":")[2]) == inode:
                    first, last = int(words[6]), int(words[7])
                    if first <= _READ_LOCKS[-1] and last >= _READ_LOCKS[0] and int(words[4]) > 0:
                        pids.add(int(words[4]))
    return sorted(pids)


def bounds(number: int) -> tuple[int, int]:
    """Return the keys between which the vectors of set *number* lie, the second not included."""
    return number * SLOTS, (number + 1) * SLOTS


def fields(db: sqlite3.Connection) -> dict[str, tuple[int, int, int]]:
    """Return the number of each field's set, the length of its vectors, and the version since which slots hold."""
    rows = db.execute("SELECT field, number, dim, reset_at FROM sets")
    return {field: (number, dim, reset) for field, number, dim, reset in rows}


def _refusal(path: str) -> int:
    """Return the number of the error behind one that SQLite does not tell: EIO where nothing else is to be found."""
    folder = os.path.dirname(path)
    files = [name for name in (path, path + "-wal", path + "-shm") if os.path.exists(name)]
    if not all(os.access(name, os.R_OK | os.W_OK) for name in [folder, *files]):
        return errno.EACCES
    with contextlib.ExitStack() as stack:
        try:  # not these files themselves: see `database_is_free`
            for _ in range(4):
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError as exc:
            return exc.errno or errno.EIO
    with contextlib.suppress(ImportError, OSError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        if limit != resource.RLIM_INFINITY and max(map(os.path.getsize, files), default=0) > limit - _NEAR:
            return errno.EFBIG
    with contextlib.suppress(AttributeError, OSError):
        if os.statvfs(folder).f_favail == 0:
            return errno.ENOSPC
    # A quota that is used up says so to nobody but who writes.
    probe = f"{path}.tmp-{os.getpid()}"
    try:
        fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(fd, bytes(_PROBE))
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as exc:
        return errno.EIO if isinstance(exc, FileExistsError) else exc.errno or errno.EIO
    finally:
        with contextlib.suppress(OSError):
            os.unlink(probe)
    return errno.EIO


_PROBE = 1 << 16  # bytes for which there is no room where one page was refused
_NEAR = 1 << 17  # bytes below the limit on file sizes: more than one transaction of a few rows


def translated(exc: sqlite3.Error, path: str) -> Exception:
    """Return our error for what SQLite said about the database at *path*."""
    text = str(exc)
    if "disk is full" in text:
        return write_failed("write", path, OSError(28, text))
    if "readonly" in text or "read-only" in text:
        return write_failed("write", path, OSError(30, text))
    if "locked" in text or "busy" in text:
        return LockTimeout(
            f"{path!r} is in use by another program ({text}). Close it there, or pass a larger timeout=."
        )
    if "disk I/O error" in text or "unable to open" in text:
        return write_failed("read or write", path, OSError(_refusal(path), text))
    if "closed database" in text:
        return GraphClosed(f"The memory {path!r} was closed. Open it again.")
    if isinstance(exc, (sqlite3.DatabaseError, sqlite3.OperationalError)) and not isinstance(
        exc, (sqlite3.IntegrityError, sqlite3.ProgrammingError)
    ):
        return StoreCorrupt(f"{path!r} is damaged: {text}. Nothing was changed. Run repair, or put back a copy of it.")
    return exc
