"""The rows of a SQLite file read page by page, without SQLite: what is damaged is stepped over.

SQLite stops at the first page that is not what it should be, and everything behind it is out of reach. Here each
page is judged by itself. Formats: https://sqlite.org/fileformat2.html, sections 1.2 (header), 1.5 (freelist), 1.6
(b-trees), 2.1 (records) and 4 (the write-ahead log).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from ..store._files import read_database
from ..store._wal import CRASH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Pages", "Wal", "read_wal"]

_MAGIC = b"SQLite format 3\0"
_LEAF, _INTERIOR, _INDEX_LEAF, _INDEX_INTERIOR = 0x0D, 0x05, 0x0A, 0x02
_USUAL = 4096  # the size of a page where nothing says another
_DEPTH = 40


class Wal(NamedTuple):
    """What a write-ahead log holds: the newest committed page under each number, and what is behind the last commit.

    `bytes` is its length, `valid` how many of these are whole commits. `more` is how many commits of the same log
    stand behind a frame that is damaged, if these are more than a crash can leave there.
    """

    pages: dict[int, bytes]
    bytes: int
    valid: int
    more: int


def read_wal(path: str) -> Wal:
    """Read a write-ahead log as SQLite would: up to the last commit before the first frame that does not fit."""
    try:
        with open(path, "rb") as file:
            raw = file.read()
    except (FileNotFoundError, IsADirectoryError):
        return Wal({}, 0, 0, more=0)
    if len(raw) < 32:
        return Wal({}, len(raw), 0, more=0)
    magic, _, size = struct.unpack(">III", raw[:12])
    order = {0x377F0682: "<", 0x377F0683: ">"}.get(magic)
    if order is None or not 512 <= size <= 65536 or size & (size - 1):
        return Wal({}, len(raw), 0, more=0)
    sums = _checksum(raw[:24], order, (0, 0))
    if sums != struct.unpack(">II", raw[24:32]):
        return Wal({}, len(raw), 0, more=0)
    salts = raw[16:24]
    pages: dict[int, bytes] = {}
    waiting: dict[int, bytes] = {}
    at, valid, step = 32, 32, 24 + size  # a log whose first change was not finished is whole up to its header
    while at + step <= len(raw):
        head, page = raw[at : at + 24], raw[at + 24 : at + step]
        number, commit = struct.unpack(">II", head[:8])
        sums = _checksum(page, order, _checksum(head[:8], order, sums))
        if head[8:16] != salts or sums != struct.unpack(">II", head[16:24]) or not number:
            break
        waiting[number] = page
        at += step
        if commit:
            pages.update(waiting)
            pages = {n: found for n, found in pages.items() if n <= commit}
            waiting, valid = {}, at
    behind = range(at, len(raw) - step + 1, step)
    more = sum(raw[frame + 8 : frame + 16] == salts and any(raw[frame + 4 : frame + 8]) for frame in behind)
    return Wal(pages, len(raw), valid, more if more > CRASH else 0)


def _checksum(raw: bytes, order: str, sums: tuple[int, int]) -> tuple[int, int]:
    first, second = sums
    words = struct.unpack(f"{order}{len(raw) // 4}I", raw)
    for i in range(0, len(words), 2):
        first = (first + words[i] + second) & 0xFFFFFFFF
        second = (second + words[i + 1] + first) & 0xFFFFFFFF
    return first, second


class Pages:
    """A SQLite file with its write-ahead log laid over it."""

    def __init__(self, path: str, *, wal: Wal | None = None) -> None:
        self._raw = b""
        if os.path.isfile(path):
            self._raw = read_database(path)
        self._over = {} if wal is None else dict(wal.pages)
        self.damaged: set[int] = set()
        """Pages that should hold something and cannot be read."""
        self.seen: set[int] = set()
        """Pages that belong to some table or index."""
        head = self._over.get(1, self._raw[:100])[:100]
        self.has_header = head[:16] == _MAGIC and len(head) == 100
        size = struct.unpack(">H", head[16:18])[0] if self.has_header else 0
        self.size = 65536 if size == 1 else size
        if self.size < 512 or self.size & (self.size - 1):
            self.size = len(next(iter(self._over.values()), b"")) or _USUAL
        reserved = head[20] if self.has_header else 0
        self._usable = self.size - (reserved if reserved <= 64 else 0)
        self.count = max([len(self._raw) // self.size, *self._over])

    def replace_first(self, page: bytes) -> None:
        """Read *page* in place of the first one, which says where the tables are."""
        self._over[1] = page
        self.damaged, self.seen = set(), set()

    def page(self, number: int) -> bytes | None:
        """Return a page, None if the file does not reach so far."""
        if number in self._over:
            return self._over[number]
        raw = self._raw[(number - 1) * self.size : number * self.size]
        return raw if number >= 1 and len(raw) == self.size else None

    def free(self) -> set[int] | None:
        """Return the pages that hold nothing any more; None if that cannot be told."""
        first = self.page(1)
        if first is None or not self.has_header:
            return None
        trunk, expected = struct.unpack(">II", first[32:40])
        found: set[int] = set()
        while trunk:
            page = self.page(trunk)
            if page is None or trunk in found:
                return None
            found.add(trunk)
            trunk, leaves = struct.unpack(">II", page[:8])
            if leaves > self.size // 4 - 2:
                return None
            found.update(struct.unpack(f">{leaves}I", page[8 : 8 + 4 * leaves]))
        return found if len(found) == expected else None

    def table(self, root: int) -> Iterator[tuple[int, list[Any]]]:
        """Yield the rowid and the values of each row below page *root* that can be read."""
        for number in self._walk(root, _INTERIOR, _LEAF):
            yield from self._rows(number)

    def index(self, root: int) -> Iterator[list[Any]]:
        """Yield the entries of an index, or of a table without rowids, below page *root* that can be read."""
        for number in self._walk(root, _INDEX_INTERIOR, _INDEX_LEAF):
            yield from self._entries(number)

    def strays(self, fits: Callable[[list[Any]], bool]) -> Iterator[tuple[int, list[Any]]]:
        """Yield the rows of pages that nothing leads to any more, though they are not free, whose values *fit*."""
        free = self.free()
        if free is None:
            return  # a free page may hold what was forgotten
        for number in range(2, self.count + 1):
            if number in self.seen or number in free:
                continue
            page = self.page(number)
            if page is None or page[0] != _LEAF:
                continue
            rows = [row for row in self._rows(number, quiet=True) if fits(row[1])]
            yield from rows

    # --- pages ------------------------------------------------------------------------------------------------------

    def _walk(self, root: int, interior: int, leaf: int) -> Iterator[int]:
        """Yield the pages of a b-tree that hold cells with payload, in their order."""
        stack = [(root, 0)]
        while stack:
            number, depth = stack.pop()
            page = self.page(number)
            if page is None or number in self.seen or depth > _DEPTH:
                self.damaged.add(number)
                continue
            start = 100 if number == 1 else 0
            kind = page[start]
            if kind not in {interior, leaf}:
                self.damaged.add(number)
                continue
            self.seen.add(number)
            if kind == leaf:
                yield number
                continue
            if interior == _INDEX_INTERIOR:
                yield number
            cells = self._cells(page, start, 12, number)
            children = [struct.unpack(">I", page[at : at + 4])[0] for at in cells]
            children.append(struct.unpack(">I", page[start + 8 : start + 12])[0])
            stack += [(child, depth + 1) for child in reversed(children)]

    def _cells(self, page: bytes, start: int, head: int, number: int) -> list[int]:
        count = struct.unpack(">H", page[start + 3 : start + 5])[0]
        first = start + head
        if first + 2 * count > self._usable:
            self.damaged.add(number)
            count = max(0, (self._usable - first) // 2)
        places = struct.unpack(f">{count}H", page[first : first + 2 * count])
        good = [at for at in places if first + 2 * count <= at <= self._usable - 4]
        if len(good) < len(places):
            self.damaged.add(number)
        return good

    def _rows(self, number: int, *, quiet: bool = False) -> Iterator[tuple[int, list[Any]]]:
        page = self.page(number)
        assert page is not None
        before = number in self.damaged
        start = 100 if number == 1 else 0
        for place in self._cells(page, start, 8, number):
            try:
                size, at = _varint(page, place)
                rowid, at = _varint(page, at)
                rowid -= (rowid >> 63) << 64
                yield rowid, _record(self._payload(page, at, size, self._usable - 35))
            except (ValueError, IndexError, struct.error, UnicodeDecodeError):
                self.damaged.add(number)
        if quiet and not before:
            self.damaged.discard(number)

    def _entries(self, number: int) -> Iterator[list[Any]]:
        page = self.page(number)
        assert page is not None
        start = 100 if number == 1 else 0
        inner = page[start] == _INDEX_INTERIOR
        most = (self._usable - 12) * 64 // 255 - 23
        for place in self._cells(page, start, 12 if inner else 8, number):
            try:
                size, at = _varint(page, place + 4 if inner else place)
                yield _record(self._payload(page, at, size, most))
            except (ValueError, IndexError, struct.error, UnicodeDecodeError):
                self.damaged.add(number)

    def _payload(self, page: bytes, at: int, size: int, most: int) -> bytes:
        """Return the *size* bytes of a cell, the rest of which may lie on pages of their own."""
        if size <= most:
            if at + size > self._usable:
                raise ValueError("a cell ends behind its page")
            return page[at : at + size]
        least = (self._usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (self._usable - 4)
        local = local if local <= most else least
        if at + local + 4 > self._usable or size > len(self._raw) + sum(map(len, self._over.values())):
            raise ValueError("a cell ends behind its page")
        parts, left = [page[at : at + local]], size - local
        number = struct.unpack(">I", page[at + local : at + local + 4])[0]
        while left > 0:
            more = self.page(number)
            if more is None or number in self.seen:
                raise ValueError("the rest of a cell is not there")
            self.seen.add(number)
            parts.append(more[4 : min(self._usable, 4 + left)])
            left -= self._usable - 4
            number = struct.unpack(">I", more[:4])[0]
        return b"".join(parts)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = 0
    for i in range(8):
        byte = raw[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    return value << 8 | raw[at + 8], at + 9


def _record(raw: bytes) -> list[Any]:
    """Return the values of a record."""
    head, at = _varint(raw, 0)
    if not 1 <= head <= len(raw):
        raise ValueError("the header of a record ends behind it")
    kinds = []
    while at < head:
        kind, at = _varint(raw, at)
        kinds.append(kind)
    at, values = head, []
    for kind in kinds:
        size = _SIZES[kind] if kind < 12 else (kind - 12) // 2
        part = raw[at : at + size]
        if len(part) != size or kind in {10, 11}:
            raise ValueError("a record ends before its last value")
        values.append(_value(kind, part))
        at += size
    if at != len(raw):
        raise ValueError("a record goes on behind its last value")
    return values


_SIZES = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)


def _value(kind: int, raw: bytes) -> Any:
    if kind >= 12:
        return raw.decode("utf-8") if kind % 2 else raw
    if kind == 0:
        return None
    if kind == 7:
        return struct.unpack(">d", raw)[0]
    return kind - 8 if kind >= 8 else int.from_bytes(raw, "big", signed=True)
