"""The memory as a graph: one that lives and writes through, made when it is first asked for, and copies."""

from __future__ import annotations

import logging
import math
import weakref
from typing import TYPE_CHECKING, Any

from ._collector import no_collections
from .errors import ReadOnly
from .graph import plain_graph
from .live_graph import live_graph
from .mutex import Mutex
from .nodes import Changes, Where

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .live_graph import LiveGraph
    from .nodes import Link, Node
    from .store import Store
    from .writer import Writer

__all__ = ["GraphView"]

_log = logging.getLogger("raeburnmemory")

_LARGE = 200_000  # nodes and links together from which on it is said what making the graph costs
_SECONDS = 15e-6  # for each of them, and
_BYTES = 900  # its memory: what `python -m benchmarks.graph` finds, for short texts


class GraphView:
    """The live graph of one namespace, if somebody asked for it; safe to share between threads."""

    def __init__(self, store: Store, writer: Writer, namespace: str) -> None:
        self._store = store
        self._writer = writer
        self._namespace = namespace
        self._lock = Mutex()
        self._graph: LiveGraph | None = None
        self._version = -1

    def live(self) -> LiveGraph:
        """Return the live graph, up to date."""
        with self._lock.lock:
            if self._graph is None:
                self._graph = live_graph(_GraphWriter(self))
            self._bring(self._graph)
            return self._graph

    def refresh(self) -> None:
        """Bring the live graph up to date if there is one: somebody may hold it, and not ask for it again."""
        if self._graph is not None:
            self._bring(self._graph)

    def copy(self) -> Any:
        """Return a graph that has nothing to do with the memory any more."""
        with self._store.snapshot(), no_collections():
            nodes, links = self._everything()
            return plain_graph(list(nodes), list(links))

    def _bring(self, graph: LiveGraph) -> None:
        with self._lock.lock:
            version = self._store.version()
            if version == self._version:
                return
            changes = Changes(version, reset=True) if self._version < 0 else self._store.changes(self._version)
            if changes.reset:
                # Read page by page, while others go on writing. What they did meanwhile is all in the changes since:
                # those say what there is now, so that it does no harm to have seen some of it already.
                self._version = -1
                with no_collections():
                    graph.apply(Changes(version, reset=True), self._everything)
                changes = self._store.changes(version)
            if changes.reset:  # so much happened meanwhile that it is not remembered
                with self._store.snapshot(), no_collections():
                    changes = Changes(self._store.version(), reset=True)
                    graph.apply(changes, self._everything)
            else:
                graph.apply(changes, self._everything)
            self._version = changes.version

    def _everything(self) -> tuple[Iterator[Node], Iterator[Link]]:
        counts = self._store.counts(self._namespace)
        nodes, links = sum(counts["kinds"].values()), sum(counts["relations"].values())
        if nodes + links >= _LARGE:
            _log.warning(
                "The graph of %r is made in memory: %s nodes and %s links, about %d s and %s MB. neighbours(), "
                "links(), thread(), nodes() and recall() read from the store and need none of it.",
                self._store.location,
                f"{nodes:,}",
                f"{links:,}",
                math.ceil((nodes + links) * _SECONDS),
                f"{math.ceil((nodes + links) * _BYTES / 1e6):,}",
            )
        return self._store.nodes(Where(self._namespace)), self._store.all_links(self._namespace)


class _GraphWriter:
    """What the live graph needs of its memory, without keeping it open."""

    def __init__(self, view: GraphView) -> None:
        self._view = weakref.ref(view)  # which nobody holds but the memory
        self.namespace = view._namespace  # noqa: SLF001

    def _alive(self) -> GraphView:
        view = self._view()
        if view is None:
            raise ReadOnly("The MemoryGraph of this graph is gone. Keep it, or work on a copy: graph.copy().")
        return view

    def write_graph(self, nodes: Sequence[Any], links: Sequence[Any]) -> None:
        self._alive()._writer.write_graph(nodes, links)  # noqa: SLF001

    def erase_graph(self, ids: Sequence[str], pairs: Sequence[tuple[str, str]]) -> None:
        self._alive()._writer.erase_graph(ids, pairs)  # noqa: SLF001

    def catch_up(self, graph: LiveGraph) -> None:
        self._alive()._bring(graph)  # noqa: SLF001
