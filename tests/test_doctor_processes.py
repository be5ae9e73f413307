"""The doctor among others: killed at every step, copying while others write, restoring under the feet of others."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest
from outside import contents, end, finish, run, start

from raeburnmemory import MemoryGraph, doctor
from raeburnmemory.errors import InvalidInput, LockTimeout, StoreCorrupt, StoreError
from raeburnmemory.store.json import JsonStore

STORES = ["g.json", "g.db"]


def open_memory(path, **options):
    return MemoryGraph(path, "builtin", vector_backend="exact", **options)


def fill(path, count=30, word="apple"):
    with open_memory(path) as memory:
        memory.add_many(
            [
                ({"id": f"p{n}", "text": f"A red {word} {n}"}, {"id": f"r{n}", "text": f"A pear {n}"})
                for n in range(count)
            ]
        )
        memory.update("p1", text=f"A blue {word}")
    return path


def seen(path):
    with open_memory(path, read_only=True) as memory:
        data = memory.export(False)
    return {node["id"]: node.get("text") for node in data["nodes"]}, sorted(
        (edge["source"], edge["target"]) for edge in data["edges"]
    )


# --- killed -----------------------------------------------------------------------------------------------------

KILLED = """
import os, shutil, signal, sys, warnings
warnings.simplefilter("ignore")
from raeburnmemory import MemoryGraph, doctor
from raeburnmemory.errors import StoreError
from raeburnmemory.store import _files

_files.settled.__defaults__ = (0.05,)  # nobody is at it who could be waited for
what, folder, name, *more = sys.argv[1:]
names = "replace", "link", "unlink", "rename"
# What a child imports for the first time would be imported again and again.
MemoryGraph(":memory:", "builtin").add_interaction("warm")
doctor.verify(os.path.join(folder, name))

def work(at):
    calls = 0
    def deadly(call):
        def wrapped(*args, **options):
            nonlocal calls
            calls += 1
            if calls == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)
        return wrapped
    for each in names:
        setattr(os, each, deadly(getattr(os, each)))
    path = os.path.join(folder + "-now", name)
    if what == "repair":
        assert doctor.repair(path).sound
    elif what == "restore":
        doctor.restore(os.path.join(folder + "-now", "backup", name), path)
    else:
        doctor.backup(path, os.path.join(folder + "-now", "copy" + name))

at = 0
while True:
    at += 1
    shutil.rmtree(folder + "-now", ignore_errors=True)
    shutil.copytree(folder, folder + "-now")
    child = os.fork()
    if not child:
        try:
            work(at)
            os._exit(0)
        except BaseException as exc:
            print("child", at, repr(exc), flush=True)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL), (at, status)
    path = os.path.join(folder + "-now", name)
    target = os.path.join(folder + "-now", "copy" + name)
    if what == "backup":
        assert doctor.verify(path).codes("error") == set()
        if os.path.lexists(target + ".switching") or not os.path.exists(target):
            doctor.backup(path, target)
        path = target
    else:
        state = None
        try:
            with MemoryGraph(path, "builtin", read_only=True) as memory:
                state = len(memory)
        except StoreError as exc:
            assert name in str(exc), exc
        if what == "restore" and state is None:
            assert "repair" in str(doctor.verify(path)), at
        report = doctor.repair(path)
        assert report.sound, (at, str(report))
    report = doctor.repair(path)
    assert report.sound and (what == "backup" or not report.done), (at, str(report))
    with MemoryGraph(path, "builtin", read_only=True) as memory:
        texts = sorted(node.text or "" for node in memory)
    leftovers = [file for file in os.listdir(folder + "-now") if ".tmp-" in file or "switching" in file]
    print(at, status, len(texts), hash(tuple(texts)), leftovers if what != "backup" else [])
    if status == 0:
        break
"""


@pytest.mark.parametrize("name", STORES)
@pytest.mark.parametrize("what", ["repair", "restore", "backup"])
def test_killed_at_every_step_it_is_finished_by_the_next_call(tmp_path, name, what):
    folder = tmp_path / "store"
    folder.mkdir()
    path = fill(folder / name)
    if what == "repair" and name == "g.db":
        with closing(sqlite3.connect(path)) as db:
            db.execute(
                "INSERT INTO edges(namespace, source, target, relation, data) VALUES ('default','p1','x','y','{}')"
            )
            db.commit()
    elif what == "repair":
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join(line.replace(b'"A red apple 7"', b'"A red apple 7') for line in lines))
    elif what == "restore":
        (folder / "backup").mkdir()
        doctor.backup(path, folder / "backup" / name)
        with open_memory(path) as memory:
            memory.add_interaction({"id": "later", "text": "After the backup"})
    lines = [line.split(None, 3) for line in run(KILLED, what, folder, name, timeout=170).splitlines()]
    assert len(lines) >= (10 if name == "g.json" else 5)
    assert [line[1] for line in lines] == ["9"] * (len(lines) - 1) + ["0"]
    assert all(line[3].endswith("[]") for line in lines)
    if what == "repair":
        assert {line[2] for line in lines} == {"59" if name == "g.json" else "60"}
    elif what == "restore":  # before the exchange began it is the old one, from then on the new one
        sizes = [line[2] for line in lines]
        assert sizes == sorted(sizes, reverse=True)
        assert set(sizes) == {"61", "60"}
    else:
        assert {line[2] for line in lines} == {"60"}


# --- while others write -----------------------------------------------------------------------------------------

WRITER = """
import select, sys
from raeburnmemory import MemoryGraph
path, who = sys.argv[1:]
with MemoryGraph(path, "builtin", vector_backend="exact") as memory:
    print("ready", flush=True)
    n = 0
    while not select.select([sys.stdin], [], [], 0)[0]:  # until it is closed
        memory.add_interaction({"id": f"{who}-p{n}", "text": f"Thing {n} of {who}"}, {"id": f"{who}-r{n}", "text": "Yes"},
                               "agent", who)
        n += 1
        if n % 50 == 0:
            memory.export(False)
print(n)
"""


@pytest.mark.parametrize("name", STORES)
def test_backups_and_verifications_while_others_write(tmp_path, name):
    path = fill(tmp_path / name)
    writers = [start(WRITER, path, who, stdin=subprocess.PIPE) for who in "ab"]
    try:
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        counts = []
        until = time.monotonic() + 60
        while len(counts) < 3 or (counts[-1] == counts[0] and time.monotonic() < until):
            target = tmp_path / f"copy{len(counts)}{path.suffix}"
            done = doctor.backup(path, target)
            assert doctor.verify(path).sound
            counts.append(done.nodes)
        for out in finish(writers, 60):
            assert int(out) > 0
    finally:
        for writer in writers:
            end(writer)
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]
    for number in range(len(counts)):
        target = tmp_path / f"copy{number}{path.suffix}"
        report = doctor.verify(target)
        assert report.sound, str(report)
        with open_memory(target) as memory:
            data = memory.export(False)
            nodes = {node["id"] for node in data["nodes"]}
            for who in "ab":  # whole interactions, without a gap
                numbers = sorted(int(node.split("-p")[1]) for node in nodes if node.startswith(f"{who}-p"))
                assert numbers == list(range(len(numbers)))
                assert {f"{who}-r{n}" for n in numbers} <= nodes
            assert memory.similar("A blue apple").ids[0] == "p1"
            memory.add_interaction("The copy is a memory of its own")
        assert len(open_memory(path, read_only=True)) > 0
    assert doctor.verify(path).sound


def test_verify_takes_nodes_and_vectors_of_one_moment(tmp_path, monkeypatch):
    path = fill(tmp_path / "g.json")
    lost, written = JsonStore.vectors_lost, []

    def somebody_writes(store):
        found = lost(store)
        with monkeypatch.context() as undisturbed, open_memory(path) as other:
            undisturbed.setattr(JsonStore, "vectors_lost", lost)
            other.add_interaction({"id": f"w{len(written)}", "text": "An orange quince"})
        written.append(store)
        return found

    monkeypatch.setattr(JsonStore, "vectors_lost", somebody_writes)
    report = doctor.verify(path)
    assert report.sound, str(report)
    assert len(written) == 1  # at the first look


NEIGHBOUR = """
import sys
from raeburnmemory import MemoryGraph
with MemoryGraph(sys.argv[1], "builtin", vector_backend="exact") as memory:
    def tell():
        print(len(memory), memory.similar("A red plum 3", 1).ids, len(memory.graph), len(memory.recall("plum")) > 0,
              flush=True)
    tell()
    for line in sys.stdin:
        if line == "add\\n":
            memory.add_interaction({"id": "mine", "text": "Mine after the restore"})
        tell()
"""


@pytest.mark.parametrize("name", STORES)
def test_others_see_the_restored_memory_at_their_next_call(tmp_path, name):
    backup = fill(tmp_path / f"plums{name[1:]}", 20, "plum")
    path = fill(tmp_path / name, 30, "apple")
    neighbour = start(NEIGHBOUR, path, stdin=-1)
    try:
        assert neighbour.stdout.readline().startswith("60 ")
        with open_memory(path) as here:  # in this process, too
            assert len(here) == 60
            here.similar("A red apple")
            done = doctor.restore(backup, path)
            assert (done.nodes, len(here)) == (40, 40)
            assert here.similar("A red plum 3", 1).ids == ["p3"]
            assert here.get("p1").text == "A blue plum"
            neighbour.stdin.write("look\n")
            neighbour.stdin.flush()
            assert neighbour.stdout.readline() == "40 ['p3'] 40 True\n"
            neighbour.stdin.write("add\n")
            neighbour.stdin.flush()
            assert neighbour.stdout.readline() == "41 ['p3'] 41 True\n"
            assert here.get("mine").text == "Mine after the restore"
            here.add_interaction({"id": "here", "text": "Here after the restore"})
        assert next(finish([neighbour], 30)) == ""
    finally:
        end(neighbour)
    assert doctor.verify(path).sound
    nodes, _ = seen(path)
    assert {"mine", "here"} <= set(nodes)
    assert len(nodes) == 42
    (kept,) = [each for each in done.kept if each.rpartition("-")[2].isalnum()]
    assert doctor.verify(kept).sound
    assert seen(kept)[0]["p1"] == "A blue apple"
    assert seen(backup)[0].keys() == {f"{kind}{n}" for kind in "pr" for n in range(20)}


@pytest.mark.parametrize("name", STORES)
def test_others_go_on_after_a_repair(tmp_path, name):
    path = fill(tmp_path / name)
    with open_memory(path) as memory:
        assert len(memory) == 60
        if name == "g.db":
            with closing(sqlite3.connect(path)) as db:
                db.execute("UPDATE vectors SET vector = x'00' WHERE key = (SELECT min(key) FROM vectors)")
                db.commit()
        else:
            (tmp_path / "g.json.map.json").write_text("?")
        report = doctor.repair(path)
        assert report.sound, str(report)
        assert memory.similar("A blue apple", 1).ids == ["p1"]
        memory.add_interaction({"id": "new", "text": "After the repair"})
    assert "new" in seen(path)[0]
    assert doctor.verify(path).sound


# --- backups ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORES)
def test_a_backup_is_a_memory_with_the_same_content(tmp_path, name):
    path = fill(tmp_path / name)
    before = contents(tmp_path)
    target = tmp_path / "copies" / f"copy{path.suffix}"
    with pytest.raises(InvalidInput, match="no folder"):
        doctor.backup(path, target)
    target.parent.mkdir()
    done = doctor.backup(path, target)
    assert contents(tmp_path).items() >= before.items()
    assert (done.source, done.target, done.nodes) == (str(path), str(target), 60)
    assert done.bytes == sum(map(len, contents(target.parent).values()))
    assert all(each.stat().st_mode & 0o777 == 0o600 for each in target.parent.iterdir())
    assert doctor.verify(target).digests == doctor.verify(path).digests
    assert seen(target) == seen(path)

    copied = contents(target.parent)
    with pytest.raises(InvalidInput, match="already"):
        doctor.backup(path, target)
    assert contents(target.parent) == copied
    with open_memory(path) as memory:
        memory.add_interaction({"id": "more", "text": "More"})
        assert memory.backup(target, overwrite=True).nodes == 61
    assert "more" in seen(target)[0]
    with pytest.raises(InvalidInput, match="itself"):
        doctor.backup(path, path)
    other = ".db" if name == "g.json" else ".json"
    with pytest.raises(InvalidInput, match="another kind"):
        doctor.backup(path, tmp_path / f"copy{other}")


@pytest.mark.parametrize("suffix", [".json", ".db"])
def test_a_memory_that_is_kept_nowhere_can_be_written_to_a_file(tmp_path, suffix):
    with open_memory(":memory:") as memory:
        memory.add_interaction({"id": "p1", "text": "A blue apple"}, {"id": "r1", "text": "Yes"})
        assert memory.backup(tmp_path / f"copy{suffix}").nodes == 2
    assert doctor.verify(tmp_path / f"copy{suffix}").sound
    assert seen(tmp_path / f"copy{suffix}")[0] == {"p1": "A blue apple", "r1": "Yes"}


@pytest.mark.parametrize("name", STORES)
def test_a_damaged_memory_is_not_backed_up_and_a_damaged_backup_not_restored(tmp_path, name):
    path = fill(tmp_path / name)
    backup = tmp_path / f"backup{path.suffix}"
    doctor.backup(path, backup)
    good = contents(tmp_path)
    raw = backup.read_bytes()
    backup.write_bytes(raw[: len(raw) // 2 - 7])
    before = contents(tmp_path)
    with pytest.raises(StoreCorrupt, match="nothing was changed"):
        doctor.restore(backup, path)
    assert contents(tmp_path) == before
    with pytest.raises(StoreCorrupt, match="backup"):
        doctor.backup(backup, tmp_path / f"second{path.suffix}")
    assert contents(tmp_path) == before
    backup.write_bytes(good[backup.name])
    doctor.restore(backup, tmp_path / f"fresh{path.suffix}")
    assert seen(tmp_path / f"fresh{path.suffix}") == seen(path)
    path.write_bytes(b"")
    assert doctor.restore(backup, path).kept
    assert seen(path) == seen(backup)
    with pytest.raises(InvalidInput, match="itself"):
        doctor.restore(path, path)
    other = fill(tmp_path / ("x.db" if name == "g.json" else "x.json"))
    with pytest.raises(InvalidInput, match="another path"):
        doctor.restore(other, path)


# --- an exchange that was cut short -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORES)
def test_a_plan_that_is_not_ours_moves_nothing(tmp_path, name):
    path = fill(tmp_path / name)
    (tmp_path / "victim").write_text("precious")
    plan = {"format": 1, "moves": [["../" + tmp_path.name + "/victim", name, None]], "before": {}}
    for text in (
        json.dumps(plan),
        "?",
        json.dumps({**plan, "moves": [["victim", name, None]], "before": {name: [1, 2]}}),
    ):
        (tmp_path / f"{name}.switching").write_text(text)
        before = {key: raw for key, raw in contents(tmp_path).items() if "switching" not in key}
        assert doctor.verify(path).codes() == {"switch-interrupted"}
        report = doctor.repair(path)
        assert report.sound, str(report)
        after = {key: raw for key, raw in contents(tmp_path).items() if "switching" not in key}
        assert after == before


@pytest.mark.parametrize("name", STORES)
def test_a_store_whose_exchange_was_cut_short_is_not_opened(tmp_path, name, monkeypatch):
    from raeburnmemory.store import _files

    monkeypatch.setattr(_files.settled, "__defaults__", (0.05,))
    path = fill(tmp_path / name)
    shutil.copy(path, tmp_path / "x")
    (tmp_path / f"{name}.switching").write_text("{}")
    for read_only in (True, False):
        with pytest.raises(StoreCorrupt, match="repair"):
            open_memory(path, read_only=read_only)
    assert os.path.exists(path)


# --- compact ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STORES)
def test_compact_gives_room_back_and_changes_nothing_else(tmp_path, name):
    path = fill(tmp_path / name, 300)
    with open_memory(path) as memory:
        memory.forget([f"p{n}" for n in range(200)])
        memory.forget([f"r{n}" for n in range(200)])
        expected = doctor.verify(path).digests
        if name == "g.db":
            done = doctor.compact(path)  # beside one that has it open
        else:
            memory.add_interaction({"id": "x", "text": "x"})
            memory.forget("x")
            done = doctor.compact(path)
        assert done.after < done.before
        assert done.after == sum(len(raw) for key, raw in contents(tmp_path).items())
        assert memory.similar("A red apple 250", 1).ids == ["p250"]
        memory.add_interaction({"id": "new", "text": "After it"})
        memory.forget("new")
    assert doctor.verify(path).digests == expected
    assert doctor.verify(path).sound


@pytest.mark.parametrize("name", STORES)
def test_others_that_only_close_do_the_restored_memory_no_harm(tmp_path, name):
    backup = fill(tmp_path / f"plums{name[1:]}", 20, "plum")
    path = fill(tmp_path / name, 30, "apple")
    idle = open_memory(path)
    idle.add_interaction({"id": "before", "text": "Not folded and not carried over yet"})
    done = doctor.restore(backup, path)
    with open_memory(path) as memory:
        memory.add_interaction({"id": "new", "text": "After the restore"})
        idle.close()
        memory.add_interaction({"id": "newer", "text": "After the other one closed"})
        assert {"new", "newer"} <= {node.id for node in memory}
    assert doctor.verify(path).sound
    assert len(seen(path)[0]) == 42
    (kept,) = [each for each in done.kept if each.rpartition("-")[2].isalnum() and not each.endswith("-wal")]
    assert "before" in seen(kept)[0]


HOLDER = """
import sys, time
from pathlib import Path
from raeburnmemory.lock import StoreLock
with StoreLock(Path(sys.argv[1]), 5)():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("name", STORES)
def test_a_memory_that_is_held_is_waited_for_and_then_named(tmp_path, name):
    path = fill(tmp_path / name)
    backup = tmp_path / f"copy{path.suffix}"
    doctor.backup(path, backup)
    holder = start(HOLDER, path)
    try:
        assert holder.stdout.readline() == "held\n"
        assert doctor.verify(path).sound
        doctor.backup(path, tmp_path / f"second{path.suffix}")  # reads, and waits for nobody
        calls = [lambda: doctor.repair(path, timeout=0.1), lambda: doctor.restore(backup, path, timeout=0.1)]
        if name == "g.db":
            calls.append(lambda: doctor.compact(path, timeout=0.1))
        for call in calls:
            with pytest.raises(LockTimeout, match=str(holder.pid)):
                call()
    finally:
        end(holder)
    assert doctor.restore(backup, path).nodes == 60


def test_a_folder_that_cannot_be_read_just_now_stops_a_restore(tmp_path, monkeypatch):
    """At any of the times that it is looked into: files that nobody sees would stay behind."""
    path, backup = tmp_path / "g.json", tmp_path / "backup.json"
    fill(path, 3)
    doctor.backup(path, backup)
    with open_memory(path) as memory:
        memory.add_interaction({"id": "later", "text": "a pear, said later"})
    listed, when = os.listdir, 0

    def refusing(folder="."):
        nonlocal left
        left -= 1
        if not left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "listdir", refusing)
    while True:
        when += 1
        left = when
        try:
            doctor.restore(backup, path)
        except StoreError as exc:
            assert str(tmp_path) in str(exc)
        done = left > 0
        left = 0
        with open_memory(path, read_only=True) as memory:
            assert {"p0", "p1", "p2"} <= {node.id for node in memory.nodes()}
            assert memory.similar("apple 1", 1).ids
        assert not doctor.verify(path).codes("error")
        if done:
            break
    assert when > 3
