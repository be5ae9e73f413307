"""Our own JSON lines, as `raeburnmemory.exporters` writes them: everything comes back exactly as it was."""

from __future__ import annotations

import base64
import json
from collections import Counter
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dense import record_crc, unpack
from ..errors import InvalidInput
from ..exporters.jsonl import FORMAT, VERSION
from ..nodes import Link, Node, Vector
from ..records import checked_id, shown
from ._files import Part, only_file
from ._json_stream import MOST
from ._report import Imported
from ._restore import Restoring, checked_link, checked_node

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..memory_graph import MemoryGraph

__all__ = ["restore"]

_BATCH = 1000
_AGAIN = "Nothing was imported. Export it again, or mend the line."
_KEYS: dict[str, dict[str, type]] = {
    "namespace": {"name": str, "single_valued": list},
    "node": {"id": str, "kind": str, "attributes": dict},
    "edge": {"source": str, "target": str, "relation": str, "data": dict},
    "vector": {"node": str, "field": str, "part": int, "start": int, "end": int, "values": str},
    "end": {"nodes": int, "edges": int, "vectors": int},
}


def restore(
    memory: MemoryGraph,
    path: str,
    *,
    dry_run: bool,
    all_namespaces: bool,
    progress: Callable[[int, int], Any] | None,
    allow_unembedded: bool,
) -> Imported:
    """Write everything in the file to *memory*; see `raeburnmemory.importers.import_file`."""
    part = only_file(path)
    names, embedder = _header(part)
    if len(names) > 1 and not all_namespaces:
        raise InvalidInput(
            f"{path!r} holds the namespaces {', '.join(map(repr, names))}. To bring them all in, each under its name: "
            f"all_namespaces=True, on the command line --all-namespaces."
        )
    counts = _checked(part, names, embedder)  # all of it, before anything is written
    whole, done = sum(counts.values()), 0
    kinds: Counter[str] = Counter()
    new = 0
    section = Restoring(memory, memory.namespace, dry_run=dry_run, allow_unembedded=allow_unembedded)
    if embedder is not None:
        section.check_model(embedder)
    single: list[str] = []
    for kind, lines in groupby(_records(part), key=lambda record: record[1]["record"]):
        while batch := list(islice(lines, _BATCH)):
            place = batch[0][0]
            records = [record for _, record in batch]
            if kind == "namespace":
                for record in records:
                    section.single_valued(single)
                    new, single = new + section.new, record["single_valued"]
                    name = record["name"] if all_namespaces else memory.namespace
                    section = Restoring(memory, name, dry_run=dry_run, allow_unembedded=allow_unembedded)
                continue
            if kind == "node":
                section.nodes([_node(record, at) for at, record in batch], embed=embedder is None)
                kinds.update(record["kind"] for record in records)
            elif kind == "edge":
                section.links([_link(record, at) for at, record in batch], place)
            elif kind == "vector" and embedder is not None:
                section.vectors([_vector(record, at) for at, record in batch], embedder, place)
            else:
                continue
            done += len(batch)
            if progress is not None:
                progress(done, max(whole, 1))
    section.single_valued(single)
    new += section.new
    return Imported("jsonl", path, dry_run, dict(sorted(kinds.items())), counts["edge"], new)


def _header(part: Part) -> tuple[list[str], dict[str, Any] | None]:
    place, first = next(iter(_records(part)), (part.name, {}))
    if first.get("record") != "header" or first.get("format") != FORMAT:
        raise InvalidInput(
            f"{part.name!r} is no export of this library: its first line is no header. {_hint(first)}Nothing was "
            f"imported."
        )
    if first.get("version") != VERSION:
        raise InvalidInput(
            f"{place}: the file has version {shown(first.get('version'))} of the format; this program reads version "
            f"{VERSION}. Install a newer raeburnmemory."
        )
    names, embedder = first.get("namespaces"), first.get("embedder")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise InvalidInput(f"{place}: its namespaces are {shown(names)}, not a list of names. {_AGAIN}")
    if embedder is not None and not _is_model(embedder):
        raise InvalidInput(f"{place}: its embedder is {shown(embedder)}, not the record of a model. {_AGAIN}")
    return names, embedder


def _is_model(record: Any) -> bool:
    """Tell whether it is the record of a model, with the checksum that belongs to it."""
    try:
        return bool(record_crc(record) == record["crc"] and record["dim"] == len(unpack(record["probe"])))
    except (TypeError, KeyError, ValueError):
        return False


def _hint(first: dict[str, Any]) -> str:
    if first.get("type") in {"entity", "relation"}:
        return "It looks like the file of an MCP memory server: import mcp. "
    return "It looks like messages: import openai. " if isinstance(first.get("messages"), list) else ""


def _records(part: Part) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the lines of the file after their places.

    Raises:
        InvalidInput: One is no line of such a file.
    """
    with part.open() as file:
        number = 0
        while raw := file.readline(MOST):
            number += 1
            place = f"{part.name}, line {number}"
            try:
                record = json.loads(raw)
            except (ValueError, RecursionError) as exc:
                raise InvalidInput(f"{place} is no JSON: {exc}, in {shown(raw[:40])}. {_AGAIN}") from exc
            if not isinstance(record, dict) or record.get("record") not in {"header", *_KEYS}:
                raise InvalidInput(f"{place} is no line of an export: {shown(record)}. {_AGAIN}")
            for key, kind in _KEYS.get(record["record"], {}).items():
                if not isinstance(record.get(key), kind) or isinstance(record[key], bool):
                    raise InvalidInput(
                        f"{place}: {key!r} of a {record['record']} should be a {kind.__name__}, not "
                        f"{shown(record.get(key))}. {_AGAIN}"
                    )
            yield place, record


def _checked(part: Part, names: list[str], embedder: dict[str, Any] | None) -> dict[str, int]:
    """Read the whole file once, and return how many nodes, edges and vectors it holds.

    Raises:
        InvalidInput: It is damaged, cut short, or says of itself what is not so.
    """
    counts: Counter[str] = Counter()
    found: list[str] = []
    end: dict[str, Any] | None = None
    for place, record in _records(part):
        kind = record["record"]
        if end is not None:
            raise InvalidInput(f"{place}: there is more after the end. {_AGAIN}")
        if kind == "node":
            _node(record, place)
        elif kind == "edge":
            _link(record, place)
        elif kind == "vector":
            _vector(record, place)
            if embedder is None:
                raise InvalidInput(f"{place}: there is a vector, but the header names no model. {_AGAIN}")
        elif kind == "namespace":
            found.append(checked_id(record["name"], "a namespace"))
            for predicate in record["single_valued"]:
                checked_id(predicate, f"a predicate of {place}")
        elif kind == "end":
            end = record
        if kind in {"node", "edge", "vector"}:
            if not found:
                raise InvalidInput(f"{place}: there is a {kind} before a namespace. {_AGAIN}")
            counts[kind] += 1
    if end is None:
        raise InvalidInput(f"{part.name!r} was cut short: it has no end. {_AGAIN}")
    told = {kind: end[f"{kind}s"] for kind in ("node", "edge", "vector")}
    if told != {kind: counts[kind] for kind in told} or found != names:
        what = ", ".join(f"{counts[kind]} of {told[kind]} {kind}s" for kind in told)
        raise InvalidInput(f"{part.name!r} is not whole: it holds {what}, and the namespaces {found!r}. {_AGAIN}")
    return {kind: counts[kind] for kind in told}


def _node(record: dict[str, Any], place: str) -> Node:
    text, expires = record.get("text"), record.get("expires_at")
    if not isinstance(text, (str, type(None))):
        raise InvalidInput(f"{place}: 'text' of a node should be a text or null, not {shown(text)}. {_AGAIN}")
    if expires is not None and (isinstance(expires, bool) or not isinstance(expires, (int, float))):
        raise InvalidInput(f"{place}: 'expires_at' should be seconds since 1970, not {shown(expires)}. {_AGAIN}")
    return checked_node(Node(record["id"], record["kind"], text, record["attributes"], expires_at=expires), place)


def _link(record: dict[str, Any], place: str) -> Link:
    return checked_link(Link(record["source"], record["target"], record["relation"], record["data"]), place)


def _vector(record: dict[str, Any], place: str) -> Vector:
    try:
        values = np.frombuffer(base64.b64decode(record["values"], validate=True), "<f4").astype(np.float32)
    except ValueError as exc:
        raise InvalidInput(f"{place}: its values are no float32 in base64: {exc}. {_AGAIN}") from exc
    if not np.isfinite(values).all():
        raise InvalidInput(f"{place}: the vector of {record['node']!r} holds a number that is not finite. {_AGAIN}")
    return Vector(record["node"], record["field"], values, record["part"], record["start"], record["end"])
