"""Ctrl-C at any line of a write: nothing stays locked, nothing is half done, and the next write is seen by others.

KeyboardInterrupt comes between two instructions of the main thread, and a notebook goes on with the same memory after
it. Here a trace function raises it at each line of the stores and their locks in turn, as long as there is one more.

A signal handler that goes on, or a destructor, may come there as well, and use the memory itself.
"""

import contextlib
import inspect
import os
import sys
import threading
from functools import partial

import pytest

import raeburnmemory
from raeburnmemory.errors import LockTimeout
from raeburnmemory.file_lock import file_lock
from raeburnmemory.nodes import Batch, Node
from raeburnmemory.store.group_commit import Section
from raeburnmemory.store.journal import Journal
from raeburnmemory.store.json import JsonStore
from raeburnmemory.store.memory import MemoryStore
from raeburnmemory.store.sqlite import SqliteStore

ROOT = os.path.dirname(raeburnmemory.__file__)
FILES = {
    os.path.join(ROOT, *name.split("/"))
    for name in (
        "lock.py", "file_lock.py", "mutex.py", "store/group_commit.py", "store/sqlite.py", "store/sqlite_batch.py",
        "store/sqlite_reading.py", "store/json.py", "store/journal.py", "store/memory.py", "store/state.py",
    )
}  # fmt: skip


def uncovered():
    """The first lines of a section's end: before Python enters the `try` nothing there can see to what comes.

    The next write does, where the section was entered by the library itself.
    """
    lines, first = inspect.getsourcelines(Section.__exit__)
    return first, first + next((number for number, line in enumerate(lines) if line.strip() == "try:"), 0)


def ctrl_c():
    raise KeyboardInterrupt


class Interrupt:
    """Do something, raise KeyboardInterrupt above all, at the line of that number, of all that are run in FILES."""

    def __init__(self, number, withs, uncovered, do=ctrl_c):
        self.left, self.where, self.withs = number, None, withs
        self.uncovered, self.do = uncovered, do

    def __call__(self, frame, event, arg):
        return self.line if frame.f_code.co_filename in FILES else None

    def line(self, frame, event, arg):
        if event == "line" and self.where is None and self.possible(frame):
            self.left -= 1
            if not self.left:
                self.where = f"{os.path.relpath(frame.f_code.co_filename, ROOT)}:{frame.f_lineno}"
                self.do()
        return self.line

    def possible(self, frame):
        code, number = frame.f_code, frame.f_lineno
        if code is Section.__exit__.__code__ and self.uncovered[0] <= number <= self.uncovered[1]:
            return False
        # A line with `with` is run again when its block ends, and `try:` does nothing: no signal is looked for there.
        lines, first = source(code)
        line = lines[number - first].strip()
        if line == "try:":
            return False
        if line.startswith("with "):
            return self.withs.setdefault((code, number), frame.f_lasti) == frame.f_lasti
        return True


SOURCES = {}


def source(code):
    if code not in SOURCES:
        SOURCES[code] = inspect.getsourcelines(code)
    return SOURCES[code]


def node(name):
    return Node(name, "prompt", f"the text of {name}", {})


def write(store, name):
    with store.exclusive():
        store.meta("embedder")
        store.get([name], "default")
        store.write(Batch(nodes=[node(name)], meta={"last": name}))
    return store.version()


def write_once(store, name):
    store.write(Batch(nodes=[node(name)], meta={"last": name}))
    return store.version()


def ids(store, names):
    return set(store.get(names, "default"))


def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(10)
    assert found, "a thread waits for what nobody lets go of"
    return found[0]


@pytest.mark.parametrize("durability", ["process", "full"])
@pytest.mark.parametrize(("store_type", "file"), [(SqliteStore, "m.db"), (JsonStore, "m.json")])
@pytest.mark.parametrize(("write", "left_out"), [(write, uncovered()), (write_once, (0, 0))])
def test_an_interruption_anywhere_in_a_write_leaves_the_memory_usable(
    tmp_path, store_type, file, durability, write, left_out
):
    path = tmp_path / file
    store = store_type(path, timeout=1, durability=durability)
    other = store_type(path, timeout=1, durability=durability)
    names, withs, there = [], {}, 0
    previous = sys.gettrace()
    for number in range(1, 5000):
        names = [f"hit {number}", f"next {number}", f"thread {number}", f"other {number}"]
        interrupt = Interrupt(number, withs, left_out)
        sys.settrace(interrupt)
        try:
            write(store, names[0])
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(previous)
        if interrupt.where is None:
            break
        try:
            write(store, names[1])
            in_thread(partial(write, store, names[2]))
            seen = ids(other, names)
            assert seen >= set(names[1:3])
            write(other, names[3])
            assert ids(store, names) == ids(other, names) == seen | {names[3]}
        except BaseException as exc:
            raise AssertionError(f"after an interruption at {interrupt.where}: {exc!r}") from exc
        there += names[0] in seen
    assert number > 100
    assert 0 < there < number  # some of them came too late to stop it
    with_all = store.count("default")
    store.close()
    other.close()
    again = store_type(path)
    assert again.count("default") == with_all == 3 * (number - 1) + there + 1
    again.close()


@pytest.mark.parametrize(
    ("store_type", "file", "durability", "reads"),
    [
        (SqliteStore, "m.db", "full", False),
        (JsonStore, "m.json", "full", False),
        (JsonStore, "m.json", "process", True),
        (MemoryStore, ":memory:", "none", False),
        (MemoryStore, ":memory:", "none", True),
    ],
)
@pytest.mark.parametrize("write", [write, write_once])
def test_a_signal_handler_that_uses_the_memory_damages_nothing(tmp_path, store_type, file, durability, write, reads):
    if store_type is MemoryStore:
        store = other = MemoryStore()
    else:
        store, other = (store_type(tmp_path / file, timeout=1, durability=durability) for _ in range(2))
    kept, withs, refused, done = set(), {}, 0, 0
    previous = sys.gettrace()

    def handler():
        nonlocal refused, done
        try:
            if reads:
                ids(store, kept)
            else:
                write_once(store, f"handler {number}")
                kept.add(f"handler {number}")
            done += 1
        except LockTimeout as exc:
            assert "in the middle of another call" in str(exc)
            refused += 1

    for number in range(1, 5000):
        interrupt = Interrupt(number, withs, (0, 0), handler)
        try:
            sys.settrace(interrupt)
            try:
                write(store, f"hit {number}")
            finally:
                sys.settrace(previous)
            if interrupt.where is None:
                break
            kept.add(f"hit {number}")
            in_thread(partial(write, other, f"other {number}"))
            kept.add(f"other {number}")
            assert ids(store, kept) == ids(other, kept) == kept
        except BaseException as exc:
            raise AssertionError(f"after a handler at {interrupt.where}: {exc!r}") from exc
    assert done
    assert reads or refused
    kept.add(f"hit {number}")
    assert store.count("default") == len(kept)
    if store_type is not MemoryStore:
        store.close()
        other.close()
        with contextlib.closing(store_type(tmp_path / file)) as again:
            assert ids(again, kept) == kept


@pytest.mark.parametrize("what", ["journal", "lock"])
def test_who_closes_again_after_an_interruption_closes_no_file_of_others(tmp_path, what):
    previous = sys.gettrace()
    for number in range(1, 100):
        if what == "journal":
            path = str(tmp_path / "m.journal")
            Journal.write_new(path, "id", 0, "0", [])
            file = Journal.open(path, read_only=False)
        else:
            file = file_lock(tmp_path / "m.lock")
            file.open()
        interrupt = Interrupt(number, {}, (0, 0))
        sys.settrace(interrupt)
        try:
            file.close()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(previous)
        # What was just closed is another's now, under the same number.
        others = [os.open(os.devnull, os.O_RDONLY) for _ in range(20)]
        try:
            file.close()
            for fd in others:
                os.fstat(fd)
        except OSError as exc:
            raise AssertionError(f"after an interruption at {interrupt.where}: {exc!r}") from exc
        finally:
            for fd in others:
                with contextlib.suppress(OSError):
                    os.close(fd)
        if interrupt.where is None:
            break
    assert number > 3
