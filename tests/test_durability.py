"""What a change survives, as it was asked for: a power cut, or the end of the process only."""

from __future__ import annotations

import errno
import os
import random
import signal
import sys
import time
from contextlib import closing

import pytest
from faults import ROUNDS, STORES, Zygote, acknowledged, check_after, rounds, tools
from outside import add, check_whole, open_memory
from power import crash_states
from test_crash import wait_for
from test_power_loss import lived, put, sample

from raeburnmemory.doctor import repair, verify
from raeburnmemory.errors import InvalidInput, StoreCorrupt, StoreMissing, StoreWriteFailed
from raeburnmemory.memory_graph import MemoryGraph
from raeburnmemory.nodes import Batch, Node, Where
from raeburnmemory.store import journal, open_store
from raeburnmemory.store import json as json_store

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and strace are those of a POSIX system")


@pytest.fixture(scope="module")
def strace(tmp_path_factory):
    yield from tools(tmp_path_factory)


@pytest.fixture(scope="module")
def zygote():
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(params=["memory.json", "memory.db"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.fixture
def after_a_power_cut(monkeypatch):
    """Let this process be one of a system that was started anew since all others."""
    monkeypatch.setattr(journal, "boot", lambda: "ffffffff")


def syncs(monkeypatch):
    """Return a list that grows with every sync of this process by other means than SQLite."""
    seen = []
    for name in ("fsync", "fdatasync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda fd, real=real: (seen.append(fd), real(fd))[1])
    return seen


# --- named ------------------------------------------------------------------------------------------------------


def test_it_is_named_and_synced_unless_asked_otherwise(path):
    with open_memory(path) as memory:
        assert memory.stats().durability == "full"
    with open_memory(path, durability="process") as memory:
        assert memory.stats().to_dict()["durability"] == "process"
    with MemoryGraph(":memory:", durability="process") as memory:
        assert memory.stats().durability == "none"


@pytest.mark.parametrize("given", ["none", "FULL", "", None, True, 1, ["full"]])
def test_another_one_is_refused_before_there_is_a_file(given, path):
    with pytest.raises(InvalidInput, match="is no durability. Choose one of: 'full', 'process'") as caught:
        open_memory(path, durability=given)
    assert repr(given) in str(caught.value)
    assert not list(path.parent.iterdir())


# --- what is synced ---------------------------------------------------------------------------------------------


def test_a_journal_is_synced_when_it_begins_to_be_unsynced_and_when_it_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(json_store, "_SMALL", 0)  # so that closing does not fold
    store = open_store(tmp_path / "memory.json", durability="process")
    store.write(Batch(nodes=[Node(f"old{number}", "note", "x" * 1000) for number in range(40)]))
    store.checkpoint()
    seen = syncs(monkeypatch)
    for number in range(10):
        store.write(Batch(nodes=[Node(f"n{number}", "note")]))
    assert len(seen) == 1
    store.close()
    assert len(seen) == 2


def test_after_a_synced_line_the_next_unsynced_one_is_synced(tmp_path, monkeypatch):
    """So what is damaged between two synced lines is never taken for what a power cut has left."""
    quick, safe = (open_store(tmp_path / "memory.json", durability=name) for name in ("process", "full"))
    with closing(quick), closing(safe):
        quick.write(Batch(nodes=[Node("a", "note")]))
        seen = syncs(monkeypatch)
        for store, expected in ((quick, 0), (safe, 2), (quick, 3), (quick, 3), (safe, 5), (safe, 6), (quick, 7)):
            store.write(Batch(nodes=[Node(f"n{len(seen)}", "note")]))
            assert len(seen) == expected


def test_the_log_of_a_database_that_others_read_is_synced_at_the_end(tmp_path, monkeypatch):
    """A reader keeps the checkpoint of closing from emptying the -wal file."""
    path = tmp_path / "memory.db"
    store, reader = open_store(path, durability="process"), open_store(path, read_only=True)
    with closing(reader):
        store.write(Batch(nodes=[Node("a", "note")]))
        with reader.snapshot():
            reader.version()
            store.write(Batch(nodes=[Node("b", "note")]))
            synced = []
            real = os.fsync
            monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))
            store.close()
        assert f"{path}-wal" in synced


@pytest.mark.parametrize("then", ["full", "process"])
def test_after_a_failed_sync_what_was_written_before_is_written_anew(then, tmp_path, monkeypatch):
    """The system may take for clean what never reached the disk: another sync alone would prove nothing."""
    monkeypatch.setattr(json_store, "_SMALL", 0)  # so that closing does not fold
    path, beside = tmp_path / "memory.json", tmp_path / "memory.json.journal"
    quick = open_store(path, durability="process")
    quick.write(Batch(nodes=[Node(f"old{number}", "note", "x" * 1000) for number in range(40)]))
    quick.checkpoint()
    for number in range(5):
        quick.write(Batch(nodes=[Node(f"n{number}", "note")]))
    store = quick if then == "process" else open_store(path)
    before, real = beside.read_bytes(), os.fdatasync
    failing, writes = [True], []

    def sync(fd):
        if failing and os.fstat(fd).st_ino == beside.stat().st_ino:
            failing.clear()
            os.utime(beside, ns=(1, 1))
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        writes.append(os.fstat(fd).st_mtime_ns)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", sync)
    if then == "process":
        with pytest.raises(StoreWriteFailed):
            store._journal.sync()
    else:
        with pytest.raises(StoreWriteFailed):
            store.write(Batch(nodes=[Node("safe", "note")]))
    assert beside.read_bytes() == before
    assert not writes
    if then == "process":
        store.close()
    else:
        store.write(Batch(nodes=[Node("safe", "note")]))
        store.close()
    assert writes[0] > 1  # written once more before the first sync that gets through
    assert beside.read_bytes().startswith(before)
    quick.close()


def test_after_a_failed_sync_a_log_is_written_anew(tmp_path, monkeypatch):
    path, log = tmp_path / "memory.db", tmp_path / "memory.db-wal"
    quick, store = open_store(path, durability="process"), open_store(path)
    for number in range(5):
        quick.write(Batch(nodes=[Node(f"n{number}", "note")]))
    before, real, failing, seen = log.read_bytes(), os.fsync, [True], []

    def sync(fd):
        if os.fstat(fd).st_ino == log.stat().st_ino:
            if failing:
                failing.clear()
                os.utime(log, ns=(1, 1))
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            seen.append((os.fstat(fd).st_mtime_ns, log.read_bytes()))
        real(fd)

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(StoreWriteFailed, match="memory.db-wal"):
        store.write(Batch(nodes=[Node("safe", "note")]))
    assert log.read_bytes() == before
    store.write(Batch(nodes=[Node("safe", "note")]))
    ((when, there),) = seen
    assert there == before
    assert when > 1  # written once more before the sync that got through
    store.write(Batch(nodes=[Node("more", "note")]))
    assert len(seen) == 1
    with closing(open_store(path, read_only=True)) as reader:
        assert [node.id for node in reader.nodes(Where())] == [*(f"n{number}" for number in range(5)), "safe", "more"]
    store.close()
    quick.close()


# --- killed -----------------------------------------------------------------------------------------------------


@posix
def test_nothing_is_lost_with_the_process(path, zygote, tmp_path):
    dice = random.Random(f"unsynced-{path.suffix}-{ROUNDS}")
    there: list[str] = []
    with rounds("killed unsynced", path.name) as count:
        for number in range(max(3, ROUNDS // 3)):
            with zygote.child(tmp_path / f"life-{number}", "endless_unsynced", path, number) as child:
                wait_for(child.said)
                time.sleep(dice.uniform(0.0, 0.4))
                child.kill()
            new = acknowledged(child.out)
            with count.round(f"round {number}", acknowledged=len(new)):
                child.clean()
                assert child.code == -signal.SIGKILL
                there = check_after(path, [*there, *new], 1)


# --- power lost -------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("name", STORES)
def test_a_power_cut_takes_the_newest_and_nothing_else(strace, name, tmp_path, after_a_power_cut):
    """The memory opens without help as it was after some of the changes, and not before what was closed."""
    base = tmp_path / "base"
    base.mkdir()
    recorded = lived(strace, base, "unsynced_life", base / "new" / name, 10)
    kinds = [event.kind for event in recorded.events]
    said = [at for at, kind in enumerate(kinds) if kind == "say"]
    assert sum(kind.startswith("sync") for kind in kinds[said[0] : said[5]]) == 0  # between the first adds
    folder = tmp_path / "after"
    with rounds("power lost unsynced", name) as count:
        for where, variant, told, files in sample(crash_states(base, recorded), 60):
            put(folder, files)
            closed = [int(line.split()[1]) + 1 for line in told.splitlines() if line.startswith("CLOSED")]
            with count.round(f"event {where}, {variant}", acknowledged=len(acknowledged(told))):
                check_prefix(folder / "new" / name, max(closed, default=0), len(acknowledged(told)) + 1)


@posix
@pytest.mark.parametrize("name", STORES)
def test_a_power_cut_takes_nothing_before_what_another_object_synced(strace, name, tmp_path, after_a_power_cut):
    base = tmp_path / "base"
    base.mkdir()
    recorded = lived(strace, base, "mixed_life", base / "new" / name, 12)
    folder = tmp_path / "after"
    with rounds("power lost mixed", name) as count:
        for where, variant, told, files in sample(crash_states(base, recorded), 60):
            put(folder, files)
            synced = [int(line.split()[1]) + 1 for line in told.splitlines() if line.startswith("SYNCED")]
            with count.round(f"event {where}, {variant}", acknowledged=len(acknowledged(told))):
                check_prefix(folder / "new" / name, max(synced, default=0), len(acknowledged(told)) + 1)


def check_prefix(path, least, most):
    there = None
    for options in ({"read_only": True}, {}, {"durability": "process"}):
        try:
            memory = open_memory(path, timeout=10, **options)
        except StoreMissing:
            assert options.get("read_only")
            assert least == 0
            continue
        with memory:
            found = [node.id for node in memory.nodes("prompt")]
            assert there in (None, found)
            there = found
            assert found == [f"p{number}" for number in range(len(found))]
            assert least <= len(found) <= most
            if found:
                check_whole(memory, found)
    with open_memory(path, timeout=10) as memory:
        add(memory, "after the cut")
        assert len(list(memory.nodes("prompt"))) == len(there) + 1


def unsynced_journal(path, count=6):
    """Make a journal of *count* lines that were not synced; return it, and where each of them begins."""
    store = open_store(path, durability="process")
    for number in range(count):
        store.write(Batch(nodes=[Node(f"n{number}", "note", "some text")]))
    raw = (path.parent / "memory.json.journal").read_bytes()
    starts = [at + 1 for at, byte in enumerate(raw) if byte == 10][:-1]
    assert len(starts) == count
    return raw, starts


@pytest.mark.parametrize("left", ["zeros", "other bytes", "nothing but the end"])
def test_what_a_power_cut_left_is_set_aside(left, tmp_path, after_a_power_cut, caplog):
    path, beside = tmp_path / "memory.json", tmp_path / "memory.json.journal"
    raw, starts = unsynced_journal(path)
    middle = slice(starts[3], starts[3] + 20)
    damaged = bytearray(raw)
    damaged[middle] = {"zeros": bytes(20), "other bytes": b"A" * 20, "nothing but the end": b"\n" * 20}[left]
    beside.write_bytes(damaged)
    with closing(open_store(path, read_only=True)) as reader:
        assert [node.id for node in reader.nodes(Where())] == ["n0", "n1", "n2"]
    assert beside.read_bytes() == damaged
    with closing(open_store(path)) as store:
        assert [node.id for node in store.nodes(Where())] == ["n0", "n1", "n2"]
        store.write(Batch(nodes=[Node("next", "note")]))
    (aside,) = tmp_path.glob("memory.json.journal.damaged-*")
    assert aside.read_bytes() == damaged
    assert f"{len(raw) - starts[3]} bytes after version 3" in caplog.text
    with closing(open_store(path)) as store:
        assert [node.id for node in store.nodes(Where())] == ["n0", "n1", "n2", "next"]


def test_without_a_power_cut_it_is_damage(tmp_path):
    """The system still runs under which the lines were written, so that they cannot have gone astray by themselves."""
    path, beside = tmp_path / "memory.json", tmp_path / "memory.json.journal"
    raw, starts = unsynced_journal(path)
    beside.write_bytes(raw[: starts[3]] + b"A" * 20 + raw[starts[3] + 20 :])
    with pytest.raises(StoreCorrupt, match="wrong checksum"):
        open_store(path)


@pytest.mark.parametrize("where", [1, 3])
def test_before_a_synced_line_it_is_damage(where, tmp_path, after_a_power_cut):
    """A synced line is written only once all before it is on disk: what is not there now was there then."""
    path, beside = tmp_path / "memory.json", tmp_path / "memory.json.journal"
    _, starts = unsynced_journal(path)
    store = open_store(path)
    store.write(Batch(nodes=[Node("safe", "note")]))
    raw = beside.read_bytes()
    for filling in (b"A" * 20, bytes(20)):
        beside.write_bytes(raw[: starts[where]] + filling + raw[starts[where] + 20 :])
        with pytest.raises(StoreCorrupt, match="wrong checksum"):
            open_store(path)


# --- the log of a database ------------------------------------------------------------------------------------------


def frames(raw):
    """Return where each frame of a log begins that ends a change."""
    size = int.from_bytes(raw[8:12], "big")
    return [at for at in range(32, len(raw), 24 + size) if raw[at + 4 : at + 8] != bytes(4)]


def unsynced_log(path, count=6, then=()):
    """Make a log of *count* changes that were not synced, and of those of *then*, each of the durability it names."""
    store = open_store(path, durability="process")
    for number in range(count):
        store.write(Batch(nodes=[Node(f"n{number}", "note", "some text")]))
    others = [store]
    for number, durability in enumerate(then):
        others.append(open_store(path, durability=durability))
        others[-1].write(Batch(nodes=[Node(f"then{number}", "note", "some text")]))
    left = path.parent / "left"
    left.mkdir()
    for name in (path.name, f"{path.name}-wal"):
        (left / name).write_bytes((path.parent / name).read_bytes())
    for each in others:
        each.close()
    return left / path.name


def damaged_log(path, number):
    """Flip a bit in what the change *number* wrote into the log."""
    log = path.with_name(f"{path.name}-wal")
    raw = bytearray(log.read_bytes())
    at = frames(raw)[number]
    raw[at + 24 + 100] ^= 1
    log.write_bytes(raw)
    return bytes(raw), at


def test_what_a_power_cut_left_of_a_log_is_set_aside(tmp_path, after_a_power_cut, caplog):
    path = unsynced_log(tmp_path / "memory.db")
    raw, _ = damaged_log(path, 3)
    for _ in range(2):
        with closing(open_store(path, read_only=True)) as reader:
            assert [node.id for node in reader.nodes(Where())] == ["n0", "n1", "n2"]
    report = verify(path)
    assert [(each.severity, each.code) for each in report.findings if each.severity != "note"] == [
        ("warning", "wal-torn")
    ]
    assert path.with_name("memory.db-wal").read_bytes() == raw
    with closing(open_store(path)) as store:
        assert [node.id for node in store.nodes(Where())] == ["n0", "n1", "n2"]
        store.write(Batch(nodes=[Node("next", "note")]))
    (aside,) = path.parent.glob("memory.db-wal.damaged-*")
    assert aside.read_bytes() == raw
    assert "A power cut took the newest changes" in caplog.text
    with closing(open_store(path)) as store:
        assert [node.id for node in store.nodes(Where())] == ["n0", "n1", "n2", "next"]


def test_without_a_power_cut_a_wrong_frame_in_a_log_is_damage(tmp_path):
    path = unsynced_log(tmp_path / "memory.db")
    damaged_log(path, 3)
    for read_only in (True, False):
        with pytest.raises(StoreCorrupt, match="changes from there on"):
            open_store(path, read_only=read_only)
    assert "error" in {each.severity for each in verify(path).findings}


@pytest.mark.parametrize(("where", "then"), [(1, ["full"]), (3, ["full"]), (3, ["full", "process", "process"])])
def test_before_a_synced_change_a_wrong_frame_is_damage(where, then, tmp_path, after_a_power_cut):
    """All before it was synced first, so that it was on disk once."""
    path = unsynced_log(tmp_path / "memory.db", then=then)
    raw, _ = damaged_log(path, where)
    with pytest.raises(StoreCorrupt, match="changes from there on"):
        open_store(path)
    assert path.with_name("memory.db-wal").read_bytes() == raw


@pytest.mark.parametrize("number", [6, 7])
def test_synced_changes_behind_unsynced_ones_are_damaged_as_ever(number, tmp_path, after_a_power_cut):
    path = unsynced_log(tmp_path / "memory.db", then=["full", "full", "full"])
    damaged_log(path, number)
    with pytest.raises(StoreCorrupt, match="changes from there on"):
        open_store(path)


def test_unsynced_changes_behind_a_synced_one_may_be_torn(tmp_path, after_a_power_cut):
    path = unsynced_log(tmp_path / "memory.db", 2, then=["full", "process", "process", "process"])
    damaged_log(path, 4)
    with closing(open_store(path)) as store:
        assert [node.id for node in store.nodes(Where())] == ["n0", "n1", "then0", "then1"]


def test_who_may_leave_a_log_unsynced_syncs_the_first_change_after_others(tmp_path):
    """So what is damaged before it is never taken for what a power cut has left."""
    quick, safe = (open_store(tmp_path / "memory.db", durability=name) for name in ("process", "full"))
    with closing(quick), closing(safe):
        for store, expected in (
            (quick, True),
            (quick, False),
            (quick, False),
            (safe, True),
            (quick, True),
            (quick, False),
        ):
            store.write(Batch(nodes=[Node(f"n{time.monotonic_ns()}", "note")]))
            assert store._db.execute("PRAGMA synchronous").fetchone()[0] == (2 if expected else 1)


@pytest.mark.parametrize("name", ["memory.json", "memory.db"])
def test_repair_sets_aside_what_a_power_cut_left(name, tmp_path, after_a_power_cut):
    if name == "memory.json":
        path = tmp_path / name
        raw, starts = unsynced_journal(path)
        (tmp_path / f"{name}.journal").write_bytes(raw[: starts[3]] + b"A" * 20 + raw[starts[3] + 20 :])
    else:
        path = unsynced_log(tmp_path / name)
        damaged_log(path, 3)
    assert not verify(path).sound
    report = repair(path)
    assert report.kept
    assert verify(path).sound
    with closing(open_store(path)) as store:
        assert [node.id for node in store.nodes(Where())][:3] == ["n0", "n1", "n2"]


# --- several lines at once ------------------------------------------------------------------------------------------


def joined_journal(path, before=1, count=5, durability="full"):
    """Make a journal of lines that were written one by one, and of *count* that were written together."""
    store = open_store(path, durability=durability)
    for number in range(before):
        store.write(Batch(nodes=[Node(f"before{number}", "note")]))
    with store.exclusive():
        for number in range(count):
            store.write(Batch(nodes=[Node(f"n{number}", "note", "x y " * 200)]))
    raw = (path.parent / f"{path.name}.journal").read_bytes()
    return raw, [at + 1 for at, byte in enumerate(raw) if byte == 10][before:-1]


@pytest.mark.parametrize("durability", ["full", "process"])
def test_a_flipped_bit_in_lines_that_were_written_together_is_damage(tmp_path, durability):
    path, beside = tmp_path / "memory.json", tmp_path / "memory.json.journal"
    raw, starts = joined_journal(path, durability=durability)
    ends = [at for at, byte in enumerate(raw) if byte == 10][1:]
    spaces = [at for at, byte in enumerate(raw) if byte == 32 and at > starts[0]]
    dice = random.Random(7)
    places = [*ends, *starts, *dice.sample(spaces, 20), *(dice.randrange(starts[0], len(raw)) for _ in range(60))]
    for at in places:
        for bit in (5, dice.randrange(8)):  # the fifth makes a zero byte of a space
            flipped = bytearray(raw)
            flipped[at] ^= 1 << bit
            beside.write_bytes(flipped)
            for read_only in (True, False):
                with pytest.raises(StoreCorrupt, match=r"memory\.json\.journal"):
                    open_store(path, read_only=read_only)
            assert beside.read_bytes() == flipped


def test_sectors_that_are_gone_before_a_synced_line_are_damage(tmp_path):
    """Lines that were written together stand before one that was written later: so they were on disk."""
    path, beside = tmp_path / "memory.json", tmp_path / "memory.json.journal"
    _, starts = joined_journal(path)
    open_store(path).write(Batch(nodes=[Node("later", "note", "x" * 900)]))
    raw = beside.read_bytes()
    later = raw.rindex(b"\n", 0, -1) + 1
    for first in range(-(-starts[0] // 512), later // 512):
        # A sector of the group; and the same with the end of the later line gone, too, whose beginning tells of it.
        for more in (len(raw), -(-(later + 100) // 512) * 512):
            torn = bytearray(raw)
            torn[first * 512 : first * 512 + 512] = bytes(512)
            torn[more : more + 512] = bytes(len(torn[more : more + 512]))
            beside.write_bytes(torn)
            with pytest.raises(StoreCorrupt, match="wrong checksum"):
                open_store(path)


def test_lines_of_a_later_start_of_the_system_stand_on_what_was_there(tmp_path, monkeypatch):
    """Who began to write after the system was started anew had read all before from the disk."""
    path, beside = tmp_path / "memory.json", tmp_path / "memory.json.journal"
    _, starts = unsynced_journal(path)
    monkeypatch.setattr(journal, "boot", lambda: "eeeeeeee")
    monkeypatch.setattr(json_store, "boot", lambda: "eeeeeeee")
    store = open_store(path, durability="process")
    store.write(Batch(nodes=[Node("next", "note", "some text")]))
    store.write(Batch(nodes=[Node("last", "note", "some text")]))
    raw = beside.read_bytes()
    monkeypatch.setattr(journal, "boot", lambda: "ffffffff")
    beside.write_bytes(raw[: starts[3]] + b"A" * 20 + raw[starts[3] + 20 :])
    with pytest.raises(StoreCorrupt, match="wrong checksum"):
        open_store(path)
    last = raw.rindex(b"\n", 0, -1) + 1
    beside.write_bytes(raw[:last] + b"A" * 20 + raw[last + 20 :])
    with closing(open_store(path)) as store:
        assert [node.id for node in store.nodes(Where())] == [*(f"n{number}" for number in range(6)), "next"]


def test_a_power_cut_may_tear_lines_that_were_written_together(tmp_path):
    """Of several changes that shared a sync any sectors may have reached the disk, when it was not through."""
    path, beside = tmp_path / "memory.json", tmp_path / "memory.json.journal"
    store = open_store(path)
    store.write(Batch(nodes=[Node("before", "note")]))
    start = beside.stat().st_size
    with store.exclusive():
        for number in range(5):
            store.write(Batch(nodes=[Node(f"n{number}", "note", "x" * 700)]))
    raw = beside.read_bytes()
    dice = random.Random(1)
    for _ in range(40):
        torn = bytearray(raw)
        for at in (start, *range(-(-start // 512) * 512, len(raw), 512)):
            if dice.random() < 0.5:
                end = min(len(raw), (at // 512 + 1) * 512)
                torn[at:end] = bytes(end - at)
        beside.write_bytes(torn)
        with closing(open_store(path, read_only=True)) as reader:
            found = [node.id for node in reader.nodes(Where())]
            assert found == ["before", *(f"n{number}" for number in range(len(found) - 1))]
            assert len(found) < 6 or torn == raw
