"""What can be wrong with a memory in SQLite: the database, its log, its rows."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
from typing import TYPE_CHECKING, Any

import numpy as np

from ..environment import sqlite_fault
from ..errors import MemoryGraphError, NotAStore, StoreCorrupt, StoreTooNew, StoreWriteFailed
from ..nodes import Link, Node
from ..store import VectorBlock
from ..store._files import database_is_free, read_database
from ..store._wal import power_failed
from ..store.sqlite_connection import Connection, connect
from ..store.sqlite_schema import APPLICATION_ID, SCHEMA_VERSION, SLOTS, TABLES, bounds, sniff
from ..store.sqlite_vectors import head_of, unpack_vectors
from .content import Content, object_of, some
from .sqlite_pages import read_wal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .report import Report

__all__ = ["check_database", "expected_schema", "opened", "stamps"]

_WAL_HEADER = 32  # bytes
_WAL_LARGE = 64 << 20
_BLOCK = 8192


def stamps(path: str) -> list[Any]:
    """Return what changes when somebody writes to the database or its log."""
    found: list[Any] = []
    for name in (path, path + "-wal", path + "-journal"):
        try:
            entry = os.lstat(name)
            found.append((entry.st_ino, entry.st_size, entry.st_mtime_ns))
        except OSError:
            found.append(None)
    return found


@contextlib.contextmanager
def opened(path: str) -> Iterator[sqlite3.Connection]:
    """Open the database for reading, and write nothing beside it.

    Opening a database in write-ahead mode makes files, even for reading. Where its log is empty it is opened as
    immutable instead; else it is copied to a temporary folder with its log, and opened there.
    """
    if not any(_size(path + ending) for ending in ("-wal", "-journal")):
        with contextlib.closing(connect(path, "ro&immutable=1", 5.0)) as db:
            yield db
        return
    with tempfile.TemporaryDirectory(prefix="raeburnmemory-") as folder:
        copy = os.path.join(folder, "copy.db")
        _copy(path, copy)
        with contextlib.closing(connect(copy, "rw", 5.0)) as db:
            yield db


def _copy(path: str, copy: str) -> None:
    """Copy a database and its log while others may be writing.

    Commits are appended to the log, and pages carried over from it into the database are in it still, so that the
    two fit whatever happened between, unless the log was begun anew: then they are copied again.
    """
    try:
        for _ in range(20):
            before = _log_head(path)
            for ending in ("", "-wal", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(copy + ending)
                with contextlib.suppress(FileNotFoundError), database_is_free(path + ending) as free:
                    if free:
                        shutil.copyfile(path + ending, copy + ending)
                    else:
                        with open(copy + ending, "wb") as target:
                            target.write(read_database(path))
            if _log_head(path) == before:
                return
    except OSError as exc:
        raise StoreWriteFailed(
            exc.errno,
            f"{path!r} has to be copied to be read without changing anything, and that failed: {exc.strerror}. Close "
            f"the memory first, or set TMPDIR to a folder with room for it",
        ) from exc
    raise StoreCorrupt(f"{path!r} changes faster than it can be copied. Close the memory in other programs first.")


def _log_head(path: str) -> tuple[bytes, Any]:
    try:
        with open(path + "-wal", "rb") as file:
            return file.read(32), None
    except OSError:
        entry = os.stat(path)
        return b"", (entry.st_ino, entry.st_mtime_ns)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


# --- the file ---------------------------------------------------------------------------------------------------


def check_database(path: str, report: Report, use: Callable[[Content], None]) -> None:
    """Add what is wrong with the database to *report*; hand what it holds, if that can be read, to *use*.

    Raises:
        StoreTooNew: A newer version of this library wrote it.
    """
    _check_version(report)
    _check_log(path, report)
    if _size(path + "-journal"):
        report.add(
            "warning", "hot-journal", f"{path + '-journal'!r} holds a change that was not finished; the next program "
            f"that opens the database undoes it."
        )  # fmt: skip
    try:
        if _size(path + "-journal") == 0 and sniff(path) != SCHEMA_VERSION:
            report.add(
                "warning", "older", f"{path!r} was written by the original library. The first opening brings it up to "
                f"date and keeps a copy, or: raeburnmemory --db {path} schema --migrate"
            )  # fmt: skip
            return
        with opened(path) as db:
            content = _read(db, path, report)
            if content is not None:
                use(content)
    except StoreTooNew:
        raise
    except (NotAStore, StoreCorrupt) as exc:
        report.add("error", "database", str(exc))
    except StoreWriteFailed as exc:
        report.add("error", "unreadable", str(exc))
    except sqlite3.Error as exc:
        report.add("error", "database", f"{path!r} is damaged: SQLite says {str(exc)!r}.")
    except OSError as exc:
        report.add("error", "unreadable", f"{path!r} cannot be read: {exc.strerror}.")


def _check_version(report: Report) -> None:
    report.add("note", "sqlite-version", sqlite_fault() or f"SQLite is {sqlite3.sqlite_version}.")


def _check_log(path: str, report: Report) -> None:
    name = path + "-wal"
    if os.path.lexists(name) and not os.path.isfile(name):
        report.add("error", "wal", f"{name!r} is no file.")
        return
    wal = read_wal(name)
    if not wal.bytes:
        return
    if wal.more and _power_failed(path, wal.valid):
        lost = f"{wal.more} changes or more from byte {wal.valid} on"
        report.add(
            "warning", "wal-torn", f"A power cut has left {lost} of {name!r} that cannot be read, and that were not "
            f"synced; the next writer sets the file aside."
        )  # fmt: skip
    elif wal.more:
        lost = f"{wal.more} commits behind byte {wal.valid} cannot be read"
        report.add("error", "wal", f"{name!r} is damaged: a frame in it is not what was written, and {lost}.")
    elif wal.bytes < _WAL_HEADER:
        report.add(
            "note", "wal-waiting", f"{name!r} has {wal.bytes} bytes, less than the header that comes before commits."
        )
    elif not wal.valid:
        report.add("error", "wal", f"{name!r} has {wal.bytes} bytes, but not one commit that SQLite would read.")
    else:
        torn = wal.bytes - wal.valid
        rest = f", and {torn} bytes that are no whole commit" if torn else ""
        report.add("note", "wal-waiting", f"{name!r} holds {wal.valid} bytes of commits{rest}.")
    if wal.bytes > _WAL_LARGE:
        report.add("note", "wal-large", f"{name!r} has {wal.bytes} bytes. Make it small with: compact")
    if wal.pages:
        _check_same_store(path, report)


def _power_failed(path: str, at: int) -> bool:
    with contextlib.suppress(sqlite3.Error, MemoryGraphError, OSError), opened(path) as db:
        return power_failed(db, path, at)
    return False


def _check_same_store(path: str, report: Report) -> None:
    """Find a log that belongs to another database: with it, the file is another store, or has another past."""
    try:
        with opened(path) as db:
            store, log = _identity(db)
        with contextlib.closing(connect(path, "ro&immutable=1", 5.0)) as db:
            alone, before = _identity(db)
    except (sqlite3.Error, MemoryGraphError, OSError):
        return  # damaged, as will be said; or the database itself is not there yet
    if alone is not None and (alone != store or any(log.get(v, mark) != mark for v, mark in before.items())):
        report.add("error", "wal-foreign", f"{path + '-wal'!r} belongs to another database.")


def _identity(db: sqlite3.Connection) -> tuple[Any, dict[int, Any]]:
    """Return the id of the store and the newest entries of its log."""
    store = db.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()
    log = db.execute("SELECT version, changes FROM log ORDER BY version DESC LIMIT 1000").fetchall()
    return store, dict(log)


# --- the rows ---------------------------------------------------------------------------------------------------


def expected_schema() -> tuple[dict[str, list[str]], set[str]]:
    """Return the columns of every table that there should be, and the names of the indexes."""
    with contextlib.closing(sqlite3.connect(":memory:", factory=Connection)) as db:
        db.executescript(TABLES)
        return _schema(db)


def _schema(db: sqlite3.Connection) -> tuple[dict[str, list[str]], set[str]]:
    names = db.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite!_%' ESCAPE '!'").fetchall()
    tables = {
        str(name): [row[1] for row in db.execute(f'PRAGMA table_info("{name}")')]
        for kind, name in names
        if kind == "table"
    }
    return tables, {str(name) for kind, name in names if kind == "index"}


def _read(db: sqlite3.Connection, path: str, report: Report) -> Content | None:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        report.add("error", "database", f"{path!r} does not say that it is a memory: its application id is wrong.")
    elif version > SCHEMA_VERSION:
        raise StoreTooNew(
            f"{path!r} has schema {version}, this version of raeburnmemory knows up to {SCHEMA_VERSION}. "
            f"Install a newer one: pip install -U raeburnmemory"
        )
    try:
        problems = [str(row[0]) for row in db.execute("PRAGMA integrity_check(20)")]
    except sqlite3.DatabaseError as exc:  # so damaged that not even the check gets through
        problems = [str(exc)]
    if problems != ["ok"]:
        report.add("error", "integrity", f"{path!r} is damaged, says SQLite: {some(problems)}.")
    tables, indexes = _schema(db)
    wanted, wanted_indexes = expected_schema()
    missing = [name for name, columns in wanted.items() if tables.get(name) != columns]
    if missing:
        report.add("error", "tables", f"Tables of {path!r} are missing or have other columns: {some(missing)}.")
    if gone := sorted(wanted_indexes - indexes):
        report.add("warning", "indexes", f"Indexes of {path!r} are missing: {some(gone)}.")
    if missing:
        return None
    # A text that is no UTF-8 comes as bytes, to be named instead of stopping everything.
    db.text_factory = _text
    return _Rows(db, path, report).content()


def _text(raw: bytes) -> str | bytes:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


class _Rows:
    """Reads the rows of a database and says which of them make no sense."""

    def __init__(self, db: sqlite3.Connection, path: str, report: Report) -> None:
        self._db, self._path, self._report = db, path, report
        self._wrong: dict[str, list[Any]] = {}

    def content(self) -> Content:
        """Return what the rows hold."""
        nodes: dict[int, Node] = {}
        for row, namespace, node_id, kind, text, attributes, expires in self._select(
            "SELECT row, namespace, id, kind, text, attributes, expires_at FROM nodes ORDER BY row"
        ):
            data = object_of(attributes)
            known = all(isinstance(value, str) for value in (namespace, node_id, kind))
            if data is None or not known or not isinstance(text, (str, type(None))) or not _expiry(expires):
                self._wrong.setdefault("nodes", []).append(node_id if isinstance(node_id, str) else row)
            if known:
                nodes[row] = Node(
                    node_id, kind, text if isinstance(text, str) else None, data or {}, namespace,
                    expires if _expiry(expires) else None, row,
                )  # fmt: skip
        links = []
        for row, namespace, source, target, relation, text in self._select(
            "SELECT row, namespace, source, target, relation, data FROM edges ORDER BY row"
        ):
            data = object_of(text)
            if data is None or not all(isinstance(value, str) for value in (namespace, source, target, relation)):
                self._wrong.setdefault("edges", []).append(f"{source!s} -> {target!s}")
            links.append(Link(str(source), str(target), str(relation), data or {}, str(namespace), row))
        past = []
        for row, kind, text, attributes, expires in self._select(
            "SELECT row, kind, text, attributes, expires_at FROM history ORDER BY number"
        ):
            data, now = object_of(attributes), nodes.get(row)
            if data is None or not isinstance(kind, str) or not isinstance(text, (str, type(None))):
                self._wrong.setdefault("earlier versions", []).append(now.id if now else row)
                continue
            name, space = (now.id, now.namespace) if now else (str(row), "default")
            past.append((row, Node(name, kind, text, data, space, expires, row)))
        meta = self._meta()
        marks = self._marks()
        sets = {
            number: (name, dim)
            for number, name, dim in self._select("SELECT number, field, dim FROM sets")
            if isinstance(name, str) and isinstance(dim, int) and dim > 0
        }
        self._check_vectors(nodes, sets)
        for what, names in self._wrong.items():
            ids = tuple(str(name) for name in names)
            self._report.add(
                "error", "rows", f"{len(names)} {what} of {self._path!r} cannot be read whole: {some(names)}.", ids
            )
        return Content(nodes, links, past, meta, lambda: self._blocks(sets), marks)

    def _select(self, sql: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._db.execute(sql, values)
        except sqlite3.Error as exc:
            table = sql.partition("FROM ")[2].split()[0]
            message = f"The table {table!r} of {self._path!r} cannot be read to its end: SQLite says {str(exc)!r}."
            self._report.add("error", "table", message)

    def _meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = {}
        for key, value in self._select("SELECT key, value FROM meta"):
            try:
                meta[str(key)] = json.loads(value)
            except (ValueError, TypeError, RecursionError):
                self._wrong.setdefault("records (meta)", []).append(str(key))
        if not isinstance(meta.get("store"), str):
            self._report.add("error", "store-id", f"{self._path!r} does not say which memory it is.")
        return meta

    def _marks(self) -> dict[int, Any]:
        """Return what each change was marked with."""
        marks: dict[int, Any] = {}
        for version, changes in self._select("SELECT version, changes FROM log ORDER BY version"):
            entry = object_of(changes)
            marks[version] = (entry or {}).get("mark")
            if entry is None:
                self._wrong.setdefault("changes", []).append(version)
        versions = list(marks)
        self._report.version = versions[-1] if versions else 0
        if versions and versions != list(range(versions[0], versions[0] + len(versions))):
            self._report.add("error", "log", f"Changes are missing from the log of {self._path!r}.")
        return marks

    def _check_vectors(self, nodes: dict[int, Node], sets: dict[int, tuple[Any, int]]) -> None:
        """Name the vectors that cannot be read as numbers, or belong to no field."""
        sql = (
            "SELECT key, row, CASE typeof(vector) WHEN 'blob' THEN length(vector) WHEN 'null' THEN -1 END, "
            "substr(vector, 1, 4) FROM vectors"
        )
        for key, row, size, head in self._select(sql):
            _, dim = sets.get(key // SLOTS, (None, -1))
            whole = size == 4 * dim or (size == 4 * dim + 4 and head == head_of(dim))
            if (row is None) != (size == -1) or (row is not None and not whole):
                node = nodes.get(row)
                self._wrong.setdefault("vectors", []).append(node.id if node else f"key {key}")

    def _blocks(self, sets: dict[int, tuple[Any, int]]) -> Iterator[tuple[str, int, VectorBlock]]:
        """Yield the vectors that have the length they should have."""
        for number, (name, dim) in sets.items():
            sql = (
                'SELECT key, row, part, start, "end", vector FROM vectors WHERE key >= ? AND key < ? '
                "AND row IS NOT NULL AND typeof(vector) = 'blob' AND (length(vector) = ? OR length(vector) = ? AND "
                "substr(vector, 1, 4) = ?) ORDER BY key LIMIT ?"
            )
            first, end = bounds(number)
            while rows := list(self._select(sql, (first, end, 4 * dim, 4 * dim + 4, head_of(dim), _BLOCK))):
                values = unpack_vectors([row[5] for row in rows], dim)
                assert values is not None
                numbers = np.array([row[:5] for row in rows], np.int64)
                yield (
                    str(name),
                    int(dim),
                    VectorBlock(numbers[:, 0] - number * SLOTS, numbers[:, 1], values, numbers[:, 2:5]),
                )
                if rows[0][0] < first or (np.diff([row[0] for row in rows]) <= 0).any():
                    self._report.add("error", "table", f"The keys of 'vectors' in {self._path!r} are out of order.")
                    break  # else it would begin again, and never end
                first = rows[-1][0] + 1


def _expiry(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))
