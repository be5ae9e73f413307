"""Functions on plain arrays for the exact indexes: checked input, growth, the proven top k.

A scan in float32 may swap neighbours whose scores differ in the last digits, and swaps them differently in
every library, processor and position. So a scan only proposes: `near` keeps every row whose score lies within
the proven rounding error of the k-th, and `scores` computes these again in float64, the same way whoever
proposed them, and rounds once. Equal rows then score equally wherever they are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from ._rows import Rows

_BLOCK = 1024  # rows gathered, moved or scored again at a time: some megabytes, near the processor
_TILE = 4096  # rows compared with as many others at a time, or fewer
_LARGE = 8192  # values of which a sample of about so many tells which are worth sorting
_SPARE, _LOW = 16, 100  # of the sample at least so many, and one in so many
_GATHER = 5  # gathering a row costs this many times scanning one in place (384 numbers a row)


def integers(values: NDArray[np.int64], what: str) -> NDArray[np.int64]:
    """Return *values* as int64 (n,); no copy where none is needed."""
    array = np.asarray(values)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InvalidInput(f"The {what} must be one row of integers, not {array.dtype} of shape {array.shape}.")
    return array.astype(np.int64, copy=False)


def floats(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return *values* as float32 in C order; no copy where none is needed."""
    if isinstance(values, np.ndarray) and values.dtype == np.float32 and values.flags.c_contiguous:
        return values
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and `longest` refuses it
        return np.ascontiguousarray(values, np.float32)


def ascending(slots: NDArray[np.int64]) -> bool:
    """Tell whether every slot is greater than the one before."""
    return not np.count_nonzero(slots[1:] <= slots[:-1])  # a third of what `all` takes for a few


def longest(rows: NDArray[np.float32]) -> float:
    """Return the length of the longest row (0 for none), having made sure that all are finite.

    Raises:
        InvalidInput: A row holds NaN, infinity, or numbers whose squares are infinite in float32.
    """
    if not len(rows):
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("ij,ij->i", rows, rows)
    bad = np.flatnonzero(~np.isfinite(squares))
    if len(bad):
        raise InvalidInput(f"Vector {bad[0]} of {len(rows)} (from 0) holds NaN, infinity or too large numbers.")
    return math.sqrt(float(squares.max()))


def grown(buffer: NDArray[Any], used: int, more: int) -> NDArray[Any]:
    """Return *buffer* if *more* rows fit after the *used* ones, else a copy at least twice as long."""
    if used + more <= len(buffer):
        return buffer
    longer = np.empty((max(used + more, 2 * len(buffer)), *buffer.shape[1:]), buffer.dtype)
    longer[:used] = buffer[:used]
    return longer


def compact(buffer: NDArray[Any], used: int, positions: NDArray[np.int64]) -> None:
    """Close the gaps that *positions* (ascending, not none) leave among the *used* rows, in place."""
    target = int(positions[0])
    for start in range(target, used, _BLOCK):
        stop = min(start + _BLOCK, used)
        low, high = np.searchsorted(positions, (start, stop))
        kept = buffer[start:stop]
        if low < high:
            kept = np.delete(kept, positions[low:high] - start, axis=0)
        buffer[target : target + len(kept)] = kept
        target += len(kept)


def near(
    rows: Rows,
    query: NDArray[np.float32],
    k: int,
    within: NDArray[np.int64] | None,
    slack: float,
    dead: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return, ascending, all positions whose float32 score is at most *slack* below the k-th.

    *within* (ascending positions, none of them *dead*) restricts them; 0 < k <= their number.
    """
    table = rows.table
    if within is None:
        found = np.empty(len(rows), np.float32)
        if table is not None:
            np.matmul(table, query, out=found)
        else:
            for start, block in rows.blocks():
                found[start : start + len(block)] = block @ query
        found[dead] = -np.inf
    elif table is not None and len(within) * _GATHER > len(table):
        found = (table @ query)[within]
    else:
        found = np.empty(len(within), np.float32)
        for start in range(0, len(within), _BLOCK):
            found[start : start + _BLOCK] = rows.take(within[start : start + _BLOCK]) @ query
    kth = len(found) - k
    positions = np.flatnonzero(found >= float(np.partition(found, kth)[kth]) - slack)
    return positions if within is None else within[positions]


def above(
    table: Rows,
    queries: NDArray[np.float32],
    threshold: float,
    within: NDArray[np.int64],
    slack: float,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Yield, a tile at a time, which query and which position score above *threshold*, and the scores that count.

    *within* are the positions to look at (ascending); scores in float32 are misjudged by at most *slack*.
    """
    for start in range(0, len(within), _TILE):
        some, whole = within[start : start + _TILE], table.table
        if whole is not None and some[-1] - some[0] == len(some) - 1:  # rows that can stay where they are
            rows = whole[some[0] : some[-1] + 1]
        else:
            rows = table.take(some)
        for low in range(0, len(queries), _TILE):
            proposed = np.flatnonzero(queries[low : low + _TILE] @ rows.T > threshold - slack)
            numbers, at = np.divmod(proposed, len(some))
            numbers += low
            values = np.empty(len(at), np.float32)
            for begin in range(0, len(at), _BLOCK):
                part = slice(begin, begin + _BLOCK)
                values[part] = _exact(rows[at[part]], queries[numbers[part]])
            over = values > threshold
            yield numbers[over], some[at[over]], values[over]


def _exact(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    products = np.einsum("ij,ij->i", rows.astype(np.float64), others.astype(np.float64))
    found: NDArray[np.float32] = products.astype(np.float32) + np.float32(0)
    return found


def by_rows(table: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the inner products in float32, each summed on its own: `@` sums as the number of rows suits it."""
    if not len(table) or not hasattr(np, "vecdot"):  # numpy 1 has none
        return np.asarray(np.einsum("ij,j->i", table, query), np.float32)
    return np.asarray(np.vecdot(table, query), np.float32)


def low(values: NDArray[Any], k: int) -> tuple[NDArray[np.int64], int]:
    """Return, ascending, where *values* are no greater than a limit that *k* of them reach or more, and the limit."""
    if len(values) > _LARGE:
        step = len(values) // _LARGE
        sample, rank = values[::step], max(2 * k // step + _SPARE, _LARGE // _LOW)
        if rank < len(sample):
            # What so many of a sample reach, enough of all reach, as a rule.
            limit = int(np.partition(sample, rank)[rank])
            some = np.flatnonzero(values <= limit)
            if len(some) >= k:
                return some, limit
    limit = int(np.partition(values, k - 1)[k - 1])
    return np.flatnonzero(values <= limit), limit


def fewest(values: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Return where the *k* (at least 1) least of *values* are, and all that equal the last of them, ascending."""
    if k >= len(values):
        return np.arange(len(values))
    some, _ = low(values, k)
    few = values[some]
    return np.asarray(some[few <= np.partition(few, k - 1)[k - 1]])


def slack_for(dim: int, scale: float) -> float:
    """Return by how much two float32 scores may be misjudged against each other, *scale* being both lengths.

    An inner product of n terms in float32, summed in any order, is off by at most n * 2**-24 times both
    lengths (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1): once for the k-th score,
    once for its rival. 8 covers the roundings of the score that is returned and of this threshold.
    """
    return scale * (1.01 * dim + 8) * 2.0**-23


def scores(rows: Rows, query: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the scores that count: inner products in float64, summed row by row, rounded to float32."""
    if len(positions) <= _BLOCK:
        return scores_of(rows.take(positions), query)
    found = np.empty(len(positions), np.float32)
    for start in range(0, len(positions), _BLOCK):
        found[start : start + _BLOCK] = scores_of(rows.take(positions[start : start + _BLOCK]), query)
    return found


def scores_of(rows: NDArray[np.float32], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scores that count, of some *rows*."""
    products = np.einsum(
        "ij,j->i", rows.astype(np.float64), query.astype(np.float64)
    )  # @ sums as their number suits it
    return np.asarray(products.astype(np.float32) + np.float32(0))  # -0.0 becomes 0.0
