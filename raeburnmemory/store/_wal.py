"""Whether a write-ahead log is damaged in the middle: SQLite would take the commits before that for all there are.

SQLite reads a log up to the first frame whose checksum is wrong, and whoever opens the database next begins the log
anew: what stands behind is gone, and nobody is told. A crash leaves a wrong frame as well, but only in the last change:
the one before was synced as a whole before it began. So two commits from a wrong frame on are no crash.

Writers who need no more than to survive their process do not sync their commits, and say so in the log of changes:
`"unsynced"` is the boot of the system. The first of such commits after others is synced. Who syncs a commit after such
ones syncs these before, and says `"synced"` in it, with its version. So where the last commit before a wrong frame says
that it was not synced, the system was started anew since, and no commit behind the frame says that all before it was
synced, then a power cut has left this.
Format: https://sqlite.org/fileformat2.html, section 4.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import struct
import time
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ..errors import StoreCorrupt
from ._files import open_regular
from .journal import gone
from .sqlite_connection import connect

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BEGINNING", "CRASH", "check_log", "last_change", "power_failed", "unsynced"]

CRASH = 1  # commits that a crash can leave from a wrong frame on: that of the change under way
BEGINNING = 64  # characters of an entry of the log of changes that hold what it says of itself, its mark included
_HEADER, _FRAME = 32, 24
_ORDERS = {0x377F0682: "<", 0x377F0683: ">"}
_USUAL = 4096  # the size of a page where nothing says another
_BLOCK = 1024  # frames at a time
_LOOKS = 3  # a log that is just being written must look the same so often to count as damaged
_SAID = re.compile(r'\{"unsynced":"([0-9a-f]*)"')
# As the row stands in a page: behind a header with NULL in the place of its key, and the length of the text.
_SYNCED = re.compile(rb'[\3-\6]\0[\x80-\xff]*[\0-\x7f]\{"synced":(\d{1,18})[,}]')


def check_log(path: str) -> tuple[int, int] | None:
    """Look at the log of the database at *path*, if there is one.

    Return where the rest of it begins that a power cut has left of changes which were not synced, and how many these
    are at least; None if there is no such thing.

    Raises:
        StoreCorrupt: It is damaged, and commits stand behind the damage; or it is no file.
    """
    name = path + "-wal"
    seen = set()
    for look in range(_LOOKS):
        at, behind = _look(name)
        if behind <= CRASH:
            return None
        seen.add(at)
        time.sleep(0.01 * look)
    if len(seen) == 1:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(path, "ro", 5.0)) as db:
            if at and power_failed(db, path, at):  # the header is synced before there is a frame
                return at, behind
        raise StoreCorrupt(
            f"{name!r} is damaged at byte {at}, and {behind} changes from there on cannot be read. Nothing was "
            f"changed. Run repair, which keeps what can be read, or put back a copy of it with its database."
        )
    return None


def last_change(db: sqlite3.Connection) -> tuple[int, str]:
    """Return the number of the last change and the beginning of what the log says of it."""
    sql = f"SELECT version, substr(changes, 1, {BEGINNING}) FROM log ORDER BY version DESC LIMIT 1"
    return db.execute(sql).fetchone() or (0, "")


def unsynced(said: str) -> str | None:
    """Return the boot under which a change was made if what the log *said* of it is that it was not synced."""
    found = _SAID.match(said)
    return found[1] if found else None


def power_failed(db: sqlite3.Connection, path: str, at: int) -> bool:
    """Tell whether a power cut may have left what stands from the byte *at* on in the log of the database at *path*.

    *db* is what SQLite reads of it.
    """
    version, said = last_change(db)
    if not gone(unsynced(said)):
        return False
    try:
        with open_regular(path + "-wal") as file:
            file.seek(at)
            rest = file.read()
    except OSError:
        return False
    return all(int(number) <= version for number in _SYNCED.findall(rest))


def _look(name: str) -> tuple[int, int]:
    """Return where the first wrong frame of a log begins, and how many commits it and those behind it make."""
    try:
        with open_regular(name) as file:
            raw = file.read()
            file.seek(0)
            again = file.read(_HEADER)
    except OSError:
        return 0, 0  # SQLite will say what is wrong
    if len(raw) < _HEADER or again != raw[:_HEADER]:
        return 0, 0
    words = np.frombuffer(raw[:_HEADER], ">u4")
    order, page = _header(raw[:_HEADER])
    length = _FRAME + (page or _USUAL)
    frames = np.frombuffer(raw, np.uint8, (len(raw) - _HEADER) // length * length, _HEADER).reshape(-1, length)
    heads = frames[:, :_FRAME].copy().view(">u4")
    if not page:  # SQLite then takes the log for empty; its frames say themselves that they belong together
        alike = (heads[:, 2:4] == heads[:1, 2:4]).all(axis=1) & (heads[:, 0] > 0)
        return 0, int((alike & (heads[:, 1] != 0)).sum()) if heads[:1, 2:4].any() else 0
    ours = (heads[:, 2] == words[4]) & (heads[:, 3] == words[5])
    last = int(np.flatnonzero(ours)[-1]) + 1 if ours.any() else 0  # behind it are frames of an older log
    sums = (int(words[6]), int(words[7]))
    for first in range(0, last, _BLOCK):
        for at, told in enumerate(_sums(frames[first : min(last, first + _BLOCK)], order), first):
            sums = _after(sums, told, 1 + page // 8)
            if not ours[at] or sums != (int(heads[at, 4]), int(heads[at, 5])):
                behind = ours[at:last] & (heads[at:last, 1] != 0)  # it may end a change itself
                return _HEADER + at * length, int(behind.sum())
    return _HEADER + last * length, 0


def _header(raw: bytes) -> tuple[str, int]:
    """Return the order of bytes and the size of pages that the header of a log tells; no size if it is not whole."""
    magic, _, page = struct.unpack(">III", raw[:12])
    order = _ORDERS.get(magic, "<")
    sums = (0, 0)
    for x, y in struct.iter_unpack(f"{order}II", raw[:24]):
        first = (sums[0] + x + sums[1]) & 0xFFFFFFFF
        sums = first, (sums[1] + y + first) & 0xFFFFFFFF
    whole = magic in _ORDERS and sums == struct.unpack(">II", raw[24:])
    return order, page if whole and 512 <= page <= 65536 and not page & (page - 1) else 0


def _sums(frames: NDArray[np.uint8], order: str) -> list[tuple[int, int]]:
    """Return what each frame adds to the checksum: of its first 8 bytes and its page, had it begun with zeros.

    The checksum takes two words at a time: `a += x + b; b += y + a`, modulo 2**32. That is linear, so the sum of the
    words, each times what becomes of it on the way to the end, gives the same.
    """
    data = np.concatenate([frames[:, :8], frames[:, _FRAME:]], axis=1)
    words = data.view(f"{order}u4").astype(np.uint32)
    first, second = _weights(words.shape[1])
    one, other = ((words * weights).sum(axis=1, dtype=np.uint32).tolist() for weights in (first, second))
    return list(zip(one, other, strict=True))


@cache
def _weights(count: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Return what a one in each of *count* words adds to either half of the checksum."""
    first, second = np.empty(count, np.uint32), np.empty(count, np.uint32)
    x, y = (1, 1), (0, 1)  # what the two words of the last pair add: the first also reaches the other half
    for at in range(count - 2, -1, -2):
        first[at], second[at] = x
        first[at + 1], second[at + 1] = y
        x, y = _step(x), _step(y)
    return first, second


def _step(sums: tuple[int, int]) -> tuple[int, int]:
    """Return what becomes of a checksum by a pair of zeros."""
    first = (sums[0] + sums[1]) & 0xFFFFFFFF
    return first, (sums[1] + first) & 0xFFFFFFFF


@cache
def _powers(pairs: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return what becomes of (1, 0) and of (0, 1) by *pairs* pairs of zeros."""
    one, other = (1, 0), (0, 1)
    for _ in range(pairs):
        one, other = _step(one), _step(other)
    return one, other


def _after(sums: tuple[int, int], told: tuple[int, int], pairs: int) -> tuple[int, int]:
    """Return the checksum after a frame of *pairs* pairs that by itself adds *told*."""
    one, other = _powers(pairs)
    return (
        (sums[0] * one[0] + sums[1] * other[0] + told[0]) & 0xFFFFFFFF,
        (sums[0] * one[1] + sums[1] * other[1] + told[1]) & 0xFFFFFFFF,
    )
