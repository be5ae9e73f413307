"""The read path: single nodes, what lies around them, conversations and pages, each from the store as it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import InvalidInput, NodeNotFound
from .filters import divided
from .nodes import BELONGS_TO, RESPONDED_WITH, SESSION, Stats, Where
from .passages import EMBEDDED
from .records import checked_count, checked_id, checked_ids, time_of, utc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .dense import Dense
    from .nodes import Link, Node
    from .store import Store

__all__ = ["Reader"]


class Reader:
    """Everything that reads one namespace of a store without searching. It keeps nothing of what it read."""

    def __init__(self, store: Store, dense: Dense, namespace: str) -> None:
        self._store = store
        self._dense = dense
        self._namespace = namespace

    def get(self, node_id: str) -> Node:
        """Return the node with that id; `NodeNotFound` if there is none."""
        found = self._store.get([checked_id(node_id, "an id")], self._namespace).get(node_id)
        if found is None:
            raise NodeNotFound(f"No node has the id {node_id!r} in {self._store.location!r}.")
        return found

    def get_many(self, ids: Iterable[str]) -> list[Node]:
        """Return the nodes with those ids that there are, in that order."""
        wanted = checked_ids(ids, "an id")
        found = self._store.get(list(dict.fromkeys(wanted)), self._namespace)
        return [found[node_id] for node_id in wanted if node_id in found]

    def vectors(self, ids: Iterable[str]) -> dict[str, NDArray[np.float32]]:
        """Return the vectors of whole texts by the ids of their nodes, of those that have one."""
        wanted = checked_ids(ids, "an id")
        nodes: dict[int, str] = {}

        def rows() -> list[int]:
            nodes.update({node.row: node.id for node in self.get_many(wanted)})
            return sorted(nodes)

        found = self._dense.vectors(rows)
        return {nodes[row]: found[row] for row in sorted(found)}

    def has(self, node_id: object) -> bool:
        """Tell whether there is a node with that id."""
        return isinstance(node_id, str) and node_id in self._store.get([node_id], self._namespace)

    def nodes(
        self,
        kind: str | Sequence[str] | None = None,
        *,
        session: str | None = None,
        since: Any = None,
        before: Any = None,
        where: Mapping[str, Any] | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> Iterator[Node]:
        """Yield nodes by ascending row; see `MemoryGraph.nodes`."""
        kinds = None if kind is None else checked_ids(kind, "a kind of node")
        limit = None if limit is None else checked_count(limit, "the limit")
        plain, fits = divided(where or {})
        start = -1 if after is None else self.get(after).row
        ids = None if session is None else self._said(session)
        first, last = (None if time is None else utc(time) for time in (since, before))
        timed = first is not None or last is not None
        chosen_here = timed or fits is not None
        found = self._store.nodes(Where(self._namespace, kinds, ids, plain, start, None if chosen_here else limit))
        if timed:
            found = _within(found, first, last)
        if fits is not None:
            found = (node for node in found if fits(node.attributes))
        for number, node in enumerate(found):
            if number == limit:
                return
            yield node

    def neighbours(self, node_id: str, relation: str | None, direction: str) -> list[Node]:
        """Return the nodes at the other end of what `links` returns, each once."""
        links = self.links(checked_id(node_id, "an id"), relation, direction)
        others = dict.fromkeys(link.target if link.source == node_id else link.source for link in links)
        nodes = self._store.get(list(others), self._namespace)
        return [nodes[other] for other in others if other in nodes]

    def links(self, node_id: str | Iterable[str], relation: str | None, direction: str) -> list[Link]:
        """Return the edges that leave (`"out"`), enter (`"in"`) or touch (`"both"`) nodes, oldest first."""
        if relation is not None:
            checked_id(relation, "a relation")
        if direction not in {"out", "in", "both"}:
            raise InvalidInput(f"{direction!r} is no direction. Choose one of: out, in, both.")
        if isinstance(node_id, str):
            self.get(node_id)
        ids = list(dict.fromkeys(checked_ids(node_id, "an id")))
        return self._store.links(ids, self._namespace, direction=direction, relation=relation) if ids else []

    def thread(self, session_id: str) -> list[Node]:
        """Return what was said in a session, in order; `NodeNotFound` if there is no such session."""
        nodes = self._store.get(self._said(session_id), self._namespace)
        return sorted(nodes.values(), key=lambda node: node.row)

    def _said(self, session_id: str) -> list[str]:
        """Return the ids of what was said in a session."""
        kind = self.get(session_id).kind
        if kind != SESSION:
            raise NodeNotFound(f"{session_id!r} is no session in {self._store.location!r}, but a {kind}.")
        said = [e.source for e in self._store.links([session_id], self._namespace, direction="in", relation=BELONGS_TO)]
        answers = self._store.links(said, self._namespace, relation=RESPONDED_WITH)
        return list(dict.fromkeys([*said, *(e.target for e in answers)]))

    def history(self, node_id: str) -> list[Node]:
        """Return the earlier versions of a node, oldest first."""
        self.get(node_id)
        return self._store.history(node_id, self._namespace)

    def chain(self, node_id: str, depth: int) -> list[tuple[str, str]]:
        """Follow the oldest edge out of each node, at most *depth* times."""
        node_id, chain = self.get(node_id).id, []
        for _ in range(checked_count(depth, "the depth")):
            links = self._store.links([node_id], self._namespace)
            if not links:
                break
            chain.append((node_id, links[0].target))
            node_id = links[0].target
        return chain

    def count(self) -> int:
        """Return how many nodes there are."""
        return self._store.count(self._namespace)

    def stats(self) -> Stats:
        """Return what the namespace holds, and what the store is."""
        store, counts, record = self._store, self._store.counts(self._namespace), self._dense.record()
        kinds, vectors = counts["kinds"], counts["vectors"]
        return Stats(
            path=store.location,
            storage_backend=store.name,
            vector_backend=self._dense.index_name,
            namespace=self._namespace,
            version=store.version(),
            nodes=sum(kinds.values()),
            edges=sum(counts["relations"].values()),
            kinds=kinds,
            relations=counts["relations"],
            vectors=vectors,
            unembedded=sum(max(kinds.get(kind, 0) - vectors.get(kind, 0), 0) for kind in EMBEDDED),
            embedder=record["name"] if record else None,
            dim=record["dim"] if record else None,
            namespaces=store.namespaces(),
            bytes=store.size(),
            durability=store.durability,
        )


def _within(nodes: Iterator[Node], first: str | None, last: str | None) -> Iterator[Node]:
    for node in nodes:
        time = time_of(node)
        if time is not None and (first is None or time >= first) and (last is None or time < last):
            yield node
