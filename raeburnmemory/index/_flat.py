"""What `exact` and `faiss` have in common: slots, removals, the order of hits, the cache file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DimensionMismatch, InvalidInput
from ._arrays import above, ascending, by_rows, compact, floats, grown, integers, longest, near, scores, slack_for
from ._file import read_cache, write_cache

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NO_PAIRS = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


class FlatIndex(ABC):
    """Rows by ascending slot, all of them compared with the query. A subclass says where they are kept.

    Hits are the same bit for bit in every subclass: see `_arrays`.
    """

    name: str = ""

    def __init__(self, dim: int) -> None:
        if dim < 1:
            raise InvalidInput(f"An index needs vectors of at least one number, not {dim}.")
        self.dim = dim
        self._slots: NDArray[np.int64] = np.empty(0, np.int64)  # the first _count are in use
        self._count = 0  # rows in place, those waiting to be removed included
        self._last = -1  # the greatest slot ever added
        self._longest = 0.0  # no row is longer; 1 for unit rows
        self._gone: list[NDArray[np.int64]] = []  # positions waiting to be removed

    @abstractmethod
    def _table(self) -> NDArray[np.float32]:
        """Return the rows (n, dim) in place, without copying; valid until the next change."""

    @abstractmethod
    def _append(self, rows: NDArray[np.float32]) -> None:
        """Copy *rows* behind the others."""

    @abstractmethod
    def _drop(self, positions: NDArray[np.int64]) -> None:
        """Take out the rows at *positions* (ascending), keeping the order of the others."""

    def _adopt(self, rows: NDArray[np.float32]) -> None:
        """Take *rows* as the first ones; nobody else holds them."""
        self._append(rows)

    def _near(
        self, query: NDArray[np.float32], k: int, within: NDArray[np.int64] | None, slack: float
    ) -> NDArray[np.int64]:
        """Return ascending positions (of *within*): those at most *slack* below the k-th score, or more."""
        return near(self._table(), query, k, within, slack)

    def __len__(self) -> int:
        self._settle()
        return self._count

    @property
    def ntotal(self) -> int:
        """The number of vectors, under the name that FAISS gives it."""
        return len(self)

    def add(self, slots: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add unit rows (n, dim) under ascending *slots*, each greater than any ever added here.

        Raises:
            DimensionMismatch: The rows have another length than `dim`.
            InvalidInput: A slot out of order, another number of slots than rows, or a row that is not finite.
        """
        slots, rows = integers(slots, "slots"), self._rows_given(vectors)
        if len(rows) != len(slots):
            raise InvalidInput(f"{len(slots)} slots need as many rows of {self.dim}, not shape {rows.shape}.")
        if not len(slots):
            return
        if int(slots[0]) <= self._last or not ascending(slots):
            raise InvalidInput(
                f"Slots must ascend and be greater than {self._last}, the greatest so far; "
                f"these begin with {slots[:3].tolist()}."
            )
        length = longest(rows)
        self._append(rows)
        self._register(slots, length)

    def _rows_given(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        rows = floats(vectors)
        if rows.ndim == 2 and rows.shape[1] != self.dim:
            raise DimensionMismatch(
                f"These vectors have {rows.shape[1]} numbers each, this index holds vectors of {self.dim}."
            )
        if rows.ndim != 2:
            raise InvalidInput(f"Vectors come in rows of {self.dim} numbers each, not in the shape {rows.shape}.")
        return rows

    def _register(self, slots: NDArray[np.int64], length: float) -> None:
        self._slots = grown(self._slots, self._count, len(slots))
        self._slots[self._count : self._count + len(slots)] = slots
        self._count += len(slots)
        self._last = int(slots[-1])
        self._longest = max(self._longest, length)

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Remove those of *slots* that are present; their rows go together, when the index is next used."""
        # Positions, not slots: what is absent now may be added before the rows go.
        positions = self._positions(integers(slots, "slots"))
        if len(positions):
            self._gone.append(positions)

    def _settle(self) -> None:
        if not self._gone:
            return
        positions = np.unique(np.concatenate(self._gone))
        self._drop(positions)
        compact(self._slots, self._count, positions)
        self._count -= len(positions)
        self._gone.clear()

    def _positions(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where those of *slots* are that are present, in the order of *slots*."""
        known = self._slots[: self._count]
        if not len(known):
            return np.empty(0, np.int64)
        first, last = int(known[0]), int(known[-1])
        if last - first == len(known) - 1:  # no gaps, the usual case: nothing to look up
            found: NDArray[np.int64] = slots[(slots >= first) & (slots <= last)]
            found -= first  # a copy already
        else:
            places = np.minimum(np.searchsorted(known, slots), len(known) - 1)
            found = places[known[places] == slots]
        return found

    def _within(self, allowed: NDArray[np.int64]) -> NDArray[np.int64]:
        allowed = integers(allowed, "allowed slots")
        if not ascending(allowed):
            raise InvalidInput("Allowed slots must ascend, each of them once.")
        return self._positions(allowed)

    def search(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the slots and scores of the *k* nearest, best first; fewer when there are fewer.

        A score is the inner product in float64, rounded to float32; equal scores are ordered by slot.
        *allowed* (ascending slots, absent ones are ignored) restricts the search before the top k is taken.

        Raises:
            DimensionMismatch: The vector has another length than `dim`.
            InvalidInput: The vector is not finite, or *allowed* does not ascend.
        """
        query = floats(vector)
        if query.ndim != 1:
            raise InvalidInput(f"A search takes one vector of shape ({self.dim},), not {query.shape}.")
        if len(query) != self.dim:
            raise DimensionMismatch(f"This vector has {len(query)} numbers, this index holds vectors of {self.dim}.")
        length = longest(query[np.newaxis])
        self._settle()
        within = None
        if allowed is not None:
            within = self._within(allowed)
        k = min(k, self._count if within is None else len(within))
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scale = length * self._longest
        if scale == 0.0:  # a query of zeros is equally far from everything: the smallest slots
            found = np.arange(k) if within is None else within[:k]
        else:
            found = self._near(query, k, within, slack_for(self.dim, scale))
        values = scores(self._table(), query, found)
        order = np.argsort(-values, kind="stable")[:k]  # found ascends, so that stable means by slot
        return self._slots[found[order]], values[order]

    def scan(self, vector: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return all slots, ascending, and the score of each in float32: equal rows score equally wherever they are.

        Both belong to the caller until the next change. The last digits may differ from those of `search`.
        """
        self._settle()
        return self._slots[: self._count], by_rows(self._table(), floats(vector))

    def above(
        self, vectors: NDArray[np.float32], threshold: float, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return all pairs of one of *vectors* (n, dim) and a slot whose score is above *threshold*.

        That is the numbers of the vectors, the slots and the scores, by vector and then by slot. Scores and *allowed*
        are those of `search`. It compares all with all in tiles, so that nothing grows with both numbers but the
        answer; how many vectors are given at once is how many comparisons one call makes.

        Raises:
            DimensionMismatch: The vectors have another length than `dim`.
            InvalidInput: They are not finite, or *allowed* does not ascend.
        """
        queries = self._rows_given(vectors)
        slack = slack_for(self.dim, longest(queries) * self._longest)
        self._settle()
        within = None if allowed is None else self._within(allowed)
        pairs = above(self._table(), queries, threshold, within, slack)
        numbers, positions, values = (np.concatenate(parts) for parts in zip(_NO_PAIRS, *pairs, strict=True))
        order = np.lexsort((positions, numbers))
        return numbers[order], self._slots[positions[order]], values[order]

    def get(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of those of *slots* (ascending) that are present, in their order (n, dim)."""
        self._settle()
        return self._table()[self._positions(integers(slots, "slots"))]

    def save(self, path: str, stamp: dict[str, object]) -> None:
        """Write the index to *path*, replacing what is there at once, with *stamp* in its checked header.

        Raises:
            StoreWriteFailed: The disk refused; what was at *path* is as before.
        """
        self._settle()
        write_cache(path, self.name, self._slots[: self._count], self._table(), stamp)

    def load(self, path: str, stamp: dict[str, object]) -> dict[str, object] | None:
        """Fill this empty index from *path*, whichever exact index wrote it, and return the header's stamp.

        Returns None, and stays empty, when the file is missing, damaged, of another kind, or its stamp
        differs from *stamp* in one of *stamp*'s keys: a cache that does not fit is rebuilt, not an error.

        Raises:
            InvalidInput: There were vectors in this index before.
        """
        if self._last >= 0:
            raise InvalidInput("Only a new index can be loaded; vectors were added to this one.")
        cache = read_cache(path, self.dim, stamp)
        if cache is None:
            return None
        if len(cache.slots):
            self._adopt(cache.rows)
            self._register(cache.slots, cache.longest)
        return cache.stamp
