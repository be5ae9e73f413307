"""What an index is given, checked: rows, slots and queries, before anything is changed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DimensionMismatch, InvalidInput
from ._arrays import ascending, floats, integers, longest

if TYPE_CHECKING:
    from numpy.typing import NDArray


def checked_dim(dim: int) -> int:
    """Return the length of an index's vectors."""
    if dim < 1:
        raise InvalidInput(f"An index needs vectors of at least one number, not {dim}.")
    return dim


def checked_rows(vectors: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Return rows of *dim* numbers in C order."""
    rows = floats(vectors)
    if rows.ndim == 2 and rows.shape[1] != dim:
        raise DimensionMismatch(f"These vectors have {rows.shape[1]} numbers each, this index holds vectors of {dim}.")
    if rows.ndim != 2:
        raise InvalidInput(f"Vectors come in rows of {dim} numbers each, not in the shape {rows.shape}.")
    return rows


def checked_new(
    slots: NDArray[np.int64], vectors: NDArray[np.float32], dim: int, last: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return what is to be added behind slot *last*."""
    slots, rows = integers(slots, "slots"), checked_rows(vectors, dim)
    if len(rows) != len(slots):
        raise InvalidInput(f"{len(slots)} slots need as many rows of {dim}, not shape {rows.shape}.")
    if len(slots) and (int(slots[0]) <= last or not ascending(slots)):
        raise InvalidInput(
            f"Slots must ascend and be greater than {last}, the greatest so far; these begin with {slots[:3].tolist()}."
        )
    return slots, rows


def checked_query(vector: NDArray[np.float32], dim: int) -> tuple[NDArray[np.float32], float]:
    """Return the vector of a search, and its length."""
    query = floats(vector)
    if query.ndim != 1:
        raise InvalidInput(f"A search takes one vector of shape ({dim},), not {query.shape}.")
    if len(query) != dim:
        raise DimensionMismatch(f"This vector has {len(query)} numbers, this index holds vectors of {dim}.")
    square = float(query.dot(query))
    # Where that is not finite, `longest` says what is wrong.
    return query, math.sqrt(square) if math.isfinite(square) else longest(query[np.newaxis])


def checked_allowed(allowed: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return *allowed* slots."""
    allowed = integers(allowed, "allowed slots")
    if not ascending(allowed):
        raise InvalidInput("Allowed slots must ascend, each of them once.")
    return allowed
