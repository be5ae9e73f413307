"""The cache file of an exact index: a few lines of text, then slots and rows as they lie in memory.

    RaeburnMemory index <SHA-256 of the next line>
    {"format": 1, "backend": …, "dim": …, "count": …, "stamp": {…}, "length": …, "sha256": …}
    count slots (int64), count x dim numbers (float32), both little-endian; length bytes with that SHA-256

The first line vouches for the second and the second for the rest, so that a flipped bit anywhere is seen.
Nothing is allocated before the lengths fit the file, nothing is used before the digests fit, and nothing but
JSON is parsed: faiss itself reads some flipped bits as other vectors. `backend` says who wrote the file;
every exact index reads it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import InvalidInput, StoreWriteFailed
from ._arrays import ascending, longest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from io import BufferedReader

    from numpy.typing import NDArray

FORMAT = 1
_MAGIC = b"RaeburnMemory index "
_FIRST_LINE = len(_MAGIC) + 64 + 1
_HEADER_LIMIT = 1 << 16
_CHUNK = 1 << 22

_log = logging.getLogger("raeburnmemory")


class Cache(NamedTuple):
    """What a cache file holds: the stamp, ascending slots (n), their rows (n, dim), the greatest length."""

    stamp: dict[str, object]
    slots: NDArray[np.int64]
    rows: NDArray[np.float32]
    longest: float


class _UnusableError(Exception):
    """Why a file is no cache: a clause for the log."""


def write_cache(
    path: str, backend: str, slots: NDArray[np.int64], rows: NDArray[np.float32], stamp: dict[str, object]
) -> None:
    """Write a cache to a new file beside *path*, sync it, and put it in place of *path*. Its mode is 0600.

    Raises:
        InvalidInput: The stamp makes a header beyond 64 KiB.
        StoreWriteFailed: The disk refused; what was at *path* is as before.
    """
    parts = (_as_bytes(slots.astype("<i8", copy=False)), _as_bytes(rows.astype("<f4", copy=False)))
    digest = hashlib.sha256()
    for part in parts:
        for start in range(0, len(part), _CHUNK):
            digest.update(part[start : start + _CHUNK])
    fields = {
        "format": FORMAT,
        "backend": backend,
        "dim": rows.shape[1],
        "count": len(slots),
        "stamp": stamp,
        "length": sum(map(len, parts)),
        "sha256": digest.hexdigest(),
    }
    header = json.dumps(fields).encode() + b"\n"
    if len(header) > _HEADER_LIMIT:
        raise InvalidInput(f"The stamp of an index cache is too long: {len(header)} bytes of {_HEADER_LIMIT}.")
    first = _MAGIC + hashlib.sha256(header).hexdigest().encode() + b"\n"
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f"{target.name}.", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines((first, header, *parts))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(target)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as exc:
        raise StoreWriteFailed(
            exc.errno,
            f"The index cache {path!r} cannot be written: {exc}. The store is complete without it; make room "
            f"on the disk, or allow writing to that folder.",
        ) from exc


def read_cache(path: str, dim: int, stamp: dict[str, object]) -> Cache | None:
    """Return what the cache at *path* holds if it is whole and fits *dim* and all of *stamp*, else None.

    A cache that is stale or missing is nothing to speak of; one that is damaged is named in the log.
    """
    try:
        return _read(Path(path), dim, stamp)
    except FileNotFoundError:
        return None
    except (_UnusableError, OSError) as exc:
        _log.warning("The index cache %r is not used and will be made anew: %s.", path, exc)
        return None


def examine(path: str) -> tuple[dict[str, Any], NDArray[np.int64], NDArray[np.float32]] | str:
    """Return the stamp, slots and rows of the cache at *path*, whatever it was stamped with, or why it is none."""
    try:
        found = _read(Path(path), None, {})
    except (_UnusableError, OSError) as exc:
        return str(exc)
    assert found is not None
    return found.stamp, found.slots, found.rows


def _read(path: Path, dim: int | None, stamp: dict[str, object]) -> Cache | None:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise _UnusableError("it is not a file")
    with path.open("rb") as file:
        first = file.readline(_FIRST_LINE)
        if not first.startswith(_MAGIC):
            raise _UnusableError("it is not one of ours")
        header = file.readline(_HEADER_LIMIT)
        if first != _MAGIC + hashlib.sha256(header).hexdigest().encode() + b"\n":
            raise _UnusableError("its header is damaged")
        fields = _fields(header)
        if dim is None:
            dim = int(fields["dim"])
        if fields["dim"] != dim or any(fields["stamp"].get(key, ...) != value for key, value in _plain(stamp)):
            return None
        slots, rows = _payload(file, fields["count"], dim, fields["length"], fields["sha256"])
    # What the digests vouch for can only be wrong by intent.
    if len(slots) and (int(slots[0]) < 0 or not ascending(slots)):
        raise _UnusableError("its slots do not ascend")
    try:
        return Cache(fields["stamp"], slots, rows, longest(rows))
    except InvalidInput as exc:
        raise _UnusableError("its vectors are not finite") from exc


def _payload(
    file: BufferedReader, count: int, dim: int, length: int, sha256: str
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    whole = os.fstat(file.fileno()).st_size - file.tell()
    if count < 0 or length != count * (8 + 4 * dim) or length != whole:
        raise _UnusableError(f"{count} vectors of {dim} numbers do not fill its {whole} bytes")
    slots, rows = np.empty(count, "<i8"), np.empty((count, dim), "<f4")
    digest = hashlib.sha256()
    for part in (_as_bytes(slots), _as_bytes(rows)):
        for start in range(0, len(part), _CHUNK):
            chunk = part[start : start + _CHUNK]
            if file.readinto(chunk) != len(chunk):
                raise _UnusableError("it ended while it was read")
            digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise _UnusableError("its content does not match its checksum")
    return slots.astype(np.int64, copy=False), rows.astype(np.float32, copy=False)


def _fields(header: bytes) -> dict[str, Any]:
    kinds = {"format": int, "dim": int, "count": int, "length": int, "stamp": dict, "sha256": str}
    try:
        fields = json.loads(header)
    except (ValueError, RecursionError) as exc:
        raise _UnusableError("its header is not JSON") from exc
    if not isinstance(fields, dict) or any(type(fields.get(key)) is not kind for key, kind in kinds.items()):
        raise _UnusableError("its header is incomplete")
    if fields["format"] != FORMAT:
        raise _UnusableError(f"its format is {fields['format']}, this version reads {FORMAT}")
    return fields


def _plain(stamp: dict[str, object]) -> Iterable[tuple[str, object]]:
    """Return the items of *stamp* as they look once they have been JSON, where a tuple is a list."""
    plain: dict[str, object] = json.loads(json.dumps(stamp))
    return plain.items()


def _as_bytes(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
