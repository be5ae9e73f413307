"""Several managers in several processes at one model, killed at random: one process of it at a time, none in the end."""

import random
import subprocess
import sys
import time

import pytest
from running_models import processes, python, wait_for

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

WORKER = """
import random, sys
from running_models import *
from raeburnmemory.hub.models.errors import LlamafileError
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(seed)
manager = Processes(ModelFolder(folder), limits=Limits(stall=10.0, start=20.0, grace=0.5), idle_timeout=None)
file = runnable(folder / "tiny.llamafile", dialect="llama-server")
print("begun", flush=True)
while True:
    try:
        what = draw.choice(["start", "start", "use", "stop", "restart"])
        if what == "start":
            manager.start(file)
        elif what == "use":
            with manager.in_use("tiny") as found:
                time.sleep(draw.random() / 5)
        elif what == "stop":
            manager.stop("tiny")
        else:
            manager.restart("tiny")
        print(what, flush=True)
    except LlamafileError as exc:
        print(type(exc).__name__, flush=True)
    time.sleep(draw.random() / 5)
"""


def servers(bench):
    return [pid for pid, line in processes() if "stand_in.py" in line and str(bench.folder) in line and "-IS" in line]


@pytest.mark.parametrize("seed", [1, 2])
def test_managers_that_start_stop_and_are_killed(bench, seed):
    draw = random.Random(seed)
    bench.file(loads=0.1)
    workers = [python(WORKER, bench.folder, f"{seed}{number}", stderr=subprocess.DEVNULL) for number in range(3)]
    seen, kills, told = [], 0, []
    try:
        begun = time.monotonic()
        next_kill = begun + 3
        while time.monotonic() - begun < 25:
            seen.append(len(servers(bench)))
            time.sleep(0.05)
            if time.monotonic() > next_kill:
                next_kill = time.monotonic() + draw.uniform(0.5, 2)
                victim = workers.pop(draw.randrange(3))
                victim.kill()
                told += victim.communicate()[0].split()
                kills += 1
                workers.append(python(WORKER, bench.folder, f"{seed}{kills}9", stderr=subprocess.DEVNULL))
    finally:
        for worker in workers:
            worker.kill()
            told += worker.communicate()[0].split()
    counts = {number: seen.count(number) for number in sorted(set(seen))}
    print(f"{kills} managers killed, looks with so many models: {counts}, outcomes: "
          f"{ {what: told.count(what) for what in sorted(set(told))} }")  # fmt: skip
    assert kills >= 10
    assert {"start", "use", "stop", "restart"} <= set(told)
    assert set(told) <= {"begun", "start", "use", "stop", "restart", "NotRunning", "StoreLocked"}
    wait_for(lambda: bench.left() == [], 15.0)
    # A manager that is killed before it could write its model down leaves one that nobody knows of until its watcher
    # ends it; another may be started meanwhile.
    assert max(seen) <= 2
    assert bench.manager().start(bench.file()).pid
