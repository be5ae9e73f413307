"""Links between prompts that say the same: every pair is compared once, and what is found is written as it comes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import EmbeddingsMissing, InvalidInput
from .nodes import PROMPT, SEMANTICALLY_SIMILAR, Batch, Link, same_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from .dense import Dense
    from .field_index import Alike
    from .store import Store

__all__ = ["LINKING", "link_similar"]

LINKING = "linking"  # the key in meta of what is under way: by namespace the threshold and the last slot compared
_PAIRS = 5000  # in one transaction, or up to twice as many
_WORK = 1 << 30  # comparisons after which it is noted how far it has come: some seconds of them
_ROUNDING = 1e-6  # of cosines in float32: equal is not above


def link_similar(
    store: Store,
    dense: Dense,
    namespace: str,
    threshold: float,
    progress: Callable[[int, int], Any] | None = None,
) -> int:
    """Link prompts whose cosine similarity is above *threshold*, both ways; return how many links are new.

    Vectors are compared by ascending slot, each with those before it: what was compared once stays so, whatever is
    added meanwhile, and one number says how far it has come.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not math.isfinite(threshold):
        raise InvalidInput(f"The threshold must be a cosine similarity such as 0.85, not {threshold!r}.")
    with store.exclusive():
        pass  # refuses a store that was opened for reading before anything is done
    if (lost := dense.lost()) is not None:
        raise EmbeddingsMissing(lost)
    linking = _Linking(store, namespace, float(threshold))
    while (block := dense.alike(linking.slot, namespace, threshold + _ROUNDING)) is not None:
        linking.take(block)
        if progress is not None:
            progress(block.done, block.whole)
    linking.finish()
    return linking.new


class _Linking:
    """The pairs that wait to be written, and how far the comparing has come."""

    def __init__(self, store: Store, namespace: str, threshold: float) -> None:
        self._store, self._namespace, self._threshold = store, namespace, threshold
        self._noted = self._under_way().get(namespace)
        self.slot, self._row = self._left_off()
        self.new = 0
        self._pairs: list[tuple[int, int, float]] = []
        self._work = 0

    def _under_way(self) -> dict[str, dict[str, Any]]:
        found = self._store.meta(LINKING)
        return found if isinstance(found, dict) else {}

    def _left_off(self) -> tuple[int, int]:
        """Return the last slot that was compared with this threshold, and the row of its node; or that none was."""
        noted = self._noted
        if noted is not None and noted["threshold"] == self._threshold:
            slots, rows = self._store.vector_slots(PROMPT)
            at = int(np.searchsorted(slots, noted["slot"]))
            # Else it is gone, or the files were mended and count their vectors anew.
            if at < len(slots) and (slots[at], rows[at]) == (noted["slot"], noted["row"]):
                return int(slots[at]), int(rows[at])
        return -1, -1

    def take(self, block: Alike) -> None:
        """Remember what was found in the next block, and write once it is enough."""
        for start in range(0, len(block.rows), _PAIRS):
            if start:
                self._write(self._note())  # up to the block before: this one is not through
            part = slice(start, start + _PAIRS)
            columns = (block.rows[part].tolist(), block.others[part].tolist(), block.scores[part].tolist())
            self._pairs += zip(*columns, strict=True)
        self.slot, self._row = block.last, block.last_row
        self._work += block.compared
        if len(self._pairs) >= _PAIRS or self._work >= _WORK:
            self._write(self._note())

    def _note(self) -> dict[str, Any]:
        return {"threshold": self._threshold, "slot": self.slot, "row": self._row}

    def finish(self) -> None:
        """Write what is left. Nothing is under way any more."""
        self._write(None)

    def _write(self, noted: dict[str, Any] | None) -> None:
        with self._store.exclusive():
            links = self._links()
            meta = {}
            if noted != self._noted:
                under_way = {**self._under_way(), self._namespace: noted}
                under_way = {name: one for name, one in under_way.items() if one is not None}
                meta = {LINKING: under_way or None}
            self._store.write(Batch(links=links, meta=meta))
        self.new += len(links)
        self._noted, self._pairs, self._work = noted, [], 0

    def _links(self) -> list[Link]:
        """Return the links that are not there yet, or with another score; the lock is held."""
        nodes = self._store.at_rows(sorted({row for pair in self._pairs for row in pair[:2]}))
        sources = [node.id for node in nodes.values()]
        there = {
            (link.source, link.target): link.data
            for link in self._store.links(sources, self._namespace, relation=SEMANTICALLY_SIMILAR)
        }
        found = []
        for row, other, score in self._pairs:
            if row in nodes and other in nodes:
                data = {"score": min(1.0, round(score, 6))}
                for one, two in ((row, other), (other, row)):
                    ends = (nodes[one].id, nodes[two].id)
                    if ends not in there or not same_json(there[ends], data):
                        found.append(Link(*ends, SEMANTICALLY_SIMILAR, data, self._namespace))
        return found
