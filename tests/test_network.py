"""Network file systems keep no promises: that is said, once. What is looked up is patched; none can be mounted here."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys

import pytest
from outside import add, contents, open_memory

from raeburnmemory import file_lock
from raeburnmemory.errors import StoreWriteFailed
from raeburnmemory.store import _mounts


@pytest.fixture(params=["g.json", "g.db"])
def path(request, tmp_path):
    return tmp_path / "share with blanks" / request.param


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """Return a function that makes the mounts of this process be what it is given, as (folder, type) pairs."""

    def claim(*pairs):
        lines = [
            f"{36 + i} 35 98:{i} / {str(folder).replace(' ', chr(92) + '040')} rw,noatime shared:{i} - {kind} host:/x rw\n"
            for i, (folder, kind) in enumerate(pairs)
        ]
        (tmp_path / "mountinfo").write_text("".join(lines))
        monkeypatch.setattr(_mounts, "_MOUNTS", str(tmp_path / "mountinfo"))
        monkeypatch.setattr(_mounts, "_warned", set())

    return claim


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "fuse.sshfs", "9p", "ceph"])
def test_a_network_file_system_is_warned_about_once(path, mounts, caplog, kind):
    mounts(("/", "ext4"), (path.parent, kind))
    with caplog.at_level(logging.WARNING, "raeburnmemory"):
        for _ in range(3):
            with open_memory(path) as memory:
                add(memory, 1)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert str(path) in said[0]
    assert f"({kind})" in said[0]
    assert "local disk" in said[0]


@pytest.mark.parametrize(
    "above", [[("/", "nfs4"), ("HERE", "ext4")], [("HERE", "nfs"), ("HERE", "xfs")], [("HER", "nfs")]]
)
def test_the_nearest_and_newest_mount_counts(path, mounts, caplog, above):
    mounts(
        ("/", "ext4"),
        *((str(path.parent) if f == "HERE" else str(path.parent)[:-1] if f == "HER" else f, k) for f, k in above),
    )
    with caplog.at_level(logging.WARNING, "raeburnmemory"), open_memory(path):
        pass
    assert not caplog.records


@pytest.mark.skipif(sys.platform != "linux", reason="findmnt and /proc are of Linux")
def test_the_file_system_is_what_another_program_says_it_is(tmp_path):
    said = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True)
    kind = said.stdout.strip()
    assert _mounts.file_system(str(tmp_path)) in {kind, "ext4" if kind == "ext2/ext3" else kind, *kind.split("/")} or (
        kind.startswith("UNKNOWN") or kind == "overlayfs"
    )
    assert _mounts.file_system("/proc/self") == "proc"


def test_where_nothing_says_what_is_mounted_nothing_is_said(path, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_mounts, "_MOUNTS", str(tmp_path / "nothing"))
    monkeypatch.setattr(_mounts, "_warned", set())
    with caplog.at_level(logging.WARNING, "raeburnmemory"), open_memory(path):
        pass
    assert not caplog.records


@pytest.mark.skipif(file_lock.fcntl is None, reason="the lock is another one there")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(path, monkeypatch, number):
    """Never a softer lock instead, which would be none."""

    with open_memory(path) as memory:
        add(memory, 1)
        before = contents(path.parent)

        def refuse(fd, how):
            raise OSError(number, "as a network file system says")

        with monkeypatch.context() as patch:
            patch.setattr(file_lock.fcntl, "flock", refuse)
            with pytest.raises(StoreWriteFailed, match="cannot be locked.*local disk") as caught:
                add(memory, 2)
            assert caught.value.errno == number
            assert memory.get("p1").text  # reading needs no lock
        assert contents(path.parent) == before
        add(memory, 2)
        assert {node.id for node in memory.nodes("prompt")} == {"p1", "p2"}
