"""The vectors of one write: given, kept, or embedded from texts, each text once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .embed import checked_embed
from .errors import MissingDependency
from .nodes import Batch, Vector
from .passages import EMBEDDED, parts, pieces, prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .dense import Dense
    from .embed import Embedder
    from .nodes import Link, Node
    from .passages import Piece

__all__ = ["NewVectors", "what_is_embedded"]

log = logging.getLogger("raeburnmemory")

_EMBEDDED = frozenset(EMBEDDED)
_BLOCK = 256  # texts embedded between two reports of progress


class NewVectors:
    """Takes vectors that are there already, embeds what lacks one, and puts them into a batch."""

    def __init__(self, dense: Dense, allow_unembedded: bool, progress: Callable[[int, int], Any] | None = None) -> None:
        self._dense = dense
        self._allow = allow_unembedded
        self._progress = progress
        self._given: dict[str, NDArray[np.float32]] = {}
        self._dim = dense.dim_seen  # of those that need no look
        self._texts: dict[str, NDArray[np.float32]] = {}
        self._taken: Mapping[str, NDArray[np.float32]] = {}  # from the store
        self._kept: Mapping[str, Mapping[tuple[str, int], NDArray[np.float32]]] = {}  # likewise, of the same nodes
        self._cut: dict[
            tuple[str, str, str | None, tuple[tuple[int, int], ...]], list[Piece]
        ] = {}  # it is asked for outside and inside the lock
        self._embedder: Embedder | None = None
        self._gave_up = False
        self.computed = 0  # texts that the model was asked for

    def give(self, vectors: Mapping[str, Any]) -> None:
        """Take vectors that somebody brought along."""
        self._given = self._dense.checked_vectors(vectors)
        for node_id, vector in self._given.items():
            if len(vector) != self._dim:  # looked at before the lock, because a model may have to be loaded for it
                self._dense.check_dim(vector, repr(node_id), self._dense.record())
                self._dim = len(vector)

    def take(self, vectors: Mapping[str, NDArray[np.float32]]) -> None:
        """Take vectors of texts that the store has as of now, instead of those taken before."""
        self._taken = vectors

    def keep(self, vectors: Mapping[str, Mapping[tuple[str, int], NDArray[np.float32]]]) -> None:
        """Take the vectors that nodes have and keep, by id, field and part, instead of those taken before."""
        self._kept = vectors

    def _pieces(self, node: Node) -> list[Piece]:
        key = what_is_embedded(node)
        found = self._cut.get(key)
        if found is None:
            found = self._cut[key] = pieces(node)
        return found

    def needed(self, nodes: Iterable[Node]) -> list[Node]:
        """Return those of *nodes* that have to be embedded, or were."""
        given, kept = self._given, self._kept
        return [node for node in nodes if node.kind in _EMBEDDED and node.id not in given and node.id not in kept]

    def embed(self, nodes: Iterable[Node]) -> None:
        """Embed the texts of those of *nodes* that need it and were not embedded yet."""
        needed = self.needed(nodes)
        if not needed or self._gave_up:
            return
        texts = dict.fromkeys(
            piece.text for node in needed for piece in self._pieces(node) if piece.text not in self._taken
        )
        if not texts:
            return
        try:
            self._embed(texts)
        except MissingDependency as exc:
            if not self._allow:
                raise
            log.warning("Recorded without vectors, for reindex to make them: %s", exc)
            self._gave_up, self._texts = True, {}

    def _embed(self, texts: Iterable[str]) -> None:
        embedder = self._dense.embedder()
        if embedder is not self._embedder:  # the store was moved to another model by somebody else meanwhile
            self._texts, self._embedder = {}, embedder
        todo = [text for text in texts if text not in self._texts]
        for start in range(0, len(todo), _BLOCK):
            some = todo[start : start + _BLOCK]
            self._texts.update(zip(some, checked_embed(embedder, some), strict=True))
            self.computed += len(some)
            if self._progress is not None:
                self._progress(start + len(some), len(todo))

    def batch(self, nodes: Sequence[Node], links: Sequence[Link], namespace: str) -> Batch:
        """Return the batch that writes *nodes* and *links* with their vectors; the lock is held."""
        latest = {node.id: node for node in nodes}
        if not latest.keys() <= self._given.keys():
            self.embed(nodes)
        vectors = []
        for node in latest.values():
            given = self._given.get(node.id)
            if given is not None:
                vectors.append(Vector(node.id, node.kind, given, 0, 0, -1, namespace))
                continue
            kept = self._kept.get(node.id)
            for piece in self._pieces(node):
                if kept is not None:
                    values = kept.get((piece.field, piece.part))
                else:
                    values = self._taken.get(piece.text)
                    values = self._texts.get(piece.text) if values is None else values
                if values is not None and values.any():
                    where = (piece.part, piece.start, piece.end)
                    vectors.append(Vector(node.id, piece.field, values, *where, namespace=namespace))
        meta = {}
        if vectors and (record := self._dense.record()) is None:
            meta["embedder"] = self._dense.new_record()
        elif vectors and record is not None:
            for node_id, given in self._given.items():
                if len(given) != record["dim"]:  # the store was moved to another model meanwhile
                    self._dense.check_dim(given, repr(node_id), record)
        return Batch(nodes, links, vectors, (), (), meta)


def what_is_embedded(node: Node) -> tuple[str, str, str | None, tuple[tuple[int, int], ...]]:
    """Return all that the vectors of a node depend on."""
    return node.kind, prefix(node), node.text, parts(node)
