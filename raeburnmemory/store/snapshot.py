"""`graph.json`: a whole store as one file, and how it becomes a `State` again."""

from __future__ import annotations

import hashlib
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .._collector import no_collections
from ..errors import StoreCorrupt, StoreTooNew
from ..nodes import DEFAULT_NAMESPACE, Link, Node
from ._files import at_once, open_regular, write_failed
from ._packed import NAMESPACE, ROW, link_of, node_of
from ._waiting import Links, Sections, sections
from .nodelink import NAMESPACES, mended, node_to_json, parse_json, read_node, read_node_link, write_node_link
from .state import State, VectorSet
from .vector_files import FieldSnapshot, from_ranges, to_ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._packed import LinkKey, NodeKey, PackedLink, PackedNode

__all__ = ["FORMAT", "GraphFile", "Snapshot", "displaced"]

FORMAT = 1
_OURS = "raeburnmemory"  # the graph attribute that holds what node-link JSON has no place for
_HISTORY = "raeburnmemory_history"
_NUMBERS = ("format", "version", "next_row", "next_link_row")
_KNOWN = {"directed", "multigraph", "graph", "nodes", "edges", "links", NAMESPACES, _HISTORY}


@dataclass
class GraphFile:
    """A parsed `graph.json`. `store` is None in one that the original or another program wrote."""

    path: str
    digest: str
    size: int
    stamp: tuple[int, int, int]
    store: str | None
    version: int
    expected_vectors: dict[str, int]
    state: State

    @classmethod
    def read(cls, path: str, written: str | None = None) -> GraphFile:
        """Read the file at *path*. *written* is the SHA-256 of what was written there last, if that is known.

        Raises:
            FileNotFoundError: It does not exist.
            StoreCorrupt, StoreTooNew, NotAStore: It cannot be used.
        """
        with open_regular(path) as file:
            raw = file.read()
            stamp = file_stamp(os.fstat(file.fileno()))
        with no_collections():
            return cls._parse(path, raw, stamp, written)

    @classmethod
    def _parse(cls, path: str, raw: bytes, stamp: tuple[int, int, int], written: str | None) -> GraphFile:
        digest = hashlib.sha256(raw).hexdigest()
        waiting = sections(raw) if digest == written else None
        data = parse_json(raw if waiting is None else waiting.rest, path)
        graph = data.get("graph")
        graph = dict(graph) if isinstance(graph, dict) else {}
        ours = graph.pop(_OURS, None)
        if ours is None:
            if displaced(data) is not None:
                raise StoreCorrupt(
                    f"{path!r} is damaged: what belongs under 'graph' and {_OURS!r} stands under another name. Nothing "
                    f"was changed. Run repair, or put back a copy, or delete it to read the rest as a plain graph."
                )
            data, graph = mended(data), mended(graph)
        try:
            if ours is not None:
                if ours["format"] > FORMAT:
                    raise StoreTooNew(
                        f"{path!r} has format {ours['format']}, this version of raeburnmemory knows up to {FORMAT}. "
                        f"Install a newer one: pip install -U raeburnmemory"
                    )
                if not all(type(ours[name]) is int and ours[name] >= 0 for name in _NUMBERS):
                    raise ValueError(f"one of {', '.join(_NUMBERS)} is no number")
            state = _state(data, ours, path, waiting)
            # What other programs keep in the file is theirs: it is written back.
            if graph:
                state.meta["graph"] = graph
            if top := {key: value for key, value in data.items() if key not in _KNOWN}:
                state.meta["top"] = top
            store, version, vectors = (ours["store"], ours["version"], ours["vectors"]) if ours else (None, 0, {})
            return cls(path, digest, len(raw), stamp, store, version, vectors, state)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as exc:
            raise StoreCorrupt(
                f"{path!r} is damaged: its {_OURS!r} entry does not fit its nodes ({exc!r}). Nothing was changed. "
                f"Run repair, or put back a copy, or delete that entry to read the rest as a plain graph."
            ) from exc


def displaced(data: dict[str, Any]) -> tuple[dict[str, Any], str] | None:
    """Return the object in which our entry stands under another name than its own, and that name.

    One damaged letter would otherwise make the graph that of another program, without vectors and facts.
    """
    for place in [data, *(value for value in data.values() if isinstance(value, dict))]:
        for name, value in place.items():
            if isinstance(value, dict) and set(_NUMBERS) <= value.keys():
                return place, name
    return None


def file_stamp(stat: os.stat_result) -> tuple[int, int, int]:
    """Return what changes whenever somebody writes or replaces a file."""
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _state(data: dict[str, Any], ours: dict[str, Any] | None, path: str, waiting: Sections | None) -> State:
    """Return the state of a parsed file; without an entry of ours rows are given in the order of the file.

    Nodes and edges that are *waiting* are not in *data*.
    """
    nodes: list[Node] = []
    links: list[Link] = []
    if ours is None:
        nodes, links = read_node_link(data, path)
        state = State(next_row=len(nodes), links=Links(len(links)))
    else:
        rows, link_rows = from_ranges(ours["rows"]), from_ranges(ours["link_rows"])
        if waiting is None:
            nodes, links = read_node_link(data, path, rows, link_rows)
            left = itertools.islice(itertools.chain(rows, link_rows), 1)
            if min(map(_row, [*nodes, *links]), default=0) < 0 or [*left]:
                raise ValueError("its rows are not as many as its nodes and edges")
        state = State(ours["version"], ours["next_row"], links=Links(ours["next_link_row"]))
        state.meta, state.next_slots = dict(ours["meta"]), dict(ours["next_slots"])
        if waiting is not None:
            own = [*itertools.islice(rows, len(waiting.ids))]
            keys = [(DEFAULT_NAMESPACE, name) for name in waiting.ids]
            state.rows.update(zip(own, keys, strict=True))
            state.nodes.wait(keys, own, waiting.nodes)
            state.links.wait(DEFAULT_NAMESPACE, waiting.edges, link_rows)
    for node in sorted(nodes, key=_row):
        key = (node.namespace, node.id)
        state.nodes[key] = node
        state.rows[node.row] = key
    for link in sorted(links, key=_row):
        state.links.insert(link)
    for entry in data.get(_HISTORY, []):
        key = (entry["namespace"], entry["node"]["id"])
        if key in state.nodes:
            old = read_node(entry["node"], entry["namespace"], path, state.nodes.row(key))
            state.remember(key, old)
    return state


def _row(item: Any) -> int:
    return int(item.row)


@dataclass
class Snapshot:
    """What a store holds at one version, safe to write while it goes on changing."""

    store: str
    version: int
    next_row: int
    next_link_row: int
    nodes: list[PackedNode]
    links: list[tuple[LinkKey, PackedLink]]
    past: dict[NodeKey, list[PackedNode]]
    meta: dict[str, Any]
    next_slots: dict[str, int]
    fields: dict[str, FieldSnapshot]

    @classmethod
    def of(cls, state: State, store: str) -> Snapshot:
        """Take one: lists are copied, what they hold is never changed in place."""
        return cls(
            store,
            state.version,
            state.next_row,
            state.links.next_row,
            state.nodes.all_packed(),
            list(state.links.by_key.items()),
            {key: list(old) for key, old in state.past.items()},
            dict(state.meta),
            {**state.next_slots, **{name: vectors.next_slot for name, vectors in state.sets.items()}},
            {name: _field(vectors) for name, vectors in state.sets.items()},
        )

    def write(self, path: str, begin: Callable[[], None] = at_once) -> tuple[str, int]:
        """Write it as node-link JSON to *path*, synced; return the file's SHA-256 and length.

        *begin* is called once the file is there and before anything is in it; it may raise.
        """
        spaces: dict[str, tuple[list[PackedNode], list[Link]]] = {DEFAULT_NAMESPACE: ([], [])}
        for node in self.nodes:
            spaces.setdefault(node[NAMESPACE], ([], []))[0].append(node)
        for key, link in self.links:
            spaces[key[0]][1].append(link_of(key, link))
        # The file groups edges by pair and nodes by namespace; the rows say in which order they came. Both are
        # known only once the edges are written, so the entry that holds them comes from a first, dry pass.
        order = _link_order(spaces)
        ours = {
            "format": FORMAT,
            "store": self.store,
            "version": self.version,
            "next_row": self.next_row,
            "next_link_row": self.next_link_row,
            "rows": to_ranges([node[ROW] for nodes, _ in spaces.values() for node in nodes]),
            "link_rows": to_ranges(order),
            "next_slots": self.next_slots,
            "vectors": {name: len(f.block.slots) for name, f in self.fields.items() if len(f.block.slots)},
            "meta": {name: value for name, value in self.meta.items() if name not in {"graph", "top"}},
        }
        graph = {**self.meta.get("graph", {}), _OURS: ours}
        history = [
            {"namespace": key[0], "node": node_to_json(node_of(node))}
            for key, several in self.past.items()
            for node in several
        ]
        digest, size = hashlib.sha256(), 0
        others = {_HISTORY: history} if history else {}
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", 1 << 20) as file:
                begin()

                def write(data: bytes) -> None:
                    nonlocal size
                    digest.update(data)
                    size += len(data)
                    file.write(data)

                given = {name: (map(node_of, nodes), links) for name, (nodes, links) in spaces.items()}
                write_node_link(write, given, graph, {**self.meta.get("top", {}), **others})
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise write_failed("write", path, exc, size) from exc
        return digest.hexdigest(), size


def _field(vectors: VectorSet) -> FieldSnapshot:
    return FieldSnapshot(vectors.dim, vectors.next_slot, vectors.alive())


def _link_order(spaces: dict[str, tuple[list[PackedNode], list[Link]]]) -> list[int]:
    order: list[int] = []
    for _, links in spaces.values():
        pairs: dict[tuple[str, str], list[int]] = {}
        for link in links:
            pairs.setdefault((link.source, link.target), []).append(link.row)
        for rows in pairs.values():
            order += rows
    return order
