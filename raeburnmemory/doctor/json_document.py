"""A damaged `graph.json` read entry by entry: what is whole is kept, what is not is counted and named.

Our own files have one node or edge to a line, so that damage costs the lines it touches; edges stand there twice.
Files that others wrote in other shapes are searched for objects that look like nodes and edges.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from ..nodes import DEFAULT_NAMESPACE, Link, Node
from ..store.nodelink import NAMESPACES, mended
from ..store.snapshot import displaced
from ..store.vector_files import from_ranges

__all__ = ["Document", "read_document"]

_OURS, _HISTORY, _EXPIRES = "raeburnmemory", "raeburnmemory_history", "raeburnmemory_expires_at"
_KNOWN = {"directed", "multigraph", "graph", "nodes", "edges", "links", NAMESPACES, _HISTORY}
_STRING = r'"(?:[^"\\]|\\.)*"'
_LIST = re.compile(rf'^(?:"{NAMESPACES}": \{{)?(?:({_STRING}): \{{)?"(nodes|edges|links)": \[')
_ID = re.compile(rf'"id": ({_STRING})')
_ENDS = re.compile(r'"(source|target)": (' + _STRING + ")")
_REST = re.compile(r"[\]},\s]*")
_DECODER = json.JSONDecoder()

_Section = dict[str, list[Any]]  # "nodes", "edges", "links": entries in their order, None where one cannot be read


@dataclass
class Document:
    """What a `graph.json` says. `lost` names what it said and cannot be read."""

    ours: dict[str, Any] | None = None  # what node-link JSON has no place for, if it can be read
    graph: dict[str, Any] = field(default_factory=dict)
    top: dict[str, Any] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    history: list[tuple[tuple[str, str], Node]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    numbered: bool = False  # the numbers of nodes are those they had

    @property
    def version(self) -> int:
        """The version it says it has, 0 if it does not say."""
        value = (self.ours or {}).get("version")
        return value if type(value) is int and value >= 0 else 0


def read_document(raw: bytes) -> Document:
    """Return what can be read of the bytes of a `graph.json`."""
    text = raw.decode("utf-8", "replace")
    found = Document()
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if isinstance(data, dict):
        sections, past = _sections(data), data.get(_HISTORY, [])
        found.graph = dict(data["graph"]) if isinstance(data.get("graph"), dict) else {}
        found.top = {key: value for key, value in data.items() if key not in _KNOWN}
    else:
        sections, past = _by_line(text, found)
        if not any(section["nodes"] for section in sections.values()):
            sections = {DEFAULT_NAMESPACE: _by_search(text)}
    ours = found.graph.pop(_OURS, None)
    if ours is None and (astray := displaced({**found.top, "graph": found.graph})) is not None:
        place, name = astray
        ours = place.pop(name)
        found.top = {key: value for key, value in found.top.items() if value is not place or place}
    found.ours = ours if isinstance(ours, dict) else None
    _assemble(found, sections, past if isinstance(past, list) else [])
    return found


# --- from text to entries ---------------------------------------------------------------------------------------


def _sections(data: dict[str, Any]) -> dict[str, _Section]:
    spaces = data.get(NAMESPACES)
    several = {DEFAULT_NAMESPACE: data, **(spaces if isinstance(spaces, dict) else {})}
    return {
        name: {
            part: section[part] if isinstance(section.get(part), list) else [] for part in ("nodes", "edges", "links")
        }
        for name, section in several.items()
        if isinstance(section, dict)
    }


def _by_line(text: str, found: Document) -> tuple[dict[str, _Section], Any]:
    """Read a file of ours, one entry to a line."""
    sections: dict[str, _Section] = {DEFAULT_NAMESPACE: {"nodes": [], "edges": [], "links": []}}
    past: Any = []
    space, entries = DEFAULT_NAMESPACE, None
    for line in text.split("\n"):
        start = _LIST.match(line)
        if start is not None:
            if start[1] is not None:
                space = _plain(start[1])
                sections.setdefault(space, {"nodes": [], "edges": [], "links": []})
            entries = None if line.rstrip().endswith(("[],", "[]")) else sections[space][start[2]]
        elif line.startswith('"') and (pair := _member(line)) is not None:
            key, value = pair
            if key == "graph" and isinstance(value, dict):
                found.graph = value
            elif key == _HISTORY:
                past = value
            elif key not in _KNOWN:
                found.top[key] = value
        elif line.startswith(f'"{_HISTORY}"'):
            past, cut = _prefix(line)
            found.lost.append(f"earlier versions of nodes: {len(past)} could be read{', the rest not' if cut else ''}")
        elif entries is not None and line.strip():
            entry, broken = _entry(line)
            if broken:
                _name_lost(line, found)
            if entry is not None or broken:
                entries.append(entry)
    return sections, past


def _member(line: str) -> tuple[str, Any] | None:
    """Return the key and the value of a line that holds one member of an object."""
    try:
        key, at = _DECODER.raw_decode(line)
        value, end = _DECODER.raw_decode(line, at + 2)
    except (ValueError, RecursionError):
        return None
    return (str(key), value) if line[at : at + 2] == ": " and _REST.fullmatch(line, end) else None


def _prefix(line: str) -> tuple[list[Any], bool]:
    """Return the first entries of a list that is damaged further behind."""
    found: list[Any] = []
    at = line.find("[") + 1
    while at:
        try:
            value, at = _DECODER.raw_decode(line, at)
        except (ValueError, RecursionError):
            break
        found.append(value)
        at += 2
    return found, True


def _entry(line: str) -> tuple[Any, bool]:
    """Return the object on a line, and whether there should be one and is none."""
    try:
        value, end = _DECODER.raw_decode(line)
    except (ValueError, RecursionError):
        return None, not _REST.fullmatch(line)
    if isinstance(value, dict) and _REST.fullmatch(line, end) and "\ufffd" not in line:
        return value, False
    return None, True


def _name_lost(line: str, found: Document) -> None:
    node, ends = _ID.search(line), dict(_ENDS.findall(line))
    if node is not None:
        found.lost.append(f"the node {_plain(node[1])!r}")
    elif len(ends) == 2:
        found.lost.append(f"an edge from {_plain(ends['source'])!r} to {_plain(ends['target'])!r}")
    else:
        found.lost.append(f"a line that begins with {line[:40]!r}")


def _plain(text: str) -> str:
    """Return what a JSON string says, as well as it can be read."""
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        return text[1:-1]


def _by_search(text: str) -> _Section:
    """Find objects that look like nodes and edges, in whatever shape somebody wrote the file."""
    found: _Section = {"nodes": [], "edges": [], "links": []}
    at = text.find("{")
    while at >= 0:
        try:
            value, end = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            at = text.find("{", at + 1)
            continue
        if isinstance(value, dict) and "source" in value and "target" in value:
            found["edges"].append(value)
        elif isinstance(value, dict) and "id" in value:
            found["nodes"].append(value)
        at = text.find("{", end)
    return found


# --- from entries to nodes and edges ----------------------------------------------------------------------------


def _assemble(found: Document, sections: dict[str, _Section], past: list[Any]) -> None:
    rows, link_rows = _numbers(found.ours, "rows"), _numbers(found.ours, "link_rows")
    told = sum(len(section["nodes"]) for section in sections.values())
    if rows is not None and len(rows) > told:
        found.lost.append(f"{len(rows) - told} nodes behind the end of what can be read")
    found.numbered = rows is not None and len(rows) >= told
    numbers = iter(rows) if rows is not None and found.numbered else iter(range(told))
    keys: set[tuple[str, str]] = set()
    for space, section in sections.items():
        for entry in section["nodes"]:
            row = next(numbers)
            node = None if entry is None else _node(entry, space, row)
            if node is None:
                if entry is not None:
                    found.lost.append(f"a node that makes no sense: {json.dumps(entry)[:80]}")
            elif (space, node.id) in keys:
                found.lost.append(f"a second node {node.id!r}: {(node.text or '')[:60]!r}")
            else:
                keys.add((space, node.id))
                found.nodes.append(node)
    for space, section in sections.items():
        for link in _links(section, space, found):
            if {(space, link.source), (space, link.target)} <= keys:
                found.links.append(link)
            else:
                gone = next(end for end in (link.source, link.target) if (space, end) not in keys)
                found.lost.append(f"the edge {link.source} -{link.relation}-> {link.target}: {gone!r} is not there")
    if link_rows is not None and len(link_rows) == len(found.links):
        found.links = [
            Link(e.source, e.target, e.relation, e.data, e.namespace, row)
            for e, row in zip(found.links, link_rows, strict=True)
        ]
    elif link_rows is not None and len(link_rows) > len(found.links):
        known = sum(text.startswith(("the edge", "an edge")) for text in found.lost)
        if (unknown := len(link_rows) - len(found.links) - known) > 0:
            found.lost.append(f"{unknown} edges that cannot be read")
    for entry in past:
        inner = entry.get("node") if isinstance(entry, dict) else None
        key = (str(entry.get("namespace")), str(inner.get("id"))) if isinstance(inner, dict) else None
        old = None if key is None else _node(inner, key[0], -1)
        if key is not None and old is not None and key in keys:
            found.history.append((key, old))


def _numbers(ours: dict[str, Any] | None, name: str) -> list[int] | None:
    """Return the numbers that a file gives its nodes or edges; None if it makes no sense of them."""
    try:
        runs = (ours or {})[name]
        if sum(int(count) for _, count in runs) > 1 << 32:
            return None
        found = [int(number) for number in from_ranges(runs)]
    except (KeyError, TypeError, ValueError):
        return None
    return found if len(set(found)) == len(found) and min(found, default=0) >= 0 else None


def _node(entry: Any, space: str, row: int) -> Node | None:
    if not isinstance(entry, dict):
        return None
    data = mended(dict(entry))
    node_id, kind, text, expires = (data.pop(name, None) for name in ("id", "type", "text", _EXPIRES))
    if isinstance(node_id, (int, float)) and not isinstance(node_id, bool):
        node_id = str(node_id)
    if not isinstance(node_id, str) or not isinstance(text, (str, type(None))):
        return None
    expires = expires if isinstance(expires, (int, float)) and not isinstance(expires, bool) else None
    return Node(node_id, kind if isinstance(kind, str) else "node", text, data, space, expires, row)


def _links(section: _Section, space: str, found: Document) -> list[Link]:
    """Return the edges of a section, each of which stands there twice: what one copy lost, the other may have."""
    first, second = section["edges"], section["links"]
    if len(first) == len(second):
        entries = [a if a is not None else b for a, b in zip(first, second, strict=True)]
        if all(a is None or b is None or a == b for a, b in zip(first, second, strict=True)):
            second = []
    else:
        entries = [entry for entry in (first if len(first) >= len(second) else second) if entry is not None]
        second = second if entries is not second else first
    pairs = {_pair(entry) for entry in entries}
    entries += [entry for entry in second if entry is not None and _pair(entry) not in pairs]
    links: dict[tuple[str, str, str], Link] = {}
    for entry in entries:
        for link in _several(entry, space):
            links.setdefault((link.source, link.target, link.relation), link)
    for name in [text for text in found.lost if text.startswith("an edge from ")]:
        if any(name == f"an edge from {link.source!r} to {link.target!r}" for link in links.values()):
            found.lost.remove(name)
    return list(links.values())


def _pair(entry: Any) -> tuple[str, str]:
    return (str(entry.get("source")), str(entry.get("target"))) if isinstance(entry, dict) else ("", "")


def _several(entry: Any, space: str) -> list[Link]:
    if not isinstance(entry, dict) or "source" not in entry or "target" not in entry:
        return []
    data = mended(dict(entry))
    source, target = str(data.pop("source")), str(data.pop("target"))
    relation, several = data.pop("relation", "related_to"), data.pop("relations", None)
    if not isinstance(several, dict):
        several = {str(relation): data}
    return [
        Link(source, target, str(name), value if isinstance(value, dict) else {}, space)
        for name, value in several.items()
    ]
