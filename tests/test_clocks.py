"""The clock of the machine jumps back and forth, or stands still, under programs that write: order and waiting do not care.

By libfaketime, which gives a process another time than the machine has; it leaves the monotonic clock alone, as an
administrator does who sets a clock.
"""

from __future__ import annotations

import glob
import os
import sys

import pytest
from faults import acknowledged, check_after, rounds
from outside import open_memory, run

FOUND = sorted(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + glob.glob("/usr/lib*/faketime/libfaketimeMT.so.1"))

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="libfaketime is of POSIX systems"),
    pytest.mark.skipif(not FOUND, reason="libfaketime is not installed: apt install libfaketime"),
]

# As libfaketime reads them: relative ones run on, a date stands still.
JUMPS = ["+0", "-1d", "+36500d", "2026-03-29 02:59:59", "-25000d", "2026-10-25 02:30:00", "+1h", "+0"]


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path):
    return tmp_path / "here" / request.param


@pytest.fixture
def clock(tmp_path):
    """Return a file that says what time it is, and the environment in which it counts."""
    file = tmp_path / "clock"
    file.write_text("+0")
    env = {
        "LD_PRELOAD": FOUND[0],
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1",  # else a wait may never end, and no administrator can do that
        "TZ": "Europe/Vienna",
    }
    return file, env


SETTING = """
import os, sys, threading, time
from outside import add, open_memory
def set_clock(to):
    with open(sys.argv[2] + ".new", "w") as file:
        file.write(to)
    os.replace(sys.argv[2] + ".new", sys.argv[2])
"""

WRITER = (
    SETTING
    + """
path, jumps = sys.argv[1], sys.argv[3:]
memory = open_memory(path)
for turn, jump in enumerate(jumps):
    set_clock(jump)
    print("CLOCK", time.time(), flush=True)
    for number in range(3 * turn, 3 * turn + 3):
        add(memory, number)
        print("ACK", number, flush=True)
        memory.add_interaction(f"number {number} without an id")
    if turn % 3 == 1:
        memory.export()
    if turn % 3 == 2:
        memory.close()
        memory = open_memory(path)
memory.close()
"""
)


def test_a_clock_that_jumps_under_a_writer(path, clock):
    file, env = clock
    out = run(WRITER, path, file, *JUMPS, env=env)
    times = [float(line.split()[1]) for line in out.splitlines() if line.startswith("CLOCK")]
    assert min(times) < 0, "the clock did jump back"
    assert max(times) > 4e9, "the clock did jump forward"
    acked = acknowledged(out)
    assert acked == [f"p{number}" for number in range(3 * len(JUMPS))]
    with rounds("clock set", path.name) as count, count.round("jumps", faults=len(JUMPS), acknowledged=len(acked)):
        with open_memory(path) as memory:
            prompts = list(memory.nodes("prompt"))
            assert [node.id for node in prompts if node.id in acked] == acked
            assert [node.id for node in memory.thread("s") if node.kind == "prompt"] == acked
            made = [node for node in prompts if node.id not in acked]
            assert [node.text for node in made] == [f"number {n} without an id" for n in range(len(acked))]
            assert [node.id for node in made] == sorted(node.id for node in made)  # made in one process
            assert all(node.attributes["timestamp"].endswith("+00:00") for node in prompts)
            years = {node.attributes["timestamp"][:4] for node in prompts}
            assert {"2026"} < years
            assert len(years) >= 3
            memory.forget([node.id for node in made])
        check_after(path, acked, 0)


WAITING = (
    SETTING
    + """
from raeburnmemory.errors import LockTimeout
path, jumps = sys.argv[1], sys.argv[3:]
with open_memory(path) as memory, open_memory(path, timeout=0.4) as other:
    add(memory, "first")
    for jump in jumps:
        held, free = threading.Event(), threading.Event()
        def hold():
            with memory._store.exclusive():
                held.set()
                free.wait(20)
        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(20)
        timer = threading.Timer(0.1, set_clock, [jump])
        timer.start()
        started = time.monotonic()
        try:
            add(other, "second")
        except LockTimeout:
            print("waited", time.monotonic() - started, flush=True)
        free.set()
        holder.join()
        timer.join()
    add(other, "third")
"""
)


def test_a_clock_that_jumps_under_whoever_waits(path, clock):
    """Neither given up at once nor waited for a century."""
    file, env = clock
    jumps = ["+36500d", "-1d", "2026-03-29 02:59:59"]
    waits = [float(line.split()[1]) for line in run(WAITING, path, file, *jumps, env=env).splitlines()]
    assert len(waits) == len(jumps)
    assert all(0.35 < wait < 10 for wait in waits), waits
    with open_memory(path) as memory:
        assert [node.id for node in memory.nodes("prompt")] == ["pfirst", "pthird"]


MENDING = """
import os, sys
from outside import add, fake, open_memory
from raeburnmemory import doctor
path = sys.argv[1]
with open_memory(path) as memory:
    for number in range(5):
        add(memory, number)
for turn in range(3):
    with open(path, "r+b") as file:
        raw = file.read()
        if path.endswith(".json"):
            at = raw.index(b"answer to thing %d" % turn) + 2
        else:
            at = 100 + turn  # where the header of a page is, and says what kind of page it is
        file.seek(at)
        file.write(bytes([raw[at] ^ 1]))
    report = doctor.repair(path, embedding_model=fake)
    assert report.sound, report
    print(len(report.kept), flush=True)
"""


def test_a_clock_that_stands_still_under_the_doctor(path, clock):
    """What is set aside has the time in its name, and is never written over."""
    file, env = clock
    file.write_text("2026-01-02 03:04:05")
    kept = [int(line) for line in run(MENDING, path, env=env).split()]
    assert all(kept)
    aside = [name for name in os.listdir(path.parent) if ".damaged-" in name]
    assert len(aside) == sum(kept)
    assert all("20260102T0" in name for name in aside)
