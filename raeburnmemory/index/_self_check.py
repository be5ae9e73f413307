"""Whether signs find what is to be found, tried on the very data they stand for.

The share of signs in which two vectors differ estimates the angle between them. So the best of the rows that differ
least from a question tell how many signs a row may differ in and be as near as they are: as many as their angle makes,
and some standard deviations more. How many more, a check tells. Where few rows differ in no more, few are looked at.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ._arrays import fewest

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ._rows import Rows

__all__ = ["ENOUGH", "FIRST", "REACHED", "WORTH", "checked", "expected", "lean"]

ENOUGH = 0.993  # 0.99, and what a check of 1,000 neighbours may be wrong by
_QUERIES = 100
_DEPTH = 10
_TIMES = (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32)  # the candidates, until they find enough
_BLOCK = 4096
WORTH = 4  # proposing more than one row in so many does not pay
FIRST = 64  # rows that differ least, of which the best tell what is near
REACHED = 8  # looking at more than one row in so many takes longer than 8 bits of all
_SPARE = 2.0  # standard deviations beyond the furthest of the check
_PAYS = 0.3  # the share of questions that have to reach few rows


def expected(
    query: NDArray[np.float32], centre: NDArray[np.float32], rows: NDArray[np.float32], k: int
) -> tuple[float, float]:
    """Return in how many signs a row as near as the *k*-th best of *rows* differs from *query*, and the deviation.

    Signs are those of what is left of rows, and of the question, without the *centre*.
    """
    best = rows[np.argsort(rows @ query)[-k:]] - centre
    left = lean(query, centre)
    lengths = np.sqrt(np.einsum("ij,ij->i", best, best)) * math.sqrt(float(left @ left))
    cosine = float(((best @ left) / np.maximum(lengths, 1e-30)).min())
    share = math.acos(min(max(cosine, -1.0), 1.0)) / math.pi
    return len(query) * share, math.sqrt(len(query) * share * (1 - share) + 1)


def lean(query: NDArray[np.float32], centre: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return *query* without the direction of *centre*: what it has of that says nothing here, however long it is."""
    common = float(centre @ centre)
    return query - (float(query @ centre) / common) * centre if common > 0 else query


def checked(
    rows: Rows,
    dead: NDArray[np.int64],
    differences: Callable[[NDArray[np.float32]], NDArray[np.integer[Any]]],
    centre: NDArray[np.float32],
    candidates: int,
    step: int,
) -> tuple[float, int, float | None]:
    """Return the share of the nearest that are among the candidates, how many candidates that takes, and the reach.

    That is by how many deviations the nearest differ in more signs than is `expected`; None where too few questions
    gain by knowing it.

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
    furthest, within = [], []
    for query, nearest in zip(queries, _nearest(rows, looked_at, queries, depth), strict=True):
        differ = differences(query)[looked_at]
        counts = step * np.cumsum(np.bincount(differ, minlength=len(query) + 1))
        ranks = counts[differ[nearest]]  # that many candidates would have each of the nearest among them
        found += [max(int(np.count_nonzero(ranks <= level)) - 1, 0) for level in levels]
        total += max(len(nearest) - 1, 0)
        first = rows.take(looked_at[fewest(differ, FIRST)[: 2 * FIRST]])
        usual, deviation = expected(query, centre, first, depth)
        furthest.append((float(differ[nearest].max(initial=0)) - usual) / deviation)
        within.append((usual, deviation, counts))
    for share, level in zip((found / max(total, 1)).tolist(), levels, strict=True):
        if share >= ENOUGH or level == levels[-1]:
            break
    reach = max(furthest, default=0.0) + _SPARE
    few = sum(
        counts[min(int(usual + reach * deviation), len(counts) - 1)] * REACHED <= len(rows)
        for usual, deviation, counts in within
    )
    return share, level, reach if few >= _PAYS * len(queries) else None


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
