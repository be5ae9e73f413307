"""Ctrl-C at any line of a write: nothing stays locked, nothing is half done, and the next write is seen by others.

KeyboardInterrupt comes between two instructions of the main thread, and a notebook goes on with the same memory after
it. Here a trace function raises it at each line of the stores and their locks in turn, as long as there is one more.
"""

import inspect
import os
import sys
import threading
from functools import partial

import pytest

import raeburnmemory
from raeburnmemory.nodes import Batch, Node
from raeburnmemory.store.group_commit import Section
from raeburnmemory.store.json import JsonStore
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


class Interrupt:
    """Raise KeyboardInterrupt at the line of that number, of all that are run in FILES."""

    def __init__(self, number, withs, uncovered):
        self.left, self.where, self.withs = number, None, withs
        self.uncovered = uncovered

    def __call__(self, frame, event, arg):
        return self.line if frame.f_code.co_filename in FILES else None

    def line(self, frame, event, arg):
        if event == "line" and self.where is None and self.possible(frame):
            self.left -= 1
            if not self.left:
                self.where = f"{os.path.relpath(frame.f_code.co_filename, ROOT)}:{frame.f_lineno}"
                raise KeyboardInterrupt
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
