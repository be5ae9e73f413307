"""Signs of rows, in tables of the widths that are compared fastest.

Differences between rows of 8, 16, 32 or 64 bytes are counted with vector instructions, between others word by word: for
384 numbers, 48 bytes, that takes three times as long as in two tables of 32 and 16 bytes.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ._codes import signs_width
from ._columns import Column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Bytes = NDArray[np.uint8]
    Differences = Callable[[Bytes, Bytes], NDArray[np.integer[Any]]]

_FAST = (64, 32, 16, 8)
_BLOCK = 65_536  # rows whose differences stay in the cache until those of the next table are added


class Signs:
    """The signs of rows of *dim* numbers, in memory, or in files in the folder *scratch*."""

    def __init__(self, dim: int, scratch: str | None) -> None:
        total = signs_width(dim)
        widths = _widths(total)
        self._tables = [Column(width, np.uint8, scratch, width / total) for width in widths]
        self._ends = list(accumulate(widths))

    def __len__(self) -> int:
        return len(self._tables[0])

    @property
    def anonymous(self) -> int:
        """The bytes that are held in memory and in no file."""
        return sum(table.anonymous for table in self._tables)

    def append(self, rows: Bytes) -> None:
        """Copy *rows* (n, width of all) behind the others."""
        for table, part in zip(self._tables, self._parts(rows), strict=True):
            table.append(part)

    def drop(self, positions: NDArray[np.int64]) -> None:
        """Take out the rows at *positions* (ascending, not none)."""
        for table in self._tables:
            table.drop(positions)

    def blocks(self, start: int) -> Iterator[Bytes]:
        """Yield the rows (n, width of all) from position *start* on."""
        for at in range(start, len(self), _BLOCK):
            yield np.concatenate([table.rows[at : at + _BLOCK] for table in self._tables], axis=1)

    def differences(
        self, query: Bytes, within: slice | NDArray[np.int64], differences: Differences
    ) -> NDArray[np.int32]:
        """Return in how many signs the rows *within* differ from *query* (1, width of all).

        *differences* counts them for one table and its part of the query.
        """
        tables = [
            table.rows[within] if isinstance(within, slice) else table.rows.take(within, 0) for table in self._tables
        ]
        found = np.empty(len(tables[0]), np.int32)
        parts = self._parts(query)
        for start in range(0, len(found), _BLOCK):
            block = slice(start, start + _BLOCK)
            some = differences(tables[0][block], parts[0])
            for table, part in zip(tables[1:], parts[1:], strict=True):
                some += differences(table[block], part)
            found[block] = some
        return found

    def _parts(self, rows: Bytes) -> list[Bytes]:
        return [rows[:, start:end] for start, end in zip([0, *self._ends], self._ends, strict=False)]


def _widths(width: int) -> list[int]:
    """Return fast widths that add up to *width*, which is a multiple of 8."""
    found: list[int] = []
    for fast in _FAST:
        found += [fast] * ((width - sum(found)) // fast)
    return found
