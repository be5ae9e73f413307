"""What lies beside a store and may hold what was forgotten: older copies, files set aside, leftovers.

Copies are written anew without it, synced and renamed. What belongs to the store itself is the store's to rewrite.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import sqlite3
import stat
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import LockTimeout, MemoryGraphError, StoreWriteFailed
from ..flat_vectors import read_faiss_flat, read_npy, write_faiss_flat, write_npy
from ..nodes import DEFAULT_NAMESPACE, Batch
from ._files import SWITCHING, sync_folder, write_failed
from .contract import ERASING, Erased
from .nodelink import NAMESPACES, mended
from .snapshot import GraphFile, Snapshot
from .sqlite_connection import connect, translated
from .sqlite_schema import APPLICATION_ID

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from typing import BinaryIO

    from ._packed import NodeKey

__all__ = ["Copies", "asked", "remove_rows"]

_OWN = r"(\.(journal|lock|lock\.gate|map\.json|vectors\.json)|(\.[^/]+)?\.(faiss|vectors\.npy)|-wal|-shm|-journal)"
# What we make of a store when we bring it up to date, find it damaged or mend it.
_COPY = r"([.-].*)?\.(original|(damaged|backup|before-restore)-\d[^/]*)"
_EXPORT = r"\.json"  # of a SQLite store
_INDEX = r"\.[^/]+\.index"
# Of processes that were killed while writing.
_LEFTOVER = rf"({_OWN})?\.tmp-\d+.*|({_COPY}|{_EXPORT})\.tmp-\d+(-journal|-wal|-shm)?|{_INDEX}\..*\.tmp"
_FAMILY = (".journal", ".vectors.json", ".faiss", ".vectors.npy", ".map.json")  # beside a graph
_HEAD = 1 << 20  # bytes in which a graph of ours names its store

_UNREADABLE = (
    MemoryGraphError,
    sqlite3.Error,
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    IndexError,
    RecursionError,
)
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def _is_damage(exc: BaseException, name: str) -> bool:
    """Tell whether *exc* means that a file cannot be read, rather than that it may not be.

    Raises:
        StoreWriteFailed, LockTimeout: The disk refuses or somebody holds the file: nothing to be said against it.
    """
    if isinstance(exc, sqlite3.Error):
        exc = translated(exc, name)
    if isinstance(exc, LockTimeout) or (isinstance(exc, StoreWriteFailed) and exc.errno not in _FORBIDDEN):
        raise exc
    if isinstance(exc, OSError) and exc.errno in _FULL:
        raise write_failed("rewrite", name, exc) from exc
    return not (isinstance(exc, OSError) and exc.errno in _FORBIDDEN)


def asked(before: Any, batch: Batch, *, backups: bool) -> dict[str, Any]:
    """Return what a store keeps under `ERASING` until all is done: what was pending *before*, and *batch*."""
    old = before if isinstance(before, dict) else {}
    nodes = [list(key) for key in dict.fromkeys([*map(tuple, old.get("nodes", ())), *batch.removed_nodes])]
    return {"nodes": nodes, "backups": bool(backups or old.get("backups"))}


class Copies:
    """The files beside the store at *path*; whoever uses this holds the store's lock.

    *gone* are the nodes that no copy may hold any more. With *backups* a copy that cannot be read is deleted.
    *export* says that `<path>.json` is a copy, as it is of a database.
    """

    def __init__(
        self, path: str, store: str, gone: Collection[NodeKey], *, backups: bool, timeout: float, export: bool = False
    ) -> None:
        self._path, self._store, self._gone, self._backups, self._timeout = path, store, set(gone), backups, timeout
        self._copy = rf"{_COPY}|{_EXPORT}" if export else _COPY
        self._rewritten: list[str] = []
        self._deleted: list[str] = []
        self._left: list[str] = []
        self._recognised = False  # the file at hand

    def found(self) -> Erased:
        """Return what was done so far."""
        return Erased(tuple(self._rewritten), tuple(self._deleted), tuple(self._left))

    def sync(self) -> None:
        """Make it durable that files are gone: a power cut could bring them back."""
        try:
            sync_folder(os.path.dirname(self._path))
        except OSError as exc:
            raise write_failed("sync the folder of", self._path, exc) from exc

    def add(self, more: Erased) -> None:
        """Count in what was done elsewhere."""
        self._rewritten += more.rewritten
        self._deleted += more.deleted
        self._left += more.left

    def clean(self) -> None:
        """Rewrite or delete every copy."""
        self.sweep()
        for name, rest in self._beside(self._path):
            if not re.fullmatch(rf"({_COPY})?{_OWN}", rest):  # else it belongs to a store, which sees to it
                self._one(name, known=re.fullmatch(self._copy, rest) is not None)

    def sweep(self, *, indexes: bool = False) -> None:
        """Delete what killed processes left, and what others are writing right now and cannot use any more.

        With *indexes* saved indexes, too.
        """
        again = True
        while again:  # somebody may have renamed a file between our look and our hand
            again = False
            for name, rest in self._beside(self._path):
                if re.fullmatch(rf"{_LEFTOVER}|{_INDEX}" if indexes else _LEFTOVER, rest):
                    again = True
                    self._delete(name)

    def _delete(self, name: str) -> None:
        try:
            os.unlink(name)
            self._deleted.append(name)
        except FileNotFoundError:
            pass
        except OSError as exc:
            raise write_failed("delete", name, exc) from exc

    def _beside(self, path: str) -> Iterator[tuple[str, str]]:
        """Yield the plain files whose names begin with that of the store at *path*, and the rest of their names."""
        folder, name = os.path.split(path)
        try:
            with os.scandir(folder) as entries:
                found = sorted(
                    entry.name.removeprefix(name)
                    for entry in entries
                    if entry.name.startswith(name) and entry.is_file(follow_symlinks=False)
                )
        except OSError as exc:
            raise write_failed("list the folder of", self._path, exc) from exc
        for rest in found:
            if rest[:1] in {".", "-"} and not self._of_neighbour(rest, found):
                yield path + rest, rest

    def _of_neighbour(self, rest: str, found: list[str]) -> bool:
        """Tell whether a file belongs to another store whose name is longer: `a.db.old-wal` does, beside `a.db.old`."""
        return any(
            rest.startswith((other + ".", other + "-")) and not re.fullmatch(rf"{_OWN}|{self._copy}", other)
            for other in found
            if other
        )

    def _one(self, name: str, *, known: bool) -> None:
        """Rewrite one file if it is a copy: by its name (*known*), or because it holds a store with our id."""
        self._recognised = False
        try:
            rewritten = self._database(name, known=known) if _is_database(name) else self._graph(name, known=known)
        except FileNotFoundError:
            return
        except _UNREADABLE as exc:
            damage = _is_damage(exc, name)
            if known or self._recognised:
                self._unreadable(name, damage=damage)
        else:
            if rewritten:
                self._rewritten.append(name)

    def _unreadable(self, name: str, *, damage: bool) -> None:
        """Delete a file that may hold anything, if that is allowed, with what belongs to it."""
        if self._backups and damage:
            self._delete(name)
            for file, rest in self._beside(name):
                if re.fullmatch(rf"{_OWN}|{re.escape(SWITCHING)}", rest) and not rest.endswith((".lock", ".lock.gate")):
                    self._delete(file)
        else:
            self._left.append(name)

    # --- JSON ---------------------------------------------------------------------------------------------------

    def _graph(self, name: str, *, known: bool) -> bool:
        if not known and not _mentions(name, self._store):
            return False
        graph = GraphFile.read(name)
        if graph.store is None:
            return known and self.rewrite_foreign(name)
        if graph.store != self._store:
            return False  # a memory of its own
        if any(os.path.exists(name + ending) for ending in _FAMILY):
            self._erase_in(name)
            return False
        state = graph.state
        gone = [key for key in self._gone if key in state.nodes]
        if state.meta.pop(ERASING, None) is None and not gone:
            return False
        state.apply(Batch(removed_nodes=gone), graph.version)

        def fill(temporary: str) -> None:
            Snapshot.of(state, self._store).write(temporary)

        _replace(name, fill)
        return True

    def rewrite_foreign(self, name: str) -> bool:
        """Take the nodes out of a graph that another program wrote, and leave the rest as that program has it."""
        with open(name, "rb") as file:
            data = json.load(file)
        held = False
        sections = [(DEFAULT_NAMESPACE, data), *data.get(NAMESPACES, {}).items()]
        for space, section in sections:
            ids = {node_id for namespace, node_id in self._gone if namespace == space}
            for key, ends in (("nodes", ("id",)), ("edges", ("source", "target")), ("links", ("source", "target"))):
                entries = section.get(key)
                if entries is not None:
                    section[key] = [e for e in entries if not any(_id(e[end]) in ids for end in ends)]
                    held = held or len(section[key]) < len(entries)
        if held:
            _replace(name, lambda temporary: _write(temporary, lambda out: out.write(json.dumps(data).encode())))
        return held

    def rewrite_original_vectors(self, path: str) -> None:
        """Take the vectors out of the files that the original wrote beside its graph at *path*.

        Their rows become zeros, which is how the original says that there is none: so the files fit each other
        whenever this is cut short. So do rows that the map does not name, left behind when one was replaced.
        """
        where = path + ".map.json"
        there = [name for name in (path + ".faiss", path + ".vectors.npy") if os.path.exists(name)]
        ids = {node_id for namespace, node_id in self._gone if namespace == DEFAULT_NAMESPACE}
        try:
            with open(where, "rb") as file:
                rows = {_id(key): int(at) for key, at in json.load(file).items()}
            kept = {key: at for key, at in rows.items() if key not in ids}
            for name in there:
                faiss = name.endswith(".faiss")
                values = read_faiss_flat(name) if faiss else read_npy(name)
                unnamed = np.setdiff1d(np.arange(len(values)), np.array(list(kept.values()), np.int64))
                if values[unnamed].any():
                    values[unnamed] = 0
                    self._fill(name, partial(write_faiss_flat if faiss else write_npy, vectors=values))
            if len(kept) < len(rows):
                self._fill(where, lambda out: out.write(json.dumps(kept).encode()))
        except _UNREADABLE as exc:
            damage = _is_damage(exc, path)
            for name in [*there, where]:
                if os.path.exists(name):
                    self._unreadable(name, damage=damage)

    def _fill(self, name: str, fill: Callable[[BinaryIO], Any]) -> None:
        _replace(name, lambda temporary: _write(temporary, fill))
        self._rewritten.append(name)

    def _erase_in(self, path: str, *, database: bool = False) -> None:
        """Erase the nodes from the store at *path*, which is a copy of ours, and somebody may have open."""
        from pathlib import Path

        from .json import JsonStore
        from .sqlite import SqliteStore

        self._recognised = True  # whatever keeps it from being opened, a backup that was cut short for one
        kind: type[JsonStore | SqliteStore] = SqliteStore if database else JsonStore
        with contextlib.closing(kind(Path(path), timeout=self._timeout)) as store:
            self.add(store.erase(Batch(removed_nodes=sorted(self._gone)), backups=self._backups))

    # --- SQLite -------------------------------------------------------------------------------------------------

    def _database(self, name: str, *, known: bool) -> bool:
        with contextlib.closing(_peek(name)) as db:
            ours = db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
            if ours:
                row = db.execute("SELECT value FROM meta WHERE key = 'store'").fetchone()
                if row is None or json.loads(row[0]) != self._store:
                    return False  # a memory of its own
        if ours and ".damaged-" not in name:
            self._erase_in(name, database=True)
            return False
        if not known:
            return False
        if os.path.exists(name + "-wal"):  # into the file with it: a new file must not meet an old -wal
            with contextlib.closing(connect(name, "rw", 5.0)) as db:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

        def fill(temporary: str) -> None:
            with contextlib.closing(_peek(name)) as db:
                db.execute("VACUUM INTO ?", (temporary,))
            with contextlib.closing(connect(temporary, "rw", 5.0)) as db:
                db.execute("PRAGMA journal_mode=OFF")
                db.execute("PRAGMA secure_delete=ON")
                if ours:
                    remove_rows(db, self._gone)
                    db.execute("DELETE FROM meta WHERE key = ?", (ERASING,))
                else:
                    self._remove_original(db)
                db.execute("VACUUM")

        _replace(name, fill)
        return True

    def _remove_original(self, db: sqlite3.Connection) -> None:
        ids = [(node_id,) for namespace, node_id in self._gone if namespace == DEFAULT_NAMESPACE]
        db.executemany("DELETE FROM nodes WHERE id = ?", ids)
        db.executemany("DELETE FROM edges WHERE src = ?", ids)
        db.executemany("DELETE FROM edges WHERE dst = ?", ids)
        if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'vectors'").fetchone():
            db.executemany("DELETE FROM vectors WHERE id = ?", ids)

    # --- where it was copied from -------------------------------------------------------------------------------

    def source(self, record: Any) -> None:
        """Clean the JSON store that this one was copied from, as *record* names it, if it is still there."""
        if not isinstance(record, dict):
            return
        path = os.path.join(os.path.dirname(self._path), os.path.basename(str(record["name"])))
        if not os.path.exists(path):
            return
        try:
            graph = GraphFile.read(path)
            if graph.store is not None and graph.store != record["store"]:
                # It was written to on its own since, and what stands in it is not ours to take away.
                if any(key in graph.state.nodes for key in self._gone):
                    self._left.append(path)
            elif graph.store is not None or os.path.exists(path + ".journal"):
                self._erase_in(path)
            else:
                self.rewrite_original_vectors(path)
                if self.rewrite_foreign(path):
                    self._rewritten.append(path)
                beside = Copies(path, self._store, self._gone, backups=self._backups, timeout=self._timeout)
                beside.clean()
                self.add(beside.found())
        except _UNREADABLE as exc:
            damage = _is_damage(exc, path)
            for ending in ("", *_FAMILY):
                if os.path.exists(path + ending):
                    self._unreadable(path + ending, damage=damage)


def remove_rows(db: sqlite3.Connection, gone: Collection[NodeKey]) -> None:
    """Remove nodes from a database of ours with all that hangs on them, and every mention of any in its log."""
    for namespace, node_id in gone:
        for end in ("source", "target"):  # with OR, SQLite would go through all edges of the namespace
            db.execute(f"DELETE FROM edges WHERE namespace = ? AND {end} = ?", (namespace, node_id))
        found = db.execute("SELECT row FROM nodes WHERE namespace = ? AND id = ?", (namespace, node_id)).fetchone()
        if found is not None:
            # The keys stay, without what they held, so that no slot is given twice.
            db.execute("UPDATE vectors SET row = NULL, vector = NULL WHERE row = ?", found)
            db.execute("DELETE FROM history WHERE row = ?", found)
            db.execute("DELETE FROM nodes WHERE row = ?", found)
    # Two versions on, with nothing in between: whoever asks what changed has to read everything again.
    version = db.execute("SELECT max(version) FROM log").fetchone()[0] or 0
    db.execute("DELETE FROM log")
    db.execute("INSERT INTO log VALUES (?, ?)", (version + 2, json.dumps({"mark": os.urandom(4).hex()})))


def _peek(name: str) -> sqlite3.Connection:
    """Open a database for reading without making files beside it, if none are there."""
    busy = any(os.path.exists(name + ending) for ending in ("-wal", "-journal"))
    return connect(name, "ro" if busy else "ro&immutable=1", 5.0)


def _mentions(name: str, store: str) -> bool:
    """Tell by its beginning whether a file can be a graph of *store*."""
    with open(name, "rb") as file:
        return store.encode() in file.read(_HEAD)


def _is_database(name: str) -> bool:
    # One that this process has open must not be opened by other means: closing it again would drop SQLite's locks
    # (sqlite.org/howtocorrupt.html, section 2.2). Then it has a -wal file.
    if os.path.exists(name + "-wal"):
        return True
    with open(name, "rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _id(value: Any) -> str:
    return str(mended(value))


def _write(path: str, fill: Callable[[BinaryIO], Any]) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        fill(file)


def _replace(name: str, fill: Callable[[str], None]) -> None:
    """Let *fill* write a new file, sync it, and put it in the place of *name*."""
    temporary = f"{name}.tmp-{os.getpid()}"
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        fill(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.chmod(temporary, stat.S_IMODE(os.stat(name).st_mode))
        os.replace(temporary, name)
        sync_folder(os.path.dirname(name))
    except (StoreWriteFailed, FileNotFoundError):
        raise
    except OSError as exc:
        raise write_failed("rewrite", name, exc) from exc  # which is no damage of what is there
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
