"""JSON lines: everything that a memory holds, in an order in which it can be read again, and with it, byte for byte.

The first line says what the file is, the last how much was in it. In between each namespace begins with a line of its
own; then come its nodes, its edges and, if they were asked for, its vectors, in the order in which they were first
written. `jsonl.schema.json` beside this file is the schema of a line.
"""

from __future__ import annotations

import base64
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ._output import new_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..nodes import Vector
    from ._reading import Reading

__all__ = ["FORMAT", "PASSES", "VERSION", "schema", "write"]

FORMAT, VERSION = "raeburnmemory", 1
PASSES = 1


def write(path: str, readings: Sequence[Reading], about: dict[str, Any]) -> tuple[int, int, int]:
    """Write namespaces to a file; return how many nodes, edges and vectors these were."""
    counts = {"node": 0, "edge": 0, "vector": 0}
    with new_file(path, overwrite=about["overwrite"]) as file:
        for record in _records(readings, about):
            kind = record["record"]
            if kind in counts:
                counts[kind] += 1
            file.write(_line(record))
        file.write(
            _line({"record": "end", "nodes": counts["node"], "edges": counts["edge"], "vectors": counts["vector"]})
        )
    return counts["node"], counts["edge"], counts["vector"]


def _line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _records(readings: Sequence[Reading], about: dict[str, Any]) -> Iterator[dict[str, Any]]:
    names = [reading.namespace for reading in readings]
    yield {
        "record": "header",
        "format": FORMAT,
        "version": VERSION,
        "namespaces": names,
        "embedder": about["embedder"] if about["vectors"] else None,
    }
    for reading in readings:
        yield {"record": "namespace", "name": reading.namespace, "single_valued": reading.single_valued}
        for node in reading.nodes():
            line: dict[str, Any] = {"record": "node", "id": node.id, "kind": node.kind, "text": node.text}
            if node.expires_at is not None:
                line["expires_at"] = node.expires_at
            yield {**line, "attributes": _sorted(node.attributes)}
        for link in reading.links():
            line = {"record": "edge", "source": link.source, "target": link.target, "relation": link.relation}
            yield {**line, "data": _sorted(link.data)}
        if about["vectors"]:
            for vector in reading.vectors():
                yield _vector(vector)


def _vector(vector: Vector) -> dict[str, Any]:
    values = base64.b64encode(vector.values.astype("<f4").tobytes()).decode()
    where = {"part": vector.part, "start": vector.start, "end": vector.end}
    return {"record": "vector", "node": vector.node, "field": vector.field, **where, "values": values}


def _sorted(value: Any) -> Any:
    """Return a JSON value with the keys of its objects in order: not every store keeps the one they came in."""
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in value]
    if hasattr(value, "items"):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return value


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a line."""
    text = files(__package__ or "").joinpath("jsonl.schema.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
