"""The cache file of an index: slots, rows, and what is made of them for searching.

    RaeburnMemory index <SHA-256 of the description> <where it begins> <its length>     padded to 128 bytes
    segments
    description (JSON): format, backend, dim, stamp, what was found out about the data, and for every segment
        where it begins, how many vectors it holds and the CRC-32 of each of its columns

A segment holds one column after another, little-endian: `slots` (int64), `labels` (int64, the owner's), `signs` and
`codes` (uint8), `rows`; those that are not needed are left out. A row is float32, filled up to 8 bytes, and followed
by a checksum (`_codes.checksums`).

The first line vouches for the description, which vouches for everything but the rows; each row vouches for itself
whenever it is read, so that a large file is not read to be opened, and never believed unread. Nothing is allocated
before the lengths fit the file, and nothing but JSON is parsed.

A file that only grew gets another segment: the new segment and a new description are written behind the old
description and synced, then the first line, which lies within one sector. What follows the description is left of
an attempt that was cut short, and overwritten by the next.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import stat
import zlib
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InvalidInput, StoreWriteFailed
from ._arrays import ascending
from ._codes import checksums, signs_width
from ._columns import Descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import NDArray

FORMAT = 2
_MAGIC = b"RaeburnMemory index "
_FIRST = 128
_FIRST_LINE = re.compile(rb"RaeburnMemory index ([0-9a-f]{64}) (\d{1,18}) (\d{1,7}) *\n")
_OLDEST = re.compile(rb"RaeburnMemory index [0-9a-f]{64}\n")
_LIMIT = 1 << 20  # bytes of a description
_STAMP_LIMIT = 1 << 16
_SEGMENTS = 16  # then the file is written anew
_CHUNK = 1 << 22  # bytes read at a time
_NEAR = 4  # rows that lie this close are read together with what is between them

_log = logging.getLogger("raeburnmemory")


class DamagedError(Exception):
    """Why a file is no cache: a clause for the log."""


class Segment(NamedTuple):
    """Where some of the vectors lie: the place of each column, and its CRC-32 (None for rows)."""

    size: int
    columns: dict[str, tuple[int, int | None]]


def _widths(dim: int) -> dict[str, tuple[str, int]]:
    """Return the kind of number and how many of them a vector has in each column."""
    return {
        "slots": ("<i8", 1),
        "labels": ("<i8", 1),
        "signs": ("<u1", signs_width(dim)),
        "codes": ("<u1", dim),
        "rows": ("<u8", -(-dim // 2) + 1),
    }


class Saved:
    """A cache file that is open for reading. Whoever replaces its name does not disturb it."""

    def __init__(self, file: Descriptor, first: bytes, end: int, description: dict[str, Any]) -> None:
        self._file, self._first, self._end = file, first, end
        self.dim: int = description["dim"]
        self.stamp: dict[str, object] = description["stamp"]
        self.found: dict[str, Any] = description["found"]
        self.segments = [
            Segment(part["count"], {name: (at, crc) for name, (at, crc) in part["columns"].items()})
            for part in description["segments"]
        ]
        self.count = sum(part.size for part in self.segments)
        self._starts = list(accumulate((part.size for part in self.segments), initial=0))
        self._kinds = _widths(self.dim)

    def has(self, name: str) -> bool:
        """Tell whether every segment has that column."""
        return all(name in part.columns for part in self.segments)

    def column(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield a column in pieces (n, width). Only once all were taken is it known that they are what was written.

        Raises:
            DamagedError: They are not.
        """
        kind, width = self._kinds[name]
        size = np.dtype(kind).itemsize * width
        step = max(_CHUNK // size, 1)
        for part in self.segments:
            (at, expected), crc = part.columns[name], 0
            for start in range(0, part.size, step):
                found = np.empty((min(step, part.size - start), width), kind)
                self._fill(_as_bytes(found), at + start * size)
                crc = zlib.crc32(_as_bytes(found), crc)
                yield found.astype(found.dtype.newbyteorder("="), copy=False)
            if crc != expected:
                raise DamagedError(f"its {name} do not match their checksum")

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the rows with these *numbers* (ascending), each compared with its checksum.

        Raises:
            DamagedError: One of them is not what was written, or the file cannot be read.
        """
        width = self._kinds["rows"][1]
        found, first = np.empty((len(numbers), width), "<u8"), 0
        for part, low, high in zip(self.segments, self._starts, self._starts[1:], strict=False):
            last = len(numbers) if high == self.count else int(numbers.searchsorted(high))
            if first < last:
                self._records(found[first:last], numbers[first:last], part.columns["rows"][0] - low * 8 * width)
            first = last
        if np.count_nonzero(checksums(found[:, :-1], numbers) != found[:, -1]):
            raise DamagedError("a vector in it does not match its checksum")
        return found[:, :-1].view("<f4")[:, : self.dim].astype(np.float32, copy=False)

    def _records(self, target: NDArray[np.uint64], numbers: NDArray[np.int64], at: int) -> None:
        """Read the rows with these numbers, of which number 0 would begin *at* that place."""
        size, span = 8 * target.shape[1], int(numbers[-1]) - int(numbers[0]) + 1
        data = _as_bytes(target)
        if span == len(numbers):
            self._fill(data, at + int(numbers[0]) * size)
        elif span > _NEAR * len(numbers):
            steps = (np.flatnonzero(numbers[1:] - numbers[:-1] > 1) + 1).tolist()  # rows in a row are read at once
            for begin, end in zip([0, *steps], [*steps, len(numbers)], strict=True):
                self._fill(data[begin * size : end * size], at + int(numbers[begin]) * size)
        else:
            step = max(_CHUNK // size, 1)
            for start in range(int(numbers[0]), int(numbers[-1]) + 1, step):
                low, high = np.searchsorted(numbers, (start, start + step))
                if low < high:
                    block = np.empty((int(numbers[high - 1]) - start + 1, target.shape[1]), "<u8")
                    self._fill(_as_bytes(block), at + start * size)
                    target[low:high] = block[numbers[low:high] - start]

    def _fill(self, data: memoryview, at: int) -> None:
        left = len(data)
        try:
            while left:
                done = _read_at(self._file.number, [data], at)
                if done == left:
                    return
                left -= done
                if left:
                    if not done:
                        raise DamagedError("it ended while it was read")
                    data, at = data[done:], at + done
        except OSError as exc:
            raise DamagedError(f"it cannot be read: {exc}") from exc

    def still_at(self, path: str) -> bool:
        """Tell whether *path* still names this file, and nobody has added to it."""
        with suppress(OSError):
            here, there = os.fstat(self._file.number), os.stat(path)
            same = (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
            first = bytearray(_FIRST)
            return same and _read_at(self._file.number, [first], 0) == _FIRST and first == self._first
        return False

    @property
    def full(self) -> bool:
        """Whether it has so many segments that it should be written anew."""
        return len(self.segments) >= _SEGMENTS

    @property
    def end(self) -> int:
        """Where the next segment goes."""
        return self._end

    def close(self) -> None:
        """Give the file back."""
        self._file.close()


def _seek_and_read(number: int, buffers: list[Any], at: int) -> int:
    os.lseek(number, at, os.SEEK_SET)
    raw = os.read(number, len(buffers[0]))
    buffers[0][: len(raw)] = raw
    return len(raw)


# Unlike seek and read, it leaves alone the position that a forked process shares.
_read_at: Callable[[int, list[Any], int], int] = getattr(os, "preadv", _seek_and_read)


class Content(NamedTuple):
    """What is to be written: *size* vectors, their columns in blocks, and what was *found* out about them."""

    size: int
    columns: Mapping[str, Iterable[NDArray[Any]]]
    found: dict[str, Any]


def write_cache(path: str, backend: str, dim: int, stamp: dict[str, object], content: Content) -> None:
    """Write a cache to a new file beside *path*, sync it, and put it in place of *path*. Its mode is 0600.

    Raises:
        InvalidInput: The stamp is longer than 64 KiB.
        StoreWriteFailed: The disk refused; what was at *path* is as before.
    """
    import tempfile  # with all that it imports, for who saves something

    checked = _checked_stamp(stamp)
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f"{target.name}.", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(handle, "r+b", buffering=0) as file:
                _extend(file.fileno(), _FIRST, backend, dim, checked, [], content)
            Path(temporary).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as exc:
        raise _refused(path, exc) from exc


def extend_cache(path: str, saved: Saved, backend: str, stamp: dict[str, object], content: Content) -> None:
    """Add to the cache at *path*, which must be *saved* still. Its rows before stay where they are.

    Raises:
        InvalidInput: The stamp is longer than 64 KiB.
        StoreWriteFailed: The disk refused; the cache is as before.
    """
    checked = _checked_stamp(stamp)
    try:
        with Path(path).open("r+b", buffering=0) as file:
            _extend(file.fileno(), saved.end, backend, saved.dim, checked, saved.segments, content)
    except OSError as exc:
        raise _refused(path, exc) from exc


def _extend(
    number: int,
    at: int,
    backend: str,
    dim: int,
    stamp: dict[str, object],
    before: list[Segment],
    content: Content,
) -> None:
    """Write a segment and a description from *at* on, then the first line, to the file with that *number*."""
    columns: dict[str, tuple[int, int | None]] = {}
    for name in _widths(dim):
        if name in content.columns:
            end, crc = _write_column(number, at, name, dim, before, content.columns[name])
            columns[name], at = (at, crc), end
    parts = [*before, Segment(content.size, columns)]
    description = {
        "format": FORMAT,
        "backend": backend,
        "dim": dim,
        "count": sum(part.size for part in parts),
        "stamp": stamp,
        "found": content.found,
        "segments": [{"count": part.size, "columns": part.columns} for part in parts],
    }
    raw = json.dumps(description).encode() + b"\n"
    _write(number, raw, at)
    os.fsync(number)
    first = b"%s%s %d %d" % (_MAGIC, hashlib.sha256(raw).hexdigest().encode(), at, len(raw))
    _write(number, first.ljust(_FIRST - 1) + b"\n", 0)
    os.fsync(number)


def _write_column(
    file: int, at: int, name: str, dim: int, before: list[Segment], blocks: Iterable[NDArray[Any]]
) -> tuple[int, int | None]:
    """Write a column, and return where it ends and its CRC-32."""
    kind, width = _widths(dim)[name]
    crc, number = 0, sum(part.size for part in before)
    for block in blocks:
        piece = np.ascontiguousarray(block, np.dtype("<f4") if name == "rows" else kind)
        if name == "rows":
            records = np.zeros((len(piece), width), "<u8")
            records.view("<f4")[:, :dim] = piece
            records[:, -1] = checksums(records[:, :-1], np.arange(number, number + len(piece)))
            number += len(piece)
            piece = records
        data = _as_bytes(piece)
        crc = zlib.crc32(data, crc)
        _write(file, data, at)
        at += len(data)
    return at, None if name == "rows" else crc


def _seek_and_write(number: int, data: memoryview, at: int) -> int:
    os.lseek(number, at, os.SEEK_SET)
    return os.write(number, data)


_write_at: Callable[[int, memoryview, int], int] = getattr(os, "pwrite", _seek_and_write)


def _write(number: int, data: bytes | memoryview, at: int) -> None:
    view = memoryview(data)
    while view:
        done = _write_at(number, view[: 1 << 30], at)
        view, at = view[done:], at + done


def _checked_stamp(stamp: dict[str, object]) -> dict[str, object]:
    length = len(json.dumps(stamp))
    if length > _STAMP_LIMIT:
        raise InvalidInput(f"The stamp of an index cache is too long: {length} bytes of {_STAMP_LIMIT}.")
    return stamp


def _refused(path: str, exc: OSError) -> StoreWriteFailed:
    return StoreWriteFailed(
        exc.errno,
        f"The index cache {path!r} cannot be written: {exc}. The store is complete without it; make room "
        f"on the disk, or allow writing to that folder.",
    )


def open_cache(path: str, dim: int, stamp: dict[str, object]) -> Saved | None:
    """Return the cache at *path* if it looks whole and fits *dim* and all of *stamp*, else None.

    A cache that is stale or missing is nothing to speak of; one that is damaged is named in the log.
    """
    try:
        saved = _open(Path(path))
        fits = saved.dim == dim and all(saved.stamp.get(key, ...) == value for key, value in _plain(stamp))
        if not fits:
            saved.close()
            return None
    except FileNotFoundError:
        return None
    except (DamagedError, OSError) as exc:
        not_used(path, exc)
        return None
    return saved


def not_used(path: str, why: object) -> None:
    """Say in the log that the cache at *path* is of no use, and *why*."""
    _log.warning("The index cache %r is not used and will be made anew: %s.", path, why)


def examine(path: str) -> tuple[dict[str, Any], NDArray[np.int64], NDArray[np.float32]] | str:
    """Return the stamp, slots and rows of the cache at *path*, whatever it was stamped with, or why it is none."""
    try:
        saved = _open(Path(path))
        try:
            for name in ("labels", "signs", "codes"):
                if saved.has(name):
                    for _ in saved.column(name):
                        pass
            return dict(saved.stamp), slots_of(saved), saved.rows(np.arange(saved.count))
        finally:
            saved.close()
    except (DamagedError, OSError) as exc:
        return str(exc)


def slots_of(saved: Saved) -> NDArray[np.int64]:
    """Return all slots, which ascend.

    Raises:
        DamagedError: They do not, or are not what was written.
    """
    slots = np.concatenate([np.empty(0, np.int64), *(piece[:, 0] for piece in saved.column("slots"))])
    # What a checksum vouches for can only be wrong by intent.
    if len(slots) and (int(slots[0]) < 0 or not ascending(slots)):
        raise DamagedError("its slots do not ascend")
    return slots


def _open(path: Path) -> Saved:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise DamagedError("it is not a file")
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(_FIRST)
        if not first.startswith(_MAGIC):
            raise DamagedError("it is not one of ours")
        if _OLDEST.match(first):
            raise DamagedError(f"its format is 1, this version reads {FORMAT}")
        found = _FIRST_LINE.fullmatch(first)
        if found is None:
            raise DamagedError("its first line is damaged")
        digest, where, length = found[1].decode(), int(found[2]), int(found[3])
        if length > _LIMIT or where + length > size:
            raise DamagedError(f"its header lies beyond its {size} bytes")
        file.seek(where)
        raw = file.read(length)
        if hashlib.sha256(raw).hexdigest() != digest:
            raise DamagedError("its header is damaged")
        description = _description(raw, where)
        return Saved(Descriptor(os.dup(file.fileno())), first, where + length, description)


def _description(raw: bytes, end: int) -> dict[str, Any]:
    kinds = {"format": int, "dim": int, "count": int, "stamp": dict, "found": dict, "segments": list}
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise DamagedError("its header is not JSON") from exc
    if isinstance(fields, dict) and type(fields.get("format")) is int and fields["format"] != FORMAT:
        raise DamagedError(f"its format is {fields['format']}, this version reads {FORMAT}")
    if not isinstance(fields, dict) or any(type(fields.get(key)) is not kind for key, kind in kinds.items()):
        raise DamagedError("its header is incomplete")
    dim = fields["dim"]
    if not 0 < dim <= 1 << 20:
        raise DamagedError(f"its header claims vectors of {dim} numbers")
    widths = {name: np.dtype(kind).itemsize * width for name, (kind, width) in _widths(dim).items()}
    for part in fields["segments"]:
        count, columns = _segment(part)
        if not {"slots", "rows"} <= set(columns) <= set(widths):
            raise DamagedError("its header is incomplete")
        for name, (at, _) in columns.items():
            if count < 0 or at < _FIRST or at + count * widths[name] > end:
                raise DamagedError(f"{count} vectors of {dim} numbers do not fit its {end} bytes")
    if sum(part["count"] for part in fields["segments"]) != fields["count"]:
        raise DamagedError("its header contradicts itself")
    return fields


def _segment(part: Any) -> tuple[int, dict[str, Any]]:
    fine = isinstance(part, dict) and type(part.get("count")) is int and isinstance(part.get("columns"), dict)
    if fine:
        for name, place in part["columns"].items():
            fine &= isinstance(place, list) and len(place) == 2 and type(place[0]) is int
            fine = fine and (place[1] is None if name == "rows" else type(place[1]) is int)
    if not fine:
        raise DamagedError("its header is incomplete")
    return part["count"], part["columns"]


def _plain(stamp: dict[str, object]) -> Iterable[tuple[str, object]]:
    """Return the items of *stamp* as they look once they have been JSON, where a tuple is a list."""
    plain: dict[str, object] = json.loads(json.dumps(stamp))
    return plain.items()


def _as_bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
