"""The float32 rows of an index, where they happen to be: in memory, in a file without a name, in the cache file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ._columns import Column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ._file import Saved

_BLOCK = 4096  # rows read, compared or written at a time
# Bytes of a file that is read often, from and up to which it is copied to where it can be looked at.
_COPIED = (1 << 24, 1 << 28)


class Rows:
    """Rows by position: those of *base*, a cache file, which are read when they are asked for, then those added.

    Reading raises `DamagedError` if the file is not what it was.
    """

    def __init__(self, dim: int, scratch: str | None, base: Saved | None = None) -> None:
        self._own = Column(dim, np.float32, scratch)
        self.base = base
        self._numbers: NDArray[np.int64] | None = None  # which rows of base are left, if some were dropped
        self.based = base.count if base is not None else 0
        self._scratch = scratch
        # Reading a row costs more than copying it: once as many were read as there are, all are copied.
        self._copy: Column | None = None
        least, most = _COPIED
        self._patience = self.based if scratch is not None and least <= self.based * dim * 4 <= most else -1

    def __len__(self) -> int:
        return self.based + len(self._own)

    @property
    def table(self) -> NDArray[np.float32] | None:
        """All rows in place, if they can be seen without reading a file; valid until the next change."""
        return self._own.rows if self.base is None else None

    @property
    def whole(self) -> bool:
        """Whether nothing of base was dropped."""
        return self._numbers is None

    @property
    def anonymous(self) -> int:
        """The bytes that are held in memory and in no file."""
        return self._own.anonymous + (self._copy.anonymous if self._copy is not None else 0)

    def append(self, rows: NDArray[np.float32]) -> None:
        """Copy *rows* behind the others."""
        self._own.append(rows)

    def drop(self, positions: NDArray[np.int64]) -> None:
        """Take out the rows at *positions* (ascending, not none), keeping the order of the others."""
        split = int(np.searchsorted(positions, self.based))
        if split:
            numbers = np.arange(self.based) if self._numbers is None else self._numbers
            self._numbers = np.delete(numbers, positions[:split])
        if split < len(positions):
            self._own.drop(positions[split:] - self.based)
        self.based -= split

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows at *positions* (ascending)."""
        if self.base is None:
            found: NDArray[np.float32] = self._own.rows.take(positions, axis=0)
            return found
        split = int(positions.searchsorted(self.based))
        numbers = positions[:split] if self._numbers is None else self._numbers[positions[:split]]
        read = self._read(numbers)
        return (
            read if split == len(positions) else np.concatenate([read, self._own.rows[positions[split:] - self.based]])
        )

    def _read(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows of base with these numbers."""
        assert self.base is not None
        if len(numbers) < _BLOCK:  # whole blocks are read by those who come once
            if self._copy is None and self._patience >= 0:
                self._patience -= len(numbers)
                if self._patience < 0:
                    self._copy = self._copied(self.base)
            if self._copy is not None:
                found: NDArray[np.float32] = self._copy.rows.take(numbers, axis=0)
                return found
        return self.base.rows(numbers)

    def _copied(self, base: Saved) -> Column | None:
        copy = Column(base.dim, np.float32, self._scratch)
        for start in range(0, base.count, _BLOCK):
            copy.append(base.rows(np.arange(start, min(start + _BLOCK, base.count))))
        return None if copy.anonymous else copy  # memory is not what this is worth, if there is no room for a file

    def blocks(self, start: int = 0) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield all rows from position *start* on, and where each block begins."""
        while start < len(self):
            if start < self.based:
                stop = min(start + _BLOCK, self.based)
                yield start, self.take(np.arange(start, stop))
            else:
                stop = min(start + _BLOCK, len(self))
                yield start, self._own.rows[start - self.based : stop - self.based]
            start = stop
