"""Whether a GGUF file is whole: its header, and where its tensors lie, against its length.

A parser of weights written in C++ is a wide surface, and a file that ends early is only found when the missing part is
first touched. So the header is read here, in Python, before any server sees the file: every length is checked against
what the file still has before it is believed.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Sizes of quantised blocks: ggml's type traits.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from .errors import ModelLoadFailed

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Header", "check_gguf"]

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes of the kinds of number
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_ALIGNMENT = 32  # bytes, unless the file says otherwise
_DEEPEST = 4  # arrays in arrays
_MOST_DIMENSIONS = 4
_LONGEST_NAME = 64 * 1024  # of a key or a tensor; real ones have tens of bytes
# Per kind of tensor: how many values are in a block, and how many bytes it takes.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40),
    10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66),
    17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136),
    24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54),
    35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18),
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What is of use here: where the last tensor `ends`, how many tokens the model was trained for, if it pools."""

    ends: int
    context: int | None = None
    pools: bool = False


class _Damaged(Exception):
    """What is wrong, without saying of which model."""


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.left = size

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise _Damaged(f"it ends {count - self.left} bytes too early, within its header")
        self.left -= count
        return self._file.read(count)

    def skip(self, count: int) -> None:
        if count > self.left:
            raise _Damaged(f"it ends {count - self.left} bytes too early, within its header")
        self.left -= count
        self._file.seek(count, os.SEEK_CUR)

    def u32(self) -> int:
        return int(struct.unpack("<I", self.take(4))[0])

    def u64(self) -> int:
        return int(struct.unpack("<Q", self.take(8))[0])

    def name(self) -> str:
        length = self.u64()
        if length > _LONGEST_NAME:
            raise _Damaged(f"a name in it has {length} bytes")
        return self.take(length).decode("utf-8", "replace")

    def value(self, kind: int, depth: int = 0) -> None:
        """Pass over a value."""
        if kind in _WIDTHS:
            self.skip(_WIDTHS[kind])
        elif kind == _STRING:
            self.skip(self.u64())
        elif kind == _ARRAY and depth < _DEEPEST:
            of, count = self.u32(), self.u64()
            if of in _WIDTHS:
                self.skip(_WIDTHS[of] * count)
            else:
                if count > self.left // 8:  # each has at least its length
                    raise _Damaged(f"a list in it has {count} values, more than fit into the file")
                for _ in range(count):
                    self.value(of, depth + 1)
        else:
            raise _Damaged(f"a value in it is of the unknown kind {kind}")


def check_gguf(path: str | Path, *, model: str | None = None) -> Header:
    """Read the header of the GGUF file at *path*, and check it and its tensors against the length of the file.

    Raises:
        ModelLoadFailed: The file is not GGUF, of another version, damaged, or ends before its last tensor does.
    """
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        try:
            return _check(_Reader(file, size), size)
        except _Damaged as exc:
            raise ModelLoadFailed(
                f"{os.fspath(path)!r} cannot be a whole GGUF file: {exc}.",
                model=model,
                remedy="Download it again, or verify it.",
            ) from None


def _check(reader: _Reader, size: int) -> Header:
    if reader.take(4) != _MAGIC:
        raise _Damaged("it does not begin with 'GGUF'")
    version = reader.u32()
    if version & 0xFFFF == 0:
        raise _Damaged("it is for machines of the other byte order")
    if version not in _VERSIONS:
        raise _Damaged(f"it has version {version} of the format; llama.cpp reads {' and '.join(map(str, _VERSIONS))}")
    tensors, pairs = reader.u64(), reader.u64()
    # A tensor takes at least 24 bytes of the header, a pair at least 13: a count beyond that is a lie.
    if tensors > reader.left // 24 or pairs > reader.left // 13:
        raise _Damaged(f"it claims {tensors} tensors and {pairs} entries, more than fit into {size} bytes")
    alignment, context, pools = _ALIGNMENT, None, False
    for _ in range(pairs):
        key, kind = reader.name(), reader.u32()
        if key == "general.alignment" and kind == _UINT32:
            alignment = reader.u32()
            if alignment == 0 or alignment & (alignment - 1):
                raise _Damaged(f"its alignment is {alignment}, no power of two")
        elif key.endswith(".context_length") and kind == _UINT32:
            context = reader.u32()
        else:
            pools = pools or key.endswith(".pooling_type")
            reader.value(kind)
    ends = 0
    for _ in range(tensors):
        ends = max(ends, _end_of_tensor(reader, alignment))
    begin = size - reader.left
    begin += -begin % alignment
    if tensors and begin + ends > size:
        raise _Damaged(f"its tensors end at byte {begin + ends}, and it has {size}")
    return Header(begin + ends, context, pools)


def _end_of_tensor(reader: _Reader, alignment: int) -> int:
    """Return where a tensor ends, counted from where the first one begins."""
    name, count = reader.name(), reader.u32()
    if not 0 < count <= _MOST_DIMENSIONS:
        raise _Damaged(f"the tensor {name!r} has {count} dimensions")
    shape = [reader.u64() for _ in range(count)]
    kind, offset = reader.u32(), reader.u64()
    if offset % alignment:
        raise _Damaged(f"the tensor {name!r} begins at {offset}, which is no multiple of {alignment}")
    if kind not in BLOCKS:  # of a newer llama.cpp: its server knows; here only its beginning can be checked
        return offset
    values, width = BLOCKS[kind]
    if shape[0] % values:
        raise _Damaged(f"the rows of the tensor {name!r} have {shape[0]} values, no multiple of {values}")
    total = width
    for length in shape:
        total *= length
    return offset + total // values
