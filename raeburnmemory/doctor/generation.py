"""A whole store written beside its place, and the moves that put it there."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from typing import TYPE_CHECKING

from ..errors import MemoryGraphError, StoreWriteFailed
from ..nodes import DEFAULT_NAMESPACE
from ..store._files import at_once, beginning, sync_folder, write_failed
from ..store._packed import ID, NAMESPACE, ROW, TEXT
from ..store.journal import Journal
from ..store.snapshot import Snapshot
from ..store.sqlite_connection import connect, translated
from ..store.sqlite_schema import fields
from ..store.vector_files import VectorFiles, text_checksum
from .index_files import index_files
from .json_files import files_of
from .switch import Move

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..store.state import State

__all__ = ["beside", "moves", "parts_of", "refused", "renew", "reset", "write_json"]

_SQLITE = ("", "-wal", "-shm", "-journal")


@contextlib.contextmanager
def beside(path: str) -> Iterator[str]:
    """Give a name for a store in the making beside *path*, and remove what is left under it in the end."""
    stem = f"{path}.tmp-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        yield stem
    finally:
        with contextlib.suppress(OSError):
            for name in reversed(beginning(stem)):  # while the stem is there, the others are known to be its
                with contextlib.suppress(OSError):
                    os.unlink(name)


@contextlib.contextmanager
def refused(verb: str, name: str) -> Iterator[None]:
    """Translate what the system or SQLite refuses in the block."""
    try:
        yield
    except MemoryGraphError:
        raise  # some of ours are OSErrors, too
    except OSError as exc:
        raise write_failed(verb, name, exc) from exc
    except sqlite3.Error as exc:
        raise translated(exc, name) from exc


def parts_of(path: str, backend: str) -> list[str]:
    """Return the files that are there of a store: its database with logs, or its JSON files, and saved indexes."""
    found = files_of(path) if backend == "json" else [path + ending for ending in _SQLITE]
    found += index_files(path).values()
    return [name for name in found if os.path.lexists(name)]


def moves(stem: str, path: str, backend: str, kept: Callable[[str], str | None]) -> list[Move]:
    """Return the moves that put the store at *stem* in the place of that at *path*.

    *kept* gives the name for each file that goes; caches of a database go without one.
    """
    new = {path + name[len(stem) :]: name for name in parts_of(stem, backend)}
    found = []
    for name in parts_of(path, backend):
        cache = name.endswith(("-shm", ".index")) or (name.endswith("-wal") and not os.path.getsize(name))
        if name not in new:
            found.append(Move(None, name, None if cache else kept(name)))
    # What is left of the old one goes first, so that no log is ever beside a database that it does not belong to.
    return [*found, *(Move(source, name, kept(name)) for name, source in new.items())]


# --- JSON -------------------------------------------------------------------------------------------------------


def write_json(state: State, store: str, stem: str, begin: Callable[[], None] = at_once) -> None:
    """Write *state* as a whole JSON store at *stem*, synced.

    *begin* is called once a file is there and before anything is in it; it may raise.

    Raises:
        StoreWriteFailed: The disk refused.
    """
    snapshot = Snapshot.of(state, store)
    rows = {node[ROW]: node for node in snapshot.nodes}
    try:
        digest, _ = snapshot.write(stem, begin)
        VectorFiles(stem).prepare(
            store,
            snapshot.version,
            snapshot.fields,
            lambda row: text_checksum(rows[row][TEXT]),
            lambda row: rows[row][ID] if rows[row][NAMESPACE] == DEFAULT_NAMESPACE else None,
            snapshot.meta.get("embedder"),
            None,
            None,
            "",
            begin,
        )
        Journal.write_new(stem + ".journal", store, snapshot.version, digest, [])
        sync_folder(os.path.dirname(stem))
    except OSError as exc:
        if isinstance(exc, StoreWriteFailed):
            raise
        raise write_failed("write", stem, exc) from exc


# --- SQLite -----------------------------------------------------------------------------------------------------


def renew(db: sqlite3.Connection, version: int) -> None:
    """Make *version* the only one that the log knows, in a transaction that is begun.

    Whoever has an older one in memory then reads everything anew: nobody has ever seen the version before it.
    """
    db.execute("DELETE FROM log")
    mark = uuid.uuid4().hex[:8]
    db.execute("INSERT INTO log VALUES (?, ?)", (version, f'{{"mark":"{mark}"}}'))
    for field in fields(db):
        db.execute("UPDATE sets SET reset_at = ? WHERE field = ?", (version, field))


def reset(path: str, version: int) -> None:
    """Give the database at *path*, which nobody else has open, the version *version*, and sync it."""
    try:
        with contextlib.closing(connect(path, "rw", 5.0)) as db:
            db.execute("BEGIN IMMEDIATE")
            renew(db, version)
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as exc:
        raise translated(exc, path) from exc
    with open(path, "rb") as file:
        os.fsync(file.fileno())
