"""Parquet, for tables and data frames: a folder with `nodes.parquet`, `edges.parquet` and perhaps `vectors.parquet`."""

from __future__ import annotations

import json
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .._optional import extra
from ..nodes import copied
from ..records import time_of
from ._output import new_folder

with extra("parquet", module="pyarrow"):
    import pyarrow as pa
    import pyarrow.parquet as pq

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ._reading import Reading

__all__ = ["PASSES", "write"]

PASSES = 1
_ROWS = 10_000  # in one group: a page that readers can pass over
_TIME = pa.timestamp("us", tz="UTC")
_NODES = pa.schema(
    [
        ("namespace", pa.string()),
        ("id", pa.string()),
        ("kind", pa.string()),
        ("text", pa.string()),
        ("timestamp", _TIME),
        ("expires_at", pa.float64()),
        ("attributes", pa.string()),
    ]
)
_EDGES = pa.schema([(name, pa.string()) for name in ("namespace", "source", "target", "relation", "data")])
_VECTORS = pa.schema(
    [
        ("namespace", pa.string()),
        ("node", pa.string()),
        ("field", pa.string()),
        ("part", pa.int32()),
        ("start", pa.int64()),
        ("end", pa.int64()),
        ("values", pa.list_(pa.float32())),
    ]
)


def write(path: str, readings: Sequence[Reading], about: dict[str, Any]) -> tuple[int, int, int]:
    """Write namespaces to a folder; return how many nodes, edges and vectors these were."""
    with new_folder(path, overwrite=about["overwrite"]) as folder:
        counts = [
            _table(os.path.join(folder, "nodes.parquet"), _NODES, _nodes(readings)),
            _table(os.path.join(folder, "edges.parquet"), _EDGES, _edges(readings)),
            0,
        ]
        if about["vectors"]:
            counts[2] = _table(os.path.join(folder, "vectors.parquet"), _VECTORS, _vectors(readings))
        return counts[0], counts[1], counts[2]


def _table(path: str, schema: Any, rows: Iterable[tuple[Any, ...]]) -> int:
    count = 0
    with pq.ParquetWriter(path, schema) as writer:
        page: list[tuple[Any, ...]] = []
        for row in rows:
            count += 1
            page.append(row)
            if len(page) == _ROWS:
                writer.write_batch(_batch(page, schema))
                page = []
        if page or not count:
            writer.write_batch(_batch(page, schema))
    with open(path, "rb") as file:
        os.fsync(file.fileno())
    return count


def _batch(rows: list[tuple[Any, ...]], schema: Any) -> Any:
    columns: list[Any] = list(zip(*rows, strict=True)) or [[] for _ in schema]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.record_batch(arrays, schema=schema)


def _nodes(readings: Sequence[Reading]) -> Iterator[tuple[Any, ...]]:
    for reading in readings:
        for node in reading.nodes():
            stamp = time_of(node)
            time = None if stamp is None else datetime.fromisoformat(stamp)
            attributes = _json(node.attributes)
            yield reading.namespace, node.id, node.kind, node.text, time, node.expires_at, attributes


def _edges(readings: Sequence[Reading]) -> Iterator[tuple[Any, ...]]:
    for reading in readings:
        for link in reading.links():
            yield reading.namespace, link.source, link.target, link.relation, _json(link.data)


def _vectors(readings: Sequence[Reading]) -> Iterator[tuple[Any, ...]]:
    for reading in readings:
        for one in reading.vectors():
            yield reading.namespace, one.node, one.field, one.part, one.start, one.end, one.values


def _json(value: Any) -> str:
    return json.dumps(copied(value), ensure_ascii=False, sort_keys=True)
