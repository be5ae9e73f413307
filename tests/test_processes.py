"""Several processes, threads and tasks on one store: no write is lost, and everybody sees what the others wrote."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from types import SimpleNamespace

import pytest
from faults import rounds
from outside import add, check_whole, end, finish, open_memory, run, start

import raeburnmemory.file_lock
import raeburnmemory.lock
from raeburnmemory.errors import LockTimeout, StoreCorrupt, StoreWriteFailed
from raeburnmemory.lock import StoreLock
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Batch, Node, Where
from raeburnmemory.store import open_store

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals, fork and /proc are those of a POSIX system")

PROCESSES, ADDS = 8, 200


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path):
    return tmp_path / request.param


WRITER = """
import sys
from outside import add, open_memory
path, who, adds = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open_memory(path, timeout=240) as memory:
    for number in range(adds):
        add(memory, f"{who}-{number}", f"s{who}")
"""

# Reads in every way there is until the file that says "enough" appears; whoever is told to also folds meanwhile.
READER = """
import os, sys, time
from outside import open_memory
path, enough, folds = sys.argv[1], sys.argv[2], sys.argv[3] == "folds"
memory, rounds, seen = open_memory(path, read_only=not folds, timeout=240), 0, 0
while not os.path.exists(enough) or not rounds:
    rounds += 1
    time.sleep(0.2)  # two processors have eight writers to serve as well
    data = memory.export(None if folds and rounds % 5 == 0 else False)
    nodes = {n["id"]: n for n in data["nodes"]}
    starts = {(e["source"], e["relation"]) for e in data["edges"]}
    ends = {e[end] for e in data["edges"] for end in ("source", "target")}
    assert ends <= set(nodes), f"edges of {sorted(ends - set(nodes))}, which are not in the same export"
    prompts = [i for i, n in nodes.items() if n["type"] == "prompt"]
    for prompt in prompts:
        assert (prompt, "responded_with") in starts and (prompt, "belongs_to") in starts, f"half of {prompt}"
        assert ("r" + prompt[1:], "generated_by") in starts, f"half of {prompt}"
    assert len(prompts) >= seen, "what was there is gone"
    seen = len(prompts)
    graph = memory.graph
    assert graph.number_of_nodes() >= len(nodes)
    assert all("type" in graph.nodes[node] for node in graph)
    copy = memory.to_networkx()
    assert all("type" in copy.nodes[node] for node in copy)
    if prompts:
        assert len(memory) >= len(nodes)
        assert memory.stats().unembedded == 0
        last = memory.get(prompts[-1])
        hits = memory.similar(last.text, 3)
        assert hits and abs(hits[0].score - 1) < 1e-5
        assert [n.id for n in memory.neighbours(last.id, "responded_with")] == ["r" + last.id[1:]]
        assert last.id in [n.id for n in memory.thread(memory.neighbours(last.id, "belongs_to")[0].id)]
memory.close()
print(rounds)
"""


def at_length(runs):
    """Once, and *runs* times in the long form."""
    return pytest.mark.parametrize("again", [0, *(pytest.param(n, marks=pytest.mark.long) for n in range(1, runs))])


@at_length(10)
def test_eight_writers_lose_nothing_and_readers_see_no_half(path, tmp_path, again):
    open_memory(path).close()
    enough = tmp_path / "enough"
    readers = [start(READER, path, enough, how) for how in ("reads", "folds")]
    writers = [start(WRITER, path, who, ADDS) for who in range(PROCESSES)]
    try:
        list(finish(writers))
    finally:
        enough.touch()
        rounds = [int(out) for out in finish(readers)]
    assert min(rounds) >= 1
    total = PROCESSES * ADDS
    prompts = [f"p{who}-{number}" for who in range(PROCESSES) for number in range(ADDS)]
    for _ in range(2):
        with open_memory(path) as memory:
            kinds = {"agent": 1, "prompt": total, "response": total, "session": PROCESSES}
            check_whole(memory, prompts, kinds=kinds)
            assert memory.stats().relations == {
                "belongs_to": total,
                "generated_by": total,
                "responded_with": total,
            }
            for who in range(PROCESSES):  # in the order in which each of them wrote
                said = [node.id for node in memory.thread(f"s{who}") if node.kind == "prompt"]
                assert said == [f"p{who}-{number}" for number in range(ADDS)]
    if path.suffix == ".db":
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    else:
        with path.open() as file:
            assert len(json.load(file)["nodes"]) == 2 * total + PROCESSES + 1


# --- seeing what others wrote -----------------------------------------------------------------------------------

ADD_ONE = """
import sys
from outside import add, open_memory
with open_memory(sys.argv[1]) as memory:
    add(memory, sys.argv[2])
"""


@pytest.mark.parametrize("folding", ["", "other folds", "we fold"])
def test_a_stale_copy_is_not_written_back(path, folding):
    with open_memory(path) as memory:
        add(memory, 0)
        list(memory.graph)
        memory.similar("thing")
        run(ADD_ONE, path, 1)  # closes, and so folds
        if folding == "we fold":
            memory.export()
        add(memory, 2)
        with open_memory(path) as other:
            add(other, 3)
            if folding == "other folds":
                other.export()
            add(memory, 4)
            add(other, 5)
        add(memory, 6)
        check_whole(memory, [f"p{i}" for i in range(7)])
    with open_memory(path) as memory:
        check_whole(memory, [f"p{i}" for i in range(7)])
        assert [node.id for node in memory.nodes("prompt")] == [f"p{i}" for i in range(7)]


SEES = {
    "get": lambda m: m.get("p1").text == "thing 1 of s",
    "in": lambda m: "p1" in m,
    "len": lambda m: len(m) == 6,
    "nodes": lambda m: [n.id for n in m.nodes("prompt")] == ["p0", "p1"],
    "iteration": lambda m: "r1" in [n.id for n in m],
    "neighbours": lambda m: [n.id for n in m.neighbours("s", direction="in")] == ["p0", "p1"],
    "links": lambda m: len(m.links("agent")) == 2,
    "thread": lambda m: [n.id for n in m.thread("s")] == ["p0", "r0", "p1", "r1"],
    "similar": lambda m: m.similar("thing 1", 1).ids == ["p1"],
    "vector_index": lambda m: m.vector_index.ntotal == 2,
    "stats": lambda m: m.stats().kinds["prompt"] == 2,
    "graph": lambda m: list(m.graph.successors("p1")) == ["r1", "s"],
    "to_networkx": lambda m: "p1" in m.to_networkx(),
    "export": lambda m: "p1" in [n["id"] for n in m.export(False)["nodes"]],
    "chain": lambda m: m.visualise_prompt_chain("p1") == [("p1", "r1"), ("r1", "agent")],
    "update": lambda m: m.update("p1", metadata={"a": 1}).text == "thing 1 of s",
    "link": lambda m: m.link("p0", "p1", "next") is None,
    "forget": lambda m: m.forget("p1").ids == ("p1",),
}


@pytest.mark.parametrize(
    ("process", "how"),
    [*[("this", how) for how in SEES], *[("another", how) for how in ("get", "similar", "graph")]],
)
def test_the_next_call_sees_what_others_wrote(path, process, how):
    with open_memory(path) as memory, open_memory(path) as other:
        add(memory, 0)
        memory.similar("thing")
        list(memory.graph)
        if process == "this":
            add(other, 1)
        else:
            run(ADD_ONE, path, 1)
        assert SEES[how](memory)


def test_a_graph_that_was_read_before_catches_up_when_it_is_read_again(path):
    with open_memory(path) as memory, open_memory(path) as other:
        add(memory, 0)
        graph = memory.graph
        add(other, 1)
        other.update("p0", text="thing other of s")
        other.link("p0", "p1", "next", weight=2)
        other.forget("r0")
        assert memory.graph is graph
        assert set(graph) == {"p0", "agent", "s", "p1", "r1"}
        assert graph.nodes["p0"]["text"] == "thing other of s"
        assert graph.edges["p0", "p1"]["weight"] == 2


# --- threads and tasks ------------------------------------------------------------------------------------------


WRITE_AND_SEARCH = """
import faulthandler, sys, threading
from outside import add, open_memory
faulthandler.dump_traceback_later(60, exit=True)  # nobody could end threads that wait for each other
with open_memory(sys.argv[1]) as memory:
    add(memory, 0)
    writes = [lambda n=n: [add(memory, f"{n}-{i}") for i in range(60)] for n in range(2)]
    searches = [lambda: [memory.similar("thing 0", 1) for _ in range(300)]] * 2
    threads = [threading.Thread(target=task, daemon=True) for task in writes + searches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(memory.stats().kinds["prompt"])
"""


@pytest.mark.parametrize("name", [":memory:", "g.json", "g.db"])
def test_threads_that_write_and_search_do_not_wait_for_each_other_for_ever(tmp_path, name):
    """A writer asks for the model while it keeps others out, and whoever has the model reads the store."""
    place = name if name == ":memory:" else tmp_path / name
    assert run(WRITE_AND_SEARCH, place) == "121\n"


@at_length(10)
def test_thirty_two_threads_on_one_memory(path, again):
    errors = []
    begin = threading.Barrier(32)

    def work(who):
        try:
            begin.wait()
            for number in range(5):
                add(memory, f"{who}-{number}", f"s{who}")
                assert memory.similar(f"thing {who}-{number} of s{who}", 1)[0].score > 0.99
                assert f"p{who}-{number}" in memory.graph
                assert len(memory.thread(f"s{who}")) == 2 * number + 2
        except BaseException as exc:  # noqa: BLE001 - told by the test itself
            errors.append(exc)

    with open_memory(path, timeout=240) as memory:
        threads = [threading.Thread(target=work, args=(who,)) for who in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors[0]
        check_whole(memory, [f"p{who}-{number}" for who in range(32) for number in range(5)])
    with open_memory(path) as memory:
        check_whole(memory, [f"p{who}-{number}" for who in range(32) for number in range(5)])


def test_threads_that_open_the_same_store_themselves(path):
    errors = []

    def work(who):
        try:
            with open_memory(path, timeout=240) as memory:
                for number in range(5):
                    add(memory, f"{who}-{number}", f"s{who}")
        except BaseException as exc:  # noqa: BLE001 - told by the test itself
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]  # none is there: they race to make it
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]
    with open_memory(path) as memory:
        check_whole(memory, [f"p{who}-{number}" for who in range(8) for number in range(5)])


@at_length(10)
def test_tasks_that_are_cancelled_are_recorded_whole_or_not_at_all(path, again):
    dice = random.Random(5 + again)

    async def one(memory, number):
        text = f"thing {number} of s"
        await memory.add_interaction_async(
            {"id": f"p{number}", "text": text}, {"id": f"r{number}", "text": f"answer to {text}"}, "agent", "s"
        )

    async def everything(memory):
        tasks = [asyncio.create_task(one(memory, number)) for number in range(50)]
        cancelled = dice.sample(range(50), 20)
        for number in cancelled:
            await asyncio.sleep(dice.random() * 0.005)
            tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            assert result is None or (number in cancelled and isinstance(result, asyncio.CancelledError)), result
        return [number for number, result in enumerate(results) if result is None]

    with open_memory(path, timeout=240) as memory:
        done = asyncio.run(everything(memory))
        assert len(done) >= 30
    with open_memory(path) as memory:
        there = [node.id for node in memory.nodes("prompt")]
        assert {f"p{number}" for number in done} <= set(there)
        check_whole(memory, there)
        assert memory.stats().kinds["response"] == len(there)


# --- the lock ---------------------------------------------------------------------------------------------------

HOLDER = """
import sys, time
from outside import add, open_memory
memory = open_memory(sys.argv[1])
add(memory, "held")
with memory._store.exclusive():
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(path):
    """Another process that holds the lock of the store at *path*."""
    process = start(HOLDER, path)
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        end(process)


def test_the_lock_of_a_killed_process_is_free(path):
    with holder(path) as other, open_memory_while_held(path) as memory:
        other.send_signal(signal.SIGKILL)
        started = time.monotonic()
        add(memory, "next")
        assert time.monotonic() - started < 2
        check_whole(memory, ["pheld", "pnext"])


@contextmanager
def open_memory_while_held(path):
    """Opening a JSON store takes no lock; a SQLite store does, so open that one before anybody holds it."""
    if path.suffix == ".json":
        with open_memory(path, timeout=60) as memory:
            yield memory
        return
    memory = []
    thread = threading.Thread(target=lambda: memory.append(open_memory(path, timeout=60)))
    thread.start()
    yield Later(thread, memory)
    memory[0].close()


class Later:
    """A memory that is still being opened in a thread; the first use waits for it."""

    def __init__(self, thread, found):
        self._thread, self._found = thread, found

    def __getattr__(self, name):
        self._thread.join()
        return getattr(self._found[0], name)


def test_a_stopped_process_is_named_and_nothing_breaks_its_lock(path):
    with open_memory(path, timeout=0.4) as memory:
        add(memory, "first")
        with holder(path) as other:
            other.send_signal(signal.SIGSTOP)
            for attempt in (lambda: add(memory, "second"), lambda: memory.forget("pfirst"), memory.export):
                started = time.monotonic()
                if attempt == memory.export and path.suffix == ".db":
                    continue  # writes its own file, for which it needs no lock
                with pytest.raises(LockTimeout, match=rf"{path.name}.*\b{other.pid}\b.*0\.4 s.*timeout=") as caught:
                    attempt()
                assert isinstance(caught.value, TimeoutError)
                assert 0.35 < time.monotonic() - started < 10
            assert memory.get("pfirst").text  # reading needs no lock
            assert memory.get("pheld").text
            assert memory.similar("thing held", 1).ids == ["pheld"]
            assert "pheld" in memory.graph
            with open_memory(path, read_only=True) as reader:
                assert "pheld" in reader
            other.send_signal(signal.SIGCONT)
            with pytest.raises(LockTimeout):
                add(memory, "second")
        add(memory, "second")
        check_whole(memory, ["pfirst", "pheld", "psecond"])


def test_no_waiting_at_all(path):
    with open_memory(path, timeout=0) as memory:
        add(memory, 0)
        with holder(path):
            started = time.monotonic()
            with pytest.raises(LockTimeout):
                add(memory, 1)
            assert time.monotonic() - started < 5
        add(memory, 1)
        check_whole(memory, ["p0", "p1"])


def test_waits_that_were_given_up_do_not_pile_up(tmp_path):
    """Whoever retries with a short timeout while somebody holds the lock adds no thread per try and then gets in."""
    with StoreLock(tmp_path / "store", 5)():
        lock = StoreLock(tmp_path / "store", 0.01)
        before = threading.active_count()
        for _ in range(20):
            with pytest.raises(LockTimeout), lock():
                pass
        assert threading.active_count() <= before + 1
        with pytest.raises(LockTimeout), StoreLock(tmp_path / "store", 0)():
            pass
        assert threading.active_count() <= before + 1
    with lock(5):
        pass
    # The wait given up above has passed; nothing is held.
    for _ in range(20):
        with StoreLock(tmp_path / "store", 5)():
            pass


def test_a_process_may_go_on_for_a_while_and_then_lets_the_next_one_in(tmp_path, monkeypatch):
    at_gate, slept, order, now = threading.Event(), threading.Event(), [], [100.0]

    def pause(seconds):
        at_gate.set()
        assert slept.wait(20)

    for module in (raeburnmemory.lock, raeburnmemory.file_lock):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(raeburnmemory.lock, "_rest", pause)
    first, second = StoreLock(tmp_path / "a", 30), StoreLock(tmp_path / "a", 30)

    def come():
        with second():
            order.append("second")

    with first():
        waiting = threading.Thread(target=come)
        waiting.start()
        assert at_gate.wait(20)  # it stands in the gate, and saw that the lock is taken
    for _ in range(3):
        with first():
            order.append("first")
    now[0] += 1.0
    behind = threading.Thread(target=lambda: first.enter() and (order.append("late"), first.leave()))
    behind.start()
    behind.join(0.2)
    assert order == ["first"] * 3  # it had its time, and stands behind the other
    slept.set()
    for thread in (waiting, behind):
        thread.join(20)
    assert order == ["first"] * 3 + ["second", "late"]
    for one in (first, second):
        one.close()


def until(reached):
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_who_waits_for_another_process_takes_in_meanwhile_what_that_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(raeburnmemory.lock, "_TENURE", 20.0)
    with closing(open_store(tmp_path / "g.json")) as one, closing(open_store(tmp_path / "g.json")) as other:
        told = []
        waiting = threading.Thread(target=lambda: told.append(other.write(Batch(nodes=[Node("late", "note", "late")]))))
        with one.exclusive():
            waiting.start()
            for number in range(3):
                one.write(Batch(nodes=[Node(f"n{number}", "note", "text")]))
                one._section.sync()
                until(lambda: other._state.version == number + 1)  # noqa: B023
            assert not told
        waiting.join(20)
        assert told == [4]
        assert [node.id for node in one.nodes(Where())] == ["n0", "n1", "n2", "late"]


def test_who_waits_for_another_process_waits_for_no_reader_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(raeburnmemory.lock, "_TENURE", 20.0)
    with (
        closing(open_store(tmp_path / "g.json")) as one,
        closing(open_store(tmp_path / "g.json", timeout=0.3)) as other,
    ):
        reading, over, told = threading.Event(), threading.Event(), []

        def read():
            with other.snapshot():
                reading.set()
                assert over.wait(20)

        def write():
            try:
                other.write(Batch(nodes=[Node("late", "note", "late")]))
            except LockTimeout as error:
                told.append(str(error))

        reader, writer = threading.Thread(target=read), threading.Thread(target=write)
        reader.start()
        assert reading.wait(20)
        with one.exclusive():
            writer.start()
            writer.join(20)
            assert "did not let go for 0.3 s" in told[0]
        over.set()
        reader.join(20)
        assert other.write(Batch(nodes=[Node("now", "note", "now")])) == 1


def test_what_cannot_be_read_while_waiting_is_told_by_the_write_and_keeps_nobody_out(tmp_path, monkeypatch):
    monkeypatch.setattr(raeburnmemory.lock, "_TENURE", 20.0)
    with closing(open_store(tmp_path / "g.json")) as one, closing(open_store(tmp_path / "g.json")) as other:
        looked, told = threading.Event(), []
        look = other._look
        monkeypatch.setattr(other, "_look", lambda: looked.set() or look())

        def write():
            try:
                other.write(Batch(nodes=[Node("late", "note", "late")]))
            except StoreCorrupt as error:
                told.append(error)

        waiting = threading.Thread(target=write)
        with one.exclusive():
            with open(tmp_path / "g.json.journal", "ab") as journal:
                journal.write(b'00000000 {"version":1}\n')
            waiting.start()
            assert looked.wait(20)
            assert not told
        waiting.join(20)
        assert "wrong checksum" in str(told[0])
        assert (other._mutex.take(0), other._lock._gate.acquire(0), other._lock._main.acquire(0)) == (True,) * 3
        other._mutex.lock.release()
        other._lock._gate.release()
        other._lock._main.release()


def test_who_waits_again_and_again_does_so_in_one_thread(tmp_path, monkeypatch):
    monkeypatch.setattr("raeburnmemory.file_lock._STAY", 0.5)
    held, lock = StoreLock(tmp_path / "store", 5), StoreLock(tmp_path / "store", 5)
    before, waiters = set(threading.enumerate()), set()

    def enter():
        with lock():
            pass

    for _ in range(5):
        with held():
            waiting = threading.Thread(target=enter)
            waiting.start()
            time.sleep(0.1)  # for it to wait
            waiters |= {t for t in threading.enumerate() if t.name == "raeburnmemory-lock"} - before
        waiting.join(5)
    (waiter,) = waiters
    waiter.join(5)
    assert not waiter.is_alive()  # nobody has waited for a while
    held.close()
    lock.close()


def test_a_wait_that_is_interrupted_keeps_nobody_out(tmp_path):
    begun, over = threading.Event(), threading.Event()

    def hold():
        with StoreLock(tmp_path / "store", 5)():
            begun.set()
            over.wait(20)

    holding = threading.Thread(target=hold)
    holding.start()
    assert begun.wait(5)
    lock = StoreLock(tmp_path / "store", 20)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background ignore it
    try:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt), lock():
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    over.set()
    holding.join(5)
    for each in (StoreLock(tmp_path / "store", 2), lock):
        with each():
            pass


def test_two_memories_of_one_thread_time_out_instead_of_waiting_for_each_other(path):
    with open_memory(path) as memory, open_memory(path, timeout=0.2) as other:
        add(memory, 0)
        with memory._store.exclusive():
            add(memory, 1)  # its own lock can be taken again
            with pytest.raises(LockTimeout, match=str(os.getpid())):
                add(other, 2)
        add(other, 2)
        check_whole(memory, ["p0", "p1", "p2"])


def test_a_deleted_lock_file_lets_no_two_in(tmp_path):
    first, second, third = (StoreLock(tmp_path / "store", 20) for _ in range(3))
    inside, seen = [], []

    def enter():
        with second():
            seen.append(list(inside))

    with first():
        waiting = threading.Thread(target=enter)
        waiting.start()
        time.sleep(0.2)  # for it to wait on the file that goes now
        for name in ("store.lock", "store.lock.gate"):
            (tmp_path / name).unlink()
        taken = third()
        taken.__enter__()
        inside.append("third")
    waiting.join(0.3)
    assert waiting.is_alive()  # it got the old file, and saw that it is not the one of that name any more
    inside.clear()
    taken.__exit__(None, None, None)
    waiting.join(20)
    assert seen == [[]]
    for lock in (first, second, third):
        lock.close()


def test_a_store_whose_lock_file_is_deleted_by_somebody_stays_whole(path):
    with open_memory(path) as memory, open_memory(path) as other:
        add(memory, 0)
        with memory._store.exclusive():
            for name in (".lock", ".lock.gate"):
                path.with_name(path.name + name).unlink()
            add(other, 1)
            add(memory, 2)
        add(other, 3)
        check_whole(memory, ["p0", "p1", "p2", "p3"])
    with open_memory(path) as memory:
        check_whole(memory, ["p0", "p1", "p2", "p3"])


def test_every_name_of_a_store_leads_to_one_lock(path, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "folder").symlink_to(tmp_path)
    link = tmp_path / "elsewhere" / f"link{path.suffix}"
    link.symlink_to(path)
    monkeypatch.chdir(tmp_path)
    with open_memory(path) as memory:
        add(memory, 0)
        names = [link, tmp_path / "folder" / path.name, path.name, f"elsewhere/../{path.name}"]
        for number, name in enumerate(names, 1):
            with open_memory(name, timeout=0.2) as other:
                assert other.db_path == memory.db_path
                with memory._store.exclusive(), pytest.raises(LockTimeout):
                    add(other, number)
                add(other, number)
        check_whole(memory, [f"p{i}" for i in range(5)])
    assert link.is_symlink()
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == [link.name]


TWICE = """
import os, sys
from outside import add, open_memory, run
path, how = sys.argv[1], sys.argv[2]
first = open_memory(path)
add(first, "first")
second = open_memory(path, read_only=how == "to read")  # looks into the file, and closes that look
if how == "closed again":
    second.close()
run('import sys; from outside import add, open_memory; m = open_memory(sys.argv[1]); add(m, "other"); m.close()', path)
add(first, "last")
os._exit(0)
"""


@pytest.mark.parametrize("how", ["to write", "to read", "closed again"])
def test_opening_a_store_twice_in_one_process_keeps_its_locks(tmp_path, how):
    """Else another process that closes takes itself for the last one, and removes the -wal file under the first."""
    path = tmp_path / "g.db"
    run(TWICE, path, how)
    with open_memory(path) as memory:
        check_whole(memory, ["pfirst", "pother", "plast"])


TIGHT = """
import sys, time
from outside import add, open_memory
path, who, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
with open_memory(path, timeout=60) as memory:
    print("ready", flush=True)
    sys.stdin.readline()
    end, longest, number = time.monotonic() + seconds, 0.0, 0
    while (started := time.monotonic()) < end:
        add(memory, f"{who}-{number}", f"s{who}")
        longest, number = max(longest, time.monotonic() - started), number + 1
print(longest, number)
"""


@at_length(5)
def test_nobody_starves(path, again):
    seconds = 10 if again else 1.5
    writers = [start(TIGHT, path, who, seconds, stdin=subprocess.PIPE) for who in range(4)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    results = [out.split() for out in finish(writers)]
    counts = [int(number) for _, number in results]
    longest = max(float(longest) for longest, _ in results)
    print(f"{path.name}: {counts} adds in {seconds} s, the longest took {longest:.3f} s")
    with rounds("four tight-loop writers", path.name) as count, count.round(again, faults=0, acknowledged=sum(counts)):
        assert longest < 2.0, results
        assert min(counts) * 5 > max(counts), counts
        with open_memory(path) as memory:
            assert memory.stats().kinds["prompt"] == sum(counts)


# --- what is given back -----------------------------------------------------------------------------------------


def descriptors():
    return sorted(os.listdir("/proc/self/fd"), key=int)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="descriptors are counted in /proc")
@pytest.mark.parametrize("how", ["closed", "forgotten", "failed"])
def test_opening_and_closing_many_times_leaks_no_descriptor(path, how, tmp_path):
    def once(number):
        if how == "failed":
            with pytest.raises(ValueError):
                MemoryGraph(path, "builtin")  # EmbedderMismatch, once the store is open
            return
        memory = open_memory(path)
        if number % 20 == 0:
            add(memory, number)
            memory.similar("thing")
            memory.graph.number_of_nodes()
        if how == "closed":
            memory.close()

    with open_memory(path) as memory:
        add(memory, "first")
    once(-1)
    gc.collect()
    before, threads = descriptors(), threading.active_count()
    for number in range(200 if how == "closed" else 50):
        once(number)
    gc.collect()
    assert len(descriptors()) <= len(before)
    assert threading.active_count() <= threads


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_a_copy_that_cannot_be_made_leaks_no_descriptor(tmp_path):
    (tmp_path / "g.json").write_text('{"nodes": [')
    gc.collect()
    before = descriptors()
    for _ in range(3):
        with pytest.raises(StoreCorrupt):
            open_store(tmp_path / "g.json", "sqlite")
    assert len(descriptors()) <= len(before)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_closing_leaks_no_descriptor_where_the_disk_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr("raeburnmemory.store.json._SMALL", 0)  # so that closing does not fold
    gc.collect()
    before = descriptors()
    store = open_store(tmp_path / "g.json", durability="process")
    store.write(Batch(nodes=[Node(f"n{number}", "note", "x" * 1000) for number in range(40)]))
    store.checkpoint()
    for name in "ab":
        store.write(Batch(nodes=[Node(name, "note")]))

    def refuse(fd):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", refuse)
    with pytest.raises(StoreWriteFailed, match="sync"):
        store.close()
    assert len(descriptors()) <= len(before)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_waiting_in_vain_leaks_no_descriptor(path):
    with open_memory(path, timeout=0.02) as memory:
        add(memory, 0)
        with holder(path):
            with pytest.raises(LockTimeout):
                add(memory, 1)
            before = descriptors()
            for _ in range(10):
                with pytest.raises(LockTimeout):
                    add(memory, 1)
        deadline = time.monotonic() + 10
        while len(descriptors()) > len(before) and time.monotonic() < deadline:
            time.sleep(0.05)  # for the threads that waited to find that nobody wants the lock any more
        assert len(descriptors()) <= len(before)
        add(memory, 1)


@pytest.mark.parametrize("name", ["g.json", "g.db"])
def test_the_first_vectors_of_another_are_no_strangers(tmp_path, name, monkeypatch):
    """Somebody adds the first nodes while this memory looks for its model, and removes one before it has read them."""
    with open_memory(tmp_path / name) as memory, open_memory(tmp_path / name) as other:
        look, read = memory._dense._dim_of_strangers, memory._store.at_rows

        def looked():
            found = look()
            other.add_interaction({"id": "p1", "text": "theirs"})
            other.add_interaction({"id": "p2", "text": "theirs, too"})
            return found

        def rows(picked):
            other.forget("p1")
            return read(picked)

        monkeypatch.setattr(memory._dense, "_dim_of_strangers", looked)
        monkeypatch.setattr(memory._dense, "_embedder", None)
        monkeypatch.setattr(memory._store, "at_rows", rows)
        memory.add_interaction({"id": "p3", "text": "ours"})
        monkeypatch.undo()
        assert memory.similar("ours", 1).ids == ["p3"]
