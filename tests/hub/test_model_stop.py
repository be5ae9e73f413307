"""Ending models: by their manager, by others, and when the manager itself is gone (G6). Never an orphan."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from running_models import alive, processes, python, runnable, wait_for, zombies

from raeburnmemory.hub.models import errors, launcher, ports, system
from raeburnmemory.hub.models.group import ProcessGroup
from raeburnmemory.hub.models.limits import Limits
from raeburnmemory.hub.models.running import Records
from raeburnmemory.hub.models.store import ModelFolder

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

# A manager in another interpreter; it says which process the model is, and waits to be told to go on.
MANAGER = """
import os, signal, sys, threading
from running_models import *
folder = Path(sys.argv[1])
manager = Processes(ModelFolder(folder), limits=Limits(stall=20.0, start=60.0, grace=float(sys.argv[2])))
file = runnable(folder / "tiny.llamafile", dialect="llama-server")
"""
STAYS = MANAGER + "print(manager.start(file).pid, flush=True)\nsys.stdin.read()\n"
# Started in a thread that ends at once: the kernel's signal at a parent's death is that of the thread.
FROM_A_THREAD = MANAGER + (
    "def start():\n    print(manager.start(file).pid, flush=True)\n"
    "thread = threading.Thread(target=start)\nthread.start()\nthread.join()\nsys.stdin.read()\n"
)
CTRL_C_TWICE = MANAGER + ("with manager:\n    print(manager.start(file).pid, flush=True)\n    sys.stdin.read()\n")


def manager_elsewhere(bench, code=STAYS, *, grace=0.6):
    """Run a manager in another interpreter; return it and the number of its model."""
    other = python(code, bench.folder, grace, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return other, int(other.stdout.readline())


def ended(other):
    """Take in the other manager."""
    other.stdin.close()
    other.stdout.close()
    other.wait(20)


def watcher_of(group):
    return next(pid for pid, line in processes() if system.WATCHER in line.split(" ") and os.getpgid(pid) == group)


def grandchild(bench):
    return int((bench.folder / "grandchild").read_text())


def with_grandchild(bench, kind, **faults):
    return bench.file(grandchild=kind, grandchild_note=str(bench.folder / "grandchild"), **faults)


# --- by their manager


@pytest.mark.parametrize(
    ("stubborn", "grandchildren"),
    [
        (False, "plain"),
        (True, None),
        (False, "stubborn"),
        pytest.param(False, None, marks=pytest.mark.long),
        pytest.param(True, "plain", marks=pytest.mark.long),
        pytest.param(True, "stubborn", marks=pytest.mark.long),
    ],
)
def test_a_model_and_its_children_end(bench, stubborn, grandchildren):
    manager = bench.manager(limits=Limits(grace=0.5))
    found = manager.start(with_grandchild(bench, grandchildren, ignores_term=stubborn))
    children = [grandchild(bench)] if grandchildren else []
    assert all(alive(pid) for pid in children)

    begun = time.monotonic()
    assert manager.stop("tiny")

    took = time.monotonic() - begun
    assert (took >= 0.5) == (stubborn or grandchildren == "stubborn")
    assert not any(alive(pid) for pid in [found.pid, *children])
    assert bench.left() == []
    assert zombies() == []
    assert manager.status("tiny").exit_code in ({-signal.SIGKILL} if stubborn else {0})
    assert not ports.accepts(found.port)


def test_the_grace_is_five_seconds_unless_told_otherwise():
    assert Limits().grace == 5.0


def test_stopping_twice_and_stopping_what_does_not_run(bench):
    manager = bench.manager()
    manager.start(bench.file())
    assert manager.stop("tiny") is True
    assert manager.stop("tiny") is False
    assert manager.stop("unknown") is False
    assert manager.stop() is False


def test_one_that_was_killed_by_somebody_else_is_taken_in(bench):
    manager = bench.manager()
    found = manager.start(with_grandchild(bench, "plain"))
    os.kill(found.pid, signal.SIGKILL)
    wait_for(lambda: manager.status("tiny").process_state == "crashed")
    assert manager.status("tiny").exit_code == -signal.SIGKILL
    assert not alive(grandchild(bench))
    assert zombies() == []
    assert manager.stop("tiny") is False
    assert manager.status("tiny").process_state == "stopped"


def test_closing_ends_all_at_once(bench):
    manager = bench.manager(limits=Limits(grace=0.7))
    pids = [manager.start(bench.file(f"m{number}", ignores_term=True)).pid for number in range(3)]
    begun = time.monotonic()
    manager.close()
    assert time.monotonic() - begun < 3 * 0.7 + 1
    assert not any(alive(pid) for pid in pids)
    manager.close()
    with pytest.raises(errors.NotRunning, match="closed"):
        manager.start(bench.file())


@pytest.mark.parametrize("rounds", [3, pytest.param(50, marks=pytest.mark.long)])
def test_rounds_leave_nothing_behind(bench, rounds):
    manager, file = bench.manager(), bench.file()
    manager.start(file)
    manager.stop("tiny")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(rounds):
        manager.start(file)
        manager.stop("tiny")
    assert len(os.listdir("/proc/self/fd")) == before
    assert zombies() == []
    assert bench.left() == []
    run = {path.name for path in (bench.folder / ".raeburn" / "run").iterdir()}
    assert run <= {"tiny.lock", "tiny.lock.gate", "tiny.use"}  # no key, no record


@linux
def test_the_number_of_a_model_stays_its_own_until_all_of_its_group_is_gone(bench):
    spawner = launcher.Spawner()
    group = ProcessGroup(
        ["/bin/sh", "-c", "sleep 60 & exit 3"],
        environment=dict(os.environ), folder=str(bench.folder), grace=0.2, spawner=spawner,
    )  # fmt: skip
    os.close(group.output())
    assert group.exited(wait=True)
    assert group.exit_code == 3
    assert group.pid in zombies()
    assert len(system.members(group.pid)) == 1
    group.take_in(1.0)
    assert zombies() == []
    assert bench.left() == []
    group.signal(signal.SIGKILL)  # to nobody: the number may be another's by now
    spawner.close()


# --- when the manager is gone


WAYS = {
    f"{'ignores' if stubborn else 'hears'} TERM, {children} child, started in {where}": (stubborn, children, code)
    for stubborn in (False, True)
    for children in ("plain", "stubborn")
    for where, code in (("the main thread", STAYS), ("a thread that ended", FROM_A_THREAD))
}
USUAL = {(False, "plain", STAYS), (False, "stubborn", FROM_A_THREAD), (True, "stubborn", STAYS)}


@linux
@pytest.mark.parametrize(
    ("stubborn", "grandchildren", "code"),
    [pytest.param(*way, id=name, marks=() if way in USUAL else pytest.mark.long) for name, way in WAYS.items()],
)
def test_the_manager_is_killed(bench, stubborn, grandchildren, code):
    with_grandchild(bench, grandchildren, ignores_term=stubborn)
    other, pid = manager_elsewhere(bench, code)
    child = grandchild(bench)
    assert alive(pid)
    assert alive(child)

    other.kill()

    wait_for(lambda: not alive(pid) and not alive(child) and bench.left() == [], 12.0)
    ended(other)
    assert bench.manager().running("tiny") is None


@linux
@pytest.mark.parametrize("proc", ["/proc", "/nothing"], ids=["Linux", "elsewhere"])
@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_watcher_in_other_shells(bench, monkeypatch, shell, proc):
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"{shell} is not installed")
    monkeypatch.setattr(launcher, "SHELL", path)
    monkeypatch.setattr(launcher, "_WATCH", launcher._WATCH.replace("/proc", proc))
    child = "trap '' TERM; echo $$; while :; do sleep 0.1; done"
    lifeline = launcher.Lifeline()
    process = launcher.launch(
        ["/bin/sh", "-c", 'sh -c "$0" & exec sleep 60', child],
        environment=dict(os.environ), folder=str(bench.folder), grace=0.4, lifeline=lifeline,
    )  # fmt: skip
    with process:
        stubborn = int(process.stdout.readline())
        time.sleep(0.3)
        assert process.poll() is None
        lifeline.cut()
        assert process.wait(10) == -signal.SIGTERM
        wait_for(lambda: not alive(stubborn) and bench.left() == [])


@linux
def test_the_manager_is_killed_and_a_child_of_the_model_may_tidy_up(bench):
    with_grandchild(bench, "tidy")
    other, pid = manager_elsewhere(bench, grace=10.0)
    other.kill()
    note = bench.folder / "grandchild"
    wait_for(lambda: not alive(pid) and note.read_text().endswith("tidied\n"))
    wait_for(lambda: bench.left() == [], 5.0)  # nobody waits for the whole grace where nobody is left
    ended(other)


@linux
def test_the_manager_and_the_watcher_are_killed(bench):
    """The second line of defence: the kernel tells the model, and only it."""
    if not launcher._death_signal():
        pytest.skip("setpriv is not installed")
    bench.file()
    other, pid = manager_elsewhere(bench, FROM_A_THREAD)
    os.kill(watcher_of(pid), signal.SIGKILL)
    time.sleep(0.3)
    assert alive(pid)

    other.kill()

    wait_for(lambda: not alive(pid))
    ended(other)


@linux
def test_the_manager_and_the_watcher_are_killed_and_the_model_hears_nothing(bench):
    """The third line of defence: the next manager ends what was written down, with its children."""
    with_grandchild(bench, "stubborn", ignores_term=True)
    other, pid = manager_elsewhere(bench)
    os.kill(watcher_of(pid), signal.SIGKILL)
    other.kill()
    ended(other)
    time.sleep(0.3)
    assert alive(pid)
    manager = bench.manager(limits=Limits(grace=0.3))
    assert manager.running("tiny") is None

    manager.recover()

    assert not alive(pid)
    assert not alive(grandchild(bench))
    assert Records(ModelFolder(bench.folder)).read("tiny") is None


@linux
def test_a_manager_that_ends_without_closing_leaves_nothing(bench):
    bench.file()
    other, pid = manager_elsewhere(bench)
    other.communicate("")
    assert other.returncode == 0
    wait_for(lambda: not alive(pid) and bench.left() == [])


@linux
def test_ctrl_c_twice(bench):
    bench.file(ignores_term=True)
    other, pid = manager_elsewhere(
        bench, CTRL_C_TWICE.replace("with manager", "import contextlib\nwith contextlib.closing(manager)")
    )
    other.send_signal(signal.SIGINT)
    time.sleep(0.2)
    other.send_signal(signal.SIGINT)
    other.wait(20)
    wait_for(lambda: not alive(pid) and bench.left() == [])
    ended(other)


@linux
def test_a_fork_of_the_manager_neither_keeps_the_model_alive_nor_ends_it(bench):
    code = MANAGER + (
        "print(manager.start(file).pid, flush=True)\n"
        "child = os.fork()\n"
        "if not child:\n    manager.close()\n    signal.pause()\n"
        "print(child, flush=True)\nsys.stdin.read()\n"
    )
    bench.file(ignores_term=True)  # so that the kernel's signal does not do it
    other, pid = manager_elsewhere(bench, code)
    fork = int(other.stdout.readline())
    try:
        time.sleep(0.5)
        assert alive(pid)
        other.kill()
        wait_for(lambda: not alive(pid))
        assert alive(fork)
    finally:
        os.kill(fork, signal.SIGKILL)
        ended(other)


# --- by others


@linux
def test_another_manager_sees_uses_and_stops_it(bench):
    bench.file(ignores_term=True)
    other, pid = manager_elsewhere(bench)
    manager = bench.manager(limits=Limits(grace=0.5))

    found = manager.running("tiny")
    assert found.pid == pid
    assert manager.status("tiny").process_state == "ready"
    assert manager.health("tiny", deep=True).ok
    with manager.in_use("tiny") as used:
        assert ports.ask(used.port, "/props", key=used.key).status == 200
    assert manager.start(runnable(bench.folder / "tiny.llamafile", dialect="llama-server")).pid == pid
    assert manager.stop("tiny") is True

    assert not alive(pid)
    assert manager.status("tiny").process_state == "stopped"
    assert Records(ModelFolder(bench.folder)).read("tiny") is None  # its owner took note, and took it in
    ended(other)


@linux
def test_another_manager_breaks_a_start_off(bench):
    bench.file(never_ready=True, talks=True)
    code = MANAGER + (
        "from raeburnmemory.hub.models.errors import LlamafileError\n"
        "try:\n    manager.start(file)\n"
        "except LlamafileError as exc:\n    print(type(exc).__name__, manager.status('tiny').process_state, flush=True)\n"
    )
    other = python(code, bench.folder, 0.5)
    manager = bench.manager()
    wait_for(lambda: manager.status("tiny").process_state == "loading")
    assert manager.stop("tiny")
    assert other.communicate(timeout=30)[0].split() == ["NotRunning", "stopped"]
    assert bench.left() == []


@linux
def test_a_start_that_goes_on_does_not_forget_that_another_manager_ended_it(bench, monkeypatch):
    """The model ends between its word that it loads and the moment in which that is written down."""
    records, asked = Records(ModelFolder(bench.folder)), ports.ask

    def ended_meanwhile(*args, **options):
        answer = asked(*args, **options)
        if answer.status == 503:
            found = records.read("tiny")
            records.write(dataclasses.replace(found, state="stopping", stopping=True))
            os.kill(found.process.pid, signal.SIGKILL)
            wait_for(lambda: not alive(found.process.pid))
        return answer

    monkeypatch.setattr(ports, "ask", ended_meanwhile)
    manager = bench.manager()
    with pytest.raises(errors.NotRunning, match="stopped while it was being started"):
        manager.start(bench.file(loads=30))
    assert manager.status("tiny").process_state == "stopped"


@linux
def test_a_number_that_was_used_again_is_left_alone(bench):
    """A record names a process that is now another one's: it is not ended, by nobody."""
    with_grandchild(bench, "plain")
    other, pid = manager_elsewhere(bench)
    records = Records(ModelFolder(bench.folder))
    record = records.read("tiny")
    other.kill()
    ended(other)
    wait_for(lambda: not alive(pid))
    innocent = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    try:
        now = system.identify(innocent.pid)
        for wrong in (
            dataclasses.replace(now, started="1"),
            dataclasses.replace(now, boot="another"),
            dataclasses.replace(now, exe="/usr/bin/llamafile"),
            dataclasses.replace(record.process, pid=innocent.pid),
        ):
            records.write(dataclasses.replace(record, process=wrong))
            manager = bench.manager()
            manager.recover()
            assert manager.running("tiny") is None
            assert manager.stop("tiny") is False
            assert innocent.poll() is None
        # and with nothing changed it is taken for what it says
        records.write(dataclasses.replace(record, process=now))
        bench.manager(limits=Limits(grace=0.2)).recover()
        assert innocent.wait(5) == -signal.SIGTERM
    finally:
        innocent.kill()
        innocent.wait()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 2}', b"\xff\x00"])
def test_a_record_that_makes_no_sense_is_no_record(bench, damage):
    folder = ModelFolder(bench.folder)
    folder.part("run")
    folder.run_file("tiny").write_bytes(damage)
    manager = bench.manager()
    assert manager.status("tiny").process_state == "stopped"
    assert manager.start(bench.file()).pid
