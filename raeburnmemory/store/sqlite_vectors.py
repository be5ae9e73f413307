"""How vectors are written in SQLite: as float32 numbers, or in the binary form of the package pgvector.

The first is what most programs expect of a column of bytes, little-endian numbers and nothing else. The second is what
pgvector sends to PostgreSQL: the number of numbers and a zero, of two bytes each, then big-endian numbers. A store says
in its record `vector_format` which one it writes; which one a value is in is told by its length, so that reading needs
neither the record nor the package.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .._optional import extra
from ..errors import InvalidInput, UnknownBackend

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "FORMAT",
    "VectorFormat",
    "checked_format",
    "head_of",
    "pack_vector",
    "register_functions",
    "unpack_vector",
    "unpack_vectors",
]

VectorFormat = Literal["float32", "pgvector"]

FORMAT = "vector_format"  # the key in meta; float32 where it is absent
_HEADER = struct.Struct(">HH")
_MOST = 16_000  # numbers in a vector of pgvector


def checked_format(name: str, *, new: bool) -> None:
    """See that there is such a form, and that a *new* store can have it.

    Raises:
        UnknownBackend: No form has that name.
        MissingDependency: It is pgvector's, and that package is not installed.
    """
    if name not in get_args(VectorFormat):
        choices = ", ".join(get_args(VectorFormat))
        raise UnknownBackend(f"No form of vectors is called {name!r}. Choose one of: {choices}.")
    if name == "pgvector" and new:
        with extra("pgvector", module="pgvector"):
            from pgvector import Vector
        # What is written here has to be what the package reads: it is the one that says what its form is.
        sample = np.array([1.5, -0.25, 3e-39], np.float32)
        if Vector(sample).to_binary() != bytes(pack_vector(sample, name)):
            raise InvalidInput("The pgvector that is installed has another binary form than 0.4 and 0.5 have.")


def pack_vector(values: NDArray[np.float32], form: str) -> bytes | memoryview:
    """Return *values* as they are written.

    Raises:
        InvalidInput: There are more of them than pgvector's form can count.
    """
    if form != "pgvector":
        return np.ascontiguousarray(values, "<f4").data
    if len(values) > _MOST:
        raise InvalidInput(
            f"A vector of pgvector has {_MOST:,} numbers or fewer, not {len(values):,}. Make the memory without "
            f"vector_format."
        )
    return _HEADER.pack(len(values), 0) + np.asarray(values, ">f4").tobytes()


def head_of(dim: int) -> bytes:
    """Return what a vector of *dim* numbers begins with in pgvector's form."""
    return _HEADER.pack(dim, 0) if 0 < dim <= _MOST else b""


def unpack_vector(raw: Any, dim: int | None = None) -> NDArray[np.float32] | None:
    """Return the numbers of a value of either form, None if it is none; of *dim* numbers, if that is known."""
    if not isinstance(raw, bytes) or len(raw) % 4 or not raw:
        return None
    count, unused = _HEADER.unpack(raw[:4])
    if len(raw) == 4 + 4 * count and unused == 0 and dim in {count, None} and count:
        return np.frombuffer(raw, ">f4", offset=4).astype(np.float32)
    if dim is not None and len(raw) != 4 * dim:
        return None
    return np.frombuffer(raw, "<f4").astype(np.float32)


def unpack_vectors(raw: Sequence[bytes], dim: int) -> NDArray[np.float32] | None:
    """Return rows of *dim* numbers, None if one of them is none."""
    whole = b"".join(raw)
    if len(whole) == 4 * dim * len(raw) and all(len(one) == 4 * dim for one in raw):
        return np.frombuffer(whole, "<f4").reshape(len(raw), dim).astype(np.float32, copy=False)
    rows = [unpack_vector(one, dim) for one in raw]
    if any(row is None for row in rows):
        return None
    return np.array(rows, np.float32).reshape(len(raw), dim)


def register_functions(connection: sqlite3.Connection) -> None:
    """Let SQL on *connection* compare vectors: `cosine_distance(a, b)` and `l2_distance(a, b)`, as pgvector has them.

    Each takes a vector of a memory in either form, or text such as `'[0.1, 0.2]'`. Null, or a cosine of zeros, is null;
    vectors of different lengths, and what is none, are an error.

    >>> import sqlite3
    >>> connection = sqlite3.connect(":memory:")
    >>> register_functions(connection)
    >>> connection.execute("SELECT l2_distance('[0, 3]', '[4, 0]'), cosine_distance('[0, 3]', '[4, 0]')").fetchone()
    (5.0, 1.0)
    >>> connection.close()
    """
    for name, function in (("cosine_distance", _cosine_distance), ("l2_distance", _l2_distance)):
        connection.create_function(name, 2, function, deterministic=True)


def _pair(one: Any, two: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    if one is None or two is None:
        return None
    a, b = _numbers(one), _numbers(two)
    if len(a) != len(b):
        raise InvalidInput(f"A vector of {len(a)} numbers cannot be compared with one of {len(b)}.")
    return a, b


def _numbers(value: Any) -> NDArray[np.float64]:
    found: Any = unpack_vector(value)
    if isinstance(value, str):
        try:
            found = np.array(json.loads(value), np.float64)
        except (ValueError, TypeError):
            found = None
    if found is None or found.ndim != 1:
        raise InvalidInput(f"{value!r:.60} is no vector.")
    return np.asarray(found, np.float64)


def _cosine_distance(one: Any, two: Any) -> float | None:
    if (pair := _pair(one, two)) is None:
        return None
    a, b = pair
    lengths = math.sqrt(float(a @ a) * float(b @ b))
    return 1 - max(-1.0, min(1.0, float(a @ b) / lengths)) if lengths else None


def _l2_distance(one: Any, two: Any) -> float | None:
    if (pair := _pair(one, two)) is None:
        return None
    return float(np.linalg.norm(pair[0] - pair[1]))
