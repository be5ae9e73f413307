"""Tables that grow: in memory while they are small, then in a file of their own that has no name.

What every search reads whole (codes, signs) has to be in memory or mapped: reading it from the page cache into a
buffer costs more than comparing it. A file with a name cannot be mapped: whoever cuts it short kills every process
that looks at the lost pages (SIGBUS). So a large table lives in a file that was never given a name (O_TMPFILE,
or unlinked at once). Nobody can open it, so nobody can cut it; its pages need no swap, and go with the process.

Rows are written by `pwrite` and read through the mapping, so that a full disk is an error and no signal. Rows that
were written never change in place: a process that was forked keeps the tables as they were.
"""

from __future__ import annotations

import mmap
import os
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import compact, grown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import DTypeLike, NDArray

_LARGE = 1 << 24  # bytes from which a table goes to a file
_BLOCK = 4096  # rows copied at a time
_MAPPABLE = os.name == "posix"  # Windows changes no file that is mapped; elsewhere map and write see one another


class Descriptor:
    """An open file by its *number*, closed when nobody has it any more: an index is let go without a word."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.close = weakref.finalize(self, os.close, number)
        self.close.atexit = False  # a thread may still be reading; the system closes it


def scratch_beside(path: str, *, read_only: bool) -> str:
    """Return the folder for files without a name of whoever caches at *path*: that one, or the system's own."""
    if read_only:
        import tempfile

        return tempfile.gettempdir()
    return os.path.dirname(path) or "."


class Column:
    """Rows of one width and kind, added at the end. *scratch* names the folder for the file; None: no file.

    *share* is that of a table that others make up together with this one: all of them go to files at once.
    """

    def __init__(self, width: int, dtype: DTypeLike, scratch: str | None, share: float = 1.0) -> None:
        self._width, self._dtype, self._share = width, np.dtype(dtype), share
        self._scratch = scratch if _MAPPABLE else None
        self._count = 0
        self._buffer: NDArray[Any] = np.empty((0, width), self._dtype)  # the first _count are in use
        self._file: Descriptor | None = None
        self._owner = os.getpid()

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Any]:
        """The rows (n, width) in place; not to be changed, and valid until the next change."""
        return self._buffer[: self._count]

    @property
    def anonymous(self) -> int:
        """The bytes that are held in memory and in no file."""
        return 0 if self._file is not None else int(self._buffer.nbytes)

    def append(self, rows: NDArray[Any]) -> None:
        """Copy *rows* behind the others."""
        if self._file is not None and self._owner != os.getpid():
            self._replace([self.rows])  # the parent goes on writing to its file
        if (
            self._file is None
            and self._scratch is not None
            and self._size(self._count + len(rows)) > self._share * _LARGE
        ):
            self._move_to_file()
        if self._file is not None:
            try:
                self._put(rows)
            except OSError:  # no room for it; memory may have some
                self._move_to_memory()
        if self._file is None:
            self._buffer = grown(self._buffer, self._count, len(rows))
            self._buffer[self._count : self._count + len(rows)] = rows
        self._count += len(rows)

    def drop(self, positions: NDArray[np.int64]) -> None:
        """Take out the rows at *positions* (ascending, not none), keeping the order of the others."""
        if self._file is None:
            compact(self._buffer, self._count, positions)
            self._count -= len(positions)
        else:
            self._replace(self._kept(positions))

    def _size(self, count: int) -> int:
        return count * self._width * self._dtype.itemsize

    def _move_to_file(self) -> None:
        import tempfile  # with all that it imports, for large tables

        held = self._buffer
        try:
            with tempfile.TemporaryFile(dir=self._scratch) as file:
                self._file = Descriptor(os.dup(file.fileno()))
            self._buffer, self._owner = np.empty((0, self._width), self._dtype), os.getpid()
            count, self._count = self._count, 0
            try:
                self._put(held[:count])
            finally:
                self._count = count
        except OSError:
            self._buffer, self._scratch = held, None
            if self._file is not None:
                self._file.close()
                self._file = None

    def _move_to_memory(self) -> None:
        assert self._file is not None
        self._buffer, self._scratch = np.array(self.rows), None
        self._file.close()
        self._file = None

    def _put(self, rows: NDArray[Any]) -> None:
        """Write *rows* behind the others, and map what there is room for."""
        assert self._file is not None
        number = self._file.number
        if self._count + len(rows) > len(self._buffer):
            capacity = max(2 * len(self._buffer), self._count + len(rows), _LARGE // self._size(1))
            os.ftruncate(number, self._size(capacity))  # a hole, which takes no room
            mapped = mmap.mmap(number, self._size(capacity), access=mmap.ACCESS_READ)
            self._buffer = np.frombuffer(mapped, self._dtype).reshape(capacity, self._width)
        data = np.ascontiguousarray(rows, self._dtype).reshape(-1).view(np.uint8).data
        at = self._size(self._count)
        while data:
            done = os.pwrite(number, data, at)
            data, at = data[done:], at + done

    def _replace(self, blocks: Iterable[NDArray[Any]]) -> None:
        """Put *blocks*, which may be read from the rows there are, in place of these."""
        fresh, old = Column(self._width, self._dtype, self._scratch, self._share), self._file
        for block in blocks:
            fresh.append(block)
        self._buffer, self._file, self._count = fresh._buffer, fresh._file, fresh._count
        self._scratch, self._owner = fresh._scratch, fresh._owner
        if old is not None:
            old.close()

    def _kept(self, positions: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        for start in range(0, self._count, _BLOCK):
            block = self.rows[start : start + _BLOCK]
            low, high = np.searchsorted(positions, (start, start + len(block)))
            yield block if low == high else np.delete(block, positions[low:high] - start, axis=0)
