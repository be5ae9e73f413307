"""Whether signs find what is to be found, tried on the very data they stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ._rows import Rows

__all__ = ["ENOUGH", "WORTH", "checked"]

ENOUGH = 0.993  # 0.99, and what a check of 1,000 neighbours may be wrong by
_QUERIES = 100
_DEPTH = 10
_TIMES = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # the candidates, until they find enough
_BLOCK = 4096
WORTH = 4  # proposing more than one row in so many does not pay


def checked(
    rows: Rows,
    dead: NDArray[np.int64],
    differences: Callable[[NDArray[np.float32]], NDArray[np.integer[Any]]],
    candidates: int,
    step: int,
) -> tuple[float, int]:
    """Return the share of the nearest that are among the candidates, and how many candidates that takes.

    *differences* tells of every row in how many signs it differs from a query; the *dead* ones (ascending) do not
    count. *candidates* is the least number that is tried. With a *step* above 1 one row in so many stands for all: the
    nearest of these lie further away than those of all, and are harder to tell by signs.

    The nearest of stored rows are looked for, and of places between two of them: a question lies further from what
    answers it than one answer from another, and is harder to tell by signs.
    """
    rng = np.random.default_rng(len(rows))
    looked_at = np.setdiff1d(np.arange(0, len(rows), step), dead, assume_unique=True)
    stored = rows.take(looked_at[np.unique(rng.integers(0, len(looked_at), 2 * _QUERIES))])
    half = min(_QUERIES // 2, len(stored))
    pairs = stored[rng.permutation(len(stored))[:half]] + stored[rng.permutation(len(stored))[:half]]
    queries = np.concatenate([stored[rng.permutation(len(stored))[:half]], pairs])
    queries = queries[np.einsum("ij,ij->i", queries, queries) > 0]
    levels = [int(times * candidates) for times in _TIMES if times == 1 or times * candidates * WORTH <= len(rows)]
    found, total = np.zeros(len(levels)), 0
    depth = _DEPTH + 1  # a stored row finds itself, which is no art
    for query, nearest in zip(queries, _nearest(rows, looked_at, queries, depth), strict=True):
        differ = differences(query)[looked_at]
        # How many differ in no more signs than each of the nearest: that many candidates would have it among them.
        ranks = step * np.cumsum(np.bincount(differ[differ <= differ[nearest].max(initial=0)]))[differ[nearest]]
        found += [max(int(np.count_nonzero(ranks <= level)) - 1, 0) for level in levels]
        total += max(len(nearest) - 1, 0)
    for share, level in zip((found / max(total, 1)).tolist(), levels, strict=True):
        if share >= ENOUGH or level == levels[-1]:
            break
    return share, level


def _nearest(
    rows: Rows, looked_at: NDArray[np.int64], queries: NDArray[np.float32], depth: int
) -> list[NDArray[np.int64]]:
    """Return, for each of *queries*, places in *looked_at* of the *depth* nearest rows, fewer if there are fewer."""
    best, where = np.full((len(queries), depth), -np.inf, np.float32), np.full((len(queries), depth), -1)
    for start in range(0, len(looked_at), _BLOCK):
        products = queries @ rows.take(looked_at[start : start + _BLOCK]).T
        for at in np.flatnonzero((products > best[:, :1]).any(axis=1)):
            better = np.flatnonzero(products[at] > best[at, 0])
            values, places = np.append(best[at], products[at, better]), np.append(where[at], start + better)
            order = np.argsort(values)[-depth:]
            best[at], where[at] = values[order], places[order]
    return [places[places >= 0] for places in where]
