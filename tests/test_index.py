"""The exact indexes, besides their contract: the same hits to the last bit, one file for both."""

import errno
import hashlib
import json
import logging
import os
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raeburnmemory import errors
from raeburnmemory.index import VectorIndex, open_index
from raeburnmemory.testing.index import compare_search, exact_score, filled, unit_rows

BACKENDS = ["exact", "faiss"]
STAMP = {"store": "s", "version": 3}


def need(backend):
    if backend == "faiss":
        pytest.importorskip("faiss", reason="the faiss index needs faiss-cpu")


@pytest.fixture(params=BACKENDS)
def backend(request):
    need(request.param)
    return request.param


def opener(backend):
    return lambda dim: open_index(backend, dim)


def test_name_and_protocol(backend):
    index = open_index(backend, 3)
    assert index.name == backend
    assert isinstance(index, VectorIndex)
    with pytest.raises(errors.InvalidInput, match="0"):
        open_index(backend, 0)


@pytest.mark.parametrize(("count", "dim"), [(1, 1), (7, 3), (3000, 384)])
def test_a_scan_compares_everything_and_equal_rows_equally(backend, count, dim):
    index = open_index(backend, dim)
    query = unit_rows(1, dim, 7)[0]
    assert [len(part) for part in index.scan(query)] == [0, 0]
    rows = unit_rows(count, dim, 6)
    rows[count // 2 :: 5] = rows[0]
    slots = np.arange(count) * 3 + 1
    index.add(slots, rows)
    gone = slots[1 : count // 2 : 2]
    index.remove(gone)
    left = np.isin(slots, gone, invert=True)
    found, scores = index.scan(query)
    assert found.tolist() == slots[left].tolist()
    assert scores.dtype == np.float32
    assert scores == pytest.approx(rows[left].astype(np.float64) @ query.astype(np.float64), abs=1e-6)
    assert len(set(scores[(rows[left] == rows[0]).all(axis=1)].tolist())) == 1


def test_both_give_the_same_hits_bit_for_bit():
    need("faiss")
    rows = unit_rows(20_000, 384, 31)
    rows[5000:5040] = rows[7]
    rows[9000:9100] = rows[8]
    # Other lengths, so that the sums round elsewhere.
    queries = [
        rows[7],
        rows[8],
        *unit_rows(4, 384, 32),
        np.float32(0.3) * rows[11],
        np.float32(1e-6) * rows[12],
    ]
    indexes = [open_index(name, 384) for name in BACKENDS]
    for index in indexes:
        index.add(np.arange(20_000), rows)
        index.remove(np.array([7, 5001, 19_999]))
    chosen = [None, *(np.arange(0, 20_000, step) for step in (1, 3, 4, 50))]
    for query in queries:
        for allowed in chosen:
            for k in (1, 10, 41, 150):
                (one, one_scores), (two, two_scores) = (index.search(query, k, allowed) for index in indexes)
                assert one.tolist() == two.tolist()
                assert one_scores.tobytes() == two_scores.tobytes()
    found = indexes[0].search(rows[7], 40)[0].tolist()
    assert found[:39] == [5000, *range(5002, 5040)]
    assert one_scores[0] == exact_score(rows[one[0]], queries[-1])


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_history(backend, data):
    """Rows of small whole numbers tie all the time, exactly and by their sums."""
    need(backend)
    dim = data.draw(st.integers(1, 4), label="dim")
    number = st.integers(-2, 2)
    index, rows, last = open_index(backend, dim), {}, -1
    for step in data.draw(st.lists(st.sampled_from("aaars"), max_size=12), label="steps"):
        if step == "a":
            some = data.draw(st.lists(st.lists(number, min_size=dim, max_size=dim), max_size=8), label="rows")
            gaps = data.draw(st.lists(st.integers(1, 3), min_size=len(some), max_size=len(some)), label="gaps")
            slots = last + np.cumsum(np.array(gaps, np.int64))
            values = np.array(some, np.float32).reshape(-1, dim)
            index.add(slots, values)
            rows.update(zip(slots.tolist(), values, strict=True))
            last = max([last, *slots.tolist()])
        elif step == "r":
            gone = data.draw(st.lists(st.integers(-1, last + 2), max_size=6), label="removed")
            index.remove(np.array(gone, np.int64))
            for slot in gone:
                rows.pop(slot, None)
        else:
            query = np.array(data.draw(st.lists(number, min_size=dim, max_size=dim), label="query"), np.float32)
            allowed = data.draw(st.none() | st.sets(st.integers(-2, last + 2)), label="allowed")
            allowed = None if allowed is None else np.array(sorted(allowed), np.int64)
            compare_search(index, rows, query, data.draw(st.integers(-1, 12), label="k"), allowed)
    assert len(index) == index.ntotal == len(rows)
    compare_search(index, rows, np.ones(dim, np.float32), 1000)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), dim=st.sampled_from([2, 5, 33, 130]), copies=st.integers(0, 60))
def test_ties_at_the_boundary_of_a_real_scan(backend, seed, dim, copies):
    """Enough rows for faiss to scan by itself, with copies of the k-th row all over."""
    need(backend)
    rng = np.random.default_rng(seed)
    rows = unit_rows(2600, dim, seed)
    query = unit_rows(1, dim, seed + 1)[0]
    k = int(rng.integers(1, 16))
    rows[rng.integers(0, 2600, copies)] = rows[np.argsort(-(rows @ query))[k - 1]]
    index = open_index(backend, dim)
    index.add(np.arange(2600), rows)
    compare_search(index, dict(enumerate(rows)), query, k)


def test_adding_one_by_one_moves_rows_rarely():
    index = open_index("exact", 4)
    rows, moves, address = unit_rows(3000, 4, 33), 0, None
    for slot in range(3000):
        index.add(np.array([slot]), rows[slot : slot + 1])
        here = index._table.table.ctypes.data
        moves, address = moves + (here != address), here
    assert moves <= 14  # 2 ** 12 > 3000
    compare_search(index, dict(enumerate(rows)), rows[5], 10)


def test_few_removed_rows_are_passed_over_and_many_taken_out_at_once(backend, monkeypatch):
    index, rows = filled(opener(backend), 500, 4, 35)
    drops, drop = [], index._drop
    monkeypatch.setattr(index, "_drop", lambda positions: (drops.append(positions.tolist()), drop(positions)))
    for slot in (10, 4, 1000, 10):
        index.remove(np.array([slot]))
        rows.pop(slot, None)
    compare_search(index, rows, rows[1], 10)
    assert len(index) == 497
    assert index.slots.tolist() == sorted(rows)
    assert drops == []
    for slot in range(1, 900, 3):
        index.remove(np.array([slot]))
        rows.pop(slot, None)
    compare_search(index, rows, np.ones(4, np.float32), 10)
    assert len(index) == len(rows) == 199
    assert drops == [sorted({1, 3, 333, *range(300)})]


# --- the cache file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", BACKENDS)
@pytest.mark.parametrize("writer", BACKENDS)
def test_either_reads_what_the_other_wrote(writer, reader, tmp_path):
    need("faiss")
    path = str(tmp_path / "cache")
    index, rows = filled(opener(writer), 300, 11, 36)
    index.save(path, STAMP)
    fresh = open_index(reader, 11)
    assert fresh.load(path, {"version": 3}) == STAMP
    compare_search(fresh, rows, rows[1], 300)
    fresh.save(str(tmp_path / "again"), STAMP)
    one, two = (taken_apart(tmp_path / name) for name in ("cache", "again"))
    assert one[1:] == two[1:]
    assert one[0]["backend"] == writer
    assert one[0] | {"backend": reader} == two[0]


def taken_apart(path):
    """Return the description of a cache and the bytes of its columns, read without any of our code."""
    raw = path.read_bytes()
    words = raw[:128].split()
    assert words[:2] == [b"RaeburnMemory", b"index"]
    at, length = int(words[3]), int(words[4])
    assert raw[:128] == b" ".join(words).ljust(127) + b"\n"
    assert words[2] == hashlib.sha256(raw[at : at + length]).hexdigest().encode()
    return json.loads(raw[at : at + length]), raw[128:at]


def checksum(words, number):
    """What the format says, in whole numbers of any size."""
    factors = [(at * 0x9E3779B97F4A7C15 % 2**64) | 1 for at in range(1, len(words) + 2)]
    return sum(a * b for a, b in zip([*words, number + 1], factors, strict=True)) % 2**64


def test_layout(backend, tmp_path):
    """The bytes as they are described, read without any of our code."""
    path = tmp_path / "cache"
    index, rows = filled(opener(backend), 12, 5, 37)
    index.labels = np.arange(100, 112)
    index.save(str(path), STAMP)
    description, columns = taken_apart(path)
    assert description == {
        "format": 2,
        "backend": backend,
        "dim": 5,
        "count": 12,
        "stamp": STAMP,
        "found": {"longest": pytest.approx(1, abs=1e-6)},
        "segments": [
            {
                "count": 12,
                "columns": {
                    "slots": [128, zlib.crc32(columns[:96])],
                    "labels": [224, zlib.crc32(columns[96:192])],
                    "rows": [320, None],
                },
            }
        ],
    }
    assert np.frombuffer(columns[:96], "<i8").tolist() == sorted(rows)
    assert np.frombuffer(columns[96:192], "<i8").tolist() == list(range(100, 112))
    records = np.frombuffer(columns[192:], "<u8").reshape(12, 4)
    assert np.array_equal(records.view("<f4")[:, :6], [[*row, 0] for row in rows.values()])
    assert records[:, 3].tolist() == [checksum(record[:3].tolist(), at) for at, record in enumerate(records)]
    assert path.stat().st_mode & 0o777 == 0o600


def forge(path, slots, rows, header=None, **changes):
    """Write a cache whose checksums are right, whatever it says."""
    columns = np.asarray(slots, "<i8").tobytes()
    rows_at = 128 + len(columns)
    for number, row in enumerate(np.asarray(rows, "<f4")):
        words = row.view("<u8").tolist()
        columns += np.array([*words, checksum(words, number)], "<u8").tobytes()
    part = {
        "count": len(slots),
        "columns": {"slots": [128, zlib.crc32(columns[: rows_at - 128])], "rows": [rows_at, None]},
    }
    fields = {
        "format": 2,
        "backend": "exact",
        "dim": 2,
        "count": len(slots),
        "stamp": STAMP,
        "found": {"longest": 1.0},
        "segments": [part],
    }
    fields = {key: value for key, value in (fields | changes).items() if value is not ...}
    for key in set(fields) & {"crc", "at", "size", "columns"}:
        value = fields.pop(key)
        if key == "crc":
            part["columns"]["slots"][1] = value
        elif key == "at":
            part["columns"]["rows"][0] = value
        elif key == "size":
            part["count"] = fields["count"] = value
        else:
            part["columns"] = value
    header = (json.dumps(fields).encode() if header is None else header) + b"\n"
    where = 128 + len(columns)
    first = b"RaeburnMemory index %s %d %d" % (hashlib.sha256(header).hexdigest().encode(), where, len(header))
    path.write_bytes(first.ljust(127) + b"\n" + columns + header)


ROWS = [[1, 0], [0, 1], [0.6, 0.8]]


@pytest.mark.parametrize(
    ("reason", "slots", "rows", "changes"),
    [
        ("format is 3", [1, 2, 3], ROWS, {"format": 3}),
        ("header", [1, 2, 3], ROWS, {"format": True}),
        ("header", [1, 2, 3], ROWS, {"count": 3.0}),
        ("header", [1, 2, 3], ROWS, {"stamp": ...}),
        ("header", [1, 2, 3], ROWS, {"found": None}),
        ("header", [1, 2, 3], ROWS, {"found": {"longest": float("nan")}}),
        ("header", [1, 2, 3], ROWS, {"segments": [[]]}),
        ("header", [1, 2, 3], ROWS, {"columns": {"rows": [128, None]}}),
        ("header", [1, 2, 3], ROWS, {"columns": {"rows": [128, None], "slots": 128}}),
        ("header", [1, 2, 3], ROWS, {"columns": {"rows": [128, 7], "slots": [128, 7]}}),
        ("JSON", [1, 2, 3], ROWS, {"header": b"[" * 60_000}),
        ("JSON", [1, 2, 3], ROWS, {"header": b"\xff\xfe"}),
        ("header", [1, 2, 3], ROWS, {"header": b"[1]"}),
        ("header", [1, 2, 3], ROWS, {"header": b" " * 1_100_000}),
        ("numbers", [1, 2, 3], ROWS, {"dim": 0}),
        ("numbers", [1, 2, 3], ROWS, {"dim": 2**40}),
        ("bytes", [1, 2, 3], ROWS, {"size": 2**60}),
        ("bytes", [1, 2, 3], ROWS, {"size": -3}),
        ("bytes", [1, 2, 3], ROWS, {"at": -5}),
        ("bytes", [1, 2, 3], ROWS, {"at": 10**6}),
        ("contradicts", [1, 2, 3], ROWS, {"count": 2}),
        ("checksum", [1, 2, 3], ROWS, {"crc": 0}),
        ("checksum", [1, 2, 3], ROWS, {"at": 128}),
        ("slots", [1, 1, 3], ROWS, {}),
        ("slots", [2, 1, 3], ROWS, {}),
        ("slots", [-1, 1, 3], ROWS, {}),
        ("finite", [1, 2, 3], [[1, 0], [0, np.nan], [0, 1]], {}),
        ("finite", [1, 2, 3], [[1, 0], [0, np.inf], [0, 1]], {}),
    ],
)
def test_forged_files_are_refused_and_named(backend, reason, slots, rows, changes, tmp_path, caplog):
    path = tmp_path / "cache"
    forge(path, slots, rows, **changes)
    index = open_index(backend, changes.get("dim") or 2)
    tracemalloc.start()
    try:
        with caplog.at_level(logging.WARNING, logger="raeburnmemory"):
            assert index.load(str(path), STAMP) is None
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()
    assert len(index) == 0
    assert [(r.name, str(path) in r.getMessage(), reason in r.getMessage()) for r in caplog.records] == [
        ("raeburnmemory", True, True)
    ]


def test_files_of_the_first_format_are_made_anew(backend, tmp_path, caplog):
    header = b'{"format": 1}\n'
    first = b"RaeburnMemory index " + hashlib.sha256(header).hexdigest().encode() + b"\n"
    (tmp_path / "cache").write_bytes(first + header + bytes(200))
    assert open_index(backend, 2).load(str(tmp_path / "cache"), STAMP) is None
    assert "format is 1" in caplog.text


def test_a_forged_file_that_is_right_is_read(backend, tmp_path):
    forge(tmp_path / "cache", [1, 2, 3], ROWS)
    index = open_index(backend, 2)
    assert index.load(str(tmp_path / "cache"), STAMP) == STAMP
    assert index.search(np.array([1, 0], np.float32), 2)[0].tolist() == [1, 3]


def test_missing_and_stale_files_are_not_worth_a_line(backend, tmp_path, caplog):
    path = str(tmp_path / "cache")
    index, _ = filled(opener(backend), 5, 2, 38)
    index.save(path, STAMP)
    assert open_index(backend, 2).load(path, {"version": 4}) is None
    assert open_index(backend, 3).load(path, STAMP) is None
    assert open_index(backend, 2).load(path + ".not", STAMP) is None
    assert caplog.records == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in the file system here")
def test_a_pipe_is_not_waited_for(backend, tmp_path, caplog):
    os.mkfifo(tmp_path / "cache")
    assert open_index(backend, 2).load(str(tmp_path / "cache"), STAMP) is None
    assert "not a file" in caplog.text


def test_only_an_empty_index_loads(backend, tmp_path):
    index, rows = filled(opener(backend), 5, 2, 39)
    index.save(str(tmp_path / "cache"), STAMP)
    index.remove(np.array(list(rows)))
    with pytest.raises(errors.InvalidInput, match="new index"):
        index.load(str(tmp_path / "cache"), STAMP)


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")], ids=["sync", "rename"])
def test_a_full_disk_leaves_the_old_file(backend, owner, call, tmp_path, monkeypatch):
    path = tmp_path / "cache"
    index, rows = filled(opener(backend), 5, 2, 40)
    index.save(str(path), STAMP)
    before = path.read_bytes()

    def fail(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    index.remove(np.array([1]))
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, fail)
        with pytest.raises(errors.StoreWriteFailed, match=r"cache.*No space left") as caught:
            index.save(str(path), {"version": 4})
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["cache"]
    rows.pop(1)
    compare_search(index, rows, np.ones(2, np.float32), 5)


def test_a_long_stamp_is_refused(backend, tmp_path):
    index = open_index(backend, 2)
    with pytest.raises(errors.InvalidInput, match="too long"):
        index.save(str(tmp_path / "cache"), {"x": "y" * 70_000})
    assert list(tmp_path.iterdir()) == []
