"""What must survive: nodes, edges, words, vectors.

`Store` is the contract. Choose one with `open_store`; `raeburnmemory.testing` holds the checks that every store
passes, yours included.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, get_args, runtime_checkable

from .._optional import extra
from ..errors import (
    InvalidInput,
    MemoryGraphError,
    NotAStore,
    StoreCorrupt,
    StoreWriteFailed,
    UnknownBackend,
)
from ..nodes import Batch, Vector, Where

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from ..nodes import Changes, Link, Node
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

ERASING = "erasing"  # the key in meta of an erasure that is not through: the nodes, and whether copies may be deleted
COPYING = "copying"  # the key in meta of a copy that is not through: of what, and how far it is
COPYING_META = ("embedder", "graph", "top", "reembedding", "single_valued")  # what is said about a memory by itself
SOURCE = "migrated_from"  # the key in meta of the store that this one was copied from: its file's name and its id


class VectorBlock(NamedTuple):
    """Some vectors of one field, by ascending slot.

    `slots` and node `rows` are int64 (n), `values` float32 (n, dim), `spans` int64 (n, 3): part, start, end.
    """

    slots: NDArray[np.int64]
    rows: NDArray[np.int64]
    values: NDArray[np.float32]
    spans: NDArray[np.int64]


class VectorChanges(NamedTuple):
    """What happened to the vectors of one field after a version.

    `reset`: forget every slot first; `blocks` then holds all. `blocks` may be read once, and before the next call.
    """

    version: int
    reset: bool
    removed: NDArray[np.int64]
    blocks: Iterator[VectorBlock]


class Erased(NamedTuple):
    """What an erasure did to files: those `rewritten`, those `deleted`, and those `left` that may still hold it."""

    rewritten: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


@runtime_checkable
class Store(Protocol):
    """The truth on disk. Safe to share between threads; several processes may open the same one.

    Every method sees what any process committed before the call. Errors of drivers and of the operating system
    are translated: see `raeburnmemory.errors`.
    """

    name: str
    """The backend's name: `"json"`, `"sqlite"`, `"postgres"`, `"memory"`."""
    location: str
    """Where it is, for messages: a path, a URL, `":memory:"`."""
    id: str
    """Unique per store, made when it was created; every cache records it."""
    read_only: bool
    durability: str
    """What an acknowledged change survives: `"full"`: a power cut; `"process"`: the end of the process, however that
    comes, but not a power cut; `"none"`: nothing, it is in memory only."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep every other writer, in any thread or process, out of the block. Reentrant.

        What is written in it is synced by the end of the outermost block, which raises if that fails.
        """

    def write(self, batch: Batch) -> int:
        """Apply *batch*, all or nothing, synced, and return the new version. An empty batch changes nothing.

        With `durability` `"process"` it is not synced, but written in order: a power cut takes the newest changes.

        Threads that write at once may share a sync; then its failure is that of each.
        """

    def erase(self, batch: Batch, *, backups: bool = False, timeout: float | None = None) -> Erased:
        """Apply *batch*, and leave nothing of the nodes that it removes, or that were removed before, in any file.

        What others made of the store, from copies of older formats to files set aside, is rewritten without those
        nodes where it can be read; what cannot is deleted with *backups*, else named as left. Caches of readers start
        over. It may be called again, with an empty batch too, and completes what was cut short. *timeout* (in seconds;
        else that of the store) is how long it waits for readers.

        Raises:
            LockTimeout: Somebody goes on reading what is to be erased. The nodes are gone, the erasing is not through.
            StoreWriteFailed: The disk refused; likewise, unless nothing was changed at all.
        """

    def version(self) -> int:
        """Return the number of the last committed batch. Cheap enough for every call."""

    def snapshot(self) -> AbstractContextManager[None]:
        """Let every read in the block see one version, whoever writes meanwhile. Keep it short: it holds others up."""

    def changes(self, since: int) -> Changes:
        """Return what happened to nodes and edges after version *since*."""

    def get(self, ids: Sequence[str], namespace: str) -> dict[str, Node]:
        """Return those of the nodes named by *ids* that exist."""

    def at_rows(self, rows: Sequence[int]) -> Mapping[int, Node]:
        """Return those of the nodes at *rows* that exist now, in any namespace; they may be made when looked at."""

    def nodes(self, where: Where) -> Iterator[Node]:
        """Yield the nodes that *where* describes, by ascending row."""

    def rows(self, where: Where) -> NDArray[np.int64]:
        """Return the rows of the nodes that *where* describes, ascending, without reading their texts."""

    def expired(self, namespace: str, kind: str) -> list[str]:
        """Return the ids of the nodes of one kind that have expired and were not removed yet, by ascending row."""

    def links(
        self,
        ids: Sequence[str] | None,
        namespace: str | None,
        *,
        direction: str = "out",
        relation: str | None = None,
        newest: int | None = None,
    ) -> list[Link]:
        """Return edges by ascending row: those leaving (`"out"`), entering (`"in"`) or touching (`"both"`) *ids*.

        None for *ids* means every edge, None for *namespace* every namespace. *newest* limits the result to the
        last so many on each side of each of *ids*, at no more cost than that.
        """

    def all_links(self, namespace: str | None) -> Iterator[Link]:
        """Yield every edge of a namespace, None: of all, by ascending row, without holding up others in between.

        Whoever writes meanwhile does not hide an edge that stays; what is new may be among them.
        """

    def history(self, node_id: str, namespace: str) -> list[Node]:
        """Return the replaced versions of a node, oldest first."""

    def vectors(self, field: str, since: int) -> VectorChanges:
        """Return what happened to the vectors of *field* after version *since* (-1: everything)."""

    def vector_fields(self) -> set[str]:
        """Return the fields that have vectors, and perhaps some that had. Cheap enough for every version."""

    def vector_slots(self, field: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the slots of the vectors in *field*, ascending, and the node row of each."""

    def vectors_at(self, rows: Sequence[int]) -> dict[int, dict[tuple[str, int], NDArray[np.float32]]]:
        """Return the vectors of the nodes at *rows*, by field and part, of those that have any.

        Of several vectors of one part it is the newest.
        """

    def vectors_lost(self) -> str | None:
        """Say which file with vectors is gone or damaged, in a clause for an error message; None if none is."""

    def count(self, namespace: str) -> int:
        """Return how many nodes a namespace holds, the sum of the kinds that `counts` gives, for less."""

    def counts(self, namespace: str | None) -> dict[str, dict[str, int]]:
        """Return `{"kinds": {kind: n}, "relations": {relation: n}, "vectors": {field: n}}`."""

    def namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold nodes, sorted."""

    def meta(self, key: str) -> Any:
        """Return the JSON value kept under *key*, or None."""

    def cache_path(self, field: str) -> str | None:
        """Return where an index of *field* may be saved as a cache, or None if that gains nothing here."""

    def checkpoint(self, *, mended: bool = False) -> None:
        """Bring what was written into its final files, so that others can copy or read them.

        *mended* says that vectors which were lost (`vectors_lost`) have been made again.
        """

    def mark(self, version: int) -> str | None:
        """Return what the commit of *version* was marked with, by chance, or None if that is not known any more.

        A cache that records it can tell this store from one with the same id and another past, such as a backup.
        """

    def remembers(self, version: int) -> bool:
        """Tell whether whoever opens this store next, if it is closed now, can ask what changed after *version*."""

    def size(self) -> int:
        """Return the bytes on disk."""

    def close(self) -> None:
        """Leave everything in order for the next one to open it. Closing twice is fine."""


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
        _migrate_json(older, path, timeout, vector_format)
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


def _migrate_json(source: Path, target: Path, timeout: float, vector_format: str | None = None) -> None:
    """Copy the JSON store at *source* into a SQLite store at *target*, which appears whole or not at all."""
    import logging

    from ..lock import StoreLock
    from ._files import discard, sync_folder, write_failed
    from .json import JsonStore
    from .sqlite import SqliteStore

    with contextlib.closing(StoreLock(target, timeout)) as lock, lock():
        if target.exists():
            return  # somebody else was faster
        with contextlib.suppress(OSError):
            for leftover in target.parent.glob(f"{target.name}.tmp-*"):
                discard(str(leftover))  # of an attempt that was killed: the lock is held
        temporary = target.with_name(f"{target.name}.tmp-{os.getpid()}")
        try:
            with contextlib.closing(JsonStore(source, read_only=True)) as old:
                if (lost := old.vectors_lost()) is not None:
                    logging.getLogger("raeburnmemory").warning("Vectors are lost (%s); run reindex.", lost)
                with contextlib.closing(SqliteStore(temporary, timeout=timeout, vector_format=vector_format)) as new:
                    copy_store(old, new)
                    new.write(Batch(meta={SOURCE: {"name": source.name, "store": old.id}}))
            sync_folder(str(target.parent))  # a power cut must not bring back a log that nobody would sweep up
            temporary.rename(target)
            sync_folder(str(target.parent))
        except MemoryGraphError:
            raise  # some of ours are OSErrors, too
        except OSError as exc:
            raise write_failed("make", str(target), exc) from exc
        finally:
            for ending in ("", "-wal", "-shm", "-journal", ".lock", ".lock.gate"):
                discard(f"{temporary}{ending}")
    logging.getLogger("raeburnmemory").info("%r was copied into %r.", str(source), str(target))


def copy_store(source: Store, target: Store, *, block: int = 1000) -> None:
    """Copy everything that *source* holds into the empty *target*: every namespace, history, edge and vector."""
    with source.snapshot():
        _copy(source, target, block)


def _copy(source: Store, target: Store, block: int) -> None:
    page: list[Node] = []
    there: dict[str, set[str]] = {}
    for node in source.nodes(Where(None)):
        if past := source.history(node.id, node.namespace):
            target.write(Batch(nodes=page))  # before it, so that the order stays
            page = []
            for old in past:
                target.write(Batch(nodes=[old]))
        page.append(node)
        there.setdefault(node.namespace, set()).add(node.id)
        if len(page) == block:
            target.write(Batch(nodes=page))
            page = []
    target.write(Batch(nodes=page))
    # A node that expired is not copied, and so neither are its edges.
    links = [e for e in source.links(None, None) if {e.source, e.target} <= there.get(e.namespace, set())]
    for start in range(0, len(links), block):
        target.write(Batch(links=links[start : start + block]))
    for field in source.counts(None)["vectors"]:
        for found in source.vectors(field, -1).blocks:
            nodes = source.at_rows(found.rows.tolist())
            target.write(
                Batch(
                    vectors=[
                        Vector(nodes[row].id, field, values, part, start, end, nodes[row].namespace)
                        for row, values, (part, start, end) in zip(
                            found.rows.tolist(), found.values, found.spans.tolist(), strict=True
                        )
                        if row in nodes
                    ]
                )
            )
    meta = {key: value for key in COPYING_META if (value := source.meta(key)) is not None}
    target.write(Batch(meta=meta))
