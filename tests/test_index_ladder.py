"""The search ladder: proven hits are those of a comparison with everything, signs are only used where a check allows it.

The limits are lowered, so that a few thousand rows climb all of it, and the cache file is never read whole.
"""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raeburnmemory.errors import DimensionMismatch, InvalidInput, StoreCorrupt
from raeburnmemory.index import _columns, _ladder, _rows, open_index
from raeburnmemory.index._arrays import fewest, low
from raeburnmemory.index._codes import signs
from raeburnmemory.index._ladder import Ladder
from raeburnmemory.index._signs import Signs
from raeburnmemory.testing import INDEX_CHECKS
from raeburnmemory.testing.index import compare_search, unit_rows

NEVER = 10**9


class Plain(Ladder):
    """The ladder, compared by plain numpy."""

    name = "plain"
    _held = 0

    def _best(self, codes, whole, k, among):
        products = (codes.astype(np.int64) - 128) @ whole.astype(np.int64)
        at = np.arange(len(codes)) if among is None else among
        order = at[np.argsort(-products[at], kind="stable")][:k]
        return products[order].astype(np.float32), order

    def _differences(self, table, query):
        return np.unpackbits(table ^ query, axis=1).sum(axis=1, dtype=np.int64)


def by_faiss(dim, **limits):
    pytest.importorskip("faiss", reason="the faiss index needs faiss-cpu")
    from raeburnmemory.index.faiss import FaissIndex

    class Small(FaissIndex):
        _held = 0

    return Small(dim, **limits)


@pytest.fixture(params=["plain", "faiss"])
def ladder(request):
    return Plain if request.param == "plain" else by_faiss


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustered(rng, n, dim):
    topics = unit(rng.standard_normal((40, dim)))
    return unit(
        topics[rng.choice(40, n, p=rng.dirichlet(np.full(40, 0.5)))] + 0.5 * unit(rng.standard_normal((n, dim)))
    )


def near_duplicates(rng, n, dim):
    return unit(
        unit(rng.standard_normal((n // 100, dim)))[rng.integers(0, n // 100, n)] + rng.standard_normal((n, dim)) / 500
    )


SHAPES = {
    "clustered": clustered,
    "one topic": lambda rng, n, dim: unit(unit(np.ones((1, dim))) + 0.3 * unit(rng.standard_normal((n, dim)))),
    "random": lambda rng, n, dim: unit(rng.standard_normal((n, dim))),
    "near-duplicates": near_duplicates,
    "uneven dimensions": lambda rng, n, dim: unit(clustered(rng, n, dim) / np.arange(1, dim + 1)),
    "strong mean": lambda rng, n, dim: unit(clustered(rng, n, dim) + 0.8 * unit(rng.standard_normal((1, dim)))),
}


def data(shape, n=3000, dim=48, queries=6):
    rows = SHAPES[shape](np.random.default_rng(7), n + queries, dim)
    return rows[:n], rows[n:]


def nearest(rows, query, k, among):
    """Return the k best of *among* (ascending) by float64 scores, ties in their order; and the scores."""
    scores = (rows[among].astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = np.argsort(-scores, kind="stable")[:k]
    return among[order], scores[order]


def saved_and_loaded(index, make, path):
    index.save(str(path), {"s": 1})
    fresh = make()
    assert fresh.load(str(path), {"s": 1}) is not None
    return fresh


# Rows that are left in the file are found to be damaged when they are read: see test_index_cache.
CHECKS = [check for check in INDEX_CHECKS if check.__name__ != "check_index_damaged_file"]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_index_"))
def test_contract(ladder, check):
    check(lambda dim: ladder(dim, few=5, patience=0, bits=NEVER))


@pytest.mark.parametrize("shape", SHAPES)
def test_8_bits_give_the_hits_of_everything_to_the_last_bit(ladder, shape, tmp_path):
    rows, queries = data(shape)
    n = len(rows)
    index, exact = ladder(48, few=50, patience=0, bits=NEVER), open_index("exact", 48)
    for one in (index, exact):
        one.add(np.arange(n), rows)
    assert index.mode == "int8"
    index = saved_and_loaded(index, lambda: ladder(48, few=50, patience=0, bits=NEVER), tmp_path / "cache")
    assert index._unread.has("codes")
    gone = np.array([3, 4, 700, 1500, 2999])
    for one in (index, exact):
        one.remove(gone)
    left = np.setdiff1d(np.arange(n), gone)
    rng = np.random.default_rng(8)
    filters = [left, left[500:2500], left[::2], np.sort(rng.choice(left, 400, replace=False)), left[70:130], left[:3]]
    for query in queries:
        for among in filters:
            for k in (1, 10, 60):
                slots, scores = index.search(query, k, None if among is left else among)
                wanted, values = exact.search(query, k, None if among is left else among)
                assert slots.tolist() == wanted.tolist()
                assert scores.tobytes() == values.tobytes()
                plain, close = nearest(rows, query, k, among)
                assert scores == pytest.approx(close, abs=1e-6)
                assert len(plain) == len(slots)


def test_what_a_proof_compares_is_read_together(ladder, tmp_path, monkeypatch):
    rows, queries = data("clustered", queries=40)
    index = ladder(48, few=50, patience=0, bits=NEVER)
    index.add(np.arange(len(rows)), rows)
    index = saved_and_loaded(index, lambda: ladder(48, few=50, patience=0, bits=NEVER), tmp_path / "cache")
    read, taken = [], _rows.Rows.take
    monkeypatch.setattr(_rows.Rows, "take", lambda rows, at: read.append(len(at)) or taken(rows, at))
    for query in queries:
        index.search(query, 10)
    assert len(read) < 1.5 * len(queries)
    assert sum(read) < 0.1 * len(rows) * len(queries)


@pytest.mark.parametrize("n", [1, 50, 8192, 8193, 20_000, 100_000])
@pytest.mark.parametrize("shape", ["even", "rising", "falling", "same", "hidden"])
def test_the_fewest_are_those_of_a_sort(n, shape):
    values = {
        "even": lambda: np.random.default_rng(n).integers(0, 300, n, np.int32),
        "rising": lambda: np.arange(n, dtype=np.int32),
        "falling": lambda: np.arange(n, dtype=np.int32)[::-1],
        "same": lambda: np.full(n, 7, np.int32),
        # All that a sample sees are low, the others high.
        "hidden": lambda: np.where(np.arange(n) % max(n // 8192, 1), 200, np.arange(n) % 100).astype(np.int32),
    }[shape]()
    for k in (1, 64, 1000, n // 2, n):
        if 1 <= k <= n:
            wanted = np.flatnonzero(values <= np.sort(values)[k - 1])
            assert np.array_equal(fewest(values, k), wanted if k < n else np.arange(n))
            some, limit = low(values, k)
            assert np.array_equal(some, np.flatnonzero(values <= limit))
            assert len(some) >= k


@pytest.mark.parametrize("shape", SHAPES)
def test_signs_are_used_where_they_find_what_is_to_be_found(ladder, shape):
    rows, queries = data(shape, 6000, 64, 60)
    index = ladder(64, few=50, patience=0, bits=3000, candidates=300)
    index.add(np.arange(6000), rows)
    found = [
        np.isin(nearest(rows, q, 10, np.arange(6000))[0], index.search(q, 10)[0]).mean()
        for q in (*queries, *rows[::300])
    ]
    share = float(np.mean(found))
    assert share >= 0.99
    assert index.mode == ("bits" if index._checked[1] >= 0.993 else "int8")
    if index.mode == "int8":
        assert share == 1.0
    late = np.arange(2000, 5900)
    found = [np.isin(nearest(rows, q, 10, late)[0], index.search(q, 10, late)[0]).mean() for q in queries]
    assert np.mean(found) >= 0.99


@pytest.mark.parametrize("shape", SHAPES)
def test_a_rough_search_finds_most_of_the_nearest(ladder, shape, tmp_path):
    rows, queries = data(shape, 4000, 64, 30)

    def make():
        return ladder(64, few=50, patience=0, bits=NEVER, candidates=300)

    index = make()
    index.add(np.arange(4000), rows)
    gone = np.arange(7, 4000, 80)
    index.remove(gone)
    left = np.setdiff1d(np.arange(4000), gone)
    for again in (False, True):
        for among in (left, left[1000:3000], left[::3], left[:900][::2], left[:40]):
            found, first = [], []
            for query in queries:
                slots, values = index.rough(query, 30, None if among is left else among)
                _, close = nearest(rows, query, 30, among)
                reached = rows[slots] @ query + 0.01  # of near-copies, any
                found.append((reached >= close[-1]).mean())
                first.append(reached.max() >= close[0])
                assert len(slots) == len(set(slots.tolist())) == 30
                assert np.isin(slots, among).all()
                assert np.all(np.diff(values) <= 0)
                assert np.abs(values - rows[slots] @ query).max() < 0.02
            assert np.mean(found) >= 0.9
            assert np.mean(first) >= 0.99
        if not again:
            index = saved_and_loaded(index, make, tmp_path / "cache")
    assert index.mode == "int8"
    assert (index._signs is not None) == (index._checked[1] >= 0.993)


def test_a_rough_search_of_few_is_a_search(ladder):
    rows = unit_rows(300, 16, 1)
    index = ladder(16, few=200, patience=0)
    for count, k in ((100, 5), (300, 60)):  # few rows; and many for as many hits
        index.add(np.arange(len(index), count), rows[len(index) : count])
        for one, other in zip(index.rough(rows[3], k), index.search(rows[3], k), strict=True):
            assert one.tobytes() == other.tobytes()
    for one, other in zip(index.rough(np.zeros(16), 5), index.search(np.zeros(16), 5), strict=True):
        assert one.tobytes() == other.tobytes()
    with pytest.raises(DimensionMismatch, match="8 numbers"):
        index.rough(np.ones(8, np.float32), 5)
    with pytest.raises(InvalidInput, match="ascend"):
        index.rough(rows[0], 5, np.array([5, 3]))


def test_the_check_tells_data_that_signs_suit_from_data_that_they_do_not(ladder):
    modes = {}
    for shape in ("clustered", "random", "one topic"):
        rows, _ = data(shape, 4000, 256)
        index = ladder(256, few=50, patience=0, bits=3000, candidates=200)
        index.add(np.arange(4000), rows)
        modes[shape] = index.mode
    assert modes == {"clustered": "bits", "random": "int8", "one topic": "int8"}


@pytest.mark.parametrize("shape", ["clustered", "near-duplicates", "strong mean"])
def test_signs_tell_what_is_too_far(ladder, shape, tmp_path):
    """Whatever is asked for, of all or of some, with the codes in the file or read: nothing near is missing."""
    rows, queries = data(shape, 4000, 256, 30)

    def make():
        return ladder(256, few=50, patience=0, told=1000, bits=NEVER, candidates=200)

    index = make()
    index.add(np.arange(4000), rows)
    assert index.mode == "bits"
    reach = index._checked[3]
    index = saved_and_loaded(index, make, tmp_path / "cache")
    assert (index._checked[3], index._unread is not None) == (reach, True)
    gone = np.arange(7, 4000, 80)
    index.remove(gone)
    left = np.setdiff1d(np.arange(4000), gone)
    looked_at = []
    reached = index._reached
    index._reached = lambda *given: looked_at.append(reached(*given)) or looked_at[-1]
    for among in (left, left[500:3000], left[::2], left[:900]):
        for query in (*queries, *rows[::500]):
            for k in (1, 10, 40):
                slots, scores = index.search(query, k, None if among is left else among)
                _, values = nearest(rows, query, k, among)
                assert scores == pytest.approx(values, abs=1e-6)
                assert len(slots) == len(set(slots.tolist())) == k
    few = [found for found in looked_at if found is not None and len(found) <= len(rows) // 8]
    assert len(few) > len(looked_at) // 3
    assert index._unread is None


def test_a_question_with_too_many_rows_near_is_answered_by_8_bits(ladder):
    rows, _ = data("clustered", 4000, 256)
    index = ladder(256, few=50, patience=0, told=1000, bits=NEVER, candidates=200)
    index.add(np.arange(4000), rows)
    assert index.mode == "bits"
    looked_at, compared = [], []
    reached, differing = index._reached, index._differing
    index._reached = lambda *given: looked_at.append(reached(*given)) or looked_at[-1]
    index._differing = lambda *given: compared.append(given) or differing(*given)
    for query in unit_rows(40, 256, 3):
        slots, _ = index.search(query, 10)
        assert slots.tolist() == nearest(rows, query, 10, np.arange(4000))[0].tolist()
    assert looked_at == [None] * 40
    assert len(compared) == 9  # eight, and one after sixteen that did without
    for _ in range(17):
        index.search(rows[7], 10)
    assert len(looked_at[-1]) < 500
    assert index._in_vain == 0
    rows = np.repeat(rows[:1], 4000, axis=0)
    index = ladder(256, few=50, patience=0, told=1000, bits=NEVER, candidates=200)
    index._checked = 4000, 1.0, 200, 3.0
    index.add(np.arange(4000), rows)
    assert index.search(rows[0], 10)[0].tolist() == list(range(10))  # all of them are the nearest


def test_the_outcome_of_the_check_is_kept_until_the_index_has_grown(ladder, tmp_path, monkeypatch):
    checks = []
    monkeypatch.setattr(Ladder, "_check", lambda self: checks.append(len(self)) or (1.0, 100, None))

    def make():
        return ladder(16, few=50, patience=0, bits=200, candidates=100)

    rows = unit_rows(1000, 16, 1)
    index = make()
    index.add(np.arange(100), rows[:100])
    assert (index.mode, checks) == ("int8", [])
    index.add(np.arange(100, 250), rows[100:250])
    assert (index.mode, checks) == ("bits", [250])
    index.search(rows[0], 5)
    index = saved_and_loaded(index, make, tmp_path / "cache")
    assert (index.mode, checks) == ("bits", [250])
    assert len(index._signs) == 250
    index.add(np.arange(250, 370), rows[250:370])
    index.search(rows[0], 5)
    assert checks == [250]
    index.add(np.arange(370, 380), rows[370:380])
    assert index.search(rows[379], 1)[0].tolist() == [379]
    assert checks == [250, 380]


@pytest.mark.parametrize("shape", ["clustered", "random"])
def test_what_nobody_searched_is_checked_when_it_is_saved_and_not_again(ladder, shape, tmp_path, monkeypatch):
    rows, _ = data(shape, 4000, 256)

    def make():
        return ladder(256, few=50, patience=0, bits=3000, candidates=200)

    index = make()
    index.add(np.arange(4000), rows)
    index = saved_and_loaded(index, make, tmp_path / "cache")
    monkeypatch.setattr(Ladder, "_check", lambda self: pytest.fail("checked again"))
    assert index.search(rows[5], 1)[0].tolist() == [5]
    assert index.mode == {"clustered": "bits", "random": "int8"}[shape]


def waiting(ladder, path):
    """Return 4,000 rows, and an index of them whose codes are in its file still."""
    rows, _ = data("clustered", 4000, 256)

    def make():
        return ladder(256, few=50, patience=0, bits=3000, candidates=200)

    index = make()
    index.add(np.arange(4000), rows)
    return rows, saved_and_loaded(index, make, path)


@pytest.mark.parametrize("search", ["search", "rough"])
def test_the_first_searches_leave_the_codes_in_the_file(ladder, search, tmp_path, monkeypatch):
    monkeypatch.setattr(_ladder, "EARLY", 6)
    rows, index = waiting(ladder, tmp_path / "cache")
    for number in range(10):
        assert (index._codes is None) == (number <= 6)
        slots, values = getattr(index, search)(rows[number], 5)
        assert slots[0] == number
        order = np.argsort(-(rows @ rows[number]), kind="stable")[:20]
        assert set(slots.tolist()) <= set(order.tolist())
        np.testing.assert_allclose(values, rows[slots] @ rows[number], atol=0.05)


@pytest.mark.parametrize("change", ["add", "remove", "save"])
def test_changes_take_the_codes_out_of_the_file(ladder, change, tmp_path, monkeypatch):
    monkeypatch.setattr(_ladder, "EARLY", 0)
    rows, index = waiting(ladder, tmp_path / "cache")
    kept = np.arange(4000)
    if change == "add":
        more = data("clustered", 4500, 256)[0][4000:]
        index.add(np.arange(4000, 4500), more)
        rows, kept = np.concatenate([rows, more]), np.arange(4500)
    elif change == "remove":
        index.remove(np.arange(0, 4000, 3))
        kept = np.setdiff1d(kept, np.arange(0, 4000, 3))
    else:
        index.save(str(tmp_path / "other"), {"s": 2})
        index = ladder(256, few=50, patience=0, bits=NEVER, candidates=200)
        assert index.load(str(tmp_path / "other"), {"s": 2}) is not None
    for number in (1, 500, 3998):
        slots, values = index.search(rows[number], 10)
        wanted, scores = nearest(rows, rows[number], 10, kept)
        assert len(np.intersect1d(slots, wanted)) >= 9
        np.testing.assert_allclose(values[0], scores[0], atol=1e-6)


def test_codes_that_were_damaged_since_are_made_anew(ladder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(_ladder, "EARLY", 0)
    rows, index = waiting(ladder, tmp_path / "cache")
    at, _ = index._table.base.segments[0].columns["codes"]
    with (tmp_path / "cache").open("r+b") as file:
        file.seek(at + 256 * 2000)
        file.write(bytes(256 * 100))
    for number in range(2000, 2100):
        assert index.search(rows[number], 1)[0].tolist() == [number]
    assert "its codes do not match their checksum" in caplog.text
    assert index.mended


@pytest.mark.parametrize("search", ["search", "rough"])
def test_short_forms_are_made_for_those_who_ask_more_than_a_few_times(ladder, search, tmp_path):
    rows, queries = data("clustered", 2000, 32, 8)

    def make():
        return ladder(32, few=50, bits=NEVER, patience=5)

    index, exact = make(), open_index("exact", 32)
    for one in (index, exact):
        one.add(np.arange(2000), rows)
    for number, query in enumerate(queries):
        slots, scores = getattr(index, search)(query, 10)
        if number < 5 or search == "search":
            wanted, values = exact.search(query, 10)
            assert slots.tolist() == wanted.tolist()
            assert scores.tobytes() == values.tobytes()
        assert (index._codes is not None) == (number >= 5)
    saved = saved_and_loaded(index, make, tmp_path / "cache")
    assert saved._unread.has("codes")


def test_which_step_is_taken(ladder):
    rows = unit_rows(400, 8, 2)
    index = ladder(8, few=100, patience=0, bits=300, candidates=50)
    seen = []
    for slot in range(400):
        index.add(np.array([slot]), rows[slot : slot + 1])
        seen.append(index.mode)
    assert seen[:100] == ["float32"] * 100
    assert seen[100:299] == ["int8"] * 199
    assert open_index("exact", 8).mode == "float32"


def test_rows_that_stand_out_are_not_lost(ladder):
    """The scale is chosen before they come; their numbers are cut off, and they are compared all the same."""
    rng = np.random.default_rng(3)
    rows = unit(rng.standard_normal((2000, 32)) + 1)
    index = ladder(32, few=50, patience=0, bits=NEVER)
    index.add(np.arange(2000), rows)
    index.search(rows[0], 3)
    fitted = index._scale
    spikes = np.eye(32, dtype=np.float32)[rng.permutation(32)[:20]] * np.float32(0.999)
    index.add(np.arange(2000, 2020), spikes)
    all_rows = np.concatenate([rows, spikes])
    for query in (*spikes[:4], *-spikes[:2], rows[5], *unit_rows(3, 32, 4)):
        compare_search(index, dict(enumerate(all_rows)), query, 15)
    assert index._scale is fitted
    assert len(index._odd) >= 20
    more = np.tile(spikes, (60, 1))
    index.add(np.arange(2020, 3220), more)
    all_rows = np.concatenate([all_rows, more])
    compare_search(index, dict(enumerate(all_rows)), spikes[0] * np.float32(0.5) + rows[1], 70)
    assert index._scale is not fitted  # too many stood out: a new scale
    assert len(index._odd) < 100


def test_sums_that_float32_does_not_hold(ladder):
    """4,096 numbers, all of nearly one size: products of whole numbers beyond 2 ** 24."""
    rng = np.random.default_rng(9)
    base = np.sign(rng.standard_normal(4096))
    flips = np.where(rng.random((300, 4096)) < np.linspace(0, 0.02, 300)[:, np.newaxis], -1, 1)
    rows = unit(base * flips * (1 + rng.standard_normal((300, 4096)) / 200))
    index = ladder(4096, few=20, patience=0, bits=NEVER)
    index.add(np.arange(300), rows)
    for query in (rows[0], rows[150], unit(base[np.newaxis])[0]):
        compare_search(index, dict(enumerate(rows)), query, 12)


@settings(max_examples=60, deadline=None)
@given(history=st.data())
def test_any_history(history, tmp_path_factory):
    """Whole numbers tie all the time; rows are removed, saved, added to the file, loaded."""
    dim = history.draw(st.integers(1, 3), label="dim")

    def make():
        return Plain(dim, few=2, patience=0, bits=NEVER)

    path = str(tmp_path_factory.getbasetemp() / "history")
    number = st.integers(-2, 2)
    index, rows, last = make(), {}, -1
    for step in history.draw(st.lists(st.sampled_from("aaarsw"), max_size=12), label="steps"):
        if step == "a":
            some = history.draw(st.lists(st.lists(number, min_size=dim, max_size=dim), max_size=30), label="rows")
            slots = last + 1 + np.arange(len(some)) * history.draw(st.integers(1, 2), label="gap")
            index.add(slots, np.array(some, np.float32).reshape(-1, dim))
            rows.update(zip(slots.tolist(), np.array(some, np.float32).reshape(-1, dim), strict=True))
            last = max([last, *slots.tolist()])
        elif step == "r":
            gone = history.draw(st.lists(st.integers(0, last + 1), max_size=6), label="removed")
            index.remove(np.array(gone, np.int64))
            for slot in gone:
                rows.pop(slot, None)
        elif step == "w":
            index.save(path, {"s": 1})
            index = make()
            assert index.load(path, {"s": 1}) == {"s": 1}
            last = max(rows, default=-1)
        else:
            query = np.array(history.draw(st.lists(number, min_size=dim, max_size=dim), label="query"), np.float32)
            allowed = history.draw(st.none() | st.sets(st.integers(-1, last + 2)), label="allowed")
            allowed = None if allowed is None else np.array(sorted(allowed), np.int64)
            compare_search(index, rows, query, history.draw(st.integers(0, 5), label="k"), allowed)
    assert len(index) == len(rows)
    compare_search(index, rows, np.ones(dim, np.float32), 4)
    assert [row.tolist() for row in index.get(np.array(sorted(rows), np.int64))] == [
        rows[s].tolist() for s in sorted(rows)
    ]


def test_a_faiss_that_cannot_look_at_our_codes_copies_them(monkeypatch):
    pytest.importorskip("faiss", reason="the faiss index needs faiss-cpu")
    from raeburnmemory.index import faiss as module

    monkeypatch.setattr(module, "_can_look", False)
    monkeypatch.setattr(module, "_BLOCK", 70)
    rows, queries = data("clustered", 1000, 24)
    index = by_faiss(24, few=20, patience=0, bits=NEVER)
    index.add(np.arange(1000), rows)
    for query in queries:
        compare_search(index, dict(enumerate(rows)), query, 10)
        compare_search(index, dict(enumerate(rows)), query, 3, np.arange(100, 900, 2))


def test_one_query_wakes_no_threads():
    faiss = pytest.importorskip("faiss", reason="the faiss index needs faiss-cpu")
    index = by_faiss(8, few=5, patience=0, bits=NEVER)
    index.add(np.arange(200), unit_rows(200, 8, 5))
    before = faiss.omp_get_max_threads()
    index.search(unit_rows(1, 8, 6)[0], 3)
    assert faiss.omp_get_max_threads() == before


@pytest.mark.skipif(os.name != "posix", reason="there, files are read whole")
def test_rows_that_are_read_often_are_copied_to_where_they_can_be_looked_at(tmp_path, monkeypatch):
    """Then the file is not read any more; hits, and what changes afterwards, are the same."""
    monkeypatch.setattr(_columns, "_LARGE", 1 << 12)
    monkeypatch.setattr(_rows, "_COPIED", (1 << 12, 1 << 20))
    rows, path = clustered(np.random.default_rng(3), 3000, 16), str(tmp_path / "rows.index")
    first = Plain(16)
    first.scratch = str(tmp_path)
    first.add(np.arange(3000), rows)
    first.save(path, {})
    index, other = Plain(16), Plain(16)
    index.scratch = str(tmp_path)  # the other has no place for a copy
    for one in (index, other):
        assert one.load(path, {}) is not None
    rng = np.random.default_rng(4)
    picked = [np.sort(rng.choice(3000, 400, replace=False)) for _ in range(9)]
    for some in picked:
        for one in (index, other):
            assert np.array_equal(one.get(some), rows[some])
    with open(path, "r+b") as file:  # all of it but the header
        file.seek(1 << 12)
        file.write(bytes(os.path.getsize(path) - (1 << 12)))
    assert np.array_equal(index.get(picked[0]), rows[picked[0]])
    with pytest.raises(StoreCorrupt):
        other.get(picked[0])
    fresh = clustered(rng, 50, 16)
    index.add(np.arange(3000, 3050), fresh)
    index.remove(np.arange(0, 3000, 5))
    left = np.array([slot for slot in range(3050) if slot % 5 or slot >= 3000])
    everything = np.concatenate([rows, fresh])
    assert np.array_equal(index.get(left), everything[left])
    for question in everything[::500]:
        slots, scores = index.search(question, 7)
        cosines = everything[left].astype(np.float64) @ question.astype(np.float64)
        assert scores == pytest.approx(np.sort(cosines)[::-1][:7], abs=1e-6)
        assert scores == pytest.approx(everything[slots] @ question, abs=1e-6)


@pytest.mark.skipif(os.name != "posix", reason="there, files are read whole")
def test_rows_are_not_copied_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(_rows, "_COPIED", (1 << 12, 1 << 20))  # but a column of that size stays in memory
    rows, path = clustered(np.random.default_rng(3), 1000, 16), str(tmp_path / "rows.index")
    first = Plain(16)
    first.add(np.arange(1000), rows)
    first.save(path, {})
    index = Plain(16)
    index.scratch = str(tmp_path)
    assert index.load(path, {}) is not None
    some = np.arange(0, 1000, 3)
    for _ in range(9):
        assert np.array_equal(index.get(some), rows[some])
    assert index._table.anonymous == 0
    os.truncate(path, 1 << 10)
    with pytest.raises(StoreCorrupt):
        index.get(some)


def test_the_limits_are_in_order():
    assert 0 < _ladder.FEW < _ladder.TOLD < _ladder.BITS
    assert os.name != "posix" or Ladder._held > 0


@pytest.mark.parametrize("dim", [1, 64, 100, 256, 384, 768, 1536])
@pytest.mark.parametrize("large", [150, 10**6], ids=["files", "memory"])
def test_signs_in_several_tables_differ_as_one(ladder, dim, large, tmp_path, monkeypatch):
    monkeypatch.setattr(_columns, "_LARGE", large)
    rng = np.random.default_rng(dim)
    rows = rng.standard_normal((300, dim)).astype(np.float32)
    packed, count = signs(rows), ladder(dim)._differences
    held = Signs(dim, str(tmp_path))
    held.append(packed[:200])
    held.append(packed[200:])
    bits = rows > 0
    for within, numbers in (
        (slice(0, 300), np.arange(300)),
        (slice(7, 90), np.arange(7, 90)),
        (np.array([3, 9, 299]), np.array([3, 9, 299])),
    ):
        wanted = (bits[numbers] != bits[5]).sum(axis=1)
        assert held.differences(packed[5:6], within, count).tolist() == wanted.tolist()
    held.drop(np.array([0, 8, 250]))
    left = np.delete(packed, [0, 8, 250], axis=0)
    assert len(held) == 297
    assert (held.anonymous == 0) == (large == 150)  # all of them or none
    assert np.array_equal(np.concatenate(list(held.blocks(0))), left)
    assert np.array_equal(np.concatenate(list(held.blocks(290))), left[290:])
    assert sum(table.rows.shape[1] for table in held._tables) == packed.shape[1]
    assert {table.rows.shape[1] for table in held._tables} <= {8, 16, 32, 64}
