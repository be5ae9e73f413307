"""What the exact indexes have in common: slots, removals, the order of hits, the cache file."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInput, StoreCorrupt
from ._arrays import above, by_rows, floats, grown, integers, longest, near, scores, slack_for
from ._file import (
    Content,
    DamagedError,
    Saved,
    extend_cache,
    not_used,
    open_cache,
    slots_of,
    write_cache,
)
from ._given import checked_allowed, checked_dim, checked_new, checked_query, checked_rows
from ._rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    from numpy.typing import NDArray

    T = TypeVar("T")

_NO_PAIRS = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))

_DEAD = 256  # removed rows that are passed over; more are taken out at once
_HELD = 1 << 26  # bytes: a cache file up to here is read whole, of a larger one the rows stay where they are
_BLOCK = 4096
_AT_ONCE = 256  # rows that are read and compared once, as it counts


class FlatIndex:
    """Rows by ascending slot. Every row is compared with the query, or proven to be too far; a subclass may do less.

    Hits are the same bit for bit in every subclass: see `_arrays`.
    """

    name: str = ""
    _spills = True
    _held: int | None = _HELD if os.name == "posix" else None  # Windows replaces no file that is open

    def __init__(self, dim: int) -> None:
        self.dim = checked_dim(dim)
        self.scratch: str | None = None
        """A folder for files without a name, in which large tables are kept; None: in memory."""
        self.source: Callable[[], Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]] | None = None
        """Yields slots and rows as they should be, for when the cache file turns out to be damaged."""
        self.labels: NDArray[np.int64] | None = None
        """A number of the owner's for every vector, ascending by slot: saved with them, and there after `load`."""
        self.mended = False
        """Whether a damaged cache file was given up: saving again is worth it."""
        self._slots: NDArray[np.int64] = np.empty(0, np.int64)  # the first _count are in use
        self._count = 0  # rows in place, those that are passed over included
        self._last = -1  # the greatest slot ever added
        self._longest = 0.0  # no row is longer; 1 for unit rows
        self._rows: Rows | None = None
        self._gone: list[NDArray[np.int64]] = []  # positions that were removed since the index was last used
        self._dead: NDArray[np.int64] = np.empty(0, np.int64)  # positions that are passed over, ascending

    @property
    def mode(self) -> str:
        """How a search without `allowed` compares now: "float32" (every row), "int8" (proven) or "bits" (checked)."""
        return "float32"

    @property
    def slots(self) -> NDArray[np.int64]:
        """All slots, ascending; not to be changed, and valid until the next change."""
        self._settle()
        return np.delete(self._slots[: self._count], self._dead) if len(self._dead) else self._slots[: self._count]

    def _near(
        self, query: NDArray[np.float32], k: int, within: NDArray[np.int64] | None, slack: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return ascending positions (of *within*) and `scores`: those at most *slack* below the k-th, or more."""
        if within is None or len(within) > _AT_ONCE:
            within = near(self._table, query, k, within, slack, self._dead)
        return within, scores(self._table, query, within)

    def _drop(self, positions: NDArray[np.int64]) -> None:
        """Take out all that is known of *positions* (ascending, not none)."""
        self._table.drop(positions)
        self._slots = np.delete(self._slots[: self._count], positions)  # not in place: the owner may hold them too
        self._count = len(self._slots)

    @property
    def _table(self) -> Rows:
        if self._rows is None:
            self._rows = Rows(self.dim, self._folder)
        return self._rows

    @property
    def _folder(self) -> str | None:
        return self.scratch if self._spills else None

    def __len__(self) -> int:
        self._settle()
        return self._count - len(self._dead)

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
        slots, rows = checked_new(slots, vectors, self.dim, self._last)
        if not len(slots):
            return
        length = longest(rows)
        self._table.append(rows)
        self._register(slots, length)

    def _register(self, slots: NDArray[np.int64], length: float) -> None:
        self._slots = grown(self._slots, self._count, len(slots))
        self._slots[self._count : self._count + len(slots)] = slots
        self._count += len(slots)
        self._last = int(slots[-1])
        self._longest = max(self._longest, length)
        self.labels = None

    def remove(self, slots: NDArray[np.int64]) -> None:
        """Remove those of *slots* that are present. Few are passed over from now on; many are taken out together."""
        # Positions, not slots: what is absent now may be added before they are dealt with.
        positions = self._places(integers(slots, "slots"))
        if len(positions):
            self._gone.append(positions)
            self.labels = None

    def _settle(self) -> None:
        if not self._gone:
            return
        self._dead = np.unique(np.concatenate([self._dead, *self._gone]))
        self._gone.clear()
        if len(self._dead) > _DEAD:
            self._tidy()

    def _tidy(self) -> None:
        self._settle()
        if len(self._dead):
            dead, self._dead = self._dead, np.empty(0, np.int64)
            self._drop(dead)

    def _places(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where those of *slots* are that are in place, in the order of *slots*."""
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

    def _positions(self, slots: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return where those of *slots* (ascending) are that are present."""
        if len(slots) and int(slots[-1]) - int(slots[0]) == len(slots) - 1:  # all from one to another: two to look up
            low, high = self._slots[: self._count].searchsorted((int(slots[0]), int(slots[-1]) + 1))
            found = np.arange(low, high)
        else:
            found = self._places(slots)
        return self._living(found)

    def _living(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return *positions* without those that are passed over."""
        if not len(self._dead) or not len(positions):
            return positions
        places = np.minimum(np.searchsorted(self._dead, positions), len(self._dead) - 1)
        living: NDArray[np.int64] = positions[self._dead[places] != positions]
        return living

    def search(
        self, vector: NDArray[np.float32], k: int, allowed: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the slots and scores of the *k* nearest, best first; fewer when there are fewer.

        A score is the inner product in float64, rounded to float32; equal scores are ordered by slot.
        *allowed* (ascending slots, absent ones are ignored) restricts the search before the top k is taken.

        Raises:
            DimensionMismatch: The vector has another length than `dim`.
            InvalidInput: The vector is not finite, or *allowed* does not ascend.
            StoreCorrupt: The cache file was damaged since it was loaded, and there is no `source` to mend it from.
        """
        query, length = checked_query(vector, self.dim)
        if allowed is not None:
            allowed = checked_allowed(allowed)
        self._settle()
        return self._mending(lambda: self._search(query, length, k, allowed))

    def _search(
        self, query: NDArray[np.float32], length: float, k: int, allowed: NDArray[np.int64] | None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        within = None if allowed is None else self._positions(allowed)
        k = min(k, self._count - len(self._dead) if within is None else len(within))
        if k <= 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        scale = length * self._longest
        if scale == 0.0:  # a query of zeros is equally far from everything: the smallest slots
            found = (self._living(np.arange(k + len(self._dead))) if within is None else within)[:k]
            values = np.zeros(k, np.float32)
        else:
            found, values = self._near(query, k, within, slack_for(self.dim, scale))
        order = (-values).argsort(kind="stable")[:k]  # found ascends, so that stable means by slot
        return self._slots[found[order]], values[order]

    def scan(self, vector: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return all slots, ascending, and the score of each in float32: equal rows score equally wherever they are.

        Both belong to the caller until the next change. The last digits may differ from those of `search`.
        """
        self._settle()
        query = floats(vector)
        slots = self.slots
        return slots, self._mending(lambda: np.concatenate(list(self._scanned(query))))

    def _scanned(self, query: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        table = self._table.table
        yield np.empty(0, np.float32)
        for start, block in self._table.blocks() if table is None else [(0, table)]:
            low, high = np.searchsorted(self._dead, (start, start + len(block)))
            yield np.delete(by_rows(block, query), self._dead[low:high] - start)

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
        queries = checked_rows(vectors, self.dim)
        slack = slack_for(self.dim, longest(queries) * self._longest)
        if allowed is not None:
            allowed = checked_allowed(allowed)
        self._settle()
        return self._mending(lambda: self._above(queries, threshold, allowed, slack))

    def _above(
        self, queries: NDArray[np.float32], threshold: float, allowed: NDArray[np.int64] | None, slack: float
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        within = self._living(np.arange(self._count)) if allowed is None else self._positions(allowed)
        pairs = above(self._table, queries, threshold, within, slack)
        numbers, positions, values = (np.concatenate(parts) for parts in zip(_NO_PAIRS, *pairs, strict=True))
        order = np.lexsort((positions, numbers))
        return numbers[order], self._slots[positions[order]], values[order]

    def get(self, slots: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of those of *slots* (ascending) that are present, in their order (n, dim)."""
        self._settle()
        wanted = integers(slots, "slots")
        return self._mending(lambda: self._table.take(self._positions(wanted)))

    # --- the cache file -----------------------------------------------------------------------------------------

    def _mending(self, read: Callable[[], T]) -> T:
        """Return what *read* returns; where the cache file is damaged, fetch the rows from the source first."""
        try:
            return read()
        except DamagedError as exc:
            if self.source is None:
                raise StoreCorrupt(
                    f"The saved index was damaged while it was in use: {exc}. Open the memory again to make it anew."
                ) from exc
            not_used("in use", exc)
            self._refill()
        return read()

    def _refill(self) -> None:
        """Take all rows from the source. What it has no more is about to be removed, and goes now."""
        assert self.source is not None
        known, rows, seen = self._slots[: self._count], Rows(self.dim, self._folder), []
        for slots, block in self.source():
            places = self._places(slots)
            rows.append(floats(block)[np.isin(slots, known[places])])
            seen.append(places)
        kept = np.concatenate([np.empty(0, np.int64), *seen])
        lost = np.delete(np.arange(self._count), kept)
        old, self._rows, self.mended = self._table, rows, True
        self._slots = self._slots[kept]
        self._count, self._dead = len(kept), np.flatnonzero(np.isin(kept, self._dead))
        if old.base is not None:
            old.base.close()
        self._forget(lost)

    def _forget(self, lost: NDArray[np.int64]) -> None:
        """Take out what was made of the rows at the positions *lost* (ascending)."""

    def save(self, path: str, stamp: dict[str, object]) -> None:
        """Write the index to *path*, replacing what is there at once, with *stamp* in its checked header.

        A file that this index was loaded from, and that only grew since, is added to.

        Raises:
            StoreWriteFailed: The disk refused; what was at *path* is as before.
        """
        self._tidy()
        self._mending(lambda: self._save(path, stamp))
        self.mended = False

    def _save(self, path: str, stamp: dict[str, object]) -> None:
        found, table = {"longest": self._longest, **self._findings()}, self._table
        base = table.base
        if base is not None and self._extends(base, path, found):
            start = table.based
            content = Content(self._count - start, self._columns(start), found)
            extend_cache(path, base, self.name, stamp, content)
        else:
            write_cache(path, self.name, self.dim, stamp, Content(self._count, self._columns(0), found))

    @property
    def extensible(self) -> bool:
        """Whether saving what was added adds to the file that was loaded, instead of writing all of it again."""
        table = self._table
        return table.base is not None and table.whole and not len(self._dead) and not self._gone and not table.base.full

    def _extends(self, base: Saved, path: str, found: dict[str, Any]) -> bool:
        """Tell whether the file can be added to: rows were added only, and little compared with what is there."""
        ours, theirs = set(self._columns(0)), set(base.segments[0].columns)
        return (
            self.extensible
            and 0 < self._count - base.count < base.count // 2
            and ours == theirs
            and found.get("scale") == base.found.get("scale")
            and base.still_at(path)
        )

    def _columns(self, start: int) -> dict[str, Iterable[NDArray[Any]]]:
        """Return what to write, from position *start* on."""
        columns: dict[str, Iterable[NDArray[Any]]] = {"slots": [self._slots[start : self._count]]}
        if self.labels is not None and len(self.labels) == self._count:
            columns["labels"] = [self.labels[start:]]
        columns["rows"] = (block for _, block in self._table.blocks(start))
        return columns

    def _findings(self) -> dict[str, Any]:
        """Return what else is known of the data, as JSON."""
        return {}

    def load(self, path: str, stamp: dict[str, object]) -> dict[str, object] | None:
        """Fill this empty index from *path*, whichever exact index wrote it, and return the header's stamp.

        Returns None, and stays empty, when the file is missing, damaged, of another kind, or its stamp
        differs from *stamp* in one of *stamp*'s keys: a cache that does not fit is rebuilt, not an error.

        Raises:
            InvalidInput: There were vectors in this index before.
        """
        if self._last >= 0:
            raise InvalidInput("Only a new index can be loaded; vectors were added to this one.")
        saved = open_cache(path, self.dim, stamp)
        if saved is None:
            return None
        kept = False
        try:
            kept = self._take_over(saved)
        except DamagedError as exc:
            not_used(path, exc)
            return None
        finally:
            if not kept:
                saved.close()
        return saved.stamp

    def _take_over(self, saved: Saved) -> bool:
        """Take what *saved* holds, all or nothing; return whether it is still needed."""
        slots, length = slots_of(saved), saved.found.get("longest")
        if type(length) is not float or not 0 <= length < math.inf:
            raise DamagedError("its header is incomplete")
        labels = None
        if saved.has("labels"):
            labels = np.concatenate([np.empty(0, np.int64), *(piece[:, 0] for piece in saved.column("labels"))])
        kept = self._held is not None and saved.count * self.dim * 4 > self._held
        rows = Rows(self.dim, self._folder, saved if kept else None)
        if not kept:
            length = self._read_whole(saved, rows)
        self._adopt(saved, kept=kept)
        if saved.count:
            self._rows = rows
            self._register(slots, length)
            self.labels = labels
        return kept

    def _read_whole(self, saved: Saved, rows: Rows) -> float:
        length = 0.0
        for start in range(0, saved.count, _BLOCK):
            block = saved.rows(np.arange(start, min(start + _BLOCK, saved.count)))
            try:
                length = max(length, longest(block))
            except InvalidInput as exc:
                raise DamagedError("its vectors are not finite") from exc
            rows.append(block)
        return length

    def _adopt(self, saved: Saved, *, kept: bool) -> None:
        """Take what else *saved* holds, all or nothing; it stays open if it is *kept*."""
