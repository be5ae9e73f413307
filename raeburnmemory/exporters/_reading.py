"""What an export reads of a store: one moment of it, a page at a time."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from ..nodes import Vector, Where
from ..store.nodelink import NAMESPACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..nodes import Link, Node
    from ..store import Store

__all__ = ["NAMESPACES", "Reading"]

_PAGE = 1000


class Reading:
    """The nodes, links and vectors of a namespace, each in the order in which it was first written."""

    def __init__(self, store: Store, namespace: str, seen: Callable[[int], Any]) -> None:
        self._store = store
        self._seen = seen
        self.namespace = namespace

    @property
    def single_valued(self) -> list[str]:
        """The predicates of which a subject has one value at a time here."""
        declared = self._store.meta("single_valued")
        return list(declared.get(self.namespace, [])) if isinstance(declared, dict) else []

    def nodes(self) -> Iterator[Node]:
        """Yield the nodes."""
        for node in self._store.nodes(Where(self.namespace)):
            self._seen(1)
            yield node

    def links(self) -> Iterator[Link]:
        """Yield the links, but for those of a node that has expired."""
        links = self._store.all_links(self.namespace)
        while page := list(islice(links, _PAGE)):
            ends = {end for link in page for end in (link.source, link.target)}
            there = self._store.get(sorted(ends), self.namespace)
            self._seen(len(page))
            yield from (link for link in page if link.source in there and link.target in there)

    def vectors(self) -> Iterator[Vector]:
        """Yield the vectors, field by field. Those of a model that is being moved to are not among them."""
        for field in sorted(self._store.counts(None)["vectors"]):
            if field.endswith(".next"):
                continue
            for block in self._store.vectors(field, -1).blocks:
                for start in range(0, len(block.slots), _PAGE):
                    some = slice(start, start + _PAGE)
                    nodes = self._store.at_rows(block.rows[some].tolist())
                    for row, values, (part, begin, end) in zip(
                        block.rows[some].tolist(), block.values[some], block.spans[some].tolist(), strict=True
                    ):
                        node = nodes.get(row)
                        if node is not None and node.namespace == self.namespace:
                            self._seen(1)
                            yield Vector(node.id, field, values, part, begin, end, self.namespace)
