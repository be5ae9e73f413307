"""Vectors for texts that lack them, or that need those of another model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .dense import describe
from .embed import checked_embed, open_embedder
from .errors import InvalidInput
from .linking import LINKING
from .nodes import Batch, Node, Reindexed, Vector, Where
from .passages import EMBEDDED, PASSAGES, Piece, pieces, prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .dense import Dense
    from .embed import Embedder
    from .store import Store

__all__ = ["reembed", "reindex"]

NEXT = ".next"  # after the name of a field: its vectors of the model that the store is moving to
_BLOCK = 256  # texts embedded between two reports of progress


def reindex(store: Store, dense: Dense, progress: Callable[[int, int], Any] | None = None) -> Reindexed:
    """Embed every text of the store that lacks a vector, in all namespaces, and build the index again."""
    with store.exclusive():
        pass  # refuses a store that was opened for reading before anything is done
    embedder = dense.embedder()
    filling = _Filling(store, dense, embedder, "")
    filling.fill(EMBEDDED, progress, passages=True)
    if store.vectors_lost() is not None:
        store.checkpoint(mended=True)  # puts whole files where they were lost
    return Reindexed(filling.embedded, dense.rebuild(), len(filling.without))


def reembed(store: Store, dense: Dense, model: Any, progress: Callable[[int, int], Any] | None = None) -> Reindexed:
    """Give every text a vector of another model; searches use the old ones until the last is there."""
    embedder = open_embedder(model)
    target = describe(embedder, named=model is None or isinstance(model, str))
    with store.exclusive():
        if store.meta("reembedding") != target or store.vectors_lost() is not None:
            # Nothing can be used of an attempt with yet another model, or of one that lost some of its vectors.
            store.write(Batch(meta={"reembedding": target}, staged="discard"))
    fields = sorted({*EMBEDDED, *(field for field in store.counts(None)["vectors"] if "." not in field)})
    filling = _Filling(store, dense, embedder, NEXT)
    filling.fill(fields, progress)
    with store.exclusive():
        filling.fill(fields, None)  # what was added meanwhile
        if store.meta("reembedding") != target:
            raise InvalidInput(f"Somebody else began to move {store.location!r} to another model. Run reembed again.")
        store.write(Batch(meta={"embedder": target, "reembedding": None, LINKING: None}, staged="promote"))
    if store.vectors_lost() is not None:
        store.checkpoint(mended=True)  # all of them were made anew
    dense.use(model, embedder, target)
    return Reindexed(filling.embedded, dense.size(), len(filling.without))


class _Filling:
    """Vectors for the nodes that lack some, written behind *ending* after the names of their fields."""

    def __init__(self, store: Store, dense: Dense, embedder: Embedder, ending: str) -> None:
        self._store, self._dense, self._embedder, self._ending = store, dense, embedder, ending
        self.embedded = 0  # nodes that got a vector
        self.without: dict[int, tuple[str | None, str | None]] = {}  # texts that cannot have one, by their rows
        self._there: dict[str, set[int]] = {}  # of each field, the rows that have vectors in it
        self._version = -1  # at which that was so

    def fill(
        self, fields: Sequence[str], progress: Callable[[int, int], Any] | None, *, passages: bool = False
    ) -> None:
        """Embed what has no vector in its field; with *passages* also those of texts that have one as a whole."""
        missing = {field: self._missing(field, passages=passages) for field in fields}
        done, whole = 0, sum(map(len, missing.values()))
        for field, rows in missing.items():
            for start in range(0, len(rows), _BLOCK):
                some = rows[start : start + _BLOCK]
                self._fill(field, some)
                done += len(some)
                if progress is not None:
                    progress(done, whole)

    def _missing(self, field: str, *, passages: bool) -> list[int]:
        if field in EMBEDDED:
            wanted = self._store.rows(Where(None, kinds=[field])).tolist()
        else:  # vectors that somebody brought along
            wanted = sorted(set(self._store.vector_slots(field)[1].tolist()))
        there = self._rows(field)
        missing = [row for row in wanted if row not in there]
        if passages:
            missing += self._uncut(field, [row for row in wanted if row in there])
        return missing

    def _uncut(self, field: str, rows: Sequence[int]) -> list[int]:
        """Return those of *rows* that have long texts and no passages: these were lost, or the original made none."""
        cut = self._rows(field + PASSAGES)
        rows = [row for row in rows if row not in cut]
        found = []
        for start in range(0, len(rows), _BLOCK):
            nodes = self._store.at_rows(rows[start : start + _BLOCK])
            found += [row for row, node in nodes.items() if len(pieces(node)) > 1]
        return found

    def _rows(self, field: str) -> set[int]:
        """Return the rows that have vectors in *field*, read again if somebody else wrote since."""
        version = self._store.version()
        if version != self._version:
            self._there, self._version = {}, version
        found = self._there.get(field)
        if found is None:
            found = self._there[field] = set(self._store.vector_slots(field + self._ending)[1].tolist())
        return found

    def _fill(self, field: str, rows: Sequence[int]) -> None:
        nodes = self._store.at_rows(rows)
        todo: dict[int, list[Piece]] = {}
        for row, node in nodes.items():
            if node.text is not None and self.without.get(row) != _told(node):
                cut = pieces(node) if field in EMBEDDED else []
                cut = cut or [Piece(field, node.text, 0, 0, -1)]
                todo[row] = [piece for piece in cut if row not in self._rows(piece.field)]
        values = iter(checked_embed(self._embedder, [piece.text for cut in todo.values() for piece in cut]))
        made = {row: [(piece, next(values)) for piece in cut] for row, cut in todo.items()}
        with self._store.exclusive():
            self._write(nodes, made)

    def _write(self, nodes: Mapping[int, Node], made: Mapping[int, list[tuple[Piece, NDArray[np.float32]]]]) -> None:
        """Write what was made for nodes that are still the same and lack it still; the lock is held."""
        now = self._store.at_rows(list(made))
        vectors: list[Vector] = []
        given: list[tuple[str, int]] = []
        for row, several in made.items():
            node = nodes[row]
            if row not in now or _told(now[row]) != _told(node):
                continue  # it changed or went meanwhile; its new text is embedded by whoever wrote it
            before = len(vectors)
            for piece, values in several:
                if not values.any():
                    if not piece.part:
                        self.without[row] = _told(node)
                elif row not in self._rows(piece.field):
                    where = (piece.part, piece.start, piece.end)
                    field = piece.field + self._ending
                    vectors.append(Vector(node.id, field, values, *where, namespace=node.namespace))
                    given.append((piece.field, row))
            self.embedded += len(vectors) > before
        if not vectors:
            return
        first = not self._ending and self._store.meta("embedder") is None
        meta = {"embedder": self._dense.new_record()} if first else {}
        self._version = self._store.write(Batch(vectors=vectors, meta=meta))  # nobody else wrote since we looked
        for name, row in given:
            self._there[name].add(row)


def _told(node: Node) -> tuple[str, str | None]:
    """Return all of a node that its vectors are made of."""
    return prefix(node), node.text
