"""The index over a cache file that is left where it is: added to, damaged, cut short, replaced; and tables in files without a name."""

from __future__ import annotations

import errno
import gc
import logging
import multiprocessing
import os
import shutil

import numpy as np
import pytest
from outside import fake, unit
from test_index_ladder import Plain

from raeburnmemory.errors import StoreCorrupt
from raeburnmemory.index import _columns, _file, open_index
from raeburnmemory.index._columns import Column
from raeburnmemory.index._file import DamagedError
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.store.sqlite import SqliteStore
from raeburnmemory.testing.index import compare_search, unit_rows

DIM, COUNT = 6, 90
STAMP = {"s": 1}


def make(few=5, patience=0, bits=10**9):
    return Plain(DIM, few=few, patience=0, bits=bits, candidates=40)


def filled(count=COUNT, seed=1):
    index, rows = make(), unit_rows(count, DIM, seed)
    index.add(np.arange(count) * 2, rows)
    return index, dict(zip((np.arange(count) * 2).tolist(), rows, strict=True))


@pytest.fixture
def saved(tmp_path):
    """A cache file, and the rows in it by slot."""
    index, rows = filled()
    index.labels = np.arange(COUNT) + 1000
    index.save(str(tmp_path / "cache"), STAMP)
    return tmp_path / "cache", rows


def loaded(path, rows=None, **limits):
    index = make(**limits)
    assert index.load(str(path), STAMP) is not None
    if rows is not None:
        keys = np.array(sorted(rows))
        index.source = lambda: iter(
            [(keys[:20], np.array([rows[k] for k in keys[:20]])), (keys[20:], np.array([rows[k] for k in keys[20:]]))]
        )
    return index


def test_opening_reads_no_row(saved, monkeypatch):
    path, rows = saved
    read, asked = [], _file._read_at
    monkeypatch.setattr(_file, "_read_at", lambda *a: read.append(asked(*a)) or read[-1])
    index = loaded(path)
    assert len(index) == COUNT
    assert sum(read) == COUNT * (8 + 8)  # slots, labels
    assert index.labels.tolist() == [1000 + n for n in range(COUNT)]
    read.clear()
    compare_search(index, rows, rows[4], 3)
    assert sum(read) > 0


def test_what_was_added_is_added_to_the_file(saved):
    path, rows = saved
    whole, inode = path.read_bytes(), path.stat().st_ino
    index = loaded(path)
    assert index.extensible
    new = unit_rows(30, DIM, 2)
    index.add(np.arange(500, 530), new)
    rows.update(zip(range(500, 530), new, strict=True))
    index.labels = np.arange(120)
    index.save(str(path), {"s": 1, "version": 2})
    raw = path.read_bytes()
    assert path.stat().st_ino == inode
    assert raw[128 : len(whole)] == whole[128:]
    assert len(raw) - len(whole) < len(whole)
    index = loaded(path)
    assert index.mode == "int8"
    assert len(index._encoded()) == 120
    assert index.labels[90:].tolist() == list(range(90, 120))
    compare_search(index, rows, new[3], 12)
    compare_search(index, rows, rows[0], 12, np.array([0, 2, 500, 501]))
    slots, vectors = index.slots, index.get(index.slots)
    assert np.array_equal(vectors, [rows[s] for s in slots.tolist()])
    stamp, there, found = _file.examine(str(path))
    assert (stamp, there.tolist()) == ({"s": 1, "version": 2}, sorted(rows))
    assert np.array_equal(found, vectors)


def test_an_addition_that_was_cut_short_is_not_there(saved):
    """After every byte of it: the state before or the state after, never anything else."""
    path, rows = saved
    before = path.read_bytes()
    index = loaded(path)
    new = unit_rows(3, DIM, 2)
    index.add(np.arange(500, 503), new)
    index.labels = np.arange(93)
    index.save(str(path), STAMP)
    after = path.read_bytes()
    both = {90: dict(rows), 93: rows | dict(zip((500, 501, 502), new, strict=True))}
    for end in range(len(before), len(after), 9):
        path.write_bytes(before[:128] + after[128:end])  # the first line is written last
        index = loaded(path)
        assert len(index) == 90
        compare_search(index, both[90], new[0], 5)
    for end in range(0, 129, 7):
        path.write_bytes(after[:end] + before[:128][end:] + after[128:])
        index = make()
        if index.load(str(path), STAMP) is not None:
            compare_search(index, both[len(index)], new[0], 5)
    path.write_bytes(before[:128] + after[128:])
    index = loaded(path)  # and it can be added to again, over what is left there
    index.add(np.arange(500, 503), new)
    index.labels = np.arange(93)
    index.save(str(path), STAMP)
    assert path.read_bytes() == after
    compare_search(loaded(path), both[93], new[0], 5)


@pytest.mark.parametrize("why", ["removed", "replaced", "extended by another", "much more", "no labels"])
def test_otherwise_the_file_is_written_anew(saved, why):
    path, rows = saved
    index, inode = loaded(path), path.stat().st_ino
    new = unit_rows(60, DIM, 2)
    if why == "removed":
        index.remove(np.array([4]))
        rows.pop(4)
    elif why == "replaced":
        other, _ = filled(30, 9)
        other.save(str(path), STAMP)
        inode = path.stat().st_ino
    elif why == "extended by another":
        other = loaded(path)
        other.add(np.array([400]), new[:1])
        other.labels = np.arange(91)
        other.save(str(path), STAMP)
        assert path.stat().st_ino == inode
    more = 60 if why == "much more" else 2
    index.add(np.arange(500, 500 + more), new[:more])
    rows.update(zip(range(500, 500 + more), new, strict=False))
    index.labels = None if why == "no labels" else np.arange(len(index))
    index.save(str(path), STAMP)
    assert path.stat().st_ino != inode
    compare_search(loaded(path), rows, new[1], 20)
    compare_search(index, rows, new[1], 20)


def test_additions_do_not_pile_up(saved):
    path, rows = saved
    inode = path.stat().st_ino
    for at in range(20):
        index = loaded(path)
        index.add(np.array([1000 + at]), rows[2 * at][np.newaxis])
        rows[1000 + at] = rows[2 * at]
        index.labels = np.arange(len(index))
        index.save(str(path), STAMP)
    assert path.stat().st_ino != inode
    compare_search(loaded(path), rows, rows[4], 30)


@pytest.mark.parametrize("call", ["search", "get", "scan", "save"])
def test_damage_to_any_byte_of_the_rows_is_found_and_mended(saved, tmp_path, call, caplog):
    path, rows = saved
    whole = path.read_bytes()
    start = int(_file._open(path).segments[0].columns["rows"][0])
    end = start + COUNT * 32
    for at in range(start, end, 97):
        path.write_bytes(whole)
        index = loaded(path, rows)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        slot = sorted(rows)[(at - start) // 32]
        caplog.clear()
        if call == "search":
            compare_search(index, rows, rows[slot], 5)
            compare_search(index, rows, rows[slot], 5, np.array([slot]))
        elif call == "get":
            assert np.array_equal(index.get(np.array([slot])), [rows[slot]])
        elif call == "scan":
            assert np.allclose(index.scan(rows[slot])[1], [row @ rows[slot] for row in rows.values()], atol=1e-6)
        else:
            gone = 2 if slot == 0 else 0
            index.remove(np.array([gone]))  # so that all of it is written anew
            index.save(str(tmp_path / "again"), STAMP)
            compare_search(loaded(tmp_path / "again"), {k: v for k, v in rows.items() if k != gone}, rows[slot], 5)
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert index.mended == (call != "save")


@pytest.mark.parametrize("how", ["cut", "emptied"])
def test_a_file_that_is_cut_short_under_an_open_index(saved, how):
    path, rows = saved
    index, helpless = loaded(path, rows), loaded(path)
    with path.open("r+b") as file:
        file.truncate(0 if how == "emptied" else 1500)
    with pytest.raises(StoreCorrupt, match="Open the memory again"):
        helpless.search(rows[100], 30)
    compare_search(index, rows, rows[100], 30)
    assert index.mended
    index.save(str(path), STAMP)
    assert not index.mended
    compare_search(loaded(path), rows, rows[100], 30)


def test_a_file_that_is_deleted_or_replaced_under_an_open_index_is_still_there(saved):
    path, rows = saved
    index = loaded(path)
    shutil.copy(path, str(path) + ".other")
    os.replace(str(path) + ".other", path)
    path.unlink()
    compare_search(index, rows, rows[100], 30)
    index.save(str(path), STAMP)
    compare_search(loaded(path), rows, rows[100], 30)


def test_mending_drops_what_the_source_has_no_more(saved):
    path, rows = saved
    index = loaded(path)
    index.remove(np.array([6]))
    left = {slot: row for slot, row in rows.items() if slot not in {10, 12}}
    keys = np.array(sorted(left))
    index.source = lambda: [(keys, np.array([rows[key] for key in keys]))]
    path.write_bytes(path.read_bytes()[:1500])
    left.pop(6)
    for query in (rows[10], rows[6], rows[100]):
        compare_search(index, left, query, 30)
    assert index.slots.tolist() == sorted(left)
    assert len(index._encoded()) == len(index._slots[: index._count])


def test_swapped_rows_are_damage(saved):
    path, _ = saved
    raw, start = bytearray(path.read_bytes()), _file._open(path).segments[0].columns["rows"][0]
    raw[start : start + 32], raw[start + 32 : start + 64] = raw[start + 32 : start + 64], raw[start : start + 32]
    path.write_bytes(raw)
    with pytest.raises(StoreCorrupt):
        loaded(path).get(np.array([0]))


def test_damage_to_anything_else_is_found_when_it_is_loaded(saved):
    path, _ = saved
    columns = _file._open(path).segments[0].columns
    whole, codes, start = path.read_bytes(), columns["codes"][0], columns["rows"][0]
    assert start - codes == COUNT * DIM
    places = [*range(0, codes, 5), *range(start + COUNT * 32, len(whole))]
    for at in places:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert make().load(str(path), STAMP) is None, at


def test_damage_to_codes_is_found_when_they_are_read(saved):
    path, rows = saved
    columns = _file._open(path).segments[0].columns
    whole = path.read_bytes()
    for at in range(columns["codes"][0], columns["rows"][0], 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        index = loaded(path)
        compare_search(index, rows, rows[at % 7], 3)
        index.save(str(path), STAMP)
        assert (index.mended, path.read_bytes() == whole) == (False, True), at


def test_signs_are_kept_in_the_file(tmp_path):
    rows = unit_rows(200, DIM, 3)
    index = make(bits=50)
    index.add(np.arange(200), rows)
    index._checked = 200, 1.0, 40, None
    index.save(str(tmp_path / "cache"), STAMP)
    saved = _file._open(tmp_path / "cache")
    assert set(saved.segments[0].columns) == {"slots", "signs", "codes", "rows"}
    centre = np.mean(rows.astype(np.float64), axis=0)
    wanted = np.packbits(rows > centre.astype(np.float32), axis=1)
    assert np.array_equal(np.concatenate(list(saved.column("signs")))[:, :1], wanted)
    fresh = loaded(tmp_path / "cache", bits=50)
    assert fresh.mode == "bits"
    fresh.add(np.array([300]), rows[:1])
    assert set(fresh.search(rows[0], 2)[0].tolist()) == {0, 300}


# --- tables in files without a name -------------------------------------------------------------------------------


@pytest.fixture
def small_files(monkeypatch):
    monkeypatch.setattr(_columns, "_LARGE", 100)


needs_files = pytest.mark.skipif(not _columns._MAPPABLE, reason="tables stay in memory here")


def open_files():
    gc.collect()
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


@needs_files
def test_a_table_goes_to_a_file_that_nobody_can_name(tmp_path, small_files):
    files = open_files()
    column, rows = Column(3, np.float32, str(tmp_path)), np.arange(3000, dtype=np.float32).reshape(1000, 3)
    for start in range(0, 1000, 7):
        column.append(rows[start : start + 7])
        assert np.array_equal(column.rows, rows[: start + 7])
    assert column.anonymous == 0
    assert not column.rows.flags.writeable
    assert list(tmp_path.iterdir()) == []
    column.drop(np.array([0, 5, 999]))
    left = np.delete(rows, [0, 5, 999], axis=0)
    assert np.array_equal(column.rows, left)
    column.append(rows[:2])
    assert np.array_equal(column.rows, np.concatenate([left, rows[:2]]))
    del column
    assert open_files() == files


@needs_files
@pytest.mark.parametrize("call", ["pwrite", "ftruncate"])
def test_a_full_disk_leaves_a_table_in_memory(tmp_path, small_files, monkeypatch, call):
    rows = np.arange(300, dtype=np.float32).reshape(100, 3)

    def fail(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    for before in (2, 40):  # while it moves to a file; in its file
        column = Column(3, np.float32, str(tmp_path))
        column.append(rows[:before])
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fail)
            column.append(rows[before:90])
        assert np.array_equal(column.rows, rows[:90])
        column.append(rows[90:])
        assert np.array_equal(column.rows, rows)
        if before == 2 or call == "pwrite":
            assert column.anonymous > 0


@needs_files
def test_a_folder_that_takes_no_files_leaves_a_table_in_memory(tmp_path, small_files):
    column = Column(3, np.float32, str(tmp_path / "not there"))
    column.append(np.ones((90, 3), np.float32))
    assert column.rows.sum() == 270
    assert column.anonymous > 0


def _in_child(column, rows, results):
    column.append(rows + 100)
    column.drop(np.array([0]))
    results.put((column.rows[:, 0].tolist(), len(column)))


@needs_files
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_and_its_parent_do_not_write_over_each_other(tmp_path, small_files):
    context = multiprocessing.get_context("fork")
    rows = np.arange(60, dtype=np.float32).reshape(60, 1)
    column, results = Column(1, np.float32, str(tmp_path)), context.Queue()
    column.append(rows)
    child = context.Process(target=_in_child, args=(column, rows[:5], results))
    child.start()
    column.append(rows[:9] + 200)
    column.drop(np.array([1]))
    seen, count = results.get(timeout=60)
    child.join()
    assert seen == [*range(1, 60), *range(100, 105)]
    assert count == 64
    assert column.rows[:, 0].tolist() == [0, *range(2, 60), *range(200, 209)]


@needs_files
def test_an_index_in_files_is_the_same_index(tmp_path, small_files):
    rows = unit_rows(700, 16, 5)
    index = Plain(16, few=20, patience=0, bits=10**9)
    index.scratch = str(tmp_path)
    exact = open_index("exact", 16)
    for one in (index, exact):
        one.add(np.arange(700), rows)
        one.remove(np.arange(0, 600, 2))
    for query in unit_rows(4, 16, 6):
        assert [part.tolist() for part in index.search(query, 9)] == [p.tolist() for p in exact.search(query, 9)]
        assert np.array_equal(index.scan(query)[1], exact.scan(query)[1])
    assert index._table.anonymous == index._codes.anonymous == 0
    assert list(tmp_path.iterdir()) == []


def test_reading_without_preadv(saved, monkeypatch):
    path, rows = saved
    monkeypatch.setattr(_file, "_read_at", _file._seek_and_read)
    compare_search(loaded(path), rows, rows[100], 30)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedError):
        _file._open(path)


# --- as a memory uses it ------------------------------------------------------------------------------------------


class Filed(Plain):
    """An index whose rows stay in the cache file, whatever their number."""

    def __init__(self, dim):
        super().__init__(dim, few=20, patience=0, bits=10**9)


def answers(path, **options):
    """The answers of a memory, which must be those of plain numpy over its texts."""
    with MemoryGraph(path, fake, vector_backend=Filed, **options) as memory:
        return checked_answers(memory)


def checked_answers(memory):
    prompts = list(memory.nodes("prompt"))
    rows = unit(fake([node.text for node in prompts]))
    found = []
    for question in ("word 5 3", "other 77 1 word", "thing 4"):
        scores = rows @ unit(fake([question]))[0]
        hits = memory.similar(question, 7)
        assert [hit.score for hit in hits] == pytest.approx(sorted(scores, reverse=True)[:7], abs=1e-5)
        by_id = {node.id: score for node, score in zip(prompts, scores, strict=True)}
        assert [hit.score for hit in hits] == pytest.approx([by_id[hit.id] for hit in hits], abs=1e-5)
        found.append([(hit.id, hit.score) for hit in hits])
    return found


def add_lot(memory, first, count, words="word"):
    memory.add_many(
        [({"id": f"q{n}", "text": f"{words} {n} {n % 7} {words} {n % 11}"}, None) for n in range(first, first + count)]
    )


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    path = tmp_path_factory.mktemp("indexed") / "g.db"
    with MemoryGraph(path, fake, vector_backend=Filed) as memory:
        add_lot(memory, 0, 1100)
        memory.similar("word")
    return path


@pytest.fixture
def large(tmp_path, indexed):
    shutil.copytree(indexed.parent, tmp_path / "store")
    return tmp_path / "store" / "g.db"


def test_a_memory_opens_without_asking_for_every_vector(large, monkeypatch):
    def fail(*_args):
        raise AssertionError("everything was asked for")

    monkeypatch.setattr(SqliteStore, "vector_slots", fail)
    monkeypatch.setattr(SqliteStore, "_blocks", lambda _self, low, high, *_: fail() if high > low else iter(()))
    with MemoryGraph(large, fake, vector_backend=Filed) as memory:
        assert memory.vector_index.mode == "int8"
        assert memory.vector_index.ntotal == 1100
        hits = memory.similar("word 5 5", 3)
        assert hits[0].id == "q5"
        assert memory.recall("word 5 5", k=1)[0].id == "q5"


def answers_of_exact(path):
    with MemoryGraph(path, fake, vector_backend="exact") as memory:
        return checked_answers(memory)


def test_a_memory_goes_on_when_its_index_is_damaged_or_cut_while_it_is_open(large, caplog):
    index = large.with_name("g.db.prompt.index")
    expected, whole = answers(large), index.read_bytes()
    at = _file._open(index).segments[0].columns["rows"][0]
    for bad in (whole[: at + 40], whole[:at] + bytes(len(whole) - at), b""):
        index.write_bytes(whole)
        with MemoryGraph(large, fake, vector_backend=Filed) as memory:
            assert memory.vector_index.ntotal == 1100
            index.write_bytes(bad)  # the same file, not another of its name
            assert checked_answers(memory) == expected
        assert "checksum" in caplog.text or "ended" in caplog.text
        caplog.clear()
        assert answers(large) == expected  # it was saved again
        assert caplog.text == ""


def test_a_memory_changes_after_its_index_was_loaded(large):
    index = large.with_name("g.db.prompt.index")
    inode = index.stat().st_ino
    with MemoryGraph(large, fake, vector_backend=Filed) as memory:
        memory.similar("word")
        add_lot(memory, 2000, 300, "thing")
        assert memory.similar("thing 2005 3", 1)[0].id == "q2005"
    assert index.stat().st_ino == inode  # 300 are not worth it
    with MemoryGraph(large, fake, vector_backend=Filed) as memory:
        memory.similar("word")
        memory.forget([f"q{n}" for n in range(0, 700, 2)])
        for n in (1, 3, 2001):
            memory.update(f"q{n}", text=f"other {n} 77")
        add_lot(memory, 3000, 900, "other")
        expected = checked_answers(memory)
        among = {hit.id for hit in memory.recall("other 3005", k=5)}
        assert "q3005" in among
    assert index.stat().st_ino != inode
    assert answers(large) == expected == answers_of_exact(large)
