"""Several models, idle ones, crashes and restarts, detached ones, health and logs."""

import subprocess
import threading
import time

import pytest
from running_models import alive, python, runnable, wait_for, zombies

from raeburnmemory.hub.models import errors, ports
from raeburnmemory.hub.models.limits import Limits
from raeburnmemory.hub.models.running import Records
from raeburnmemory.hub.models.store import ModelFolder


def states(bench, name="tiny"):
    return [event.state for event in bench.events if event.name == name and event.state != "loading"]


# --- room


def test_one_more_than_may_run_stops_the_one_idle_for_longest(bench):
    manager = bench.manager(max_running=2)
    pids = {name: manager.start(bench.file(name)).pid for name in ("a", "b")}
    with manager.in_use("a"):
        pass  # so that b is idle for longer

    pids["c"] = manager.start(bench.file("c")).pid

    assert {name: alive(pid) for name, pid in pids.items()} == {"a": True, "b": False, "c": True}
    assert manager.status("b").process_state == "stopped"


def test_a_model_that_answers_somebody_is_not_stopped_for_another(bench):
    manager = bench.manager(max_running=1)
    manager.start(bench.file("a"))
    with manager.in_use("a"), pytest.raises(errors.ModelInUse, match="'a'"):
        manager.start(bench.file("b"))
    assert manager.start(bench.file("b")).pid
    assert manager.running("a") is None


def test_one_that_was_used_a_moment_ago_is_idle(tmp_path):
    records = Records(ModelFolder(tmp_path))
    for _ in range(50):
        with records.using("a"):
            pass
        with records.unused("a") as last:
            assert last <= time.monotonic()


def test_two_that_start_at_once_keep_within_the_limit(bench):
    manager = bench.manager(max_running=1)
    files = [bench.file(f"m{number}", loads=0.3) for number in range(3)]
    threads = [threading.Thread(target=manager.start, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(
            most,
            sum(status.process_state in {"starting", "loading", "ready"} for status in manager.statuses().values()),
        )
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert most == 1
    assert len(bench.left()) == 2  # one model and its watcher


# --- idle


def test_an_idle_model_is_stopped_and_one_that_answers_is_not(bench):
    manager = bench.manager(idle_timeout=0.6)
    manager.start(bench.file("idle"))
    manager.start(bench.file("busy"))
    with manager.in_use("busy"):
        wait_for(lambda: manager.running("idle") is None)
        time.sleep(1.0)
        assert manager.running("busy") is not None
    begun = time.monotonic()
    wait_for(lambda: manager.running("busy") is None)
    assert time.monotonic() - begun > 0.4
    wait_for(lambda: manager.status("busy").process_state == "stopped")
    assert zombies() == []


USES = """
import sys, time
from running_models import *
with Processes(ModelFolder(Path(sys.argv[1]))).in_use("tiny") as found:
    print(found.pid, flush=True)
    sys.stdin.read()
"""


def test_a_model_that_another_process_talks_to_is_not_idle(bench):
    manager = bench.manager(idle_timeout=0.5, max_running=1)
    manager.start(bench.file())
    with manager.in_use("tiny"):
        other = python(USES, bench.folder, stdin=subprocess.PIPE)
        assert int(other.stdout.readline()) == manager.running("tiny").pid
    try:
        time.sleep(1.2)
        assert manager.running("tiny") is not None
        with pytest.raises(errors.ModelInUse):
            manager.start(bench.file("other"))
    finally:
        other.communicate("")
    wait_for(lambda: manager.status("tiny").process_state == "stopped")


# --- crashes


def test_a_crash_is_kept_until_the_next_start_or_stop(bench):
    manager = bench.manager()
    found = manager.start(bench.file(crashes_after=1))
    assert manager.health("tiny", deep=True).ok
    assert (
        ports.ask(found.port, "/v1/chat/completions", key=found.key, body={"messages": [{"content": "x"}]}).status == 0
    )
    wait_for(lambda: manager.status("tiny").process_state == "crashed")
    assert manager.status("tiny").exit_code == 1
    assert "not enough memory" in manager.status("tiny").last_error
    assert bench.manager().status("tiny").process_state == "crashed"
    assert states(bench) == ["starting", "ready", "crashed"]

    assert manager.start(bench.file()).pid
    assert manager.status("tiny").last_error is None


def test_it_is_started_again_as_often_as_it_may_be(bench):
    manager = bench.manager(limits=Limits(grace=0.5, restart="on-failure", max_restarts=2))
    first = manager.start(bench.file(dies_ready=0.2))
    wait_for(lambda: states(bench)[-1] == "failed", 30)
    assert manager.status("tiny").restarts == 2
    assert states(bench) == ["starting", "ready", "crashed"] * 2 + ["starting", "ready", "failed"]
    assert not alive(first.pid)
    assert bench.left() == []


def test_it_is_ready_again_after_a_crash(bench):
    manager = bench.manager(limits=Limits(grace=0.5, restart="on-failure"))
    first = manager.start(bench.file(crashes_after=0))
    manager.health("tiny", deep=True)
    again = wait_for(lambda: (found := manager.running("tiny")) and found.pid != first.pid and found)
    assert again.key != first.key
    assert manager.status("tiny").restarts == 1


def test_a_restart_that_was_to_come_does_not_when_it_is_stopped(bench):
    manager = bench.manager(limits=Limits(grace=0.5, restart="on-failure"))
    manager.start(bench.file(dies_ready=0.1))
    wait_for(lambda: manager.status("tiny").process_state == "crashed")
    manager.stop("tiny")
    time.sleep(1.0)
    assert manager.status("tiny").process_state == "stopped"
    assert states(bench)[-1] == "stopped"
    assert bench.left() == []


def test_restart_starts_it_as_it_was(bench):
    manager = bench.manager()
    first = manager.start(bench.file(), ctx=512, args=("--temp", "0.5"))
    again = manager.restart("tiny")
    assert again.pid != first.pid
    assert not alive(first.pid)
    assert "-c 512 --temp 0.5 " in "\n".join(line for line in manager.logs("tiny") if "Starting" in line)
    with pytest.raises(errors.NotRunning):
        manager.restart("unknown")


def test_an_event_handler_that_fails_stops_nothing(bench, caplog):
    def fail(event):
        raise RuntimeError(f"no {event.state}")

    manager = bench.manager()
    manager._on_event = fail
    assert manager.start(bench.file()).pid
    assert "on_event failed" in caplog.text


# --- detached


DETACH = """
import sys
from running_models import *
manager = Processes(ModelFolder(Path(sys.argv[1])), limits=Limits(grace=0.5), idle_timeout=None)
print(manager.start(runnable(Path(sys.argv[1]) / "tiny.llamafile", dialect="llama-server"), detach=True).pid, flush=True)
manager.close()
"""


def test_a_detached_model_lives_on_and_is_found_by_any_manager(bench):
    bench.file(tells_key=True)
    other = python(DETACH, bench.folder)
    said, _ = other.communicate(timeout=60)
    pid = int(said)
    manager = bench.manager()
    try:
        found = manager.running("tiny")
        assert found.pid == pid
        assert found.detached
        assert manager.health("tiny", deep=True).ok
        assert found.key not in "".join(manager.logs("tiny"))
        assert any("the key is [hidden]" in line for line in manager.logs("tiny"))
        manager.close()
        assert alive(pid)
    finally:
        stopped = bench.manager().stop("tiny")
    assert stopped
    assert not alive(pid)
    wait_for(lambda: bench.left() == [])
    assert bench.manager().status("tiny").process_state == "stopped"


def test_a_detached_model_that_does_not_start_says_why(bench):
    manager = bench.manager()
    with pytest.raises(errors.InsufficientMemory, match="not enough memory") as caught:
        manager.start(bench.file(exits=1, says=["ggml: out of memory"]), detach=True)
    assert "ggml: out of memory" in caught.value.log_tail
    assert caught.value.model == "tiny"
    assert bench.left() == []


def test_restarting_a_detached_model_keeps_it_detached(bench):
    manager = bench.manager()
    first = manager.start(bench.file(), detach=True)
    again = manager.restart("tiny")
    try:
        assert again.detached
        assert again.pid != first.pid
        manager.close()
        assert alive(again.pid)
    finally:
        bench.manager().stop("tiny")
    wait_for(lambda: bench.left() == [])


# --- health


@pytest.mark.parametrize(
    ("kind", "order", "wrong"),
    [
        ("chat", {"hangs": True}, "no answer within"),
        ("embedding", {"vector": [0.0, 0.0]}, "its vector"),
        ("embedding", {"vector": []}, "its vector"),
        ("embedding", {"vector": [None, 1.0]}, "its vector"),
        ("embedding", {"vector": [float("nan")]}, "its vector"),
    ],
)
def test_deep_health_finds_what_a_plain_one_does_not(bench, kind, order, wrong):
    manager = bench.manager()
    manager.start(bench.file(kind=kind, **order))
    assert manager.health("tiny").ok
    found = manager.health("tiny", deep=True, timeout=1.0)
    assert not found.ok
    assert wrong in found.detail


def test_the_health_of_one_that_does_not_run(bench):
    found = bench.manager().health("tiny")
    assert (found.ok, found.state, found.detail) == (False, "stopped", "it is stopped")


# --- logs


def test_logs_are_followed_until_the_end(bench):
    manager = bench.manager()
    manager.start(bench.file(says=["one", "two"]))
    lines = []
    thread = threading.Thread(target=lambda: lines.extend(manager.logs("tiny", 2, follow=True)))
    thread.start()
    manager.health("tiny", deep=True)
    manager.stop("tiny")
    thread.join(10)
    assert lines[:2] == ["one", "two"]
    assert manager.logs("tiny", 1) == lines[-1:]
    assert manager.logs("tiny", 0) == []
    assert list(bench.manager().logs("tiny", 1, follow=True)) == lines[-1:]
    with pytest.raises(errors.InvalidSpec):
        manager.logs("tiny", -1)


def test_another_manager_follows_the_file(bench):
    manager = bench.manager()
    manager.start(bench.file(says=["one", "two"], crashes_after=0))
    following = bench.manager().logs("tiny", 1, follow=True)
    assert next(following) == "two"
    threading.Timer(0.3, manager.health, ["tiny"], {"deep": True}).start()
    assert "CUDA error: out of memory" in list(following)


def test_a_model_that_is_not_there_has_no_log(bench):
    assert bench.manager().logs("tiny") == []
    assert runnable(bench.folder / "none").size == 0
