"""No room: a full disk, a quota, a limit on file sizes, on files, on descriptors. Refused, told as such, and on it goes after."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import signal
import subprocess
import sys

import pytest
from faults import POINTS, Zygote, acknowledged, check_after, rounds
from outside import add, contents, fake, open_memory, start

from raeburnmemory import doctor
from raeburnmemory.errors import StoreWriteFailed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits and mounts are those of a POSIX system")


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path):
    return tmp_path / request.param


@pytest.fixture(scope="module")
def zygote():
    made = Zygote()
    yield made
    made.close()


@pytest.fixture
def mounted(tmp_path):
    """Return a function that mounts a small file system of its own and gives its folder; all are gone in the end."""
    made = []

    def mount(*options, source="tmpfs"):
        folder = tmp_path / f"mounted-{len(made)}"
        folder.mkdir()
        tried = subprocess.run(["mount", *options, source, str(folder)], capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"this user may not mount: {tried.stderr.strip()}")
        made.append(folder)
        return folder

    if shutil.which("mount") is None:
        pytest.skip("mount is not installed")
    yield mount
    for folder in reversed(made):
        subprocess.run(["umount", str(folder)], check=True)


def fill_up(memory, many=5000, size=300):
    """Add until it is refused; return the numbers of those that were not, and the error."""
    added = []
    for number in range(many):
        try:
            add(memory, number, "s" * (1 + number % size))
        except StoreWriteFailed as error:
            return added, error
        added.append(number)
    raise AssertionError("it never was full")


def test_a_real_full_disk(path, mounted):
    folder = mounted("-t", "tmpfs", "-o", "size=1m")
    path = folder / path.name
    with rounds("full disk", path.name) as count, open_memory(path) as memory:
        added, error = fill_up(memory)
        acked = [f"p{number}" for number in added]
        with count.round("full", acknowledged=len(acked)):
            assert len(acked) > 10
            assert error.errno == errno.ENOSPC
            assert str(path) in str(error)
            assert "space" in str(error)
            if path.suffix == ".json":
                assert "bytes were needed" in str(error)
            for _ in range(3):
                with pytest.raises(StoreWriteFailed):
                    add(memory, "x" * 40_000)
            with contextlib.suppress(StoreWriteFailed):
                memory.export()
            assert memory.get("p7").text.startswith("thing 7 of s")  # reading goes on
            assert memory.similar(memory.get("p7").text, 1)[0].score > 0.999
            assert {node.id for node in memory.nodes("prompt")} == set(acked)
            with open_memory(path, read_only=True) as reader:
                assert {node.id for node in reader.nodes("prompt")} == set(acked)
            assert not [name for name in os.listdir(folder) if ".tmp" in name], "temporary files are left"
        with count.round("more room", acknowledged=1):
            subprocess.run(["mount", "-o", "remount,size=8m", str(folder)], check=True)
            add(memory, "once there is room")
            memory.export()
            memory.close()
            check_after(path, [*acked, "ponce there is room"], 0)
            assert not [name for name in os.listdir(folder) if ".tmp" in name]


@pytest.mark.parametrize(
    ("name", "what"),  # to compact JSON files is a fold, which is above
    [*itertools.product(["g.json", "g.db"], ["backup", "restore", "repair", "forget"]), ("g.db", "compact")],
)
def test_a_real_full_disk_under(name, mounted, tmp_path, what):
    """What writes a whole memory needs room for it: without, nothing is changed, and nothing is left lying about."""
    path = tmp_path / name
    folder = mounted("-t", "tmpfs", "-o", "size=16m")
    there = (tmp_path if what == "backup" else folder) / path.name
    with open_memory(there) as memory:
        for number in range(40):
            add(memory, number, "s" * 2000)
    backup = tmp_path / f"backup{path.suffix}"
    if what == "restore":
        doctor.backup(there, backup)
    if what == "repair":
        raw = there.read_bytes()
        at = raw.find(b"answer to thing 7")
        there.write_bytes(raw[:at] + b"A" + raw[at + 1 :] if path.suffix == ".json" else raw[:-4096])
    calls = {
        "backup": lambda: doctor.backup(there, folder / path.name),
        "restore": lambda: doctor.restore(backup, there),
        "repair": lambda: doctor.repair(there, embedding_model=fake),
        "compact": lambda: doctor.compact(there),
        "forget": lambda: forget(there, "p1"),
    }
    with (folder / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    before = contents(folder)
    with rounds("full disk", path.name) as count, count.round(what):
        with pytest.raises(StoreWriteFailed) as caught:
            calls[what]()
        assert caught.value.errno == errno.ENOSPC, caught.value
        assert str(tmp_path) in str(caught.value)
        assert not [name for name in os.listdir(folder) if ".tmp" in name], "temporary files are left"
        if what != "forget":  # of which a part may be done
            assert {name: raw for name, raw in contents(folder).items() if not name.endswith(".lock")} == before
        (folder / "filler").unlink()
        calls[what]()
        with open_memory(folder / path.name) as memory:
            there = {node.id for node in memory.nodes("prompt")}
            assert len(there) >= (35 if what == "repair" else 39 if what == "forget" else 40)
            assert ("p1" in there) == (what != "forget")


def forget(path, node):
    with open_memory(path) as memory:
        memory.forget(node, secure=True)


@pytest.fixture
def quota(mounted, tmp_path):
    """A folder of which a megabyte may be used, and a function that sets how much.

    On btrfs, whose quotas hold for root as well, and need nothing of the kernel but btrfs.
    """
    if shutil.which("mkfs.btrfs") is None:
        pytest.skip("btrfs is not installed: apt install btrfs-progs")
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(128 << 20)  # the least that btrfs takes; next to nothing of it is written
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, capture_output=True)
    folder = mounted("-t", "btrfs", "-o", "loop", source=str(image))

    def limit(size):
        subprocess.run(["btrfs", "qgroup", "limit", size, "0/5", str(folder)], check=True)

    subprocess.run(["btrfs", "quota", "enable", str(folder)], check=True)
    limit("1M")
    return folder, limit


def test_a_real_quota(quota):
    folder, limit = quota
    path = folder / "g.json"
    with rounds("quota", path.name) as count, open_memory(path) as memory:
        added, error = fill_up(memory)
        acked = [f"p{number}" for number in added]
        with count.round("used up", acknowledged=len(acked)):
            assert len(acked) > 10
            assert error.errno == errno.EDQUOT, error
            assert str(path) in str(error)
            assert "quota" in str(error)
            with contextlib.suppress(StoreWriteFailed):
                memory.export()
            assert memory.similar(memory.get("p7").text, 1)[0].score > 0.999
            assert {node.id for node in memory.nodes("prompt")} == set(acked)
            with open_memory(path, read_only=True) as reader:
                assert {node.id for node in reader.nodes("prompt")} == set(acked)
            assert not [name for name in os.listdir(folder) if ".tmp" in name], "temporary files are left"
        with count.round("more of it", acknowledged=1):
            limit("8M")
            add(memory, "once there is more")
            memory.export()
            memory.close()
            check_after(path, [*acked, "ponce there is more"], 0)


UNTIL_REFUSED = """
import sys
from outside import add, open_memory
from raeburnmemory.errors import StoreWriteFailed
memory = open_memory(sys.argv[1])
for number in range(5000):
    try:
        add(memory, number, "s" * (1 + number % 300))
    except StoreWriteFailed as error:
        assert error.errno == 122 and "quota" in str(error), error
        sys.exit()
    print("ACK", number, flush=True)
"""


def test_a_real_quota_under_a_database(quota):
    """SQLite maps its -shm file, and where there is no room to copy a mapped page, btrfs sends SIGBUS: a crash."""
    folder, limit = quota
    path = folder / "g.db"
    process = start(UNTIL_REFUSED, path)
    out, err = process.communicate(timeout=100)
    acked = acknowledged(out)
    with rounds("quota", path.name) as count, count.round("used up", acknowledged=len(acked)):
        assert process.returncode in {0, -signal.SIGBUS}, err
        assert len(acked) > 10
        limit("8M")
        check_after(path, acked, 1)


def test_no_inode_is_left(path, mounted):
    """Not even an empty file can be made."""
    folder = mounted("-t", "tmpfs", "-o", "nr_inodes=12")
    path = folder / path.name
    with rounds("no inodes", path.name) as count, count.round("full"):
        with open_memory(path) as memory:
            add(memory, 0)
            acked = ["p0"]
            for number in itertools.count():
                try:
                    (folder / f"filler-{number}").touch()
                except OSError:
                    break
            with contextlib.suppress(StoreWriteFailed):
                memory.export()  # a fold of JSON files needs new ones
            add(memory, 1)  # into the file that is there
            acked.append("p1")
        with pytest.raises(StoreWriteFailed) as caught, open_memory(folder / f"another{path.suffix}"):
            pass
        assert caught.value.errno == errno.ENOSPC, str(caught.value)
        assert str(folder) in str(caught.value)
        assert "another" not in " ".join(name for name in os.listdir(folder) if not name.endswith((".lock", ".gate")))
        for filler in folder.glob("filler-*"):
            filler.unlink()
        check_after(path, acked, 0)


NO_DESCRIPTORS = """
import os, resource, sys
from outside import add, open_memory
from raeburnmemory.errors import StoreWriteFailed
path = sys.argv[1]
with open_memory(path) as memory:  # and so that everything is imported
    add(memory, 0)
    memory.similar("thing")
print("ACK 0", flush=True)
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
used = max(map(int, os.listdir("/proc/self/fd")))
refused = opened = 0
for more in range(16):
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + more, hard))
    try:
        memory = open_memory(path)
    except StoreWriteFailed as error:
        refused += 1
        assert error.errno == 24 and "open files" in str(error), error
        continue
    opened += 1
    try:
        add(memory, more + 1)
        print("ACK", more + 1, flush=True)
        memory.export()
    except StoreWriteFailed as error:
        refused += 1
        assert error.errno == 24 and "open files" in str(error), error
    memory.close()
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
assert refused and opened, (refused, opened)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_no_descriptor_is_left(path):
    process = start(NO_DESCRIPTORS, path)
    out, err = process.communicate(timeout=60)
    acked = acknowledged(out)
    with rounds("no descriptors", path.name) as count, count.round("limits", faults=16, acknowledged=len(acked)):
        assert process.returncode == 0, err
        assert "Traceback" not in err, err
        check_after(path, acked, 0)
        assert not [name for name in os.listdir(path.parent) if ".tmp" in name]


def test_writes_cut_short_at_any_byte(path, zygote, tmp_path):
    """A limit on file sizes: the write that crosses it is cut short there, and the next one is refused."""
    with zygote.child(tmp_path / "peace", "limited", tmp_path / "peace" / path.name, 1 << 30) as child:
        pass
    assert acknowledged(child.out) == [f"p{number}" for number in range(10)]
    largest = max(file.stat().st_size for file in (tmp_path / "peace").iterdir())
    few = 300 if POINTS == "all" else 20
    limits = sorted({i * largest // few for i in range(1, few)})
    felt = 0
    with rounds("file size limit", path.name) as count:
        for limit in limits:
            here = tmp_path / f"limit-{limit}"
            with zygote.child(here / "life", "limited", here / path.name, limit) as child:
                pass
            acked = acknowledged(child.out)
            with count.round(f"{limit} bytes", acknowledged=len(acked)):
                child.clean()
                assert child.code == 0, child.err
                refused = [line for line in child.out.splitlines() if line.startswith("REFUSED")]
                felt += bool(refused)
                for line in refused:
                    assert "Raise the limit on file sizes" in line, line
                assert not [name for name in os.listdir(here) if ".tmp" in name]
                check_after(here / path.name, acked, 0)
            shutil.rmtree(here)
    assert felt > len(limits) // 3


def test_writes_that_the_system_takes_a_piece_at_a_time(tmp_path, monkeypatch):
    """A short write is no error: the rest follows."""
    real = os.write

    def piecemeal(fd, data):
        return real(fd, bytes(data)[: max(1, len(data) // 3)])

    monkeypatch.setattr(os, "write", piecemeal)
    with open_memory(tmp_path / "g.json") as memory:
        for number in range(3):
            add(memory, number)
        during = contents(tmp_path)
    monkeypatch.undo()
    assert during["g.json.journal"].count(b"\n") == 4
    check_after(tmp_path / "g.json", ["p0", "p1", "p2"], 0)
