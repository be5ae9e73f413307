"""The memory as a graph: one that lives and writes through, made when it is first asked for, and copies."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from .errors import ReadOnly
from .graph import plain_graph
from .live_graph import live_graph
from .lock import Mutex
from .nodes import Where

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .live_graph import LiveGraph
    from .nodes import Link, Node
    from .store import Store
    from .writer import Writer

__all__ = ["GraphView"]


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
        with self._lock:
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
        with self._store.snapshot():
            nodes, links = self._everything()
            return plain_graph(list(nodes), list(links))

    def _bring(self, graph: LiveGraph) -> None:
        with self._lock:
            if self._store.version() != self._version:
                with self._store.snapshot():
                    changes = self._store.changes(self._version)
                    graph.apply(changes, self._everything)
                self._version = changes.version

    def _everything(self) -> tuple[Iterable[Node], Iterable[Link]]:
        return self._store.nodes(Where(self._namespace)), self._store.links(None, self._namespace)


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
