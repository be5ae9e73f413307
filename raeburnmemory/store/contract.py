"""What every store does, and the words in which it speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import numpy as np
    from numpy.typing import NDArray

    from ..nodes import Batch, Changes, Link, Node, Where

__all__ = ["COPYING", "COPYING_META", "ERASING", "SOURCE", "Erased", "Store", "VectorBlock", "VectorChanges"]

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
