"""Checks that every index passes that claims to be exact.

Each takes a function that opens an empty index for vectors of a given length, and raises AssertionError with
a message where the index breaks the contract. Expected scores are summed exactly, in Python, row by row.
"""

from __future__ import annotations

import math
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DimensionMismatch, InvalidInput, StoreWriteFailed
from ._expect import refused, that

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ..index import VectorIndex

__all__ = ["INDEX_CHECKS", "compare_search", "exact_score", "filled", "unit_rows"]


def unit_rows(count: int, dim: int, seed: int) -> NDArray[np.float32]:
    """Return *count* random rows of length 1."""
    rows: NDArray[np.float64] = np.random.default_rng(seed).standard_normal((count, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


def exact_score(row: NDArray[np.float32], query: NDArray[np.float32]) -> float:
    """Return the inner product, rounded once: float64 holds every product of two float32 numbers exactly."""
    return float(np.float32(math.fsum(a * b for a, b in zip(row.tolist(), query.tolist(), strict=True))))


def expected_hits(
    rows: dict[int, NDArray[np.float32]],
    query: NDArray[np.float32],
    k: int,
    allowed: Iterable[int] | None = None,
) -> tuple[list[int], list[float]]:
    """Return the slots and scores that a search must give."""
    slots = rows.keys() if allowed is None else rows.keys() & set(allowed)
    ranked = sorted((-exact_score(rows[slot], query), slot) for slot in slots)[: max(k, 0)]
    return [slot for _, slot in ranked], [-score for score, _ in ranked]


def compare_search(
    index: VectorIndex,
    rows: dict[int, NDArray[np.float32]],
    query: NDArray[np.float32],
    k: int,
    allowed: NDArray[np.int64] | None = None,
) -> None:
    """Assert that a search over *rows* gives exactly what it must."""
    slots, scores = index.search(query, k, allowed)
    that(slots.dtype == np.int64, f"slots are {slots.dtype}, not int64")
    that(scores.dtype == np.float32, f"scores are {scores.dtype}, not float32")
    wanted, values = expected_hits(rows, query, k, None if allowed is None else allowed.tolist())
    what = f"k={k} of {len(rows)}, allowed {None if allowed is None else len(allowed)}"
    that(slots.tolist() == wanted, f"{what}: slots {slots.tolist()[:20]}, expected {wanted[:20]}")
    that(scores.tolist() == values, f"{what}: scores {scores[:20]}, expected {values[:20]}")


def filled(
    open_index: Callable[[int], VectorIndex], count: int, dim: int, seed: int
) -> tuple[VectorIndex, dict[int, NDArray[np.float32]]]:
    """Return an index with *count* random rows under slots with gaps, and the same rows by slot."""
    rows = unit_rows(count, dim, seed)
    slots = np.arange(count, dtype=np.int64) * 3 + 1
    index = open_index(dim)
    index.add(slots, rows)
    return index, dict(zip(slots.tolist(), rows, strict=True))


def check_index_empty(open_index: Callable[[int], VectorIndex]) -> None:
    """An empty index answers everything with nothing."""
    index = open_index(5)
    query = unit_rows(1, 5, 0)[0]
    that(index.dim == 5, f"dim is {index.dim}, not 5")
    index.remove(np.array([0, 7]))
    index.add(np.empty(0, np.int64), np.empty((0, 5), np.float32))
    that((len(index), index.ntotal) == (0, 0), "an empty index counts vectors")
    compare_search(index, {}, query, 3)
    compare_search(index, {}, query, 3, np.array([0, 1]))


def check_index_search(open_index: Callable[[int], VectorIndex]) -> None:
    """The k nearest come out, best first, for every k, whichever way they were added."""
    index, rows = filled(open_index, 600, 24, 1)
    later = unit_rows(5, 24, 2)
    for at, row in enumerate(later):  # one by one, as memories grow
        slot = 5000 + at * at
        index.add(np.array([slot]), row[np.newaxis])
        rows[slot] = row
    that((len(index), index.ntotal) == (605, 605), f"605 vectors are counted as {len(index)}")
    for query in (*unit_rows(3, 24, 3), later[2]):
        for k in (-1, 0, 1, 10, 604, 605, 10_000):
            compare_search(index, rows, query, k)
    compare_search(index, rows, -3 * later[2], 10)  # longer than 1: an inner product, nothing is refused


def check_index_ties(open_index: Callable[[int], VectorIndex]) -> None:
    """Of equal scores the smaller slots come first, also where the k-th is one of many."""
    dim = 12
    base = unit_rows(4000, dim, 4)
    query = unit_rows(1, dim, 5)[0]
    scores = base @ query
    twin = base[np.argsort(-scores)[5]]  # five rows are nearer
    for first, step in ((0, 1), (3000, 1), (1, 3)):
        mixed = base.copy()
        places = first + step * np.arange(1000)
        better = np.flatnonzero(scores > twin @ query + 1e-6)
        places = places[~np.isin(places, better)]
        mixed[places] = twin
        index = open_index(dim)
        index.add(np.arange(4000), mixed)
        rows = dict(enumerate(mixed))
        for k in (1, 5, 6, 7, 20, 500, len(places) + 4, len(places) + 5, len(places) + 6, 2000):
            compare_search(index, rows, query, k)
        for allowed in (places[::2], np.arange(0, 4000, 2), np.arange(100, 4000)):
            compare_search(index, rows, query, 15, allowed)
    # Equal scores of different rows: the same numbers in another order.
    shuffled = np.array([np.roll(twin, turn) for turn in range(dim)])
    index = open_index(dim)
    index.add(np.arange(dim), shuffled)
    compare_search(index, dict(enumerate(shuffled)), np.full(dim, 0.25, np.float32), 5)


def check_index_near_ties(open_index: Callable[[int], VectorIndex]) -> None:
    """Rows that differ in their last bits are ordered by their true scores."""
    dim = 96
    twin = unit_rows(1, dim, 6).astype(np.float64)
    query = unit_rows(1, dim, 7)[0]
    noise = np.random.default_rng(8).standard_normal((2500, dim))
    for spread in (
        2.0**-24,
        2.0**-22,
        2.0**-20,
    ):  # scores a digit apart, a few digits, clear but for the nearest
        rows = (twin * (1 + spread * noise)).astype(np.float32)
        index = open_index(dim)
        index.add(np.arange(2500), rows)
        for k in (1, 7, 15, 200):
            compare_search(index, dict(enumerate(rows)), query, k)


def check_index_zero_query(open_index: Callable[[int], VectorIndex]) -> None:
    """A query of zeros is equally far from everything, and no zero is negative."""
    index, rows = filled(open_index, 300, 6, 8)
    for zero in (np.zeros(6, np.float32), -np.zeros(6, np.float32)):
        compare_search(index, rows, zero, 4)
        compare_search(index, rows, zero, 4, np.array([5, 7, 10, 13, 16, 19, 22]))
        that(not np.signbit(index.search(zero, 4)[1]).any(), "a score is -0.0")
    index = open_index(2)
    index.add(np.array([3, 4]), np.array([[1, 1e-30], [1, 0]], np.float32))
    slots, scores = index.search(np.array([0, -1e-30], np.float32), 2)
    that(slots.tolist() == [3, 4], "scores that are zero in float32 tie")
    that(not np.signbit(scores).any(), "a score is -0.0")


def check_index_allowed(open_index: Callable[[int], VectorIndex]) -> None:
    """Allowed slots restrict the search before the top k is taken, however many they are."""
    count, dim = 9000, 8
    base = unit_rows(count, dim, 9)
    query = base[17]
    by_slot = {slot: exact_score(row, query) for slot, row in enumerate(base)}
    for removed in (np.empty(0, np.int64), np.arange(0, count, 7)):
        index = open_index(dim)
        index.add(np.arange(count), base)
        index.remove(removed)
        gone = set(removed.tolist())
        for size in (1, 2, 300, 4000, 4200, 6000, 8999):
            allowed = np.sort(np.random.default_rng(size).choice(count, size, replace=False))
            live = sorted((-by_slot[slot], slot) for slot in allowed.tolist() if slot not in gone)
            for k in (1, 12, size):
                slots, scores = index.search(query, k, allowed)
                what = f"k={k}, {size} allowed, {len(gone)} removed"
                that(slots.tolist() == [slot for _, slot in live[:k]], f"{what}: other slots")
                that(scores.tolist() == [-score for score, _ in live[:k]], f"{what}: other scores")
    index, rows = filled(open_index, 50, dim, 10)
    for absent in ([], [-5, -1], [0, 2, 3], [-1, 1, 2, 4, 148, 149, 10**15], list(range(-10, 400))):
        compare_search(index, rows, query, 6, np.array(absent, np.int64))


def check_index_above(open_index: Callable[[int], VectorIndex]) -> None:
    """An index that has `above` gives all pairs above a threshold, by vector and slot, and no other."""
    index, rows = filled(open_index, 300, 12, 25)
    above: Any = getattr(index, "above", None)
    if above is None:
        return
    queries = np.concatenate([unit_rows(20, 12, 26), np.stack([rows[1], -rows[4], 2 * rows[7]])])
    gone = np.array([10, 13, 16, 400])
    index.remove(gone)
    left = {slot: row for slot, row in rows.items() if slot not in gone}
    some, run = np.array([0, 1, 7, 10, 22, 31, 33, 301, 898, 5000]), np.array(sorted(left))[100:200]
    scored = [[(slot, exact_score(row, query)) for slot, row in left.items()] for query in queries]
    boundary = scored[0][17][1]  # a score itself: equal is not above
    for threshold in (-2.0, 0.0, 0.3, boundary, 0.9, 2.0):
        for allowed in (None, some, run, np.empty(0, np.int64)):
            numbers, slots, scores = above(queries, threshold, allowed)
            wanted = [
                (number, slot, score)
                for number, pairs in enumerate(scored)
                for slot, score in pairs
                if score > threshold and (allowed is None or slot in allowed)
            ]
            found = list(zip(numbers.tolist(), slots.tolist(), scores.tolist(), strict=True))
            that(
                found == wanted,
                f"above {threshold}: {len(found)} pairs {found[:3]}, expected {len(wanted)} {wanted[:3]}",
            )
    that([len(part) for part in above(queries[:0], 0.0)] == [0, 0, 0], "no vectors have pairs")
    empty: Any = open_index(12)
    that([len(part) for part in empty.above(queries, -2.0)] == [0, 0, 0], "an empty index has pairs")
    wrong = np.full((2, 12), np.nan, np.float32)
    refused(InvalidInput, lambda: above(wrong, 0.0), "vectors that are not finite")
    refused(InvalidInput, lambda: above(queries[0], 0.0), "one vector instead of rows")
    refused(InvalidInput, lambda: above(queries, 0.0, some[::-1]), "allowed slots that descend")
    refused(DimensionMismatch, lambda: above(queries[:, :5], 0.0), "vectors of another length")


def check_index_remove(open_index: Callable[[int], VectorIndex]) -> None:
    """Removed vectors are gone at once, the others stay, and new ones may follow."""
    index, rows = filled(open_index, 2600, 10, 11)
    query = rows[1]

    def forget(*slots: int) -> None:
        index.remove(np.array(slots))
        for slot in slots:
            rows.pop(slot, None)

    forget(1, 1, 2, -4, 10**12)  # twice, and never there
    forget(1)
    compare_search(index, rows, query, 10)
    forget(*expected_hits(rows, query, 40)[0])
    forget(*range(2000, 5000))
    compare_search(index, rows, query, 10)
    index.remove(np.array([9000]))  # not there yet: the vector that comes next stays
    new = unit_rows(3, 10, 12)
    index.add(np.array([8000, 9000, 9001]), new)
    rows.update(zip((8000, 9000, 9001), new, strict=True))
    forget(8000)
    that(len(index) == index.ntotal == len(rows), f"{len(rows)} vectors are counted as {len(index)}")
    compare_search(index, rows, new[1], 10)
    refused(InvalidInput, lambda: index.add(np.array([8000]), new[:1]), "a slot that was used before")
    forget(*list(rows))
    that(len(index) == 0, f"{len(index)} vectors are left of none")
    compare_search(index, rows, query, 10)
    index.add(np.array([10_000]), new[:1])
    compare_search(index, {10_000: new[0]}, query, 10)


def check_index_refusals(open_index: Callable[[int], VectorIndex]) -> None:
    """What cannot be stored or searched for is refused, and changes nothing."""
    index, rows = filled(open_index, 30, 4, 13)
    good, query = unit_rows(2, 4, 14), unit_rows(1, 4, 15)[0]

    wide = unit_rows(2, 7, 16)
    for what, call in (
        ("rows of 7 numbers", lambda: index.add(np.array([100, 101]), wide)),
        ("a query of 7 numbers", lambda: index.search(wide[0], 3)),
    ):
        message = refused(DimensionMismatch, call, what)
        that("7" in message, f"the message {message!r} does not say 7")
        that("4" in message, f"the message {message!r} does not say 4")
    refused(InvalidInput, lambda: index.search(good, 3), "a table as query")
    refused(InvalidInput, lambda: index.add(np.array([100]), good[0]), "a single row")
    refused(InvalidInput, lambda: index.add(np.array([100]), good), "fewer slots than rows")
    for slots in ([100, 100], [101, 100], [88, 100], [5, 6], [-2, -1]):
        refused(InvalidInput, partial(index.add, np.array(slots), good), f"slots {slots}")
    refused(InvalidInput, lambda: index.add(np.array([100.0, 101.0]), good), "slots that are no integers")
    for bad in (np.nan, np.inf, -np.inf):
        broken = good.copy()
        broken[1, 2] = bad
        refused(InvalidInput, partial(index.add, np.array([100, 101]), broken), f"a row with {bad}")
        refused(InvalidInput, partial(index.search, broken[1], 3), f"a query with {bad}")
    refused(InvalidInput, lambda: index.search(query, 3, np.array([4, 1])), "allowed slots out of order")
    refused(InvalidInput, lambda: index.search(query, 3, np.array([1, 1, 4])), "allowed slots given twice")
    that(len(index) == 30, "a refused call changed the index")
    compare_search(index, rows, query, 30)


def check_index_copies(open_index: Callable[[int], VectorIndex]) -> None:
    """Arrays given and returned belong to the caller."""
    rows, slots = unit_rows(40, 4, 17), np.arange(40)
    kept, query = dict(enumerate(rows.copy())), rows[3].copy()
    index = open_index(4)
    index.add(slots, rows)
    rows[:], slots[:] = 9, 0
    found, scores = index.search(query, 5)
    found[:], scores[:] = -1, -1
    allowed = np.array([2, 3, 5])
    index.search(query, 5, allowed)
    that(allowed.tolist() == [2, 3, 5], "the allowed slots were changed")
    compare_search(index, kept, query, 40)


def check_index_file(open_index: Callable[[int], VectorIndex]) -> None:
    """An index that can be saved comes back as it was, if the stamp fits; otherwise nothing comes back."""
    if not hasattr(open_index(9), "save"):
        return
    open_saved: Callable[[int], Any] = open_index
    stamp: dict[str, object] = {"store": "s", "field": "prompt", "version": 7}
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "grüße.cache"))
        index: Any
        index, rows = filled(open_saved, 700, 9, 18)
        index.remove(np.array([1, 4, 1000]))
        for slot in (1, 4, 1000):
            rows.pop(slot)
        query = unit_rows(1, 9, 19)[0]
        index.save(path, stamp)
        index.save(path, {**stamp, "more": [1, None]})  # replaces what is there
        that([p.name for p in Path(folder).iterdir()] == ["grüße.cache"], "saving left other files behind")
        fresh = open_saved(9)
        found = fresh.load(path, stamp)
        that(found == {**stamp, "more": [1, None]}, f"the stamp came back as {found}")
        that(len(fresh) == len(rows), f"{len(rows)} vectors came back as {len(fresh)}")
        compare_search(fresh, rows, query, 20)
        new = unit_rows(1, 9, 20)
        fresh.add(np.array([99_999]), new)
        fresh.remove(np.array([7]))
        rows[99_999] = new[0]
        rows.pop(7)
        compare_search(fresh, rows, new[0], 20)
        others: list[tuple[str, dict[str, object], int]] = [
            ("an older version", {**stamp, "version": 8}, 9),
            ("another store", {"store": "t"}, 9),
            ("a stamp with more in it", {"unheard": None}, 9),
            ("another dimension", stamp, 8),
        ]
        for what, other, dim in others:
            fresh = open_saved(dim)
            that(fresh.load(path, other) is None, f"{what} was loaded")
            that(len(fresh) == 0, f"{what} left something in the index")
            fresh.add(np.array([0]), unit_rows(1, dim, 21))  # it is a fresh index still
            that(len(fresh) == 1, f"{what} spoilt the index")
        that(open_saved(9).load(path + "x", stamp) is None, "a missing file was loaded")
        that(open_saved(9).load(folder, stamp) is None, "a folder was loaded")
        index = open_saved(9)
        index.save(path, stamp)
        fresh = open_saved(9)
        that(fresh.load(path, stamp) == stamp, "an empty index did not come back")
        that(len(fresh) == 0, "an empty index came back with vectors")
        nowhere = str(Path(folder, "no", "such", "folder"))
        message = refused(StoreWriteFailed, lambda: index.save(nowhere, stamp), "a missing folder")
        that(nowhere in message, f"the message {message!r} does not name {nowhere!r}")


def check_index_damaged_file(open_index: Callable[[int], VectorIndex]) -> None:
    """A damaged file is not loaded, wherever the damage is."""
    if not hasattr(open_index(3), "save"):
        return
    open_saved: Callable[[int], Any] = open_index
    stamp: dict[str, object] = {"store": "s", "version": 7}
    index: Any
    index, rows = filled(open_saved, 20, 3, 22)
    query = unit_rows(1, 3, 23)[0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cache")
        index.save(str(path), stamp)
        whole = path.read_bytes()
        rng = np.random.default_rng(24)
        flips = [
            *range(min(330, len(whole))),
            *range(330, len(whole), 7),
        ]  # all of the header, some of the rest
        damaged = [whole[:at] + bytes([whole[at] ^ (1 << rng.integers(8))]) + whole[at + 1 :] for at in flips]
        damaged += [whole[:end] for end in range(0, len(whole), 17)]
        damaged += [
            whole + b"\0",
            whole + whole,
            b"\n" + whole,
            whole.replace(b"7", b"8", 1),
            b"\0" * len(whole),
        ]
        for content in damaged:
            path.write_bytes(content)
            fresh = open_saved(3)
            if fresh.load(str(path), stamp) is None:
                that(len(fresh) == 0, "a refused file left something in the index")
            else:
                compare_search(fresh, rows, query, 20)
                that(content.startswith(whole), "a damaged file was loaded")  # what follows the end is nobody's
        path.write_bytes(whole)
        that(open_saved(3).load(str(path), stamp) == stamp, "the whole file was not loaded")


INDEX_CHECKS = (
    check_index_empty,
    check_index_search,
    check_index_ties,
    check_index_near_ties,
    check_index_zero_query,
    check_index_allowed,
    check_index_above,
    check_index_remove,
    check_index_refusals,
    check_index_copies,
    check_index_file,
    check_index_damaged_file,
)
"""What every index does that claims to be exact."""
