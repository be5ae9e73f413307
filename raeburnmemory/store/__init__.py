"""What must survive: nodes, edges, words, vectors.

`Store` is the contract. Choose one with `open_store`; `raeburnmemory.testing` holds the checks that every store
passes, yours included. What is here finds out which store a location holds, and opens it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from .._optional import extra
from ..errors import (
    InvalidInput,
    MemoryGraphError,
    NotAStore,
    StoreCorrupt,
    StoreWriteFailed,
    UnknownBackend,
)
from ..nodes import Batch
from .contract import COPYING, COPYING_META, ERASING, SOURCE, Erased, Store, VectorBlock, VectorChanges
from .copying import copy_store, migrate_json

if TYPE_CHECKING:
    from .sqlite_vectors import VectorFormat

__all__ = [
    "COPYING",
    "COPYING_META",
    "ERASING",
    "SOURCE",
    "Durability",
    "Erased",
    "Store",
    "StoreName",
    "VectorBlock",
    "VectorChanges",
    "checked_path",
    "copy_store",
    "default_path",
    "finish_erasing",
    "is_postgres",
    "open_store",
    "store_exists",
]

StoreName = Literal["json", "sqlite", "postgres", "memory"]
Durability = Literal["full", "process"]


def is_postgres(location: Any) -> bool:
    """Tell whether *location* is the URL of a PostgreSQL server."""
    return isinstance(location, str) and location.startswith(("postgresql://", "postgres://"))


def default_path(backend: str | None) -> str:
    """Return where a memory is kept when nobody says where."""
    return os.path.join("~", ".raeburnbrain", "graph.db" if backend == "sqlite" else "graph.json")


def open_store(
    location: str | os.PathLike[str],
    backend: str | None = None,
    *,
    read_only: bool = False,
    timeout: float = 30.0,
    durability: Durability = "full",
    vector_format: VectorFormat | None = None,
    language: str = "english",
) -> Store:
    """Open the store at *location*, creating it unless *read_only*.

    The backend is taken from what an existing file holds, else from the suffix (.db, .sqlite and .sqlite3 are
    `sqlite`, all others `json`), unless it is named. `sqlite` with `x.json` means `x.db`; a memory in JSON files
    beside a `sqlite` store that does not exist yet is copied into it. A URL that begins with `postgresql://` or
    `postgres://` is `postgres`, where *language* is that of the full text search of a new store. *durability* is what a
    write survives, see `Store.durability`. *vector_format* is how a new `sqlite` store writes vectors: `"float32"`, or
    `"pgvector"` in the binary form of that package.

    Raises:
        UnknownBackend: No store has that name.
        InvalidInput: The name contradicts the file, or no such durability is known.
        StoreMissing, NotAStore, StoreCorrupt, StoreTooNew, StoreWriteFailed: The files cannot be used.
    """
    if backend is not None and backend not in get_args(StoreName):
        choices = ", ".join(get_args(StoreName))
        raise UnknownBackend(f"No storage backend is called {backend!r}. Choose one of: {choices}.")
    if durability not in get_args(Durability):
        choices = ", ".join(map(repr, get_args(Durability)))
        raise InvalidInput(f"{durability!r} is no durability. Choose one of: {choices}.")
    name = checked_path(location)
    if name == ":memory:" or backend == "memory":
        if vector_format is not None:
            raise InvalidInput(f"vector_format={vector_format!r} is for SQLite, and {name!r} keeps nothing there.")
        from .memory import MemoryStore

        return MemoryStore()
    if is_postgres(name):
        from .postgres_url import parse

        if backend not in {None, "postgres"}:
            raise InvalidInput(
                f"{parse(name).shown!r} is the URL of a postgres store, but storage_backend={backend!r} was asked for. "
                f"Leave storage_backend out, or name a file."
            )
        if vector_format is not None:
            raise InvalidInput(f"vector_format={vector_format!r} is for SQLite; PostgreSQL has pgvector's form anyway.")
        with extra("postgres", module="psycopg"):
            from .postgres import PostgresStore

        return _without_pending(
            PostgresStore(name, read_only=read_only, timeout=timeout, durability=durability, language=language)
        )
    if "://" in name:
        raise UnknownBackend(f"No storage backend opens {name.split('@')[-1]!r}. Name a file, such as 'memory.db'.")
    if backend == "postgres":
        raise InvalidInput(f"A postgres store is named by a URL, postgresql://user@host/database, not by {name!r}.")
    path, older = _resolve(name, backend)
    found = _kind_of(path)
    if backend is not None and found is not None and found != backend:
        raise InvalidInput(
            f"{str(path)!r} holds a {found} store, but storage_backend={backend!r} was asked for. Leave "
            f"storage_backend out, or choose another path."
        )
    chosen = found or backend or ("sqlite" if path.suffix.lower() in {".db", ".sqlite", ".sqlite3"} else "json")
    if vector_format is not None:
        from .sqlite_vectors import checked_format

        checked_format(vector_format, new=chosen == "sqlite" and found is None and not read_only)
        if chosen != "sqlite":
            raise InvalidInput(f"vector_format={vector_format!r} is for SQLite, and {str(path)!r} is a {chosen} store.")
    from ._mounts import warn_of_network

    if not read_only:
        _make_folder(path.parent)
    warn_of_network(str(path))
    if chosen == "json":
        from .json import JsonStore

        return _without_pending(JsonStore(path, read_only=read_only, timeout=timeout, durability=durability))
    from .sqlite import SqliteStore

    if older is not None and not path.exists() and not read_only and _kind_of(older) == "json":
        migrate_json(older, path, timeout, vector_format)
    store = SqliteStore(path, read_only=read_only, timeout=timeout, durability=durability, vector_format=vector_format)
    return _without_pending(store)


_PATIENCE = 1.0  # seconds that opening waits for others who read what is to be erased


def _without_pending(store: Store) -> Store:
    """Complete an erasure that was cut short, if this store may be written."""
    if (copying := store.meta(COPYING)) is not None:
        import logging

        logging.getLogger("raeburnmemory").warning(
            "%r is a copy that was not finished (it got as far as the %s). Run copy again.",
            store.location, copying.get("stage"),
        )  # fmt: skip
    if store.read_only or store.meta(ERASING) is None:
        return store
    import logging

    log = logging.getLogger("raeburnmemory")
    try:
        found = store.erase(Batch(), timeout=_PATIENCE)
    except MemoryGraphError as exc:
        log.warning("What was forgotten for good may still stand in the files: %s", exc)
    except BaseException:
        store.close()
        raise
    else:
        log.info("An erasure in %r that was cut short is complete now.", store.location)
        for name in found.left:
            log.warning("%r may still hold what was forgotten for good: it cannot be read. Delete it.", name)
    return store


def finish_erasing(location: str | os.PathLike[str], timeout: float = 30.0) -> Erased | None:
    """Complete an erasure of the store at *location* that was cut short, and say what came of it; None if none was.

    Opening a store for writing does so as well, but waits for nobody long, and fails in silence.

    Raises:
        LockTimeout: Somebody goes on writing, or reading what is to be erased.
        StoreWriteFailed: The disk refused.
    """
    from .json import JsonStore
    from .sqlite import SqliteStore

    path, _ = _resolve(checked_path(location), None)
    kind: type[JsonStore | SqliteStore] = SqliteStore if _kind_of(path) == "sqlite" else JsonStore
    with contextlib.closing(kind(path, timeout=timeout)) as store:
        return None if store.meta(ERASING) is None else store.erase(Batch())


def store_exists(location: str | os.PathLike[str], backend: str | None = None) -> bool:
    """Tell whether `open_store` would find a store at *location*, one to copy from included."""
    name = checked_path(location)
    if is_postgres(name):
        with extra("postgres", module="psycopg"):
            from .postgres import postgres_exists

        return postgres_exists(name)
    if name == ":memory:" or backend == "memory" or "://" in name:
        return False
    path, older = _resolve(name, backend)
    return path.exists() or (older is not None and older.exists())


def checked_path(location: Any) -> str:
    """Return a path as a string, its `~` expanded.

    Raises:
        InvalidInput: It is no path that a file can have.
    """
    try:
        name = os.fspath(location)
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError("no path")
        os.fsencode(name)
    except (TypeError, ValueError) as exc:
        plain = isinstance(location, (str, bytes, int, float, type(None)))
        shown = repr(location) if plain else f"an object of {type(location).__name__}"
        raise InvalidInput(f"{shown} is no path. Name a file, such as 'memory.db'.") from exc
    return os.path.expanduser(name)


def _resolve(name: str, backend: str | None) -> tuple[Path, Path | None]:
    """Return the file to open, and the JSON store to copy into it if it does not exist."""
    path = _real_path(name)
    if backend == "sqlite" and (path.suffix == ".json" or not path.exists()):
        older = path.with_suffix(".json")
        return (path.with_suffix(".db") if path.suffix == ".json" else path), older
    return path, None


def _real_path(name: str) -> Path:
    """Follow links once, so that every name of a store leads to one lock; refuse what is no plain file."""
    try:
        if os.path.islink(name) and not os.path.exists(name):
            raise NotAStore(f"{name!r} is a link to {os.readlink(name)!r}, which is not there. Choose another path.")
        path = Path(os.path.realpath(name))
        if path.is_dir():
            raise NotAStore(f"{name!r} is a folder. Name a file in it, such as {os.path.join(name, 'memory.db')!r}.")
        if path.exists() and not path.is_file():
            raise NotAStore(f"{name!r} is a device, pipe or socket, no file. Choose another path.")
    except OSError as exc:
        from ._files import write_failed

        raise write_failed("reach", name, exc) from exc
    return path


def _kind_of(path: Path) -> str | None:
    """Tell which store an existing file holds by its first bytes; None where there is no file."""
    from ._files import database_is_free, write_failed

    try:
        with database_is_free(str(path)) as free:
            if not free:
                return "sqlite"
            with path.open("rb") as file:
                head = file.read(64)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise write_failed("read", str(path), exc) from exc
    if not head:
        raise StoreCorrupt(f"{str(path)!r} is empty. Put back a copy of it, or delete it to start anew.")
    if head.startswith(b"SQLite format 3\0"):
        return "sqlite"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in {b"{", b"[", b'"'} or path.suffix == ".json":
        return "json"
    raise NotAStore(f"{str(path)!r} is neither JSON nor a SQLite database. Choose another path.")


def _make_folder(folder: Path) -> None:
    from ._files import sync_folder

    missing = list(itertools.takewhile(lambda each: not each.exists(), [folder, *folder.parents]))
    try:
        for each in reversed(missing):
            each.mkdir(mode=0o700, exist_ok=True)
            sync_folder(str(each.parent))  # else a power cut could take the folder, and with it all that is synced
        if not folder.is_dir():
            raise NotADirectoryError(20, os.strerror(20))
    except OSError as exc:
        raise StoreWriteFailed(
            exc.errno, f"{str(folder)!r} cannot be made: {exc.strerror}. Choose another path"
        ) from exc
