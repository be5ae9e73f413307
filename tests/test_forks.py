"""Forks with an open memory: a child has files and locks of its own, whatever other threads of its parent were doing."""

from __future__ import annotations

import os
import subprocess
import threading

import pytest
from outside import add, check_whole, end, open_memory, run, start

from raeburnmemory import mutex
from raeburnmemory.mutex import Mutex

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path):
    return tmp_path / request.param


FORK = """
import os, sys, threading, time
from raeburnmemory.nodes import Batch, Node
from faults import rounds
from outside import add, check_whole, open_memory
path, how = sys.argv[1], sys.argv[2]
memory = open_memory(path, timeout=15)
add(memory, "before")
memory.similar("thing"), list(memory.graph)
running, number = True, 0
def background():
    global number
    while running and how == "thread":
        add(memory, f"thread-{number}")
        number += 1
    while running and number < 30:  # so much at once that a fork falls into the middle of a transaction
        memory._store.write(Batch(nodes=[Node(f"note-{n}", "note", f"{number}") for n in range(1500)]))
        number += 1
thread = threading.Thread(target=background, daemon=True)
if how in {"thread", "bulk"}:
    thread.start()
children = []
for child in range(4):
    if how == "bulk":
        time.sleep(0.07)  # for the thread to be in a transaction again
    pid = os.fork()
    if not pid:
        try:
            assert memory.get("pbefore").text == "thing before of s"
            for number in range(10):
                add(memory, f"child{child}-{number}")
            assert memory.similar(f"thing child{child}-9", 1)
            assert f"pchild{child}-9" in memory.graph
            if how == "close":
                memory.close()
            if how == "exit":
                sys.exit(0)
        except Exception:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    children.append(pid)
    add(memory, f"parent-{child}")
for pid in children:
    assert os.waitpid(pid, 0)[1] == 0, "a child failed"
running = False
if how in {"thread", "bulk"}:
    thread.join()
add(memory, "after")
expected = ["pbefore", "pafter", *(f"pthread-{n}" for n in range(number) if how == "thread")]
expected += [f"pparent-{i}" for i in range(4)]
expected += [f"pchild{c}-{i}" for c in range(4) for i in range(10)]
check_whole(memory, expected)
assert memory.stats().kinds.get("note", 0) == (1500 if how == "bulk" else 0)
memory.close()
with open_memory(path) as again:
    check_whole(again, expected)
"""


@pytest.mark.parametrize("how", ["plain", "close", "exit", "thread", "bulk"])
def test_a_fork_with_an_open_memory(path, how):
    run(FORK, path, how, timeout=120)


def test_a_child_of_a_fork_does_not_keep_the_lock_of_its_parent(path):
    code = """
import os, signal, sys, time
from outside import add, open_memory
memory = open_memory(sys.argv[1])
add(memory, "first")
with memory._store.exclusive():
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
started = time.monotonic()
with open_memory(sys.argv[1], timeout=20) as other:
    add(other, "second")
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
assert time.monotonic() - started < 10
"""
    run(code, path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_threads_that_fork_at_once_let_go_of_what_they_took_themselves(monkeypatch):
    held, release = Mutex(over_fork=True), Mutex.__exit__
    monkeypatch.setattr(mutex, "_mutexes", {held})
    monkeypatch.setattr(mutex, "_loans", [])
    taken, over = threading.Event(), threading.Event()

    def another():
        mutex._hold_before_fork()
        taken.set()
        assert over.wait(20)
        mutex._release_in_parent()

    def slow(self, *more):
        release(self, *more)
        assert taken.wait(20)  # the other thread takes it before this one goes on

    mutex._hold_before_fork()
    other = threading.Thread(target=another)
    other.start()
    monkeypatch.setattr(Mutex, "__exit__", slow)
    try:
        mutex._release_in_parent()
    finally:
        over.set()
        other.join(20)
    assert held.take(0)
    release(held)


# The parent is gone when others come: with its locks, SQLite would take the -wal file away that the child writes to.
DAEMON = """
import os, sys
from outside import add, open_memory
memory = open_memory(sys.argv[1])
add(memory, "parent")
memory.similar("thing")
if os.fork():
    os._exit(0)
sys.stdin.readline()
for number in range(3):
    add(memory, f"child-{number}")
    print(number, flush=True)
    sys.stdin.readline()
assert memory.get("pchild-2")
"""


def test_a_child_that_outlives_its_parent(path):
    child = start(DAEMON, path, stdin=subprocess.PIPE)
    try:
        child.wait(60)
        for number in range(3):
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == f"{number}\n"
            with open_memory(path, timeout=30) as other:  # the only other one: closing it tidies the files
                add(other, f"other-{number}")
        assert child.communicate("\n", timeout=60) == ("", "")
    finally:
        end(child)
    names = [f"p{who}-{number}" for who in ("child", "other") for number in range(3)]
    with open_memory(path) as memory:
        check_whole(memory, ["pparent", *names])


UPKEEP = """
import os, sys, threading, time
from outside import add, check_whole, open_memory
from raeburnmemory import doctor
path, what = sys.argv[1:]
memory = open_memory(path, timeout=20)
for number in range(40):
    add(memory, f"before-{number}")
done, running = 0, True
def upkeep():
    global done
    while running:
        if what == "backup":
            memory.backup(path + ".copy" + os.path.splitext(path)[1], overwrite=True)
        elif what == "erase":
            add(memory, f"gone-{done}")
            memory.forget(f"pgone-{done}", secure=True)
        elif what == "verify":
            assert not doctor.verify(path).codes("error")
        elif what == "compact":
            doctor.compact(path)
        else:
            open_memory(path, timeout=20).close()
        done += 1
thread = threading.Thread(target=upkeep)
thread.start()
names = []
end = time.monotonic() + 3
while time.monotonic() < end or done < 3 or len(names) < 10:
    name = f"child-{len(names)}"
    pid = os.fork()
    if not pid:
        try:
            add(memory, name)
            assert memory.get("pbefore-7").text == "thing before-7 of s"
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    names.append("p" + name)
    assert os.waitpid(pid, 0)[1] == 0, "a child failed"
running = False
thread.join()
check_whole(memory, [f"pbefore-{n}" for n in range(40)] + names)
memory.close()
assert not doctor.verify(path).codes("error")
"""


@pytest.mark.parametrize("what", ["backup", "erase", "verify", "compact", "open"])
def test_forks_while_another_thread_looks_after_the_memory(path, what):
    run(UPKEEP, path, what, timeout=120)


LATE = """
import os, sys, threading, traceback
from outside import add, open_memory
from raeburnmemory import mutex
from raeburnmemory.errors import StoreError
mutex.FORK_WAIT = 0.3
memory = open_memory(sys.argv[1])
add(memory, "before")
held, over = threading.Event(), threading.Event()
def reading():
    with memory._store.snapshot():
        held.set()
        over.wait(60)
thread = threading.Thread(target=reading)
thread.start()
held.wait(60)
pid = os.fork()
if not pid:
    code = 0
    for use in (lambda: memory.get("pbefore"), lambda: open_memory(sys.argv[1])):
        try:
            use()
            code = 1
        except StoreError as exc:
            code = code or (0 if "'spawn'" in str(exc) else 2)
        except BaseException:
            traceback.print_exc()
            code = 3
    os._exit(code)
code = os.waitpid(pid, 0)[1]
over.set()
thread.join()
assert code == 0, code
add(memory, "after")
pid = os.fork()
if not pid:
    add(memory, "child")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert memory.get("pchild") and memory.get("pafter")
"""


SNAPSHOT = """
import os, sys, time
from outside import add, open_memory
from raeburnmemory.errors import StoreError
path = sys.argv[1]
memory = open_memory(path)
add(memory, "before")
with memory.snapshot():
    assert len(memory) == 4
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        try:
            memory.get("pbefore")
        except StoreError as exc:
            os._exit(0 if path.endswith(".db") and "snapshot" in str(exc) else 2)
        os._exit(0 if path.endswith(".json") else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert time.monotonic() - start < 8  # nobody has to be waited for
    with open_memory(path, timeout=30) as other:
        add(other, "other")
    assert len(memory) == 4
assert len(memory) == 6
pid = os.fork()
if not pid:
    add(memory, "child")
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
assert memory.get("pchild")
"""


def test_a_fork_in_a_snapshot(path):
    run(SNAPSHOT, path, timeout=60)


def test_a_child_that_got_a_connection_in_use_refuses_sqlite(tmp_path):
    run(LATE, tmp_path / "g.db", timeout=60)
