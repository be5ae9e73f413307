"""A whole store in memory: what the `memory` store is, and what the `json` store keeps on disk.

Applying the same batches in the same order always gives the same rows and slots, so that a journal of batches is
enough to rebuild it.
"""

from __future__ import annotations

import itertools
import sys
import time
from bisect import bisect_right
from collections import Counter, deque
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DimensionMismatch, InvalidInput
from ..nodes import Changes, copied
from ._packed import EXPIRES, ID, KIND, NAMESPACE, ROW, attributes_of, link_of, link_row, node_of, pack_node
from ._waiting import Links, Nodes
from .contract import VectorBlock, VectorChanges

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from ..nodes import Batch, Node, Vector, Where
    from ._packed import LinkKey, NodeKey, PackedLink, PackedNode

__all__ = ["NEXT", "State", "VectorSet"]

NEXT = ".next"  # a field with this ending holds the vectors of the model that the store is moving to
_REMEMBERED = 4096  # versions that changes() can still tell apart
_BLOCK = 1 << 17  # vectors per block, which is a view
_COLUMNS = ("_values", "_slots", "_rows", "_versions", "_spans")  # of a set of vectors
_FEW = 64  # nodes whose vectors are looked for one by one
_WASTED = 1024  # dropped vectors that are kept, or as many as there are others; then all of them make room
_DROPPED = 16_384  # and slots that changes() can tell to be dropped, or as many as there are vectors


class VectorSet:
    """The vectors of one field in the order of their slots, growing at the end."""

    def __init__(self, dim: int, next_slot: int = 0) -> None:
        self.dim = dim
        self.next_slot = next_slot
        self._n = self._alive = 0
        self._values = np.empty((0, dim), np.float32)
        self._slots = np.empty(0, np.int64)
        self._rows = np.empty(0, np.int64)  # of the node; -1 once the vector is dropped
        self._versions = np.empty(0, np.int64)
        self._spans = np.empty((0, 3), np.int64)  # part, start, end
        self._at: dict[int, tuple[int, ...]] | None = None  # node row -> positions, once that was asked for often
        self._asked = 0
        self.dropped: list[tuple[int, int]] = []  # (version, slot)
        self.reset_at = -1  # before this version, slots mean something else

    def __len__(self) -> int:
        return self._alive

    def count(self, rows: Iterable[int]) -> int:
        """Return how many vectors the nodes at *rows* have."""
        return sum(len(self._positions(row)) for row in rows)

    def _positions(self, row: int) -> Sequence[int]:
        """Return where the vectors of the node at *row* are. Few are looked for, for many a dict is worth it."""
        if self._at is None:
            self._asked += 1
            if self._asked <= _FEW:
                return np.flatnonzero(self._rows[: self._n] == row).tolist()  # type: ignore[no-any-return]
            self._at = {}
            for position, owner in enumerate(self._rows[: self._n].tolist()):
                if owner >= 0:
                    self._at[owner] = (*self._at.get(owner, ()), position)
        return self._at.get(row, ())

    def of(self, row: int) -> list[tuple[int, NDArray[np.float32]]]:
        """Return the parts and copies of the vectors of the node at *row*."""
        return [(int(self._spans[at, 0]), self._values[at].copy()) for at in self._positions(row)]

    def append(
        self,
        values: NDArray[np.float32],
        rows: NDArray[np.int64],
        slots: NDArray[np.int64],
        spans: NDArray[np.int64],
        version: int,
    ) -> None:
        """Add rows (n, dim) under ascending *slots*; a node row of -1 only uses up its slot."""
        if values.shape[1] != self.dim:
            raise self._other_length(values.shape[1])
        end = self._n + len(slots)
        if self._n:
            if end > len(self._slots):
                self._make_room(end)
            at = slice(self._n, end)
            self._values[at], self._slots[at], self._rows[at] = values, slots, rows
            self._spans[at], self._versions[at] = spans, version
        else:  # the first are taken as they are, which may be most of a large memory; rows change in place
            self._values, self._slots, self._rows, self._spans = values, slots, rows.copy(), spans
            self._versions = np.full(end, version)
        self._at = None
        self._alive += int(np.count_nonzero(rows >= 0))
        self._n = end
        if len(slots):
            self.next_slot = int(slots[-1]) + 1

    def append_one(self, vector: Vector, row: int, version: int) -> None:
        """Add one under the next slot."""
        if len(vector.values) != self.dim:
            raise self._other_length(len(vector.values))
        at = self._n
        if at == len(self._slots):
            self._make_room(at + 1)
        self._values[at] = vector.values
        self._slots[at] = self.next_slot
        self._rows[at] = row
        self._spans[at] = vector.part, vector.start, vector.end
        self._versions[at] = version
        if row >= 0:
            if self._at is not None:
                self._at[row] = (*self._at.get(row, ()), at)
            self._alive += 1
        self._n = at + 1
        self.next_slot += 1

    def _other_length(self, length: int) -> DimensionMismatch:
        return DimensionMismatch(
            f"A vector of {length} numbers cannot join vectors of {self.dim}. "
            f"Move the store to the other model with reembed()."
        )

    def _make_room(self, least: int) -> None:
        room = max(16, least, len(self._slots) * 2)
        for name in _COLUMNS:
            old = getattr(self, name)
            new = np.empty((room, *old.shape[1:]), old.dtype)
            new[: self._n] = old[: self._n]
            setattr(self, name, new)

    def drop(self, row: int, version: int) -> int:
        """Drop the vectors of the node at *row*; return how many there were."""
        positions = self._positions(row)
        if self._at is not None:
            self._at.pop(row, None)
        for position in positions:
            self._rows[position] = -1
            self.dropped.append((version, int(self._slots[position])))
        self._alive -= len(positions)
        if self._n - self._alive > max(_WASTED, self._alive):
            self._compact()
        if len(self.dropped) > 2 * max(_DROPPED, self._alive):
            old = self.dropped[: len(self.dropped) // 2]
            del self.dropped[: len(old)]
            self.reset_at = max(self.reset_at, old[-1][0])
        return len(positions)

    def _compact(self) -> None:
        """Let go of the vectors that were dropped: a process may replace texts for years."""
        at = np.flatnonzero(self._rows[: self._n] >= 0)
        for name in _COLUMNS:
            setattr(self, name, getattr(self, name)[at])  # not in place: readers may hold views
        self._n, self._at = len(at), None

    def alive(self, since: int = -1) -> VectorBlock:
        """Return the vectors written after version *since* and not dropped, as one block."""
        first = int(np.searchsorted(self._versions[: self._n], since, "right"))
        at = np.flatnonzero(self._rows[first : self._n] >= 0) + first
        if len(at) == self._n - first:  # nothing dropped: views instead of a copy of everything
            part = slice(first, self._n)
            rows = self._rows[part].copy()  # the one column that changes in place
            return VectorBlock(self._slots[part], rows, self._values[part], self._spans[part])
        return VectorBlock(self._slots[at], self._rows[at], self._values[at], self._spans[at])

    def number_up_to(self, next_slot: int) -> None:
        """Let the slots of all end before *next_slot*, those of vectors that were here before them being taken."""
        more = max(next_slot - self.next_slot, 0)
        self._slots[: self._n] += more
        self.dropped = [(version, slot + more) for version, slot in self.dropped]
        self.next_slot += more

    def alive_slots(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the slots of the vectors that were not dropped, and the node row of each."""
        at = np.flatnonzero(self._rows[: self._n] >= 0)
        return self._slots[at], self._rows[at]

    def changes(self, since: int, version: int) -> VectorChanges:
        """Return what happened after version *since*."""
        reset = since < self.reset_at or since < 0
        gone = [] if reset else [slot for at, slot in reversed_until(self.dropped, since) if at > since]
        slots, rows, values, spans = self.alive(-1 if reset else since)
        pages = (slice(start, start + _BLOCK) for start in range(0, len(slots), _BLOCK))
        blocks = (VectorBlock(slots[page], rows[page], values[page], spans[page]) for page in pages)
        return VectorChanges(version, reset, np.array(sorted(gone), np.int64), blocks)


def reversed_until(dropped: list[tuple[int, int]], since: int) -> Iterator[tuple[int, int]]:
    """Yield the newest entries first and stop at *since*: the list only grows at its end."""
    for entry in reversed(dropped):
        if entry[0] <= since:
            return
        yield entry


@dataclass
class State:
    """Nodes, edges, vectors and meta by key, and the recent past of them.

    Dicts keep their keys in the order of first insertion, which is the order of rows; replacing keeps the place.
    """

    version: int = 0
    next_row: int = 0
    known_since: int = 0  # changes() answers from here on
    known_vectors_since: int = -1  # likewise for vectors: they were read from files at this version
    nodes: Nodes = field(default_factory=Nodes)
    links: Links = field(default_factory=Links)
    rows: dict[int, NodeKey] = field(default_factory=dict)
    past: dict[NodeKey, list[PackedNode]] = field(default_factory=dict)
    sets: dict[str, VectorSet] = field(default_factory=dict)
    next_slots: dict[str, int] = field(default_factory=dict)  # of fields that may have lost all their vectors
    meta: dict[str, Any] = field(default_factory=dict)
    log: deque[tuple[int, Sequence[NodeKey], Sequence[LinkKey], Sequence[NodeKey], Sequence[LinkKey]]] = field(
        default_factory=deque
    )

    # --- writing ------------------------------------------------------------------------------------------------

    def check(self, batch: Batch) -> None:
        """Refuse a batch that cannot be applied, before anything of it reaches the disk.

        Raises:
            DimensionMismatch: A vector has another length than those of its field.
            InvalidInput: A vector or an edge names a node that does not exist.
        """
        nodes, gone = self.nodes, set(batch.removed_nodes)
        new = {(node.namespace, node.id) for node in batch.nodes}
        for link in batch.links:
            for key in ((link.namespace, link.source), (link.namespace, link.target)):
                if key not in new and (key not in nodes or key in gone):
                    raise InvalidInput(f"No node has the id {key[1]!r}, so no {link.relation!r} edge can touch it.")
        dims: dict[str, int] = {}
        for vector in batch.vectors:
            key = vector.namespace, vector.node
            if key not in new and (key not in nodes or key in gone):
                raise InvalidInput(f"No node has the id {vector.node!r}, so it can have no vector.")
            if (dim := dims.get(vector.field)) is None:
                there, dim = self.sets.get(vector.field), len(vector.values)
                if there is not None and there.dim != dim:
                    going = [nodes.row(key) for key in gone | new if key in nodes]
                    dim = there.dim if len(there) > there.count(going) else dim
                dims[vector.field] = dim
            if len(vector.values) != dim:
                raise DimensionMismatch(
                    f"The vector of {vector.node!r} has {len(vector.values)} numbers, the store's have {dim}. "
                    f"Move the store to the other model with reembed()."
                )

    def apply(self, batch: Batch, version: int) -> None:
        """Apply a batch that `check` let pass and make it version *version*."""
        removed_nodes: list[NodeKey] = []
        removed_links: list[LinkKey] = []
        if batch.removed_nodes or batch.removed_links:
            removed_nodes = [key for key in dict.fromkeys(batch.removed_nodes) if key in self.nodes]
            removed_links = [key for key in dict.fromkeys(batch.removed_links) if key in self.links.by_key]
            for node_key in removed_nodes:
                removed_links += [*self.links.leaving.get(node_key, ()), *self.links.entering.get(node_key, ())]
            for link_key in removed_links:
                self.links.remove(link_key)
            for node_key in removed_nodes:
                row = self.nodes.row(node_key)
                del self.nodes[node_key], self.rows[row]
                self.past.pop(node_key, None)
                self._drop_vectors(row, version)
        nodes = tuple([self._put(node, version) for node in batch.nodes])
        for vector in batch.vectors:
            self._add_vector(vector, version)
        if batch.staged:
            self._settle(batch.staged, version)
        links = tuple(map(self.links.put, batch.links))
        for name, value in batch.meta.items():
            if value is None:
                self.meta.pop(name, None)
            else:
                self.meta[name] = copied(value)
        self.version = version
        self.log.append((version, nodes, links, tuple(removed_nodes), tuple(removed_links)))
        if len(self.log) > _REMEMBERED:
            self.known_since = self.log.popleft()[0]

    def apply_vectors(self, batch: Batch, version: int, at: dict[str, int]) -> None:
        """Bring vectors that were read at older versions than the nodes forward over *batch*.

        *at* holds the version of each field; those at *version* or later stay as they are. The nodes are already
        there, perhaps newer than *batch*, which a later batch then puts right.
        """
        behind = [name for name in self.sets if at.get(name, -1) < version]
        for key in [*batch.removed_nodes, *((node.namespace, node.id) for node in batch.nodes)]:
            if (row := self.nodes.row(key)) >= 0:
                for name in behind:
                    self.sets[name].drop(row, version)
        for vector in batch.vectors:
            if at.get(vector.field, -1) < version:
                self._add_vector(vector, version)
        if batch.staged:
            ahead = {name: self.sets[name] for name in self.sets if at.get(name, -1) >= version}
            for name in ahead:
                del self.sets[name]  # read as it was after this batch already
            for name in [name for name in self.sets if name.endswith(NEXT)]:
                at[name.removesuffix(NEXT)] = max(at.get(name.removesuffix(NEXT), -1), at.pop(name, -1))
            self._settle(batch.staged, version)
            self.sets.update(ahead)

    def _settle(self, staged: str, version: int) -> None:
        """Let the vectors of every `X.next` replace those of `X`, or drop them."""
        waiting = {name: vectors for name, vectors in self.sets.items() if name.endswith(NEXT)}
        for name in waiting if staged == "discard" else list(self.sets):
            del self.sets[name]
            self.next_slots.pop(name, None)
        if staged == "promote":
            for name, vectors in waiting.items():
                vectors.reset_at = version
                self.sets[name.removesuffix(NEXT)] = vectors

    def _drop_vectors(self, row: int, version: int) -> None:
        for vectors in self.sets.values():
            vectors.drop(row, version)

    def _put(self, node: Node, version: int) -> NodeKey:
        key = (node.namespace, node.id)
        old = self.nodes.packed(key)
        if old is None:
            row, self.next_row = self.next_row, self.next_row + 1
            self.rows[row] = key
        else:
            row, key = old[ROW], self.rows[old[ROW]]
            self.past.setdefault(key, []).append(old)
            self._drop_vectors(row, version)
        self.nodes.put(key, node, row)
        return key

    def remember(self, key: NodeKey, old: Node) -> None:
        """Take *old* for the newest of the versions of a node that were replaced."""
        self.past.setdefault(key, []).append(pack_node(old, key, old.row))

    def _add_vector(self, vector: Vector, version: int) -> None:
        vectors = self.sets.get(vector.field)
        if vectors is None or (vectors.dim != len(vector.values) and not len(vectors)):
            next_slot = self.next_slots.get(vector.field, 0) if vectors is None else vectors.next_slot
            vectors = self.sets[vector.field] = VectorSet(len(vector.values), next_slot)
            vectors.reset_at = version
        vectors.append_one(vector, self.nodes.row((vector.namespace, vector.node)), version)

    def start_over(self) -> None:
        """Let nothing of the past be known: whoever asks what changed reads everything again."""
        self.version += 1  # so that those who know the present one ask, too
        self.known_since = self.known_vectors_since = self.version
        self.log.clear()
        for name, vectors in self.sets.items():
            fresh = self.sets[name] = VectorSet(vectors.dim)
            block = vectors.alive()
            fresh.append(block.values, block.rows, block.slots, block.spans, self.version)
            fresh.next_slot, fresh.reset_at = vectors.next_slot, self.version

    # --- reading ------------------------------------------------------------------------------------------------

    def changes(self, since: int) -> Changes:
        """Return what happened to nodes and edges after version *since*."""
        if since < self.known_since:
            return Changes(self.version, reset=True)
        nodes: dict[NodeKey, None] = {}
        links: dict[LinkKey, None] = {}
        gone_nodes: dict[NodeKey, None] = {}
        gone_links: dict[LinkKey, None] = {}
        for entry in reversed(self.log):
            if entry[0] <= since:
                break
            nodes.update(dict.fromkeys(entry[1]))
            links.update(dict.fromkeys(entry[2]))
            gone_nodes.update(dict.fromkeys(entry[3]))
            gone_links.update(dict.fromkeys(entry[4]))
        by_key = self.links.by_key if links else {}
        links = {key: None for key in links if key in by_key}
        return Changes(
            self.version,
            nodes=[node_of(node) for node in self._there(nodes)],
            links=[link_of(key, by_key[key]) for key in sorted(links, key=lambda key: link_row(by_key[key]))],
            removed_nodes=list(gone_nodes),
            removed_links=list(gone_links),
        )

    def _there(self, keys: Iterable[NodeKey]) -> list[PackedNode]:
        """Return those of the nodes under *keys* that exist, by ascending row."""
        return sorted((node for key in keys if (node := self.nodes.packed(key)) is not None), key=_ROW_OF)

    def select(self, where: Where, now: float | None = None) -> Iterator[PackedNode]:
        """Return the visible nodes that *where* describes, by ascending row, of those that are there now.

        They are looked through as they are asked for, and what is done to the state meanwhile does not change them.
        """
        now = time.time() if now is None else now
        if where.ids is not None:
            found = self._there((space, i) for space in self._spaces(where.namespace) for i in dict.fromkeys(where.ids))
        else:
            found = self.nodes.all_packed()
        first = bisect_right(found, where.after_row, key=_ROW_OF)
        limit = None if where.limit is None else min(where.limit, sys.maxsize)
        return itertools.islice(_described(itertools.islice(found, first, None), where, now), limit)

    def rows_of(self, where: Where) -> list[int]:
        """Return the rows of the nodes that *where* describes, ascending."""
        return [node[ROW] for node in self.select(where)]

    def edges(
        self,
        ids: Sequence[str] | None,
        namespace: str | None,
        direction: str,
        relation: str | None,
        newest: int | None,
    ) -> list[tuple[LinkKey, PackedLink]]:
        """Return edges by ascending row; see `Store.links`."""
        by_key = self.links.by_key
        found: Iterable[tuple[LinkKey, PackedLink]]
        if ids is None:
            found = (each for each in by_key.items() if namespace in {None, each[0][0]})
            return sorted((each for each in found if relation in {None, each[0][3]}), key=_row_of_link)
        leaving, entering = self.links.leaving, self.links.entering
        sides = {"out": [leaving], "in": [entering], "both": [leaving, entering]}
        keys: dict[LinkKey, None] = {}
        for space in self._spaces(namespace):
            for node_id in ids:
                for side in sides[direction]:
                    # Around a node, too, the order of insertion is the order of rows.
                    around = (key for key in reversed(side.get((space, node_id), ())) if relation in {None, key[3]})
                    keys.update(dict.fromkeys(itertools.islice(around, newest)))
        return sorted(((key, by_key[key]) for key in keys), key=_row_of_link)

    def expired(self, namespace: str, kind: str) -> list[str]:
        """Return the ids of the nodes of one kind that have expired, by ascending row."""
        now = self.now()
        mine = (node for node in self.nodes.all_packed() if node[KIND] == kind and node[NAMESPACE] == namespace)
        return [node[ID] for node in sorted(mine, key=_ROW_OF) if not lasts(node, now)]

    def count(self, namespace: str) -> int:
        """Return how many nodes a namespace holds."""
        return self.nodes.counts[namespace]

    def counts(self, namespace: str | None) -> dict[str, dict[str, int]]:
        """Return how many nodes, edges and vectors there are of each kind, relation and field."""
        nodes = [node for node in self.nodes.all_packed() if namespace in {None, node[NAMESPACE]}]
        every, links = len(nodes) == len(self.nodes), self.links.by_key
        vectors = {
            name: len(found) if every else found.count(node[ROW] for node in nodes)
            for name, found in sorted(self.sets.items())
        }
        return {
            "kinds": dict(sorted(Counter(node[KIND] for node in nodes).items())),
            "relations": dict(sorted(Counter(key[3] for key in links if namespace in {None, key[0]}).items())),
            "vectors": {name: n for name, n in vectors.items() if n},
        }

    @staticmethod
    def now() -> float:
        """Return the time against which nodes expire, in seconds since 1970."""
        return time.time()

    def spaces(self) -> list[str]:
        """Return the namespaces that hold nodes, sorted."""
        return sorted(self.nodes.counts)

    def _spaces(self, namespace: str | None) -> list[str]:
        return self.spaces() if namespace is None else [namespace]


def _described(nodes: Iterable[PackedNode], where: Where, now: float) -> Iterator[PackedNode]:
    for node in nodes:
        if (
            (where.namespace is None or node[NAMESPACE] == where.namespace)
            and (where.kinds is None or node[KIND] in where.kinds)
            and lasts(node, now)
            and (not where.attributes or _carries(attributes_of(node), where.attributes))
        ):
            yield node


def lasts(node: PackedNode, now: float) -> bool:
    """Tell whether *node* has not expired at *now* (seconds since 1970)."""
    expires: float | None = node[EXPIRES]
    return expires is None or expires > now


def visible(node: Node, now: float) -> bool:
    """Tell whether *node* has not expired at *now* (seconds since 1970)."""
    return node.expires_at is None or node.expires_at > now


def matches(node: Node, attributes: Any) -> bool:
    """Tell whether *node* carries every one of *attributes* with an equal value."""
    return _carries(node.attributes, attributes)


def _carries(found: Mapping[str, Any], attributes: Mapping[str, Any]) -> bool:
    return all(name in found and found[name] == value for name, value in attributes.items())


_ROW_OF = itemgetter(ROW)


def _row_of_link(found: tuple[LinkKey, PackedLink]) -> int:
    return link_row(found[1])
