"""A store that lives as long as the process: `MemoryGraph(":memory:")`."""

from __future__ import annotations

import contextlib
import itertools
import sys
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import GraphClosed
from ..mutex import Mutex
from ..nodes import copied
from ._packed import EXPIRES, ROW, link_of, node_of
from ._undecoded import Undecoded
from .contract import Erased
from .group_commit import refuse_within_a_call
from .state import State, lasts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from ..nodes import Batch, Changes, Link, Node, Where
    from .contract import VectorChanges

__all__ = ["MemoryStore"]


class MemoryStore:
    """The `Store` contract over a `State`, with nothing on disk.

    `JsonStore` is this plus files: it overrides how the state becomes current and how a batch becomes durable.
    """

    name = "memory"
    read_only = False
    durability = "none"

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex
        self.location = ":memory:"
        self._state = State()
        # Held while the state is read or changed, never while waiting for another process.
        self._mutex = Mutex(over_fork=True)
        # Held by one writer for as long as it likes. Not the mutex: a writer waits for locks whose holders read.
        self._writer = Mutex()
        self._held = 0  # snapshots that are being read
        self._closed = False

    def _current(self) -> State:
        """Return the state with every commit in it; called with the mutex held."""
        if self._closed:
            raise GraphClosed(f"The memory {self.location!r} was closed. Open it again.")
        return self._state

    def exclusive(self) -> AbstractContextManager[Any]:
        """Keep other writers out of the block."""
        if self._mutex.mine:
            refuse_within_a_call(sys._getframe(1))  # noqa: SLF001 - nothing else tells whose call this is
        with self._mutex.lock:
            self._current()
        return self._writer.lock

    def write(self, batch: Batch) -> int:
        """Apply *batch* and return the new version."""
        with self.exclusive(), self._mutex.lock:
            state = self._current()
            if not batch:
                return state.version
            state.check(batch)
            return self._commit(batch, state)

    def _commit(self, batch: Batch, state: State) -> int:
        state.apply(batch, state.version + 1)
        return state.version

    def erase(self, batch: Batch, *, backups: bool = False, timeout: float | None = None) -> Erased:  # noqa: ARG002
        """Apply *batch*; there are no files that could hold anything."""
        with self.exclusive():
            self.write(batch)
            with self._mutex.lock:
                self._current().start_over()
        return Erased()

    def version(self) -> int:
        """Return the number of the last committed batch."""
        with self._mutex.lock:
            return self._current().version

    def changes(self, since: int) -> Changes:
        """Return what happened to nodes and edges after version *since*."""
        with self._mutex.lock:
            return self._current().changes(since)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let all reads in the block see one version."""
        with self._mutex.lock:
            self._current()
            self._held += 1
            try:
                yield
            finally:
                self._held -= 1

    def get(self, ids: Sequence[str], namespace: str) -> dict[str, Node]:
        """Return those of the nodes named by *ids* that exist."""
        found: dict[str, Node] = {}
        with self._mutex.lock:
            state = self._current()
            for node_id in ids:
                node = state.nodes.packed((namespace, node_id))
                if node is not None and (node[EXPIRES] is None or lasts(node, state.now())):
                    found[node_id] = node_of(node)
        return found

    def at_rows(self, rows: Sequence[int]) -> Mapping[int, Node]:
        """Return those of the nodes at *rows* that exist."""
        with self._mutex.lock:
            state = self._current()
            now = state.now()
            found = (state.nodes.packed(state.rows[row]) for row in rows if row in state.rows)
            return Undecoded({node[ROW]: node for node in found if node is not None and lasts(node, now)}, node_of)

    def nodes(self, where: Where) -> Iterator[Node]:
        """Yield the nodes that *where* describes, by ascending row."""
        with self._mutex.lock:
            found = self._current().select(where)
        yield from map(node_of, found)

    def expired(self, namespace: str, kind: str) -> list[str]:
        """Return the ids of the nodes of one kind that have expired, by ascending row."""
        with self._mutex.lock:
            return self._current().expired(namespace, kind)

    def links(
        self,
        ids: Sequence[str] | None,
        namespace: str | None,
        *,
        direction: str = "out",
        relation: str | None = None,
        newest: int | None = None,
    ) -> list[Link]:
        """Return edges by ascending row."""
        with self._mutex.lock:
            return [link_of(*link) for link in self._current().edges(ids, namespace, direction, relation, newest)]

    def all_links(self, namespace: str | None) -> Iterator[Link]:
        """Yield all edges by ascending row."""
        with self._mutex.lock:
            found = self._current().edges(None, namespace, "out", None, None)
        yield from itertools.starmap(link_of, found)

    def history(self, node_id: str, namespace: str) -> list[Node]:
        """Return the replaced versions of a node, oldest first."""
        with self._mutex.lock:
            return [node_of(node) for node in self._current().past.get((namespace, node_id), ())]

    def vectors(self, field: str, since: int) -> VectorChanges:
        """Return what happened to the vectors of *field* after version *since*."""
        from .contract import VectorChanges

        with self._mutex.lock:
            state = self._current()
            if (vectors := state.sets.get(field)) is None:
                return VectorChanges(state.version, True, np.empty(0, np.int64), iter(()))
            return vectors.changes(since if since >= state.known_vectors_since else -1, state.version)

    def rows(self, where: Where) -> NDArray[np.int64]:
        """Return the rows of the nodes that *where* describes, ascending."""
        with self._mutex.lock:
            return np.array(self._current().rows_of(where), np.int64)

    def vector_fields(self) -> set[str]:
        """Return the fields that have vectors, and perhaps some that had."""
        with self._mutex.lock:
            return set(self._current().sets)

    def vector_slots(self, field: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the slots of the vectors in *field*, ascending, and the node row of each."""
        with self._mutex.lock:
            vectors = self._current().sets.get(field)
            if vectors is None:
                return np.empty(0, np.int64), np.empty(0, np.int64)
            return vectors.alive_slots()

    def vectors_at(self, rows: Sequence[int]) -> dict[int, dict[tuple[str, int], NDArray[np.float32]]]:
        """Return the vectors of the nodes at *rows*, by field and part."""
        found: dict[int, dict[tuple[str, int], NDArray[np.float32]]] = {}
        with self._mutex.lock:
            for field, vectors in self._current().sets.items():
                for row in dict.fromkeys(rows):
                    for part, values in vectors.of(row):
                        found.setdefault(row, {})[field, part] = values
        return found

    def vectors_lost(self) -> str | None:
        """Return None: what is in memory is not lost."""
        return None

    def count(self, namespace: str) -> int:
        """Return how many nodes a namespace holds."""
        with self._mutex.lock:
            return self._current().count(namespace)

    def counts(self, namespace: str | None) -> dict[str, dict[str, int]]:
        """Return how many nodes, edges and vectors there are of each kind, relation and field."""
        with self._mutex.lock:
            return self._current().counts(namespace)

    def namespaces(self) -> list[str]:
        """Return the names of the namespaces that hold nodes, sorted."""
        with self._mutex.lock:
            return self._current().spaces()

    def meta(self, key: str) -> Any:
        """Return the JSON value kept under *key*, or None."""
        with self._mutex.lock:
            return copied(self._current().meta.get(key))

    def cache_path(self, field: str) -> str | None:  # noqa: ARG002
        """Return None: the vectors are in memory already."""
        return None

    def checkpoint(self, *, mended: bool = False) -> None:
        """Do nothing: there are no files."""

    def mark(self, version: int) -> str | None:  # noqa: ARG002
        """Return None: no index of this store is ever saved."""
        return None

    def remembers(self, version: int) -> bool:  # noqa: ARG002
        """Return False: nobody opens it again."""
        return False

    def size(self) -> int:
        """Return 0: nothing is on disk."""
        return 0

    def close(self) -> None:
        """Let go of everything."""
        with self._mutex.lock:
            self._closed = True
            self._state = State()
