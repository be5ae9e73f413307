"""Named arrays and lists of texts in one checked file, for caches that are checked whole and used in part.

    RaeburnMemory parts <SHA-256 of the next line>
    {"format": 1, "stamp": {…}, "parts": [[name, kind, count, CRC-32 of its bytes], …]}
    the parts, one after the other: arrays little-endian, lists of texts ("json") as JSON in UTF-8

The first line vouches for the second and that for every part. Nothing is allocated before the lengths fit the file,
nothing is used before its checksum fits, and nothing but JSON is parsed.

A large file is copied to one that has no name, and mapped from there (see `_columns` for why): what nobody looks at
takes no memory, and what is changed is changed in this process alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import stat
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import StoreWriteFailed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import BinaryIO

    from numpy.typing import NDArray

__all__ = ["MAGIC", "Parts", "examine_parts", "read_parts", "write_parts"]

Parts: TypeAlias = "Mapping[str, NDArray[Any] | list[str]]"

FORMAT = 1
MAGIC = b"RaeburnMemory parts "
_FIRST_LINE = len(MAGIC) + 64 + 1
_HEADER_LIMIT = 1 << 16
_JSON = "json"
_KINDS = {"|u1", "<i4", "<i8", "<f4", "<f8"}
_LARGE = 1 << 24  # bytes from which a file is mapped
_ALIGNED = 64  # bytes; where parts begin in what is mapped
_BLOCK = 1 << 20

_log = logging.getLogger("raeburnmemory")


class _UnusableError(Exception):
    """Why a file is no cache: a clause for the log."""


def write_parts(path: str, stamp: Mapping[str, object], parts: Parts) -> None:
    """Write a cache to a new file beside *path*, sync it, and put it in place of *path*. Its mode is 0600.

    Raises:
        StoreWriteFailed: The disk refused; what was at *path* is as before.
    """
    import tempfile  # with all that it imports, for who writes or maps one

    described, blocks = [], []
    for name, part in parts.items():
        if isinstance(part, list):
            kind, raw = _JSON, json.dumps(part).encode()
            count = len(raw)
        else:
            kind = part.dtype.newbyteorder("<").str
            raw, count = np.ascontiguousarray(part.astype(kind, copy=False)).tobytes(), len(part)
        described.append([name, kind, count, zlib.crc32(raw)])
        blocks.append(raw)
    header = json.dumps({"format": FORMAT, "stamp": stamp, "parts": described}).encode() + b"\n"
    first = MAGIC + hashlib.sha256(header).hexdigest().encode() + b"\n"
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f"{target.name}.", suffix=".tmp", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines((first, header, *blocks))
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
            f"The cache {path!r} cannot be written: {exc}. The store is complete without it; make room on the disk, "
            f"or allow writing to that folder.",
        ) from exc


def read_parts(
    path: str, stamp: Mapping[str, object], scratch: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the stamp and the parts of the cache at *path* if it is whole and fits all of *stamp*, else None.

    The arrays belong to the caller and may be changed. Where *scratch* names a folder, a large cache is mapped from a
    file there that has no name. A cache that is stale or missing is nothing to speak of; one that is damaged is named
    in the log.
    """
    try:
        return _read(Path(path), json.loads(json.dumps(stamp)), scratch)
    except FileNotFoundError:
        return None
    except (_UnusableError, OSError) as exc:
        _log.warning("The cache %r is not used and will be made anew: %s.", path, exc)
        return None


def examine_parts(path: str) -> tuple[dict[str, Any], dict[str, Any]] | str:
    """Return the stamp and the parts of the cache at *path*, whatever its stamp, or why it is none."""
    try:
        found = _read(Path(path), {})
    except (_UnusableError, OSError) as exc:
        return str(exc)
    assert found is not None, "every stamp fits"
    return found


def _read(
    path: Path, wanted: Mapping[str, object], scratch: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise _UnusableError("it is not a file")
    with path.open("rb") as file:
        first = file.read(_FIRST_LINE)
        if not first.startswith(MAGIC):
            raise _UnusableError("it is not one of ours")
        header = file.readline(_HEADER_LIMIT)
        if hashlib.sha256(header).hexdigest().encode() + b"\n" != first[len(MAGIC) :]:
            raise _UnusableError("its header is damaged")
        fields = _fields(header)
        if any(fields["stamp"].get(key, ...) != value for key, value in wanted.items()):
            return None
        left = os.fstat(file.fileno()).st_size - file.tell()
        sizes = [count * (1 if kind == _JSON else np.dtype(kind).itemsize) for _, kind, count, _ in fields["parts"]]
        if sum(sizes) != left:
            raise _UnusableError(f"it has {left} bytes where its header says {sum(sizes)}")
        begin = file.tell()
        if scratch is not None and left > _LARGE and os.name == "posix":
            import tempfile

            with suppress(OSError), tempfile.TemporaryFile(dir=scratch) as copy:
                places = _checked(file, fields["parts"], sizes, copy)
                copy.flush()
                room = np.frombuffer(mmap.mmap(copy.fileno(), 0, access=mmap.ACCESS_COPY), np.uint8)
                return fields["stamp"], _decoded(room, fields["parts"], sizes, places)
            file.seek(begin)  # no room for it there; memory may have some
        room = np.empty(-(-(left + _ALIGNED * len(sizes)) // _ALIGNED) * _ALIGNED, np.uint8)
        places = _checked(file, fields["parts"], sizes, _Memory(room))
        return fields["stamp"], _decoded(room, fields["parts"], sizes, places)


class _Memory:
    """Bytes that are written to as a file is."""

    def __init__(self, room: NDArray[np.uint8]) -> None:
        self._room, self._at = room, 0

    def write(self, block: NDArray[np.uint8]) -> None:
        self._room[self._at : self._at + len(block)] = block
        self._at += len(block)


def _checked(file: BinaryIO, parts: list[Any], sizes: list[int], copy: Any) -> list[int]:
    """Copy the parts, each to where an array may begin, and return these places."""
    buffer, places, at = np.empty(_BLOCK, np.uint8), [], 0
    for (name, _, _, crc), size in zip(parts, sizes, strict=True):
        places.append(at)
        there = 0
        for start in range(0, size, _BLOCK):
            block = buffer[: min(_BLOCK, size - start)]
            if file.readinto(block.data) != len(block):  # type: ignore[attr-defined]
                raise _UnusableError("it ended while it was read")
            there = zlib.crc32(block.data, there)
            copy.write(block)
        if there != crc:
            raise _UnusableError(f"its {name} do not match their checksum")
        padding = -size % _ALIGNED
        copy.write(np.zeros(padding, np.uint8))
        at += size + padding
    return places


def _decoded(room: NDArray[np.uint8], parts: list[Any], sizes: list[int], places: list[int]) -> dict[str, Any]:
    found = {}
    for (name, kind, _, _), size, place in zip(parts, sizes, places, strict=True):
        raw = room[place : place + size]
        found[name] = (
            _texts(name, raw) if kind == _JSON else raw.view(kind).astype(np.dtype(kind).newbyteorder("="), copy=False)
        )
    return found


def _fields(header: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(header)
    except (ValueError, RecursionError) as exc:
        raise _UnusableError("its header is not JSON") from exc
    if not isinstance(fields, dict) or type(fields.get("format")) is not int:
        raise _UnusableError("its header is incomplete")
    if fields["format"] != FORMAT:
        raise _UnusableError(f"its format is {fields['format']}, this version reads {FORMAT}")
    if not isinstance(fields.get("stamp"), dict) or not isinstance(fields.get("parts"), list):
        raise _UnusableError("its header is incomplete")
    for part in fields["parts"]:
        if (
            not isinstance(part, list)
            or [type(value) for value in part] != [str, str, int, int]
            or part[1] not in {*_KINDS, _JSON}
            or part[2] < 0
        ):
            raise _UnusableError("its header is incomplete")
    return fields


def _texts(name: str, raw: NDArray[np.uint8]) -> list[str]:
    try:
        texts = json.loads(raw.tobytes())
    except (ValueError, RecursionError) as exc:
        raise _UnusableError(f"its {name} are no JSON") from exc
    if not isinstance(texts, list):
        raise _UnusableError(f"its {name} are no list")
    return texts
