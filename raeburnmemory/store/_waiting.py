"""Nodes and edges that wait in the lines of a `graph.json` until somebody asks for them.

A file that is as it was written, which its checksum tells, has one node or edge to a line. Opening it then costs a look
at each line for the id of its node; making objects of all would take most of what opening costs.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .._collector import no_collections
from ._packed import ROW, link_of, link_row, node_of, pack_link, pack_node
from .nodelink import NAMESPACES, links_of, read_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..nodes import Link, Node
    from ._packed import LinkKey, NodeKey, PackedLink, PackedNode

    Around = dict[NodeKey, "tuple[LinkKey, ...] | dict[LinkKey, None]"]

__all__ = ["Links", "Nodes", "Sections", "sections"]

_NODES, _EDGES, _LINKS = b'\n"nodes": [\n', b'],\n"edges": [', b'],\n"links": ['
_ID = b'"id": "'
_FEW = 8  # edges on one side of a node up to which a tuple holds them: most have one or two


class Nodes(MutableMapping["NodeKey", "Node"]):
    """Nodes by key, in the order of their rows, each made when it is looked at."""

    def __init__(self) -> None:
        self._items: dict[NodeKey, PackedNode] = {}  # of one that waits, its row and its line
        self._waiting = 0
        self.counts: Counter[str] = Counter()  # how many each namespace holds, of those that hold any

    def wait(self, keys: Sequence[NodeKey], rows: Sequence[int], lines: Sequence[bytes]) -> None:
        """Take new nodes that stand in *lines*."""
        self._items.update(zip(keys, zip(rows, lines, strict=True), strict=True))
        self._waiting += len(lines)
        self.counts.update(namespace for namespace, _ in keys)

    def _read(self, key: NodeKey, row: int, entry: Any) -> PackedNode:
        item = self._items[key] = pack_node(read_node(entry, key[0], "", row), key, row)
        self._waiting -= 1
        return item

    def packed(self, key: NodeKey) -> PackedNode | None:
        """Return what is kept of the node under *key*, if there is one."""
        item = self._items.get(key)
        if item is not None and len(item) == 2:
            return self._read(key, item[0], json.loads(item[1]))
        return item

    def all_packed(self) -> list[PackedNode]:
        """Return what is kept of all nodes."""
        if self._waiting:
            waiting = [(key, *item) for key, item in self._items.items() if len(item) == 2]
            with no_collections():
                entries = json.loads(b"[" + b",".join(line for *_, line in waiting) + b"]")
                for (key, row, _), entry in zip(waiting, entries, strict=True):
                    self._read(key, row, entry)
        return list(self._items.values())

    def row(self, key: NodeKey) -> int:
        """Return the row of a node, -1 if there is none."""
        item = self._items.get(key)
        return -1 if item is None else item[ROW]

    def put(self, key: NodeKey, node: Node, row: int) -> None:
        """Keep *node* under *row*."""
        old = self._items.get(key)
        if old is None:
            self.counts[key[0]] += 1
        elif len(old) == 2:
            self._waiting -= 1
        self._items[key] = pack_node(node, key, row)

    def __getitem__(self, key: NodeKey) -> Node:
        item = self.packed(key)
        if item is None:
            raise KeyError(key)
        return node_of(item)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __setitem__(self, key: NodeKey, node: Node) -> None:
        self.put(key, node, node.row)

    def __delitem__(self, key: NodeKey) -> None:
        if len(self._items.pop(key)) == 2:
            self._waiting -= 1
        self.counts[key[0]] -= 1
        if not self.counts[key[0]]:
            del self.counts[key[0]]

    def __iter__(self) -> Iterator[NodeKey]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


class Links:
    """Edges by key and around their nodes, in the order of their rows, made when somebody asks for any.

    Until then, further ones wait as well.
    """

    def __init__(self, next_row: int = 0) -> None:
        self._by_key: dict[LinkKey, PackedLink] = {}
        self._leaving: Around = {}
        self._entering: Around = {}
        self._next_row = next_row
        self._lines: tuple[str, Sequence[bytes], Iterable[int]] | None = None
        self._later: list[tuple[LinkKey, PackedLink]] = []

    def wait(self, namespace: str, lines: Sequence[bytes], rows: Iterable[int]) -> None:
        """Take the edges of a namespace that stand in *lines*, with the rows of each, before any other."""
        self._lines = namespace, lines, rows

    def _ready(self) -> None:
        if self._lines is None:
            return
        (namespace, lines, rows), later = self._lines, self._later
        self._lines, self._later = None, []
        with no_collections():
            given = iter(rows)
            entries = json.loads(b"[" + b",".join(lines) + b"]")
            found = [link for entry in entries for link in links_of(entry, namespace, "", given)]
            for link in sorted(found, key=_row):
                self.insert(link)
        for key, packed in later:
            self._put(key, packed)

    @property
    def by_key(self) -> dict[LinkKey, PackedLink]:
        """What is kept of all of them; not to be changed."""
        self._ready()
        return self._by_key

    @property
    def leaving(self) -> Around:
        """The keys of those that leave each node."""
        self._ready()
        return self._leaving

    @property
    def entering(self) -> Around:
        """The keys of those that enter each node."""
        self._ready()
        return self._entering

    @property
    def next_row(self) -> int:
        """The row of the next new one."""
        self._ready()
        return self._next_row

    def values(self) -> Iterator[Link]:
        """Yield all of them."""
        return itertools.starmap(link_of, self.by_key.items())

    def put(self, link: Link) -> LinkKey:
        """Write one, under the row of the one that it replaces or under a new one; return its key."""
        key, packed = _key(link), pack_link(link.data, -1)
        if self._lines is not None:
            self._later.append((key, packed))
        else:
            self._put(key, packed)
        return key

    def _put(self, key: LinkKey, packed: PackedLink) -> None:
        old = self._by_key.get(key)
        if old is None:
            row, self._next_row = self._next_row, self._next_row + 1
        else:
            row = link_row(old)
        self._insert(key, row if isinstance(packed, int) else (row, *packed[1:]))

    def insert(self, link: Link) -> None:
        """Put one with its row in its place."""
        self._insert(_key(link), pack_link(link.data, link.row))

    def _insert(self, key: LinkKey, packed: PackedLink) -> None:
        if key not in self._by_key:
            _attach(self._leaving, key[:2], key)
            _attach(self._entering, (key[0], key[2]), key)
        self._by_key[key] = packed

    def remove(self, key: LinkKey) -> None:
        """Take one out, if it is there."""
        if self.by_key.pop(key, None) is not None:
            _detach(self._leaving, key[:2], key)
            _detach(self._entering, (key[0], key[2]), key)


def _attach(side: Around, node: NodeKey, key: LinkKey) -> None:
    around = side.get(node, ())
    if isinstance(around, dict):
        around[key] = None
    else:
        several = (*around, key)
        side[node] = several if len(several) <= _FEW else dict.fromkeys(several)


def _detach(side: Around, node: NodeKey, key: LinkKey) -> None:
    around = side[node]
    if isinstance(around, dict):
        del around[key]
    else:
        around = side[node] = tuple(other for other in around if other != key)
    if not around:
        del side[node]


class Sections(NamedTuple):
    """A `graph.json` without its nodes and edges, and these: the ids and lines of the nodes, the lines of the edges."""

    rest: bytes
    ids: list[str]
    nodes: list[bytes]
    edges: list[bytes]


def sections(raw: bytes) -> Sections | None:
    """Take a file apart that is as `write_node_link` wrote it; None if it holds more than one namespace, or no node."""
    begin = raw.find(_NODES)
    if begin < 0 or f'\n"{NAMESPACES}": '.encode() in raw:
        return None
    nodes_end = raw.index(_EDGES, begin)
    edges = nodes_end + len(_EDGES)
    edges_end = raw.index(_LINKS, edges)
    end = edges_end + len(_LINKS) + edges_end - edges  # the same once more
    nodes = raw[begin + len(_NODES) : nodes_end].split(b",\n")
    names = [line[line.rindex(_ID) + len(_ID) : -2] for line in nodes]  # it comes last in most of them
    together = b"\n".join(names)
    if b"\\" in together or not all(line.endswith(b'"}') for line in nodes):
        ids = [json.loads(line)["id"] for line in nodes]
    else:
        ids = together.decode().split("\n")
    lines = raw[edges + 1 : edges_end].split(b",\n") if edges < edges_end else []
    return Sections(raw[:begin] + b'\n"nodes": [],\n"edges": [],\n"links": [' + raw[end:], ids, nodes, lines)


def _row(link: Link) -> int:
    return link.row


def _key(link: Link) -> LinkKey:
    return link.namespace, link.source, link.target, link.relation
