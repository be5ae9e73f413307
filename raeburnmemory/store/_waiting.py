"""Nodes and edges that wait in the lines of a `graph.json` until somebody asks for them.

A file that is as it was written, which its checksum tells, has one node or edge to a line. Opening it then costs a look
at each line for the id of its node; making objects of all would take most of what opening costs.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .._collector import no_collections
from ..nodes import Link, Node, copied
from .nodelink import NAMESPACES, links_of, read_node

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence, ValuesView

__all__ = ["Links", "Nodes", "Sections", "sections"]

NodeKey = tuple[str, str]  # (namespace, id)
LinkKey = tuple[str, str, str, str]  # (namespace, source, target, relation)

_NODES, _EDGES, _LINKS = b'\n"nodes": [\n', b'],\n"edges": [', b'],\n"links": ['
_ID = b'"id": "'


class Nodes(MutableMapping[NodeKey, Node]):
    """Nodes by key, in the order of their rows, each made when it is looked at."""

    def __init__(self) -> None:
        self._items: dict[NodeKey, Node | tuple[int, bytes]] = {}
        self._waiting = 0
        self.counts: Counter[str] = Counter()  # how many each namespace holds, of those that hold any

    def wait(self, keys: Sequence[NodeKey], rows: Sequence[int], lines: Sequence[bytes]) -> None:
        """Take new nodes that stand in *lines*."""
        self._items.update(zip(keys, zip(rows, lines, strict=True), strict=True))
        self._waiting += len(lines)
        self.counts.update(namespace for namespace, _ in keys)

    def __getitem__(self, key: NodeKey) -> Node:
        item = self._items[key]
        return item if isinstance(item, Node) else self._made(key, item[0], json.loads(item[1]))

    def _made(self, key: NodeKey, row: int, entry: Any) -> Node:
        node = self._items[key] = read_node(entry, key[0], "", row)
        self._waiting -= 1
        return node

    def row(self, key: NodeKey) -> int:
        """Return the row of a node, without making it."""
        item = self._items[key]
        return item.row if isinstance(item, Node) else item[0]

    def get(self, key: NodeKey, default: Any = None) -> Any:
        """Return the node under *key*, or *default*."""
        item = self._items.get(key)
        if item is None:
            return default
        return self._made(key, item[0], json.loads(item[1])) if isinstance(item, tuple) else item

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __setitem__(self, key: NodeKey, node: Node) -> None:
        old = self._items.get(key)
        if old is None:
            self.counts[key[0]] += 1
        elif isinstance(old, tuple):
            self._waiting -= 1
        self._items[key] = node

    def __delitem__(self, key: NodeKey) -> None:
        if isinstance(self._items.pop(key), tuple):
            self._waiting -= 1
        self.counts[key[0]] -= 1
        if not self.counts[key[0]]:
            del self.counts[key[0]]

    def __iter__(self) -> Iterator[NodeKey]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def values(self) -> ValuesView[Node]:
        """Return all nodes, made at once."""
        if self._waiting:
            waiting = [(key, *item) for key, item in self._items.items() if not isinstance(item, Node)]
            with no_collections():
                entries = json.loads(b"[" + b",".join(line for *_, line in waiting) + b"]")
                for (key, row, _), entry in zip(waiting, entries, strict=True):
                    self._made(key, row, entry)
        return self._items.values()  # type: ignore[return-value]


class Links:
    """Edges by key and around their nodes, in the order of their rows, made when somebody asks for any.

    Until then, further ones wait as well.
    """

    def __init__(self, next_row: int = 0) -> None:
        self._by_key: dict[LinkKey, Link] = {}
        self._leaving: dict[NodeKey, dict[LinkKey, None]] = {}
        self._entering: dict[NodeKey, dict[LinkKey, None]] = {}
        self._next_row = next_row
        self._lines: tuple[str, Sequence[bytes], Iterable[int]] | None = None
        self._later: list[Link] = []

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
        for link in later:
            self.put(link)

    @property
    def by_key(self) -> dict[LinkKey, Link]:
        """All of them; not to be changed, nor are these."""
        self._ready()
        return self._by_key

    @property
    def leaving(self) -> dict[NodeKey, dict[LinkKey, None]]:
        """The keys of those that leave each node."""
        self._ready()
        return self._leaving

    @property
    def entering(self) -> dict[NodeKey, dict[LinkKey, None]]:
        """The keys of those that enter each node."""
        self._ready()
        return self._entering

    @property
    def next_row(self) -> int:
        """The row of the next new one."""
        self._ready()
        return self._next_row

    def put(self, link: Link) -> LinkKey:
        """Write one, under the row of the one that it replaces or under a new one; return its key."""
        key = (link.namespace, link.source, link.target, link.relation)
        if self._lines is not None:
            self._later.append(Link(link.source, link.target, link.relation, copied(link.data), link.namespace))
            return key
        old = self._by_key.get(key)
        if old is None:
            row, self._next_row = self._next_row, self._next_row + 1
        else:
            row = old.row
        return self.insert(Link(link.source, link.target, link.relation, copied(link.data), link.namespace, row))

    def insert(self, link: Link) -> LinkKey:
        """Put one with its row in its place."""
        key = (link.namespace, link.source, link.target, link.relation)
        if key not in self._by_key:
            self._leaving.setdefault(key[:2], {})[key] = None
            self._entering.setdefault((link.namespace, link.target), {})[key] = None
        self._by_key[key] = link
        return key

    def remove(self, key: LinkKey) -> None:
        """Take one out, if it is there."""
        if self.by_key.pop(key, None) is None:
            return
        for side, end in ((self._leaving, key[1]), (self._entering, key[2])):
            around = side[key[0], end]
            del around[key]
            if not around:
                del side[key[0], end]


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
