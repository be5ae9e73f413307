"""What these stores promise beyond the contract: followers that keep up, and folds that may stop anywhere."""

import os
import shutil
import threading
from contextlib import closing, suppress

import numpy as np
import pytest
from outside import STORE_FILES

from raeburnmemory.errors import StoreWriteFailed
from raeburnmemory.nodes import Batch, Node, Vector, Where
from raeburnmemory.store import json, open_store
from raeburnmemory.store.journal import Journal, version_of
from raeburnmemory.store.snapshot import Snapshot
from raeburnmemory.store.vector_files import VectorFiles
from raeburnmemory.testing._ledger import Ledger, batches, unit

A, B = unit(1, 0, 0), unit(0, 1, 0)


@pytest.mark.parametrize("backend", [*STORE_FILES, "memory"])
def test_followers_that_keep_up_are_told_only_what_changed(backend, place):
    """Neither a fold nor a checkpoint nor another handle's writes make a follower read everything again."""
    opener = place(backend)
    handles = [opener(), opener()] if backend in STORE_FILES else [opener()]
    ledger = Ledger()
    handles[0].write(Batch(nodes=[Node("p", "prompt", "x")], vectors=[Vector("p", "prompt", A)]))
    ledger.version = 1
    for number in range(1, 12):
        writer = handles[number % len(handles)]
        node, vector = Node(f"n{number}", "prompt", "y"), Vector(f"n{number}", "prompt", B)
        writer.write(Batch(nodes=[node], vectors=[vector]))
        for store in handles:
            changes = store.changes(number)
            assert not changes.reset
            assert [found.id for found in changes.nodes] == [node.id]
            vectors = store.vectors("prompt", number)
            assert not vectors.reset
            assert [block.slots.tolist() for block in vectors.blocks] == [[number]]
        if number % 4 == 3:
            writer.checkpoint()


def test_changes_beyond_the_kept_history_are_a_reset(place):
    store = place("memory")()
    for number in range(4200):
        store.write(Batch(nodes=[Node(f"n{number % 7}", "prompt", str(number))]))
    assert store.changes(10).reset
    assert not store.changes(4000).reset
    assert len(store.changes(4000).nodes) == 7


ZEROS = b"zeros"  # of a line whose first sectors were never written, as a power cut may leave it


@pytest.mark.parametrize("torn", [b"", b'0badf00d {"version":', ZEROS], ids=["whole", "torn", "zeros"])
@pytest.mark.parametrize("backend", ["json", "json-npy"])
def test_killed_at_any_rename_of_a_fold(backend, torn, place, tmp_path, monkeypatch):
    """The files as they are between any two renames hold everything, with or without half a line after them."""
    opener, ledger, copies = place(backend), Ledger(), []
    folder = tmp_path / "copies"
    folder.mkdir()
    rename = os.replace

    def copy():
        target = folder / str(len(copies))
        target.mkdir()
        for path in tmp_path.glob("memory.json*"):
            shutil.copy2(path, target)
        with (target / "memory.json.journal").open("ab") as journal:
            journal.write(b"\0" * (512 - journal.tell() % 512) + b"4}\n" if torn is ZEROS else torn)
        copies.append(target / "memory.json")

    def observed(source, target):
        copy()
        rename(source, target)

    store = opener()
    ledger.compare(store)
    for number, batch in enumerate(batches(23, ledger, 18), 1):
        ledger.write(store, batch)
        ledger.compare(store)
        if number % 3 == 0:
            with monkeypatch.context() as patch:
                patch.setattr(os, "replace", observed)
                store.checkpoint()
            assert copies
            copy()
            for path in copies:
                with closing(open_store(path)) as found:
                    ledger.compare(found)
                    if torn:  # whoever goes on writing cuts it off first
                        found.write(Batch(meta={"after": 1}))
                with closing(open_store(path)) as found:
                    assert found.version() == ledger.version + bool(torn)
            copies.clear()
            shutil.rmtree(folder)
            folder.mkdir()


@pytest.mark.parametrize("backend", ["json", "json-npy"])
def test_refused_renames_leave_the_store_whole(backend, place, monkeypatch):
    """Whichever rename of a fold the disk refuses, the store says so, goes on, and folds later."""
    opener, ledger = place(backend), Ledger()
    store, other = opener(), opener()
    rename = os.replace
    made = batches(29, ledger, 100)
    for refused in range(7):
        count = 0

        def refusing(source, target):
            nonlocal count
            count += 1
            if count == refused + 1:  # noqa: B023
                raise OSError(5, "Input/output error")
            rename(source, target)

        for _ in range(3):
            ledger.write(store, next(made))
            ledger.compare(store)
        ledger.write(store, Batch(nodes=[Node("x", "prompt")], vectors=[Vector("x", "prompt", np.eye(4)[0])]))
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", refusing)
            if refused < 4:  # a fold renames the description, the graph, vectors, their map, and the journal
                with pytest.raises(StoreWriteFailed, match="Input/output error"):
                    store.checkpoint()
            else:
                with suppress(StoreWriteFailed):
                    store.checkpoint()
        for each in (store, other):
            ledger.compare(each)
        ledger.write(other, next(made))
        for each in (store, other):
            ledger.compare(each)
        if refused % 2:
            store.checkpoint()
            store.close()
            store = opener()
            ledger.compare(store)


def notes(store):
    return [node.text for node in store.nodes(Where())]


def test_one_of_those_who_write_folds_for_all(place, monkeypatch):
    """Unless it does not get on with it: then another one does, once the journal is twice as long."""
    monkeypatch.setattr(json, "_LEAST", 4000)
    opener = place("json")
    store, other, begun, over = opener(), opener(), threading.Event(), threading.Event()
    folded = []
    write = Snapshot.write

    def slow(self, path, *more):
        folded.append(threading.current_thread().name)
        if len(folded) == 1:
            begun.set()
            assert over.wait(20)
        return write(self, path, *more)

    monkeypatch.setattr(Snapshot, "write", slow)

    def add(number):
        other.write(Batch(nodes=[Node(f"n{number}", "note", f"{number} " + "x" * 1000)]))

    first = threading.Thread(target=store.write, args=[Batch(nodes=[Node("first", "note", "x" * 4000)])], name="first")
    first.start()
    assert begun.wait(20)
    for number in range(3):
        add(number)
    assert folded == ["first"]
    for number in range(3, 6):
        add(number)
    assert folded == ["first", "MainThread"]  # and those after it are in a journal that is short again
    over.set()
    first.join(20)
    monkeypatch.undo()
    for each in (store, other, opener()):
        assert len(notes(each)) == 7


def test_a_fold_that_fails_leaves_it_to_others(place, monkeypatch):
    monkeypatch.setattr(json, "_LEAST", 4000)
    opener = place("json")
    store, other = opener(), opener()
    with monkeypatch.context() as patch:
        patch.setattr(json.JsonStore, "_put_in_place", lambda *_: (_ for _ in ()).throw(OSError(5, "refused")))
        store.write(Batch(nodes=[Node("a", "note", "x" * 5000)]))
    before = os.stat(store._journal_path).st_ino
    other.write(Batch(nodes=[Node("b", "note", "y")]))
    assert os.stat(store._journal_path).st_ino != before
    assert notes(store) == notes(other) == ["x" * 5000, "y"]


@pytest.mark.parametrize("how", ["writes", "reads", "folds", "is folding", "finds it folded"])
@pytest.mark.parametrize("text", ["as long as that", "longer than that one was", "short"])
def test_a_line_that_was_read_before_its_sync_failed_is_forgotten(how, text, place, monkeypatch):
    """Whatever stands in its place by then, and whatever the other one does next."""
    opener = place("json")
    store, other = opener(), opener()
    store.write(Batch(nodes=[Node("before", "note", "before")]))
    fold, begun, over = threading.Thread(target=other.checkpoint), threading.Event(), threading.Event()
    write = Snapshot.write

    def slow(self, *more):
        begun.set()
        assert over.wait(20)
        return write(self, *more)

    def refuse(fd):
        assert notes(other) == ["before", "one of 15 bytes"]
        if how == "is folding":
            fold.start()
            assert begun.wait(20)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Snapshot, "write", slow)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", refuse)
        with pytest.raises(StoreWriteFailed):
            store.write(Batch(nodes=[Node("n", "note", "one of 15 bytes")]))
    store.write(Batch(nodes=[Node("n", "note", text)]))
    over.set()
    if how == "is folding":
        fold.join(20)
    elif how == "folds":
        other.checkpoint()
    elif how == "finds it folded":
        store.checkpoint()
        assert notes(other) == ["before", text]
    (other if how == "writes" else store).write(Batch(nodes=[Node("m", "note", "after")]))
    for each in (other, store, opener()):
        assert notes(each) == ["before", text, "after"]
    assert other.changes(2).reset  # who followed it, too, has to know


@pytest.mark.parametrize("end", [b"", b"0000", b"x" * (2 << 20)])
def test_lines_of_any_length_are_read_whole(end, tmp_path):
    block = 1 << 20  # what is read at a time
    path = str(tmp_path / "g.json.journal")
    sizes = [20, block - 60, block, 3 * block + 7, 20, 2 * block, 20]
    lines = [b'{"version":%d,"x":"%b"}' % (at, b"a" * size) for at, size in enumerate(sizes, 5)]
    lines.append(b'{"x":"[{","version":12}')
    Journal.write_new(path, "store", 4, "digest", lines)
    with open(path, "ab") as file:
        file.write(end)  # torn, or being written right now
    journal = Journal.open(path, read_only=True)
    try:
        found = list(journal.payloads())
        assert found == lines
        assert [version_of(line) for line in found] == list(range(5, 13))
        assert journal.rest() == len(end)
        assert list(journal.payloads()) == []
    finally:
        journal.close()


def test_who_reads_in_the_middle_of_a_fold_numbers_vectors_as_everybody(tmp_path):
    path = str(tmp_path / "m.json")
    with closing(open_store(path)) as store:
        for number in range(5):
            node, vector = Node(f"n{number}", "prompt", "y"), Vector(f"n{number}", "prompt", B)
            store.write(Batch(nodes=[node], vectors=[vector]))
        before = shutil.copy(f"{path}.journal", tmp_path / "before")
        store.checkpoint()
        for name in os.listdir(tmp_path):  # the graph is in place, and nothing else yet
            if name.startswith("m.json.") and "lock" not in name:
                os.remove(tmp_path / name)
        shutil.copy(before, f"{path}.journal")
    with closing(open_store(path)) as store:
        store.write(Batch(nodes=[Node("n5", "prompt", "y")], vectors=[Vector("n5", "prompt", B)]))
        slots = [block.slots.tolist() for block in store.vectors("prompt", -1).blocks]
        assert slots == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("backend", ["json", "json-npy"])
def test_who_reads_while_another_folds_again_and_again_misses_no_vectors(backend, place, monkeypatch):
    """What describes them was read before the fold, and they after it: they do not fit each other."""
    opener = place(backend)
    writer = opener()
    writer.write(Batch(nodes=[Node("p", "prompt", "x")], vectors=[Vector("p", "prompt", A)]))
    writer.checkpoint()
    real, left = VectorFiles.header, [Node(name, "prompt", "y") for name in "qrs"]

    def header(files, store):
        found = real(files, store)
        if left:  # whenever it looks again
            node = left.pop()
            monkeypatch.setattr(VectorFiles, "header", real)
            writer.write(Batch(nodes=[node], vectors=[Vector(node.id, "prompt", B)]))
            writer.checkpoint()
            monkeypatch.setattr(VectorFiles, "header", header)
        return found

    monkeypatch.setattr(VectorFiles, "header", header)
    reader = opener(read_only=True)
    assert reader.vectors_lost() is None
    assert sum(len(block.slots) for block in reader.vectors("prompt", -1).blocks) == 4
    assert not left


@pytest.mark.parametrize("first", ["read", "write"])
def test_a_copy_of_another_past_put_over_an_open_memory_is_noticed(first, tmp_path):
    # As `cp -p` and `rsync --inplace -t` put it: the same files, as long as what is known, and with their old times.
    path, journal, kept = tmp_path / "g.json", tmp_path / "g.json.journal", tmp_path / "kept"
    store = json.JsonStore(path)
    store.write(Batch(nodes=[Node("before", "prompt", "text", {})]))
    shutil.copy2(journal, kept)
    store.write(Batch(nodes=[Node("gone", "prompt", "text", {})]))
    known = os.stat(journal)
    shutil.copy2(kept, journal)
    with closing(json.JsonStore(path)) as other:
        other.write(Batch(nodes=[Node("here", "prompt", "text", {})]))
        assert os.stat(journal).st_size == known.st_size
        assert os.stat(journal).st_ino == known.st_ino
        names = ["before", "gone", "here", "after"]
        if first == "read":
            assert set(store.get(names, "default")) == {"before", "here"}
        store.write(Batch(nodes=[Node("after", "prompt", "text", {})]))
        for each in (store, other):
            assert set(each.get(names, "default")) == {"before", "here", "after"}
    store.close()
    with closing(json.JsonStore(path)) as again:
        assert set(again.get(names, "default")) == {"before", "here", "after"}
