"""Backups, made while others write, and their return."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import GraphClosed, InvalidInput, StoreCorrupt, StoreError, StoreWriteFailed
from ..lock import StoreLock
from ..memory_graph import MemoryGraph
from ..store import copy_store, open_store
from ..store._files import SupersededError, at_once, now
from ..store.json import JsonStore
from ..store.sqlite import SqliteStore
from ..store.sqlite_connection import Connection, translated
from .examine import examine
from .generation import beside, moves, parts_of, refused, reset, write_json
from .json_files import state_of
from .json_rescue import highest_version
from .place import Place, find
from .report import Copied
from .sqlite_file import opened
from .switch import resume, switch, unfinished

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from .report import Report

__all__ = ["backup", "restore"]

_TRIES = 3  # of a backup that erasures overtake; from then on it keeps them out while it copies
_LEAP = 1_000_000  # beyond every version that a store of which nothing can be read may have had


def backup(memory: Any, target: str | os.PathLike[str], *, overwrite: bool = False) -> Copied:
    """Copy a memory (a path, or a `MemoryGraph`) to *target*, as it is at one moment, while others go on writing.

    The copy has the same form (JSON or SQLite) and is a memory of its own, which opens as it is. It is written under
    another name, synced, verified, and then renamed, so that there is a whole backup or none.

    Where its name begins with that of the memory, as in `notes.db.monday`, `forget(secure=True)` cleans it as well. So
    it is renamed under the lock of the memory, and is copied again if such an erasure came meanwhile.

    Raises:
        InvalidInput: There is something at *target*, and *overwrite* is false; or its name is that of the other form.
        StoreCorrupt: The memory is damaged; repair it first.
        StoreWriteFailed: The disk refused.
        LockTimeout: Somebody holds the lock that is needed in the end.
    """
    if isinstance(memory, MemoryGraph) and memory.storage_backend == "memory":
        return _backup_unsaved(memory, target, overwrite=overwrite)
    source = find(memory.db_path if isinstance(memory, MemoryGraph) else memory)
    there = _target(target, source, overwrite=overwrite)
    with refused("back up to", there.name):
        if there.name.startswith((source.name + ".", source.name + "-")):
            return _backup_within_reach(memory, source, there, overwrite=overwrite)
        with beside(there.name) as stem:
            _write(source, stem, at_once)
            return _publish(source.name, stem, there, overwrite=overwrite)


def _backup_within_reach(memory: Any, source: Place, there: Place, *, overwrite: bool) -> Copied:
    """Back up to where an erasure of the memory at *source* looks for copies."""
    with contextlib.ExitStack() as stack:
        hold: Callable[[], AbstractContextManager[Any]]
        if isinstance(memory, MemoryGraph) and not memory.read_only and _is_open(memory):
            hold = memory._store.exclusive  # noqa: SLF001 - this thread may be in it already
        else:
            hold = StoreLock(source.path, 30.0)
            stack.callback(hold.close)
        tries = 0
        while True:
            tries += 1
            with (
                contextlib.suppress(SupersededError),
                _held(hold) if tries > _TRIES else contextlib.nullcontext(),
                _begun(source.name) as (stem, wanted),
            ):
                _write(source, stem, wanted)
                return _publish(source.name, stem, there, overwrite=overwrite, last=partial(_held, hold, wanted))


def _is_open(memory: MemoryGraph) -> bool:
    try:
        memory._store.version()  # noqa: SLF001
    except GraphClosed:
        return False
    return True


@contextlib.contextmanager
def _begun(path: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Give a name as `beside` does, and what raises SupersededError once there was an erasure at *path* since.

    An erasure deletes every temporary file of the memory after the nodes, so that it takes this mark as well: it was
    made before anything of the memory was read.
    """
    with beside(path) as stem:
        mark = stem + ".begun"
        os.close(os.open(mark, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

        def wanted() -> None:
            if not os.path.lexists(mark):
                raise SupersededError

        try:
            yield stem, wanted
        except Exception:
            wanted()  # else it may have failed because its files were deleted
            raise


@contextlib.contextmanager
def _held(hold: Callable[[], AbstractContextManager[Any]], wanted: Callable[[], None] = at_once) -> Iterator[None]:
    """Keep erasures out of the block, and enter it only if it is still *wanted*."""
    with contextlib.ExitStack() as stack:
        # Who may read a memory and not lock it can still make a copy.
        with contextlib.suppress(StoreWriteFailed):
            stack.enter_context(hold())
        wanted()
        yield


def _write(source: Place, stem: str, begin: Callable[[], None]) -> None:
    """Write a copy at *stem*; *begin* is called once a file is there and before anything is in it, and may raise."""
    if source.backend == "json":
        state, store = _state(source)
        write_json(state, store, stem, begin)
    elif not os.access(source.path.parent, os.W_OK):
        with opened(source.name) as db:  # SQLite would need to make files there to read the log
            _copy_database(db, source.name, stem, begin)
    else:
        with contextlib.closing(SqliteStore(source.path, read_only=True)) as store:
            _copy_database(store.lend(), source.name, stem, begin)  # the driver copies best


def _backup_unsaved(memory: MemoryGraph, target: Any, *, overwrite: bool) -> Copied:
    """Write a memory that is kept nowhere to a file."""
    there = find(target, must_exist=False)
    _refuse_existing(there, overwrite=overwrite)
    with refused("back up to", there.name), beside(there.name) as stem:
        with contextlib.closing(open_store(stem, there.backend)) as store:
            copy_store(memory._store, store)  # noqa: SLF001 - its contract; there is no file to go by
            store.checkpoint()
        for name in (stem + ".lock", stem + ".lock.gate"):
            os.unlink(name)
        return _publish(":memory:", stem, there, overwrite=overwrite)


def _target(target: Any, source: Place, *, overwrite: bool) -> Place:
    there = find(target, must_exist=False)
    _clear_unfinished(there)
    if there.name == source.name:
        raise InvalidInput(f"{there.name!r} is the memory itself. Choose another name for the copy.")
    other = {".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".json": "json"}.get(there.path.suffix.lower())
    if other is not None and other != source.backend:
        right = ".json" if source.backend == "json" else ".db"
        raise InvalidInput(
            f"{source.name!r} is a {source.backend} memory, and so is its copy, but {there.name!r} is the name of "
            f"another kind. Let it end with {right}."
        )
    _refuse_existing(there, overwrite=overwrite)
    return Place(there.path, source.backend)


def _clear_unfinished(there: Place) -> None:
    """Clear away a backup that was cut short just before it was complete."""
    if unfinished(there.name):
        resume(there.name)
        for name in parts_of(there.name, there.backend):
            os.unlink(name)


def _refuse_existing(there: Place, *, overwrite: bool) -> None:
    if os.path.isdir(there.name):
        raise InvalidInput(f"{there.name!r} is a folder. Name a file in it.")
    if not there.path.parent.is_dir():
        raise InvalidInput(f"There is no folder {str(there.path.parent)!r}. Make it, or choose another path.")
    if not overwrite and (parts_of(there.name, "json") or parts_of(there.name, "sqlite")):
        raise InvalidInput(f"There is something at {there.name!r} already. Choose another name, or say overwrite.")


def _state(source: Place) -> Any:
    """Return what a JSON memory holds at one moment, and its id."""
    with contextlib.closing(JsonStore(source.path, read_only=True)) as store:
        if (lost := store.vectors_lost()) is not None:
            raise StoreCorrupt(
                f"Vectors of {source.name!r} are lost ({lost}). Mend it first: raeburnmemory --db {source.name} repair"
            )
        return state_of(store), store.id


def _copy_database(source: sqlite3.Connection, name: str, target: str, begin: Callable[[], None] = at_once) -> None:
    """Copy a database with its log, in one read: writers go on beside it and are not seen."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(target, factory=Connection)) as copy:
            begin()  # SQLite has opened the file by now, and makes no other one
            source.backup(copy)
    except sqlite3.Error as exc:
        raise translated(exc, target if "full" in str(exc) else name) from exc
    with open(target, "rb") as file:
        os.fsync(file.fileno())


def _publish(
    source: str,
    stem: str,
    there: Place,
    *,
    overwrite: bool,
    last: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Copied:
    """Verify the copy at *stem*, and put it in its place in the block *last*."""
    report = _checked(stem, there, f"The copy of {source!r}")
    size = sum(os.path.getsize(name) for name in parts_of(stem, there.backend))
    with last():
        if overwrite:
            lock = StoreLock(there.path, 30.0)
            try:
                with lock():
                    resume(there.name)
                    switch(there.name, moves(stem, there.name, there.backend, lambda _: None))
            finally:
                lock.close()
        else:
            switch(there.name, moves(stem, there.name, there.backend, lambda _: None), fresh=True)
    return Copied(source, there.name, size, sum(report.counts["nodes"].values()), report.version or 0)


def _checked(stem: str, there: Place, what: str) -> Report:
    report = examine(Place(there.path.with_name(os.path.basename(stem)), there.backend))
    if report.codes("error"):
        wrong = next(finding for finding in report.findings if finding.severity == "error")
        raise StoreCorrupt(
            f"{what} is not sound, so it was not kept: {wrong.message} Mend the memory first with repair."
        )
    return report


def restore(backup: str | os.PathLike[str], path: str | os.PathLike[str], *, timeout: float = 30.0) -> Copied:
    """Put a backup in the place of the memory at *path*, all of it or nothing.

    The backup is verified first, and stays where it is. What was at *path* is kept as a memory of its own called
    `<name>.before-restore-<time>`. Other processes that have the memory open see the restored one at their next call.
    Killed in the middle, run `repair` or the same call again.

    Raises:
        StoreCorrupt: The backup is damaged; nothing was changed.
        InvalidInput: The two have different forms (JSON and SQLite), or are the same file.
        LockTimeout: Another process holds the memory.
        StoreWriteFailed: The disk refused.
    """
    source, there = find(backup), find(path, must_exist=False)
    if source.name == there.name:
        raise InvalidInput(f"{source.name!r} cannot be restored to itself. Name the memory to restore it to.")
    if os.path.lexists(there.name) and there.backend != source.backend:
        raise InvalidInput(
            f"{source.name!r} is a {source.backend} memory and {there.name!r} a {there.backend} one. Restore it to "
            f"another path."
        )
    there = Place(there.path, source.backend)
    if not there.path.parent.is_dir():
        raise InvalidInput(f"There is no folder {str(there.path.parent)!r}. Make it, or choose another path.")
    found = examine(source)
    if found.codes("error"):
        wrong = next(finding for finding in found.findings if finding.severity == "error")
        raise StoreCorrupt(f"The backup {source.name!r} is damaged, and nothing was changed: {wrong.message}")
    if source.backend == "sqlite" and "older" in found.codes():
        raise InvalidInput(
            f"{source.name!r} was written by the original library. Bring it up to date first: "
            f"raeburnmemory --db {source.name} schema --migrate"
        )
    lock = StoreLock(there.path, timeout)
    try:
        with lock(), refused("restore", there.name):
            resume(there.name)
            return _restore(source, there)
    finally:
        lock.close()


def _restore(source: Place, there: Place) -> Copied:
    stamp = now(there.name, "before-restore")
    version = _next_version(there)
    with beside(there.name) as stem:
        if source.backend == "json":
            state, store = _state(source)
            state.version = max(state.version + 2, version)
            write_json(state, store, stem)
        else:
            with opened(source.name) as db:  # which leaves no trace beside the backup
                _copy_database(db, source.name, stem)
            with opened(stem) as db:
                last = db.execute("SELECT max(version) FROM log").fetchone()[0] or 0
            reset(stem, max(int(last) + 2, version))
        report = _checked(stem, there, f"The copy of {source.name!r}")
        size = sum(os.path.getsize(name) for name in parts_of(stem, there.backend))
        before = f"{there.name}.before-restore-{stamp}"
        planned = moves(stem, there.name, there.backend, lambda name: before + name[len(there.name) :])
        kept = sorted(move.kept for move in planned if move.kept is not None and os.path.lexists(move.final))
        switch(there.name, planned)
    return Copied(source.name, there.name, size, sum(report.counts["nodes"].values()), report.version or 0, kept)


def _next_version(there: Place) -> int:
    """Return a version that nobody who has the memory open can have seen, so that they read everything anew."""
    if not os.path.lexists(there.name):
        return 0
    if there.backend == "json":
        return highest_version(there.path) + 2
    try:
        with opened(there.name) as db:
            return int(db.execute("SELECT max(version) FROM log").fetchone()[0] or 0) + 2
    except (sqlite3.Error, StoreError, TypeError):
        return _LEAP
