"""Taking everything out: a memory as JSON lines, Markdown, GraphML, GEXF, node-link JSON or Parquet.

>>> from raeburnmemory.exporters import export_file
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInput
from ..nodes import DEFAULT_NAMESPACE
from ..records import shown
from ..store import checked_path
from ._output import replaced
from ._reading import Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..memory_graph import MemoryGraph

__all__ = ["FORMATS", "Exported", "export_file", "schema"]

# What can be written, and the module that writes it.
FORMATS = {
    "gexf": "gexf",
    "graphml": "graphml",
    "jsonl": "jsonl",
    "markdown": "markdown",
    "node-link": "node_link",
    "parquet": "parquet",
}
_WITH_VECTORS = ("jsonl", "parquet")
_OF_ONE_NAMESPACE = ("gexf", "graphml")  # there, one id is one node


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and where; `path` is `"-"` for standard output."""

    format: str
    path: str
    namespaces: tuple[str, ...]
    nodes: int
    edges: int
    vectors: int

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a JSON object."""
        return asdict(self)

    def __str__(self) -> str:
        vectors = f", {self.vectors} vectors" if self.vectors else ""
        return f"Exported {self.nodes} nodes, {self.edges} edges{vectors} to {self.path}"


def export_file(
    memory: MemoryGraph,
    format: str,  # noqa: A002
    path: str | os.PathLike[str],
    *,
    all_namespaces: bool = False,
    vectors: bool = False,
    overwrite: bool = False,
    progress: Callable[[int, int], Any] | None = None,
) -> Exported:
    """Write *memory* to *path* in one of `FORMATS`, as it is at one moment, whole or not at all.

    *path* is a file, `"-"` for standard output, and for `"parquet"` a folder. *all_namespaces* takes the others along,
    *vectors* the vectors, so that nothing is embedded anew when they are imported; both are for formats that have a
    place for them. What is at *path* is replaced with *overwrite*. *progress* is called with how many nodes, edges and
    vectors were read so far, and of how many.

    Raises:
        InvalidInput: There is something at *path*, or the format has no place for what was asked for.
        MissingDependency: `"parquet"` needs pyarrow.
        StoreWriteFailed: The disk or the system refused.
    """
    if format not in FORMATS:
        raise InvalidInput(f"{shown(format)} is no format of an export. Choose one of: {', '.join(FORMATS)}.")
    if vectors and format not in _WITH_VECTORS:
        raise InvalidInput(
            f"{format!r} has no place for vectors. Leave them out, or choose: {', '.join(_WITH_VECTORS)}."
        )
    if all_namespaces and format in _OF_ONE_NAMESPACE:
        raise InvalidInput(f"{format!r} has no place for namespaces. Export each by itself: --namespace NAME export.")
    place = checked_path(path)
    place = place if place == "-" else os.path.realpath(place)
    store = memory._store  # noqa: SLF001 - one moment of everything is for its contract to give
    if place == store.location:
        raise InvalidInput(f"{place!r} is the memory itself. Name another file.")
    if place != "-":
        replaced(place, overwrite=overwrite)
    writer: Any = import_module(f".{FORMATS[format]}", __name__)
    with store.snapshot():
        names = [memory.namespace]
        if all_namespaces:
            # The default one first, where a reader looks for it, even if it is empty.
            names = list(dict.fromkeys([DEFAULT_NAMESPACE, *store.namespaces()]))
        steps = _Steps(store, names, vectors=vectors, passes=writer.PASSES, progress=progress)
        readings = [Reading(store, name, steps.seen) for name in names]
        about = {"embedder": store.meta("embedder") if vectors else None, "vectors": vectors, "overwrite": overwrite}
        nodes, edges, written = writer.write(place, readings, about)
    return Exported(format, place, tuple(names), nodes, edges, written)


class _Steps:
    """Says how far an export is."""

    def __init__(
        self, store: Any, names: list[str], *, vectors: bool, passes: int, progress: Callable[[int, int], Any] | None
    ) -> None:
        counts = [store.counts(name) for name in names]
        parts = ["kinds", "relations", *(["vectors"] if vectors else [])]
        self._all = max(1, passes * sum(sum(count[part].values()) for count in counts for part in parts))
        self._done = self._told = 0
        self._progress = progress

    def seen(self, count: int) -> None:
        """Count nodes, edges or vectors that were read."""
        self._done += count
        if self._progress is not None and (self._done - self._told >= 1000 or self._done >= self._all):
            self._told = self._done
            self._progress(min(self._done, self._all), self._all)


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a line of the format `"jsonl"`."""
    from .jsonl import schema

    return schema()
