"""A sync that is killed, and two at once: what is left is what one undisturbed sync would have made."""

from __future__ import annotations

import random
import signal
import time

import pytest
from ingesting import held, opened, rebuilt, write
from outside import end, finish, start

from raeburnmemory.doctor import verify
from raeburnmemory.hub.ingestor import Ingestor

SYNC = """
import sys
from outside import Fake
from raeburnmemory.hub.ingestor import Ingestor
from raeburnmemory.memory_graph import MemoryGraph
with MemoryGraph(sys.argv[1], Fake()) as memory:
    print("open", flush=True)
    if len(sys.argv) > 3:
        sys.stdin.readline()
    def told(phase, done, total, name):
        print(phase, done, flush=True)
    report = Ingestor(memory).sync(sys.argv[2], progress=told, force=False)
    print("report", report.added, report.unchanged, report.updated, report.renamed, report.pruned, report.failed)
"""

every_store = pytest.mark.parametrize("store", ["m.json", "m.db"])


def tree(folder, count, seed=0):
    chosen = random.Random(seed)
    for number in range(count):
        parts = [f"# Part {chosen.randrange(9)}\n\nThing {chosen.randrange(99)} is here.\n\n" for _ in range(3)]
        write(folder / f"{number % 5}/f{number}.md", "".join(parts))


def change(folder, count):
    for number in range(0, count, 4):
        write(folder / f"{number % 5}/f{number}.md", f"# New\n\nThing {number}.\n")
    for number in range(1, count, 9):
        (folder / f"{number % 5}/f{number}.md").rename(folder / f"moved{number}.md")
    for number in range(2, count, 9):
        (folder / f"{number % 5}/f{number}.md").unlink()


def whole(memory, folder):
    assert held(memory) == rebuilt(folder)
    # A process that is killed may leave the file that it was writing; what it was to replace is whole.
    assert set(verify(memory.db_path).codes()) <= {"leftover"}


def killed(place, folder, steps, wait):
    """Sync in another process, and kill that after so many steps and a little more."""
    process = start(SYNC, place, folder)
    try:
        for line in process.stdout:
            steps -= line.startswith("read")
            if steps <= 0:
                break
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        end(process)


def rounds(tmp_path, store, count, times, seed):
    chosen = random.Random(seed)
    folder = tmp_path / "docs"
    tree(folder, count)
    for number in range(times):
        killed(tmp_path / store, folder, chosen.randrange(1, count), chosen.random() * 0.01)
        if number % 2:
            with opened(tmp_path / store) as memory:
                Ingestor(memory).sync(folder)
                whole(memory, folder)
            write(folder / f"more{number}.md", f"# More\n\nThing {number}.\n")
            if number == 1:
                change(folder, count)
    with opened(tmp_path / store) as memory:
        Ingestor(memory).sync(folder)
        whole(memory, folder)
        again = Ingestor(memory).sync(folder)
        assert again.chunks_added == again.chunks_removed == again.embeddings_computed == 0


@every_store
def test_killed_in_the_middle_and_run_again(tmp_path, store):
    rounds(tmp_path, store, 40, 3, store)


@pytest.mark.long
@every_store
def test_killed_many_times(tmp_path, store):
    rounds(tmp_path, store, 200, 60, store)


@every_store
def test_two_at_once(tmp_path, store):
    folder = tmp_path / "docs"
    tree(folder, 30)
    for changed in (False, True):
        if changed:
            change(folder, 30)
        both = [start(SYNC, tmp_path / store, folder, "wait", stdin=-1) for _ in range(2)]
        for process in both:
            assert process.stdout.readline() == "open\n"
        for process in both:
            process.stdin.write("\n")
            process.stdin.flush()
        said = [out.splitlines()[-1].split()[1:] for out in finish(both)]
        counts = [list(map(int, one)) for one in said]
        with opened(tmp_path / store) as memory:
            whole(memory, folder)
            # Both saw each file; which of them wrote it is theirs to settle, and no one failed.
            assert all(sum(one[:4]) == len(held(memory)) for one in counts), counts
            assert not any(one[5] for one in counts)
