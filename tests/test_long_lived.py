"""Open for long, beside others: readers while files grow, shrink and vanish, an event loop that goes on, forks of servers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import subprocess
import sys
import threading
import time

import pytest
from faults import rounds
from outside import add, check_whole, end, finish, open_memory, run, start

from raeburnmemory.errors import LockTimeout, MemoryGraphError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals, fork and /proc are those of a POSIX system")


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path):
    (tmp_path / "here").mkdir()
    return tmp_path / "here" / request.param


# --- readers ----------------------------------------------------------------------------------------------------

READS = """
import sys, time
from outside import open_memory
from raeburnmemory.errors import MemoryGraphError
path, patient = sys.argv[1], sys.argv[2] == "patient"
memory, rounds, refused = open_memory(path, read_only=True), 0, 0
pages = iter(memory.nodes("prompt"))
print("ready", flush=True)
while rounds < 20 or not __import__("os").path.exists(path + ".enough"):
    rounds += 1
    try:
        next(pages, None)
        memory.similar("thing", 3)
        len(memory), memory.export(False)
        with open_memory(path, read_only=True) as other:
            len(other)
    except MemoryGraphError as error:
        assert patient, error
        refused += 1
        time.sleep(0.01)
print(rounds, refused)
"""


def reader(path, how):
    process = start(READS, path, how)
    assert process.stdout.readline() == "ready\n", process.stderr.read()
    return process


def test_the_wal_file_stays_small_beside_a_reader(tmp_path):
    """Much is written at once, and in little pieces, while somebody reads all the time."""
    path = tmp_path / "g.db"
    largest = written = 0
    with open_memory(path) as memory:
        add(memory, 0)
        process = reader(path, "eager")
        try:
            for number in range(1, 161):
                size = 1_000_000 if number % 2 else 2000
                memory.add_interaction({"id": f"p{number}", "text": f"{number} {'x' * size}"})
                if number > 4:
                    memory.forget(f"p{number - 4}")  # so that what is read stays small
                written += size
                largest = max(largest, (tmp_path / "g.db-wal").stat().st_size)
        finally:
            (tmp_path / "g.db.enough").touch()
            (said,) = finish([process])
    assert int(said.split()[0]) >= 20
    assert written > 1.1 * (64 << 20)
    assert largest < 64 << 20, largest


@pytest.mark.parametrize("how", ["emptied", "halved", "removed", "filled with zeros"])
def test_files_that_shrink_under_a_reader(path, how):
    """An error of ours or an answer, and no signal: nothing that can shrink is mapped.

    But for the -shm file of SQLite, which only SQLite itself shrinks, and under a lock.
    """
    with open_memory(path) as memory:
        for number in range(30):
            add(memory, number)
        memory.export()
        add(memory, 30)
        names = [file.name for file in path.parent.iterdir() if not file.name.endswith((".lock", ".gate", "-shm"))]
        assert len(names) >= (2 if path.suffix == ".db" else 6)
        shutil.copytree(path.parent, path.parent.with_name("kept"))
    kept = path.parent.with_name("kept")
    with rounds("file shrinks under a reader", path.name) as count:
        process = reader(path, "patient")
        try:
            for name in names:
                with count.round(f"{name} {how}"):
                    file = path.with_name(name)
                    if how == "removed":
                        file.unlink()
                    elif how == "filled with zeros":
                        with file.open("r+b") as opened:
                            opened.write(bytes(file.stat().st_size))
                    else:
                        os.truncate(file, 0 if how == "emptied" else file.stat().st_size // 2)
                    time.sleep(0.1)
                    shutil.copy(kept / name, path.with_name("again"))
                    path.with_name("again").replace(file)
                    time.sleep(0.05)
                    assert process.poll() is None, process.communicate()[1]
            path.with_name(path.name + ".enough").touch()
            with count.round("the end", faults=0):
                out, err = process.communicate(timeout=60)
                assert process.returncode == 0, f"{process.returncode}: {err}"
                assert int(out.split()[0]) >= 20
        finally:
            end(process)


@pytest.mark.long
def test_a_thousand_times_opened_and_closed(path):
    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    with open_memory(path) as memory:
        add(memory, 0)
    before, threads = descriptors(), threading.active_count()
    for number in range(1000):
        with open_memory(path) as memory:
            if number % 10 == 0:
                add(memory, number + 1)
    assert descriptors() <= before
    assert threading.active_count() <= threads
    with open_memory(path) as memory:
        check_whole(memory, [f"p{number}" for number in [0, *range(1, 1000, 10)]])


# --- an event loop, and servers ---------------------------------------------------------------------------------


def test_an_event_loop_is_never_held_up(path):
    """A hundred tasks add, some of them cancelled, while the loop ticks."""
    dice, ticks = random.Random(7), []

    async def tick():
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.001)
            ticks.append(time.perf_counter() - before)

    async def one(memory, number):
        text = f"thing {number} of s"
        await memory.add_interaction_async(
            {"id": f"p{number}", "text": text}, {"id": f"r{number}", "text": f"answer to {text}"}, "agent", "s"
        )

    async def everything(memory):
        ticking = asyncio.create_task(tick())
        tasks = [asyncio.create_task(one(memory, number)) for number in range(100)]
        for number in dice.sample(range(100), 30):
            await asyncio.sleep(0.001)
            tasks[number].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        ticking.cancel()
        return [number for number, result in enumerate(results) if result is None]

    with open_memory(path, timeout=240) as memory:
        add(memory, "first")  # what is imported late is imported now
        done = asyncio.run(everything(memory))
        there = {node.id for node in memory.nodes("prompt")}
        assert {f"p{number}" for number in done} <= there
        check_whole(memory, there)
    assert len(done) >= 70
    # The work itself takes turns with the loop, for 5 ms each where threads take turns; more would be waiting.
    assert sorted(ticks)[int(0.95 * len(ticks))] < 0.05, sorted(ticks)[-5:]


PREFORK = """
import multiprocessing, sys
from outside import add, check_whole, open_memory
memory = open_memory(sys.argv[1], timeout=60)  # as a server does that loads its application before it forks
add(memory, "parent")
memory.similar("thing")
def serve(who):
    for number in range(20):
        add(memory, f"{who}-{number}")
        memory.similar("thing", 2)
    assert memory.get("pparent")
if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    with context.Pool(3) as pool:
        pool.map(serve, range(3))
    workers = [context.Process(target=serve, args=(who,)) for who in (3, 4)]
    for worker in workers:
        worker.start()
    add(memory, "meanwhile")
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    check_whole(memory, ["pparent", "pmeanwhile", *(f"p{w}-{n}" for w in range(5) for n in range(20))])
"""


def test_servers_that_fork_with_an_open_memory(path):
    run(PREFORK, path)


# --- locks ------------------------------------------------------------------------------------------------------

STOPPED = """
import os, signal, sys
from outside import add, open_memory
memory = open_memory(sys.argv[1])
add(memory, "held")
with memory._store.exclusive():
    os.write(1, b"held\\n")
    os.kill(os.getpid(), signal.SIGSTOP)
os.write(1, b"free\\n")
memory.close()
"""


def test_a_holder_that_hangs_and_goes_on(path):
    """However old the lock is, it is not broken; whoever waited long enough gets in once it is free."""
    with open_memory(path, timeout=30) as memory:
        add(memory, "first")
        process = start(STOPPED, path)
        try:
            assert process.stdout.readline() == "held\n"
            for suffix in (".lock", ".lock.gate"):
                os.utime(path.with_name(path.name + suffix), (0, 0))  # as if it had been held since 1970
            if path.suffix == ".json":  # opening a database takes its lock
                with open_memory(path, timeout=0.2) as hasty, pytest.raises(LockTimeout, match=str(process.pid)):
                    add(hasty, "hasty")
            wake = threading.Timer(0.5, process.send_signal, [18])
            wake.start()
            started = time.monotonic()
            add(memory, "patient")
            assert 0.3 < time.monotonic() - started < 20
            wake.join()
            assert process.communicate(timeout=60)[0] == "free\n"
        finally:
            end(process)
        check_whole(memory, ["pfirst", "pheld", "ppatient"])


def test_one_lock_through_a_bind_mount(path):
    other = path.parent.with_name("bound")
    other.mkdir()
    tried = subprocess.run(["mount", "--bind", str(path.parent), str(other)], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip("this user may not mount")
    try:
        with open_memory(path) as memory:
            add(memory, 0)
            with open_memory(other / path.name, timeout=0.2) as same:
                with memory._store.exclusive(), pytest.raises(LockTimeout):
                    add(same, 1)
                add(same, 1)
            add(memory, 2)
            check_whole(memory, ["p0", "p1", "p2"])
    finally:
        subprocess.run(["umount", str(other)], check=True)


@pytest.mark.parametrize("name", [".lock", ".lock.gate"])
def test_a_lock_file_that_cannot_be_opened_is_named(path, name):
    with open_memory(path) as memory:
        add(memory, 0)
    lock = path.with_name(path.name + name)
    lock.unlink()
    lock.mkdir()
    with pytest.raises(MemoryGraphError, match=name), open_memory(path) as memory:
        add(memory, 1)
    with open_memory(path, read_only=True) as memory:
        assert memory.get("p0").text
    with contextlib.suppress(OSError):
        lock.rmdir()
    with open_memory(path) as memory:
        add(memory, 1)
        check_whole(memory, ["p0", "p1"])
