"""Forgetting for good while the disk refuses, the power goes, or nobody comes back: it is finished, or was never begun.

Whatever happens, all that is kept is whole; what was to be forgotten is there whole or gone; what was begun is finished
by whoever opens the memory for writing next, or by the doctor; and where `forget` returned, no file holds a part of it.
Kills are in `test_forget_secure`.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from types import SimpleNamespace

import pytest
from erasing import Noise, Secrets, forget_planted, open_noise, plant
from faults import POINTS, FailedOpen, Lost, points, rounds, tools
from outside import LOCKS, contents, end, start
from power import OPTIONS, crash_states, record
from test_power_loss import put, sample

from raeburnmemory import doctor
from raeburnmemory.errors import LockTimeout, MemoryGraphError

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="strace and limits are those of a POSIX system")

CALLS = ("write", "pwrite64", "openat", "rename", "unlink", "ftruncate", "fsync", "fdatasync")
STORES = ["g.json", "g.db", pytest.param("g.npy.json", marks=pytest.mark.long)]


@pytest.fixture(scope="module")
def strace(tmp_path_factory):
    yield from tools(tmp_path_factory)


@pytest.fixture(params=STORES)
def name(request):
    return request.param


@pytest.fixture
def story(name, tmp_path):
    """A memory with something to be forgotten, in a journal or log as well as in its files, and a copy beside it."""
    secrets, folder = Secrets(f"faults {name}"), tmp_path / "source"
    folder.mkdir()
    with open_noise(folder / name) as memory:
        gone = plant(memory, secrets, others=12)
        memory.export()
        shutil.copy(folder / name, folder / f"{name}.before-restore-20260101T000000")
        memory.update(gone[0], text=secrets.text())
        secrets.learn(memory, gone)
        shutil.copytree(folder, folder.with_name("running"))
        nodes = {node.id: node for node in memory.nodes()}
    folder = folder.with_name("running")
    for file in list(folder.iterdir()):
        if file.name.endswith((*LOCKS, "-shm")):
            file.unlink()
    goes = {*gone, "p2"}  # which cites one of them
    return SimpleNamespace(
        name=name,
        folder=folder,
        secrets=secrets,
        gone=gone,
        chosen=json.dumps([gone[0], gone[1], gone[3]]),
        kept={i: node for i, node in nodes.items() if i not in goes},
        goes={i: node for i, node in nodes.items() if i in goes},
    )


def opened(path, **options):
    try:
        return open_noise(path, timeout=10, **options)
    except MemoryGraphError as exc:
        raise FailedOpen(repr(exc)) from exc


def check_after(story, folder, *, with_doctor=False):
    """Look as whoever comes next; return whether what was to be forgotten was still there."""
    path = folder / story.name
    with opened(path, read_only=True) as memory:
        there = {node.id: node for node in memory.nodes()}
    if {i: there.get(i) for i in story.kept} != story.kept:
        raise Lost(f"{sorted(i for i in story.kept if there.get(i) != story.kept[i])}")
    rest = {i: node for i, node in there.items() if i not in story.kept}
    assert rest in ({}, story.goes), f"half of it is there: {sorted(rest)}"
    if with_doctor:
        found = doctor.verify(path, embedding_model=Noise())
        assert not found.codes("error"), str(found)
        report = doctor.repair(path, embedding_model=Noise(), timeout=10)
        assert report.sound, str(report)
        assert ("finished erasing what was forgotten for good" in report.done) == ("erasure-pending" in found.codes())
        if not rest:
            assert story.secrets.found(folder) == {}, "the doctor left something"
    with opened(path) as memory:
        if rest:
            forget_planted(memory, story.gone, secure=True)
        assert {node.id: node for node in memory.nodes()} == story.kept
        assert memory.similar("what was said as number 7", 1).ids == ["p7"]
        assert memory._store.meta("erasing") is None
        assert memory.stats().unembedded == 0
    assert story.secrets.found(folder) == {}
    # After all was done, closing may have been cut short: files with what is kept, which are swept up later.
    assert doctor.verify(path, embedding_model=Noise()).codes() <= {"leftover"}
    return bool(rest)


# --- refused --------------------------------------------------------------------------------------------------------


def judge(story, folder, child, faults):
    """What a life was told that forgot while *faults* calls were refused; return the refusals."""
    child.clean()
    assert child.code == 0, child.err
    said = child.out.splitlines()
    assert said[-1:] == ["END"], "the answers were lost"
    refused = [line.split(None, 3)[1:] for line in said if line.startswith("REFUSED ")]
    assert len(refused) <= faults, refused
    for what, error, text in refused:
        assert error in {"StoreWriteFailed", "ErasureIncomplete", "StoreMissing", "StoreError"}, (what, error, text)
        assert str(folder) in text, text
    if "DONE forget" in said:
        assert story.secrets.found(folder) == {}, f"it said that it was done, after {refused}"
    named = [text for _, error, text in refused if error == "ErasureIncomplete"]
    if named and "DONE forget" not in said:
        assert all(file in named[-1] for file in story.secrets.found(folder)), named[-1]
        with opened(folder / story.name) as memory:  # it names what it could not read: tried again, it can
            memory.forget(list(story.goes), secure=True)
    return refused


FAILURES = {
    "ENOSPC": ("ENOSPC", ("write", "pwrite64", "openat", "rename", "fsync", "fdatasync"), 5),
    "EIO": ("EIO", CALLS, 1),
    "EINTR": ("EINTR", ("write", "pwrite64", "openat", "ftruncate", "fsync", "fdatasync"), 1),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_a_disk_that_refuses_while_forgetting(strace, story, tmp_path, failure):
    error, calls, several = FAILURES[failure]
    peace = tmp_path / "peace"
    shutil.copytree(story.folder, peace)
    child, counts = strace.count("forgetful_life", peace / story.name, story.chosen)
    assert "DONE forget" in child.out
    assert story.secrets.found(peace) == {}
    felt, begun = 0, 0
    with rounds(f"forgetting, {failure}", story.name) as count:
        for turn, (call, number) in enumerate(points(counts, calls, 1)):
            here = tmp_path / f"{call}-{number}"
            shutil.copytree(story.folder, here)
            when = f"{number}" if several == 1 else f"{number}..{number + several - 1}"
            again = "again" if turn % 2 else ""
            options = ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={when}"]
            child, _ = strace.run(options, "forgetful_life", here / story.name, story.chosen, again)
            with count.round(f"{call} {when} {again}", faults=several, acknowledged=len(story.kept)):
                felt += bool(judge(story, here, child, several))
                begun += not check_after(story, here, with_doctor=turn % 4 < 2)
            shutil.rmtree(here, ignore_errors=True)
    assert felt or error == "EINTR"
    assert begun


def test_writes_cut_short_while_forgetting(strace, story, tmp_path):
    """A limit on file sizes: the write that crosses it takes what there is room for, and the next one is refused."""
    largest = max(file.stat().st_size for file in story.folder.iterdir())
    few = 100 if POINTS == "all" else 6
    felt = 0
    with rounds("forgetting, file size limit", story.name) as count:
        for limit in sorted({(2 * i + 1) * largest // (2 * few) for i in range(few)}):
            here = tmp_path / f"limit-{limit}"
            shutil.copytree(story.folder, here)
            life = here.with_name(f"{here.name}-life")
            with strace.zygote.child(life, "forgetful_limited", here / story.name, story.chosen, limit) as child:
                pass
            with count.round(f"{limit} bytes", acknowledged=len(story.kept)):
                refused = judge(story, here, child, 1)
                felt += bool(refused)
                assert all("Raise the limit on file sizes" in text for _, _, text in refused), refused
                assert "DONE forget" in child.out
                assert not check_after(story, here)
            shutil.rmtree(here)
    assert felt


# --- the power goes -------------------------------------------------------------------------------------------------


def test_power_lost_while_forgetting(strace, story, tmp_path):
    base, folder = story.folder, tmp_path / "after"
    before = contents(base)
    child, log = strace.run(OPTIONS, "forgotten", base / story.name, story.chosen)
    assert child.code == 0, child.err
    recorded = record(log, base, before)
    states = list(crash_states(base, recorded))
    put(folder, next(files for _, variant, _, files in reversed(states) if variant == "everything"))
    assert contents(folder) == contents(base)
    begun = 0
    with rounds("forgetting, power lost", story.name) as count:
        for turn, (where, variant, said, files) in enumerate(sample(states, 12)):
            put(folder, files)
            with count.round(f"event {where}, {variant}", acknowledged=len(story.kept)):
                if "forgotten" in said:
                    assert story.secrets.found(folder) == {}, "it came back"
                there = check_after(story, folder, with_doctor=turn % 2 == 0)
                assert not (there and "forgotten" in said)
                begun += not there
    assert begun


# --- nobody came back -----------------------------------------------------------------------------------------------

DYING = """
import json, os, sys
from erasing import open_noise
memory = open_noise(sys.argv[1])
os.fsync = lambda fd: os._exit(9)
memory.forget(json.loads(sys.argv[2]), secure=True)
"""


@pytest.fixture
def begun(story):
    """A memory whose eraser died right after it began."""
    process = start(DYING, story.folder / story.name, story.chosen)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 9, err
    return story.folder / story.name


def test_an_erasure_that_nobody_finished_is_found_and_finished(story, begun):
    before = contents(begun.parent)
    assert story.secrets.found(begun.parent)
    report = doctor.verify(begun, embedding_model=Noise())
    assert {"erasure-pending"} <= report.codes() <= {"erasure-pending", "leftover"}, str(report)
    assert str(begun) in str(report)
    assert "Finish it with repair" in str(report)
    planned = doctor.repair(begun, dry_run=True, embedding_model=Noise())
    assert planned.done[-1] == "finish erasing what was forgotten for good"
    assert contents(begun.parent) == before
    report = doctor.repair(begun, embedding_model=Noise())
    assert report.done[-1] == "finished erasing what was forgotten for good"
    assert report.sound, str(report)
    assert story.secrets.found(begun.parent) == {}
    settled = contents(begun.parent)
    again = doctor.repair(begun, embedding_model=Noise())
    assert (again.done, again.sound) == ([], True)
    assert contents(begun.parent) == settled
    assert not check_after(story, begun.parent)


def test_a_damaged_memory_with_an_erasure_that_nobody_finished(story, begun):
    """What is set aside as damaged is a copy like any other: written anew, or named."""
    if begun.suffix == ".db":  # else its log has every page of it
        with closing(sqlite3.connect(begun)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    raw = bytearray(begun.read_bytes())
    if begun.suffix == ".json":
        raw[raw.index(b"what was said as number 7") + 2] = ord("i")  # a letter of what is kept
    else:
        raw = raw[:-4096]
    begun.write_bytes(raw)
    assert doctor.verify(begun, embedding_model=Noise()).codes("error")
    report = doctor.repair(begun, embedding_model=Noise())
    left = [found.file for found in report.findings if found.code == "erasure-left"]
    assert set(story.secrets.found(begun.parent)) <= {os.path.basename(name) for name in left}
    assert set(report.codes()) <= {"erasure-left"}, str(report)
    assert set(left) <= set(report.kept)
    assert all(os.path.exists(name) for name in report.kept)
    with open_noise(begun) as memory:
        assert memory._store.meta("erasing") is None
        assert not set(story.gone) & {node.id for node in memory.nodes()}
        memory.forget(story.gone, secure=True, backups=True)
    assert story.secrets.found(begun.parent) == {}


READER = """
import sqlite3, sys
db = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
db.execute("BEGIN")
db.execute("SELECT count(*) FROM nodes").fetchone()
print("reading", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("name", ["g.db"], indirect=True)
def test_repair_says_who_keeps_it_from_finishing(story, begun):
    reader = start(READER, begun, stdin=subprocess.PIPE)
    try:
        assert reader.stdout.readline() == "reading\n"
        with pytest.raises(LockTimeout, match="is being read by"):
            doctor.repair(begun, timeout=0.3, embedding_model=Noise())
        assert "erasure-pending" in doctor.verify(begun, embedding_model=Noise()).codes()
    finally:
        end(reader)
    assert doctor.repair(begun, embedding_model=Noise()).sound
    assert story.secrets.found(begun.parent) == {}
