"""Killed at any moment, once or twice in a row, or ended in any other way: what was acknowledged is there, whole.

Every writer here is another process that says `ACK <id>` once an add returned.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time

import pytest
from faults import CALLS, ROUNDS, Zygote, acknowledged, check_after, points, rounds, tools
from outside import contents, start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and strace are those of a POSIX system")


@pytest.fixture(scope="module")
def zygote():
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="module")
def strace(tmp_path_factory):
    yield from tools(tmp_path_factory)


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path):
    return tmp_path / request.param


# --- killed -----------------------------------------------------------------------------------------------------


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_killed_at_random_times(path, zygote, tmp_path):
    """One store through many rounds: every kill falls on what the last one left."""
    dice = random.Random(f"{path.suffix}-{ROUNDS}")
    there: list[str] = []
    with rounds("killed at a random time", path.name) as count:
        for number in range(ROUNDS):
            if number % 20 == 19:  # a new one, before looking at it takes longer than all else
                path, there = path.with_name(f"{number}{path.suffix}"), []
            with zygote.child(tmp_path / f"life-{number}", "endless", path, number) as child:
                if number % 4 == 3:
                    time.sleep(dice.uniform(0.0, 0.03))  # while it opens and recovers from the last kill
                else:
                    wait_for(child.said)
                    time.sleep(dice.uniform(0.0, 0.4))
                child.kill()
            new = acknowledged(child.out)
            with count.round(f"round {number}", acknowledged=len(new)):
                child.clean()
                assert child.code == -signal.SIGKILL
                there = check_after(path, [*there, *new], 1)


def test_killed_again_and_again_before_anything_else(path, zygote, tmp_path):
    """Nobody looks in between: each life finds what several killed ones have left."""
    dice = random.Random(f"again-{path.suffix}-{ROUNDS}")
    acked: list[str] = []
    with rounds("killed in a row", path.name) as count:
        for number in range(max(2, ROUNDS // 5)):
            if number % 10 == 9:
                path, acked = path.with_name(f"{number}{path.suffix}"), []
            new = []
            for again in range(5):
                with zygote.child(tmp_path / f"life-{number}-{again}", "endless", path, f"{number}-{again}") as child:
                    wait_for(child.said) if again == 0 else None
                    time.sleep(dice.uniform(0.0, 0.2) if again == 0 else dice.uniform(0.0, 0.04))
                    child.kill()
                new += acknowledged(child.out)
                child.clean()
            acked += new
            with count.round(f"round {number}", faults=5, acknowledged=len(new)):
                acked = check_after(path, acked, 5)


def test_killed_while_recovering_from_a_kill(strace, path, tmp_path):
    """Killed at each system call of the life that finds the traces of a killed one, and then again in the next."""
    folder = tmp_path / "killed"
    name = path.name
    # A process that was killed between two renames of a fold, or with commits in the -wal file, and in the middle of a write.
    call = "rename:signal=SIGKILL:when=6" if name.endswith(".json") else "pwrite64:signal=SIGKILL:when=200"
    child, _ = strace.run(["-e", f"trace={call.partition(':')[0]}", "-e", f"inject={call}"], "life", folder / name)
    acked = acknowledged(child.out)
    assert child.code == -signal.SIGKILL
    assert acked
    if name.endswith(".json"):
        with (folder / "g.json.journal").open("ab") as journal:
            journal.write(b'0badf00d {"version":')
    else:
        assert (folder / "g.db-wal").stat().st_size
    trial = tmp_path / "trial"
    shutil.copytree(folder, trial)
    _, counts = strace.count("one_more", trial / name, "peace")
    with rounds("killed while recovering", name) as count:
        for call, number in points(counts, CALLS, 2):
            shutil.rmtree(trial)
            shutil.copytree(folder, trial)
            told = list(acked)
            for again in range(2):
                inject = f"inject={call}:signal=SIGKILL:when={number}"
                child, _ = strace.run(["-e", f"trace={call}", "-e", inject], "one_more", trial / name, f"again-{again}")
                told += acknowledged(child.out)
            with count.round(f"{call} {number}", faults=2, acknowledged=len(told)):
                child.clean()
                check_after(trial / name, told, 2)
    assert contents(folder)


# --- ended in other ways ----------------------------------------------------------------------------------------

ENDING = """
import os, signal, sys
from outside import add, open_memory
memory = open_memory(sys.argv[1])
memory.similar("x"), list(memory.graph)
for number in range(3):
    add(memory, number)
os.write(1, b"ACK 0\\nACK 1\\nACK 2\\n")
end = sys.argv[2]
if end == "an error":
    raise ZeroDivisionError("of the caller")
if end == "exit":
    sys.exit(3)
if end == "at interpreter shutdown":
    sys.keeps_it_until_modules_are_taken_apart = memory
if end == "in another thread":
    import threading
    threading.Thread(target=lambda: [memory.similar("thing") for _ in range(50)]).start()
    sys.exit(0)
if end == "SIGINT":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs things in the background ignores it
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
"""
CODES = {
    "nothing": 0,
    "an error": 1,
    "exit": 3,
    "at interpreter shutdown": 0,
    "in another thread": 0,
    "SIGINT": -2,
}


@pytest.mark.parametrize("way", CODES)
def test_a_process_that_ends_without_closing(path, way):
    process = start(ENDING, path, way)
    out, err = process.communicate(timeout=60)  # and it does not hang
    with rounds("ended without closing", path.name) as count, count.round(way, acknowledged=3):
        assert process.returncode == CODES[way], err
        assert err.count("Traceback") == (way in {"an error", "SIGINT"}), err  # theirs, none of ours
        assert len(acknowledged(out)) == 3
        check_after(path, acknowledged(out), 0)


@pytest.mark.parametrize("way", ["SIGTERM", "SIGHUP", "SIGQUIT", "at once", "in the middle"])
def test_a_process_that_is_ended_at_once(path, zygote, tmp_path, way):
    with zygote.child(tmp_path / "life", "ended", path, way) as child:
        pass
    with rounds("ended without closing", path.name) as count, count.round(way, acknowledged=3):
        child.clean()
        assert child.code == (-getattr(signal, way) if way.startswith("SIG") else 7)
        assert len(acknowledged(child.out)) == 3
        check_after(path, acknowledged(child.out), 0)
