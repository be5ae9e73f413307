"""Threads of one process that write at once share a sync: what each of them is told, and what others see."""

import contextlib
import errno
import os
import resource
import threading
import time
from pathlib import Path

import pytest
from outside import STORE_FILES

from raeburnmemory import lock
from raeburnmemory.errors import InvalidInput, StoreWriteFailed
from raeburnmemory.nodes import Batch, Link, Node, Where
from raeburnmemory.store import group_commit


@pytest.fixture(params=STORE_FILES)
def backend(request):
    return request.param


@pytest.fixture(autouse=True)
def _patient(monkeypatch):
    """Let threads wait for each other on a slow machine, too."""
    monkeypatch.setattr(group_commit, "_IMPATIENCE", 20.0)
    monkeypatch.setattr(lock, "_PASSING", 20.0)


def together(store, batches, before_sync=contextlib.nullcontext):
    """Write *batches* by a thread each, one after another and so that they share a sync; return what each was told."""
    told = [None] * len(batches)

    def write(number):
        try:
            told[number] = store.write(batches[number])
        except Exception as error:  # noqa: BLE001 - it is what the test is about
            told[number] = error

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(batches))]
    with before_sync():
        with store.exclusive():
            for number, thread in enumerate(threads, 1):
                thread.start()
                deadline = time.monotonic() + 10
                while len(store._lock._turn.line) < number and time.monotonic() < deadline:
                    time.sleep(0.001)
        for thread in threads:
            thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return told


def node(name):
    return Node(name, "note", f"text of {name}")


def ids(store):
    return [found.id for found in store.nodes(Where())]


@contextlib.contextmanager
def no_room():
    """Let no file grow, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def syncs(store, monkeypatch):
    """Return a list that grows with every sync of *store*."""
    seen = []
    if store.name == "sqlite":
        store._db.set_trace_callback(lambda sql: seen.append(sql) if sql == "COMMIT" else None)
    else:
        real = os.fdatasync
        monkeypatch.setattr(os, "fdatasync", lambda fd: (seen.append(fd), real(fd)))
    return seen


def test_those_who_wait_share_one_sync(backend, place, monkeypatch):
    opener = place(backend)
    store = opener()
    store.write(Batch(nodes=[node("first")]))
    seen = syncs(store, monkeypatch)
    told = together(store, [Batch(nodes=[node(f"n{number}")]) for number in range(20)])
    assert told == list(range(2, 22))  # in the order in which they came
    assert len(seen) == 1
    assert ids(opener()) == ["first", *(f"n{number}" for number in range(20))]


def test_a_thread_alone_syncs_at_once(backend, place, monkeypatch):
    store = place(backend)()
    seen = syncs(store, monkeypatch)
    for number in range(1, 4):
        store.write(Batch(nodes=[node(f"n{number}")]))
        assert len(seen) == number


def test_what_is_refused_fails_alone(backend, place):
    opener = place(backend)
    store = opener()
    nowhere = Batch(nodes=[node("half")], links=[Link("half", "nobody", "knows")])
    told = together(store, [Batch(nodes=[node("a")]), nowhere, Batch(nodes=[node("b")]), nowhere])
    assert [told[0], told[2]] == [1, 2]
    assert all(isinstance(told[number], InvalidInput) for number in (1, 3))
    assert ids(store) == ids(opener()) == ["a", "b"]


def test_a_write_that_the_disk_refuses_fails_for_all_that_shared_it(backend, place):
    opener = place(backend)
    store, other = opener(), opener()
    store.write(Batch(nodes=[node("before")]))
    told = together(store, [Batch(nodes=[node(f"n{number}")]) for number in range(4)], no_room)
    assert [type(answer) for answer in told] == [StoreWriteFailed] * 4
    assert len({id(answer) for answer in told}) == 4
    for each in (store, other, opener()):
        assert ids(each) == ["before"]
        assert each.version() == 1
        assert not each.changes(1).nodes
    assert store.write(Batch(nodes=[node("after")])) == 2
    assert ids(store) == ids(other) == ids(opener()) == ["before", "after"]


def test_a_sync_that_fails_fails_for_all_that_shared_it_and_is_not_tried_again(place, monkeypatch):
    """Of a JSON memory; SQLite syncs by itself, and test_syscalls lets that fail."""
    opener = place("json")
    store, other = opener(), opener()
    store.write(Batch(nodes=[node("before")]))
    journal = Path(store._journal_path)
    before = journal.read_bytes()
    real, calls = os.fdatasync, []

    def sync(fd):
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fdatasync", sync)
    told = together(store, [Batch(nodes=[node(f"n{number}")]) for number in range(4)])
    assert [type(answer) for answer in told] == [StoreWriteFailed] * 4
    assert {answer.errno for answer in told} == {errno.EIO}
    assert len(calls) == 1
    assert journal.read_bytes() == before
    for each in (store, other, opener()):
        assert ids(each) == ["before"]
    assert together(store, [Batch(nodes=[node(f"m{number}")]) for number in range(3)]) == [2, 3, 4]
    assert len(calls) == 2
    assert ids(store) == ids(other) == ids(opener()) == ["before", "m0", "m1", "m2"]


def test_who_has_read_what_failed_fails_too(backend, place):
    """A section that found another one's node, and would write only an edge to it, must not do so without the node."""
    opener = place(backend)
    store = opener()
    store.write(Batch(nodes=[node("a")]))
    told, waiting = [], threading.Event()

    def second():
        try:
            with store.exclusive():
                assert list(store.get(["b"], "default")) == ["b"]  # the first one's, not synced yet
                waiting.set()
                store.write(Batch(links=[Link("a", "b", "knows")]))
        except StoreWriteFailed as error:
            told.append(error)

    thread = threading.Thread(target=second)

    def first():
        with store.exclusive():
            thread.start()
            while not store._lock._turn.line:
                time.sleep(0.001)
            store.write(Batch(nodes=[node("b")]))

    with no_room():
        with pytest.raises(StoreWriteFailed):
            first()
        thread.join(10)
    assert waiting.is_set()
    assert len(told) == 1
    assert ids(store) == ids(opener()) == ["a"]
    assert store.links(None, None) == []


def test_a_reader_sees_only_what_is_on_disk_and_waits_for_nobody(backend, place):
    """Whoever reads while another thread is in its section gets an answer, of what has been synced by then."""
    opener = place(backend)
    store, elsewhere = opener(), opener()
    found = []

    def read():
        found.append((store.version(), ids(store), elsewhere.version(), ids(elsewhere)))

    with store.exclusive():
        store.write(Batch(nodes=[node("a")]))
        thread = threading.Thread(target=read)
        thread.start()
        thread.join(10)
        assert found == [(1, ["a"], 1, ["a"])]
        store.write(Batch(nodes=[node("b")]))
    assert ids(opener()) == ["a", "b"]


def test_what_is_written_in_a_section_is_synced_when_it_ends(backend, place, monkeypatch):
    opener = place(backend)
    store = opener()
    seen = syncs(store, monkeypatch)
    with store.exclusive():
        assert store.write(Batch(nodes=[node("a")])) == 1
        assert store.write(Batch(nodes=[node("b")], links=[Link("a", "b", "knows")])) == 2
        assert list(store.get(["a", "b"], "default")) == ["a", "b"]
        assert len(store.links(["a"], "default")) == 1
        assert seen == []
    assert len(seen) == 1
    assert (opener().version(), ids(opener())) == (2, ["a", "b"])


def test_others_get_in_between(backend, place, monkeypatch):
    """Threads that wait in a line do not keep another handle's writes out for long."""
    monkeypatch.setattr(lock, "_PASSES", 3)
    opener = place(backend)
    store, other = opener(), opener()
    stop, waits = threading.Event(), []

    def write(number):
        count = 0
        while not stop.is_set():
            store.write(Batch(nodes=[node(f"{number}-{count}")]))
            count += 1

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for number in range(20):
        start = time.monotonic()
        other.write(Batch(nodes=[node(f"other-{number}")]))
        waits.append(time.monotonic() - start)
    stop.set()
    for thread in threads:
        thread.join(30)
    assert max(waits) < 5
    assert store.version() == other.version() == len(ids(other))
