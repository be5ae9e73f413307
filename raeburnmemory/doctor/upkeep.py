"""Making the files of a memory small, and telling and changing the versions of their formats."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from typing import TYPE_CHECKING, Any

from ..errors import NotAStore, StoreCorrupt, StoreError, StoreTooNew
from ..index import _file, _parts_file
from ..lock import StoreLock
from ..store import journal, snapshot, vector_files
from ..store._files import settled, write_failed
from ..store.json import JsonStore
from ..store.nodelink import parse_json
from ..store.sqlite import SqliteStore
from ..store.sqlite_connection import connect, translated
from ..store.sqlite_schema import ORIGINAL, SCHEMA_VERSION, sniff
from .generation import parts_of
from .index_files import is_of_words
from .place import Place, find
from .report import Compacted, FileFormat, Schema

if TYPE_CHECKING:
    from typing import Literal

    State = Literal["current", "older", "newer"]

__all__ = ["compact", "schema"]


def compact(path: Any, *, timeout: float = 30.0) -> Compacted:
    """Give back the room that the files of the memory at *path* do not need, and report their bytes.

    A JSON memory takes its journal into `graph.json`; a SQLite one is written anew without free pages (`VACUUM`), and
    its log is emptied as far as nobody reads in it. Writers wait meanwhile, readers do not.

    Raises:
        StoreError: The files cannot be used.
        LockTimeout: Another process holds the memory for longer than *timeout* seconds.
    """
    place = find(path)
    settled(place.name)
    before = _bytes(place)
    if place.backend == "json":
        with contextlib.closing(JsonStore(place.path, timeout=timeout)) as store:
            store.checkpoint()
    else:
        SqliteStore(place.path, timeout=timeout).close()  # for its errors, and to bring an older one up to date
        lock = StoreLock(place.path, timeout)
        try:
            with lock(), contextlib.closing(connect(place.name, "rw", timeout)) as db:
                db.execute("VACUUM")
                db.execute("PRAGMA busy_timeout=0")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as exc:
            raise translated(exc, place.name) from exc
        finally:
            lock.close()
    return Compacted(place.name, before, _bytes(place))


def _bytes(place: Place) -> int:
    total = 0
    for name in parts_of(place.name, place.backend):
        with contextlib.suppress(OSError):
            if name.endswith("-shm"):  # an index of the log, which SQLite keeps in memory
                continue
            total += os.path.getsize(name)
    return total


def schema(path: Any, *, migrate: bool = False, timeout: float = 30.0) -> Schema:
    """Report the versions of the formats of a memory's files, and what this version reads and writes.

    With *migrate*, files of the original library, or a graph that another program wrote, are brought up to date,
    and kept as `<name>.original`. Without, nothing is written.

    Raises:
        StoreCorrupt, NotAStore: The files cannot be read.
        StoreTooNew: *migrate* was asked for, and a newer version wrote them.
    """
    place = find(path)
    settled(place.name)
    found = _schema(place)
    if not migrate or found.state == "current":
        return found
    if found.state == "newer":
        raise StoreTooNew(
            f"{place.name!r} was written by a newer version. Install it with: pip install -U raeburnmemory"
        )
    there = os.path.exists(place.name + ".original")
    if place.backend == "json":
        with contextlib.closing(JsonStore(place.path, timeout=timeout)) as store, store.exclusive():
            store._adopt()  # noqa: SLF001 - what its first write would do
    else:
        SqliteStore(place.path, timeout=timeout).close()
    kept = [] if there else [place.name + ".original"]
    now = _schema(place)
    return Schema(now.path, now.backend, now.state, now.files, kept)


def _schema(place: Place) -> Schema:
    files = _database(place) if place.backend == "sqlite" else _json_files(place)
    newer = any(file.format is not None and file.writes is not None and file.format > file.writes for file in files)
    older = any(file.format is None or file.format == ORIGINAL for file in files if file.writes is not None)
    state: State = "newer" if newer else "older" if older else "current"
    return Schema(place.name, place.backend, state, files)


def _database(place: Place) -> list[FileFormat]:
    try:
        version = sniff(place.name)
    except StoreTooNew:
        with contextlib.closing(connect(place.name, "ro&immutable=1", 5.0)) as db:
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
    found = [FileFormat(place.name, "database", version, f"{ORIGINAL} to {SCHEMA_VERSION}", SCHEMA_VERSION)]
    return [*found, *_indexes(place)]


def _indexes(place: Place) -> list[FileFormat]:
    names = [name for name in parts_of(place.name, place.backend) if name.endswith(".index")]
    return [FileFormat(name, "saved index, a cache", *_index_format(name), None) for name in names]


def _index_format(name: str) -> tuple[int | None, str]:
    """Return the format of a saved index, if it says so, and the one that this version reads."""
    known = str(_file.FORMAT)
    try:
        if is_of_words(name):
            known = str(_parts_file.FORMAT)
        with open(name, "rb") as file:
            file.readline(200)
            return int(json.loads(file.readline(1 << 16))["format"]), known
    except (OSError, ValueError, KeyError, TypeError):
        return None, known


def _json_files(place: Place) -> list[FileFormat]:
    try:
        with open(place.name, "rb") as file:
            data = parse_json(file.read(), place.name)
    except (FileNotFoundError, IsADirectoryError) as exc:
        raise NotAStore(f"{place.name!r} is no file. Look closer with: raeburnmemory --db {place.name} verify") from exc
    except StoreError:
        raise  # some of ours are OSErrors, too
    except OSError as exc:
        raise write_failed("read", place.name, exc) from exc
    graph = data.get("graph")
    ours = graph.get("raeburnmemory") if isinstance(graph, dict) else None
    version = _format(ours, place.name) if ours is not None else None
    found = [FileFormat(place.name, "graph", version, f"none to {snapshot.FORMAT}", snapshot.FORMAT)]
    if ours is None:
        return found
    for name, what, known in (
        (place.name + ".journal", "journal", journal.FORMAT),
        (place.name + ".vectors.json", "description of the vectors", vector_files.FORMAT),
    ):
        if os.path.exists(name):
            try:
                with open(name, "rb") as file:
                    raw = file.readline()[9:] if what == "journal" else file.read()
            except OSError as exc:
                raise write_failed("read", name, exc) from exc
            try:
                head = json.loads(raw)
            except (ValueError, RecursionError) as exc:
                raise StoreCorrupt(
                    f"{name!r} is damaged: {exc}. Mend it with: raeburnmemory --db {place.name} repair"
                ) from exc
            found.append(FileFormat(name, what, _format(head, name), str(known), known))
    return [*found, *_indexes(place)]


def _format(head: Any, name: str) -> int:
    value = head.get("format") if isinstance(head, dict) else None
    if type(value) is not int:
        raise StoreCorrupt(f"{name!r} is damaged: it does not say which format it has.")
    return value
