"""Nodes and edges as node-link JSON, the format of `graph.json` and of every export.

The shape is that of `networkx.node_link_data` on a `DiGraph`, written by hand so that it does not change with the
networkx that is installed: the edges stand under `"edges"` and again under `"links"`, because its versions read
one or the other. A pair with several relations is one edge: `relation` is the oldest of them, `relations` maps
each to its data. Namespaces other than the default one stand under `"raeburnmemory_namespaces"`.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..errors import NotAStore, StoreCorrupt
from ..nodes import DEFAULT_NAMESPACE, Link, Node
from ._files import encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = [
    "NAMESPACES",
    "links_of",
    "mended",
    "node_link_data",
    "parse_json",
    "read_node",
    "read_node_link",
    "write_node_link",
]

NAMESPACES = "raeburnmemory_namespaces"
_encoded = encoder(", ", ": ")
_EXPIRES = "raeburnmemory_expires_at"  # an attribute of the few nodes that do


def node_to_json(node: Node) -> dict[str, Any]:
    """Return one entry of `"nodes"`: the attributes and the id."""
    entry = node.to_dict()
    entry["id"] = entry.pop("id")  # last, where networkx has it
    if node.expires_at is not None:
        entry[_EXPIRES] = node.expires_at
    return entry


def pairs_to_json(links: Iterable[Link]) -> Iterator[dict[str, Any]]:
    """Yield the entries of `"edges"`, one for each pair of nodes."""
    pairs: dict[tuple[str, str], list[Link]] = {}
    for link in links:
        pairs.setdefault((link.source, link.target), []).append(link)
    for (source, target), several in pairs.items():
        first = several[0]
        entry: dict[str, Any] = {"relation": first.relation, **first.data}
        if len(several) > 1:
            entry["relations"] = {link.relation: dict(link.data) for link in several}
        entry["source"], entry["target"] = source, target
        yield entry


def node_link_data(
    spaces: Mapping[str, tuple[Iterable[Node], Iterable[Link]]], namespace: str = DEFAULT_NAMESPACE
) -> dict[str, Any]:
    """Return nodes and edges by namespace as one dict, those of *namespace* at the top."""
    data = _section(*spaces.get(namespace, ([], [])))
    top: dict[str, Any] = {"directed": True, "multigraph": False, "graph": {}, **data}
    others = {name: _section(*both) for name, both in spaces.items() if name != namespace}
    if others:
        top[NAMESPACES] = others
    return top


def _section(nodes: Iterable[Node], links: Iterable[Link]) -> dict[str, Any]:
    edges = list(pairs_to_json(links))
    return {
        "nodes": [node_to_json(node) for node in nodes],
        "edges": edges,
        "links": [dict(e) for e in edges],
    }


def write_node_link(
    write: Callable[[bytes], Any],
    spaces: Mapping[str, tuple[Iterable[Node], list[Link]]],
    graph: dict[str, Any],
    extra: dict[str, Any],
) -> None:
    """Write a whole `graph.json`, one node or edge to a line, without holding it in memory twice."""

    def dump(value: Any) -> bytes:
        return _encoded(value).encode()

    def section(nodes: Iterable[Node], links: list[Link]) -> None:
        write(b'"nodes": [')
        _lines(write, (dump(node_to_json(node)) for node in nodes))
        entries = [dump(entry) for entry in pairs_to_json(links)]
        for name in (b'],\n"edges": [', b'],\n"links": ['):
            write(name)
            _lines(write, iter(entries))
        write(b"]")

    write(b'{"directed": true,\n"multigraph": false,\n"graph": ' + dump(graph) + b",\n")
    section(*spaces.get(DEFAULT_NAMESPACE, ([], [])))
    others = [name for name in spaces if name != DEFAULT_NAMESPACE]
    if others:
        write(b',\n"' + NAMESPACES.encode() + b'": {')
        for i, name in enumerate(others):
            write((b"" if i == 0 else b",\n") + dump(name) + b": {")
            section(*spaces[name])
            write(b"}")
        write(b"}")
    for name, value in extra.items():
        write(b",\n" + dump(name) + b": " + dump(value))
    write(b"}\n")


def _lines(write: Callable[[bytes], Any], entries: Iterator[bytes]) -> None:
    first = True
    pending: list[bytes] = []
    for entry in entries:
        pending.append(entry)
        if len(pending) == 4096:  # bounds the memory, not the line
            write((b"\n" if first else b",\n") + b",\n".join(pending))
            first, pending = False, []
    if pending:
        write((b"\n" if first else b",\n") + b",\n".join(pending))


def parse_json(raw: bytes, path: str) -> dict[str, Any]:
    """Parse the bytes of a `graph.json`.

    Raises:
        StoreCorrupt: It is empty or no JSON.
        NotAStore: It is JSON of something else.
    """
    if not raw.strip():
        raise StoreCorrupt(
            f"{path!r} is empty, where a graph was expected. Run repair, or put back a copy, or delete it."
        )
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise StoreCorrupt(
            f"{path!r} is damaged: {exc}. Nothing was changed. Run repair, or put back a copy of it."
        ) from exc
    if not isinstance(data, dict) or not isinstance(data.get("nodes"), list):
        raise NotAStore(f'{path!r} is JSON, but no graph: it has no list of "nodes". Choose another path.')
    if data.get("directed") is False or data.get("multigraph") is True:
        raise NotAStore(f"{path!r} is not a directed graph with one edge per pair. Choose another path.")
    return data


def mended(value: Any) -> Any:
    """Return a JSON value as every store can hold it, for files that Python's `json` wrote as it pleased.

    Numbers that are not finite become their names, halves of surrogate pairs the replacement character.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    elif isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    elif isinstance(value, dict):
        return {mended(key): mended(item) for key, item in value.items()}
    elif isinstance(value, list):
        return [mended(item) for item in value]
    return value


def read_node_link(
    data: dict[str, Any], path: str, rows: Iterator[int] | None = None, link_rows: Iterator[int] | None = None
) -> tuple[list[Node], list[Link]]:
    """Return the nodes and edges of a parsed graph, those of all namespaces.

    *rows* and *link_rows* give their rows in the order of the file; without them they are counted from 0.

    Raises:
        StoreCorrupt: Something in it contradicts itself; the message names it.
    """
    others = data.get(NAMESPACES, {})
    if not isinstance(others, dict):
        raise _damaged(path, f"{NAMESPACES!r} is no object")
    rows = itertools.count() if rows is None else rows
    link_rows = itertools.count() if link_rows is None else link_rows
    nodes, links = _read_section(data, DEFAULT_NAMESPACE, path, rows, link_rows)
    for name, section in others.items():
        if name == DEFAULT_NAMESPACE:
            raise _damaged(path, f"the namespace {name!r} stands at the top and among the others")
        if not isinstance(section, dict) or not isinstance(section.get("nodes"), list):
            raise _damaged(path, f"the namespace {name!r} has no list of nodes")
        more_nodes, more_links = _read_section(section, name, path, rows, link_rows)
        nodes += more_nodes
        links += more_links
    return nodes, links


def _read_section(
    section: dict[str, Any], namespace: str, path: str, rows: Iterator[int], link_rows: Iterator[int]
) -> tuple[list[Node], list[Link]]:
    edges, links = section.get("edges"), section.get("links")
    for name, entries in (("edges", edges), ("links", links)):
        if entries is not None and not isinstance(entries, list):
            raise _damaged(path, f"its {name!r} are no list")
    if edges is not None and links is not None and edges != links:
        raise _damaged(path, 'its "edges" and "links" differ')
    nodes = [read_node(entry, namespace, path, next(rows, -1)) for entry in section["nodes"]]
    ids = {node.id for node in nodes}
    if len(ids) < len(nodes):
        twice = next(i for i, n in Counter(node.id for node in nodes).items() if n > 1)
        raise _damaged(path, f"the node {twice!r} is there more than once")
    found: list[Link] = []
    for entry in edges if edges is not None else links or []:
        _read_edge(entry, namespace, path, ids, link_rows, found)
    return nodes, found


def read_node(entry: Any, namespace: str, path: str, row: int) -> Node:
    """Return the node of one entry of `"nodes"`."""
    if not isinstance(entry, dict) or "id" not in entry:
        raise _damaged(path, f"{_excerpt(entry)} is no node with an id")
    attributes = dict(entry)
    node_id, kind = attributes.pop("id"), attributes.pop("type", "node")
    text, expires = attributes.pop("text", None), attributes.pop(_EXPIRES, None)
    if isinstance(node_id, (int, float)) and not isinstance(node_id, bool):
        node_id = str(node_id)  # networkx allows any hashable; JSON leaves strings and numbers
    if not isinstance(node_id, str) or not isinstance(kind, str) or not isinstance(text, (str, type(None))):
        raise _damaged(path, f"{_excerpt(entry)} has an id, type or text that is no string")
    if expires is not None and not isinstance(expires, (int, float)):
        raise _damaged(path, f"{_excerpt(entry)} has a time to expire at that is no number")
    return Node(node_id, kind, text, attributes, namespace, expires, row)


def _read_edge(entry: Any, namespace: str, path: str, ids: set[str], rows: Iterator[int], found: list[Link]) -> None:
    """Append the links of one entry of `"edges"` to *found*."""
    if not isinstance(entry, dict) or "source" not in entry or "target" not in entry:
        raise _damaged(path, f"{_excerpt(entry)} is no edge with a source and a target")
    source, target = str(entry["source"]), str(entry["target"])
    if source not in ids or target not in ids:
        missing = target if source in ids else source
        raise _damaged(path, f"the edge {_excerpt(entry)} leads to {missing!r}, which is no node")
    found += links_of(entry, namespace, path, rows)


def links_of(entry: dict[str, Any], namespace: str, path: str, rows: Iterator[int]) -> list[Link]:
    """Return the links of one entry of `"edges"`, which has a source and a target."""
    data = dict(entry)
    source, target = str(data.pop("source")), str(data.pop("target"))
    relation, several = data.pop("relation", "related_to"), data.pop("relations", None)
    if several is None:
        several = {relation: data}
    if not isinstance(several, dict):
        raise _damaged(path, f"the edge {_excerpt(entry)} has relations that are no object")
    found = []
    for name, value in several.items():
        if not isinstance(name, str) or not isinstance(value, dict):
            raise _damaged(path, f"the edge {_excerpt(entry)} has a relation that is no object under a name")
        found.append(Link(source, target, name, value, namespace, next(rows, -1)))
    return found


def _damaged(path: str, what: str) -> StoreCorrupt:
    return StoreCorrupt(
        f"{path!r} is damaged: {what}. Nothing was changed. Run repair, or put back a copy of it, or mend it by hand."
    )


def _excerpt(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:79] + "…"
